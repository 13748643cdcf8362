"""`deskocr evidence add`: the report, the ledger, the claims and the README's table follow a bundle."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from deskocr_kit.claims.measured import section, with_section
from deskocr_kit.cli import app
from deskocr_kit.evidence import BundleError, read_bundle
from deskocr_kit.evidence.ledger import KERNEL_RECORDS, ROWS, add, calibrated, kernel_record, with_row
from deskocr_kit.evidence.pack import MANIFEST
from deskocr_kit.kernel_evidence.on_device import device_words
from deskocr_kit.operators.digests import kernel_digest
from deskocr_kit.prediction.measured import find_measured
from tests.helpers.evidence import bundle, changed
from tests.helpers.paths import DATA, ROOT


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return bundle(tmp_path_factory.mktemp("evidence"))


def repository(folder):
    """Both READMEs and the claims of today."""
    (folder / "reports").mkdir()
    for name in ("README.md", "README.zh-CN.md", "reports/claims.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def root(tmp_path):
    """A repository whose benchmark is somebody's own, so that no figures are drawn."""
    repository(tmp_path)
    (tmp_path / "reports" / "cpu-nano").mkdir()
    (tmp_path / "reports" / "cpu-nano" / "bench.json").write_text("mine")
    return tmp_path


@pytest.fixture(scope="module")
def added(good, tmp_path_factory):
    """A repository to which the bundle was added."""
    root = repository(tmp_path_factory.mktemp("root"))
    add(good, root)
    return root


def state(root):
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_bundle_is_rendered_and_stands_in_the_ledger(added):
    folder = added / "reports" / "cpu-nano"
    page = (folder / "evidence.md").read_text()
    assert page.startswith("# Evidence from") and "no figure here is that of an NPU" in page
    assert "| aten::addmm | CPU |" in page and "unfold-as-printed" in page
    assert (folder / "report.html").is_file() and (folder / "trace.json").is_file()
    (entry,) = json.loads((added / "reports" / "evidence.json").read_text())["bundles"]
    assert entry["folder"] == "cpu-nano" and entry["figures"]["tpot_s"] > 0
    assert "[cpu-nano](cpu-nano/evidence.md)" in (added / "reports" / "evidence.md").read_text()


def test_the_claims_ledger_says_what_was_measured_where(good, root):
    before = (root / "reports" / "claims.md").read_text()
    add(good, root)
    once = (root / "reports" / "claims.md").read_text()
    assert "## Measured" in once and "| ✘ fails | F.unfold" in once and "measured on x86_64" in once
    assert once.index("## Measured") < once.index("## On a device")
    add(good, root)  # again: replaced, not repeated
    assert (root / "reports" / "claims.md").read_text() == once
    (root / "reports" / "evidence.json").write_text('{"bundles": []}')
    assert with_section(once, root / "reports").split() == with_section(before, root / "reports").split()


def test_a_cpu_changes_no_readme(added):
    for name in ("README.md", "README.zh-CN.md"):
        assert (added / name).read_text() == (ROOT / name).read_text()


def test_what_a_card_measured_stands_in_both_readmes():
    summary = {"kind": "npu", "device": "Ascend910B3", "folder": "npu-nano", "parameters": 5}
    summary["created"] = "2026-12-01T00:00:00+00:00"
    for name, words in (("README.md", "Ascend 910B with CANN"), ("README.zh-CN.md", "带 CANN 的昇腾 910B")):
        text = (ROOT / name).read_text()
        after = with_row(text, summary)
        (row,) = (line for line in after.split("\n") if line.startswith(f"| {words}"))
        assert "| measured |" in row and "[Ascend910B3, 2026-12-01](reports/npu-nano/evidence.md)" in row
        assert with_row(after, summary) == after
        assert sum(a != b for a, b in zip(after.split("\n"), text.split("\n"), strict=True)) == 1
        official = with_row(text, {**summary, "parameters": 3_336_106_240, "folder": "npu-deepseek-ocr"})
        assert official.count("| measured |") == 2
        for kind, level in (("npu", "run"), ("cuda", "compiled")):  # the device, and its kernels if they ran
            told = {**summary, "kind": kind, "kernels": level}
            rows = [line for line in with_row(text, told).split("\n") if "| measured |" in line]
            assert len(rows) == 2 and rows[1].startswith(tuple(f"| {word}" for word in ROWS[level]))
            assert with_row(text, {**told, "kernels": None}).count("| measured |") == 1


@pytest.mark.parametrize(("label", "level"), [("npu", "run"), ("cuda", "compiled")])
def test_kernels_that_ran_are_recorded_for_the_table(label, level, good, tmp_path):
    bundle = read_bundle(good)
    proved = json.loads(bundle.files["operators.json"])
    (row,) = [each for each in proved["rows"] if each["slot"] == "swiglu"][:1]
    row.update(candidate="triton", kernels=["swiglu_kernel"], error=2e-4, dtype="float16")
    bundle.manifest["label"] = label

    def store(**changes):
        bundle.files["operators.json"] = json.dumps({**proved, **changes}).encode()
        return kernel_record(bundle, tmp_path)

    assert store(kernels=kernel_digest()) is None  # no place for it: not a repository
    (tmp_path / KERNEL_RECORDS).mkdir(parents=True)
    assert store() is None and store(kernels="0" * 12) is None  # interpreted, or of other kernels
    path = store(kernels=kernel_digest())
    assert path == tmp_path / KERNEL_RECORDS / f"{level}.json"
    assert device_words(path) == {"swiglu_kernel": f"{proved['device']['name']}, error 2e-04"}
    row.update(verdict="wrong", why="relative error 2e-01, budget 0.01")
    assert device_words(store(kernels=kernel_digest())) == {"swiglu_kernel": row["why"]}
    for wrong in (
        {"kernels": "swiglu_kernel"},
        {"error": "small"},
        {"slot": "my slot"},
        {"why": None},
        {"kernels": ["\x1b[2J"]},
    ):
        kept = dict(row)
        row.update(wrong)
        assert store(kernels=kernel_digest()) is None
        row.clear()
        row.update(kept)
    bundle.manifest["label"] = "cpu"
    assert store(kernels=kernel_digest()) is None


def test_a_profile_of_a_known_chip_calibrates_its_prediction(good, tmp_path):
    found = read_bundle(good)
    assert calibrated(found, tmp_path) is None  # a CPU is no chip of the table
    kernels = next((DATA / "traces" / "level1").rglob("*.csv")).read_bytes()
    manifest = {
        **found.manifest,
        "device": {**found.manifest["device"], "name": "Ascend910B3", "cann": "8.5.0"},
    }
    card = replace(found, manifest=manifest, files={**found.files, "profile/kernel_details.csv": kernels})
    assert calibrated(card, tmp_path) == "910B3"
    chip = find_measured("910B3", tmp_path / "chips.json")
    assert chip.launch.confidence == "measured" and "CANN 8.5.0" in chip.launch.source
    few = replace(card, files={"profile/kernel_details.csv": b"\n".join(kernels.split(b"\n")[:3])})
    assert calibrated(few, tmp_path) is None


def test_somebodys_report_is_kept(good, root):
    folder = root / "reports" / "cpu-nano"
    lines = add(good, root)
    assert (folder / "bench.json").read_text() == "mine" and not (folder / "report.md").exists()
    assert (folder / "evidence_bench.json").is_file()
    assert any("bench.json was there before and was kept" in line for line in lines)


def test_a_refused_bundle_changes_nothing(good, root):
    before = state(root)
    simulated = changed(good, root.parent / "s.zip", {MANIFEST: lambda m: m.__setitem__("simulated", True)})
    with pytest.raises(BundleError, match="simulated NPU"):
        add(simulated, root)
    assert state(root) == before
    simulated.unlink()


def test_text_of_a_stranger_cannot_change_the_page(good, root):
    def evil(manifest):
        manifest["steps"]["notebooks"]["reason"] = (
            "<script>x</script> [click](http://x) | a\n\n# head \x1b[2J"
        )

    path = changed(good, root.parent / "e.zip", {MANIFEST: evil})
    add(path, root)
    page = (root / "reports" / "cpu-nano" / "evidence.md").read_text()
    assert "<script" not in page and "\n# head" not in page
    assert "[click](" not in page and "\x1b" not in page
    path.unlink()


def test_without_evidence_there_is_no_section(tmp_path):
    assert section(tmp_path) == []
    (tmp_path / "evidence.json").write_text("[]")
    assert section(tmp_path) == []


def test_the_command_refuses_in_one_line_with_status_1(good, root):
    result = CliRunner().invoke(app, ["evidence", "add", str(good), "--root", str(root)])
    assert result.exit_code == 0, result.output
    bad = changed(good, root / "bad.zip", {"bench.json": lambda b: b.__setitem__("complete", False)}, False)
    result = CliRunner().invoke(app, ["evidence", "add", str(bad), "--root", str(root)])
    assert result.exit_code == 1 and result.output.startswith("refused: bench.json was changed")
    assert result.output.count("\n") == 1
