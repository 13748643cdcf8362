"""A bundle of evidence: packed without private data, checked part by part, refused with its reason."""

from __future__ import annotations

import json
import os
import zipfile

import pytest

from deskocr_kit.evidence import BundleError, privacy, read_bundle
from deskocr_kit.evidence.consistency import check_bundle
from deskocr_kit.evidence.pack import MANIFEST, PackError, contents, write_bundle
from deskocr_kit.evidence.privacy import clean, clean_json
from tests.helpers.evidence import bundle, changed, packed, working_folder, write
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return bundle(tmp_path_factory.mktemp("evidence"))


def refused(path) -> str:
    with pytest.raises(BundleError) as error:
        check_bundle(read_bundle(path))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_good_bundle_is_accepted(good):
    found = read_bundle(good)
    assert check_bundle(found) == []
    assert found.folder == "cpu-nano" and found.json("bench.json")["format"] == 1


def test_equal_content_is_an_equal_file_up_to_its_date(good, tmp_path):
    again = bundle(tmp_path)
    first, second = read_bundle(good), read_bundle(again)
    assert first.files.keys() == second.files.keys()
    assert first.manifest["files"]["bench.json"] == second.manifest["files"]["bench.json"]


# ---------------------------------------------------------------------- tampering without care
def test_a_changed_file_is_refused_by_its_checksum(good, tmp_path):
    def faster(bench):
        bench["summary"]["all"]["tpot"]["p50"] /= 2

    path = changed(good, tmp_path / "b.zip", {"bench.json": faster}, fix_checksums=False)
    assert refused(path).startswith("bench.json was changed: its SHA-256")


def test_a_missing_and_an_added_file_are_refused(good, tmp_path):
    with zipfile.ZipFile(good) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    less = {name: content for name, content in files.items() if name != "trace.json"}
    assert "trace.json is in the manifest and not in the zip" in refused(packed(tmp_path / "l.zip", less))
    more = {**files, "extra.txt": b"x"}
    assert "extra.txt is in the zip and not in the manifest" in refused(packed(tmp_path / "m.zip", more))
    none = {name: content for name, content in files.items() if name != MANIFEST}
    assert "no manifest.json" in refused(packed(tmp_path / "n.zip", none))


# ---------------------------------------------------------------------- careful tampering
def halve_tpot(bench):
    bench["summary"]["all"]["tpot"]["p50"] /= 2


def impossible_speed(bench):
    """Every run and the summary, a hundred times as fast as the memory allows."""
    for page in bench["pages"]:
        for run in page["runs"]:
            run["e2e"] = run["ttft"] + (run["e2e"] - run["ttft"]) / 100
    for row in bench["summary"].values():
        if row.get("tpot"):
            row["tpot"] = {key: value if key == "n" else value / 100 for key, value in row["tpot"].items()}


def setter(*path, value):
    def change(data):
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


GONE = {"status": "done", "seconds": 1, "reason": ""}
ELSEWHERE = "Ascend910B3 (torch 2.6)"
#: {what was forged: (changes, the reason for which it is refused)}.
CAREFUL = {
    "summary not of its runs": ({"bench.json": halve_tpot}, "but its runs have"),
    "faster than memory": ({"bench.json": impossible_speed}, "the time to read the"),
    "another torch": (
        {"bench.json": setter("stamp", "packages", "torch", value="2.6.0")},
        "bench.json has torch 2.6.0",
    ),
    "another device": (
        {"kernels.json": setter("device", "name", value="Ascend910B3")},
        "kernels.json has name Ascend910B3",
    ),
    "another commit": ({"bench.json": setter("stamp", "kit", "commit", value="0" * 40)}, "another commit"),
    "other weights": (
        {MANIFEST: setter("checkpoint", "sha256", value="0" * 64)},
        "the sha256 of the checkpoint",
    ),
    "fewer bytes": ({"weights.json": setter("bytes", value=10)}, "weights.json has 10 bytes"),
    "fewer launches": ({"kernels.json": setter("launches_per_token", value=3)}, "3 launches per token"),
    "another profile": ({"trace.json": setter("kernels", value=12)}, "the profile has 12 kernels"),
    "less time": ({"trace.json": setter("device_us", value=1.0)}, "do not add up"),
    "busy beyond time": ({"trace.json": setter("busy_us", value=1e9)}, "is busy longer"),
    "an unknown claim": ({"claims.json": setter("claims", 0, "id", value="made-up")}, "unknown claim"),
    "a claim from elsewhere": (
        {"claims.json": setter("claims", 0, "device", value=ELSEWHERE)},
        "was tested on Ascend910B3",
    ),
    "an unknown step": ({MANIFEST: setter("steps", "kernel", value=GONE)}, "does not know"),
    "another label": ({MANIFEST: setter("label", value="npu")}, "calls the device npu and cpu"),
    "simulated, said in the manifest": ({MANIFEST: setter("simulated", value=True)}, "simulated NPU"),
    "simulated, said in a part": ({"trace.json": setter("simulated", value=True)}, "simulated NPU"),
    "no schema": ({"bench.json": lambda bench: bench.pop("pages")}, "schema: the file: 'pages' is missing"),
    "a text for a number": (
        {"bench.json": setter("pages", 0, "new_tokens", value="many")},
        "not in the expected form",
    ),
    "a folder as a name": (
        {MANIFEST: setter("checkpoint", "name", value="../../etc")},
        "no name for a folder",
    ),
    "no version": ({MANIFEST: setter("format", value=99)}, "does not fit its schema: format"),
}


@pytest.mark.parametrize("name", CAREFUL)
def test_a_careful_forgery_is_refused_with_its_reason(good, tmp_path, name):
    changes, reason = CAREFUL[name]
    assert reason in refused(changed(good, tmp_path / "b.zip", changes))


def test_a_step_that_did_not_finish_is_a_remark(good, tmp_path):
    def late(manifest):
        manifest["steps"]["notebooks"] = {"status": "failed", "seconds": 3.0, "reason": "exit status 2"}
        manifest["kit"]["changed"] = True

    def stamp(bench):
        bench["stamp"]["kit"]["changed"] = True

    path = changed(good, tmp_path / "b.zip", {"bench.json": stamp, MANIFEST: late})
    remarks = check_bundle(read_bundle(path))
    assert any("changed code" in each for each in remarks) and any(
        "notebooks: failed" in each for each in remarks
    )


# ---------------------------------------------------------------------- hostile zips
def test_hostile_zips_are_refused_in_one_line(good, tmp_path):
    with zipfile.ZipFile(good) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for name in ("../evil.json", "/etc/evil", "a\\b.json", ".hidden", "a/../b", "x" * 5000):
        assert "unexpected name" in refused(packed(tmp_path / "n.zip", {**files, name: b"x"}))
    for content in (b"", b"PK\3\4", b"nothing", good.read_bytes()[:-300]):
        (tmp_path / "bad.zip").write_bytes(content)
        refused(tmp_path / "bad.zip")
    refused(tmp_path)
    refused(tmp_path / "absent.zip")
    os.mkfifo(tmp_path / "pipe.zip")
    refused(tmp_path / "pipe.zip")
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        entry = zipfile.ZipInfo("link.json")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    assert "not a plain file" in refused(tmp_path / "link.zip")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.txt", b"0" * (40 << 20))
    assert "larger than expected" in refused(tmp_path / "bomb.zip")
    deep = {**files, MANIFEST: b"[" * 100_000}
    refused(packed(tmp_path / "deep.zip", deep))


# ---------------------------------------------------------------------- private data
SECRET, USER, HOST = "s3cr3t-Value-9f8e7d", "jdoe_planted", "planted-host-77"


def plant(folder):
    """Private data wherever it could get into a bundle."""
    bench = json.loads((folder / "bench.json").read_text())
    note = f"{HOST} and {SECRET} in /data/projects/secret-project/x.so"
    bench["stamp"]["variables"]["ASCEND_NOTE"] = note
    bench["stamp"]["command"] = f"deskocr bench /home/{USER}/scans/page.png"
    bench["method"]["plan"] = str(folder / "plan.json")
    write(folder / "bench.json", bench)
    private = {"serial number": "2102353", USER: [HOST, "hf_abcdefghijklmnop"]}
    write(folder / "doctor" / "report.json", private)
    (folder / "logs" / "bench.txt").write_text(
        f"token={SECRET}\nMY_API_KEY: {SECRET}\nfile {ROOT}/model/x.py and {folder}/y\n"
        f"mail a.b@example.org, http://{USER}:pw@proxy.example.org:8080\nC:\\Users\\{USER}\\x.txt\n"
    )
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "00_quickstart.ipynb").write_text(
        json.dumps({"cells": [f"PAGEPICTURE {SECRET}"]})
    )
    (folder / "page.png").write_bytes(b"PAGEPICTURE")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """(folder, files without pages, files with pages) of a bundle made where private data was planted."""
    place = tmp_path_factory.mktemp("planted") / "work-of-planted"
    with pytest.MonkeyPatch.context() as here:
        for name, value in (("USER", USER), ("LOGNAME", USER), ("HOSTNAME", HOST), ("MY_TOKEN", SECRET)):
            here.setenv(name, value)
        for each in (privacy.private_words, privacy.clean):
            each.cache_clear()
        plant(working_folder(place))
        write_bundle(place, place.with_suffix(".zip"))
        write_bundle(place, place.with_suffix(".pages.zip"), True)
    for each in (privacy.private_words, privacy.clean):
        each.cache_clear()
    return place, *(_texts(place.with_suffix(end)) for end in (".zip", ".pages.zip"))


def _texts(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_planted_private_data_is_not_in_the_bundle(planted):
    place, files, _ = planted
    together = "\n".join([*files, *files.values()])
    for private in (
        SECRET, USER, HOST, "2102353", "hf_abcdefgh", "secret-project", str(ROOT), str(place),
        "example.org",
        "/home/", "PAGEPICTURE", ".png\n", "pw@",
    ):  # fmt: skip
        assert private not in together, private
    assert "x.so" in together and "plan.json" in together  # the last part of a path stays
    read_bundle(place.with_suffix(".zip"))


def test_pages_are_included_only_on_request_and_then_cleaned_too(planted):
    _, _, files = planted
    assert json.loads(files[MANIFEST])["includes_pages"] is True
    assert "PAGEPICTURE" in files["notebooks/00_quickstart.ipynb"] and SECRET not in "".join(files.values())


def test_figures_and_words_survive_the_cleaning():
    kept = "torch 2.13.0+cpu, aten::masked_scatter_, 35 GB/s, tokens/s, and/or, CANN 8.5.0, 910B3, a/b.py:77"
    assert clean(kept) == kept
    assert clean_json({"tokens": 5, "new_tokens": [1, 2]}) == {"tokens": 5, "new_tokens": [1, 2]}
    system = "/usr/local/Ascend/ascend-toolkit/latest and /dev/davinci0"
    assert clean(system) == system


def test_a_file_that_cannot_be_cleaned_stops_the_packing(tmp_path):
    folder = working_folder(tmp_path / "w")
    (folder / "weights.json").write_text("not JSON")
    with pytest.raises(PackError, match="weights.json: cannot be packed"):
        contents(folder)
    with pytest.raises(PackError):
        write_bundle(folder, tmp_path / "w.zip")
    assert not (tmp_path / "w.zip").exists()


def test_links_are_not_followed(tmp_path):
    folder = working_folder(tmp_path / "w")
    (tmp_path / "outside.txt").write_text("outside")
    (folder / "logs" / "link.txt").symlink_to(tmp_path / "outside.txt")
    write(folder / "other.json", {})
    names = contents(folder)
    assert "logs/link.txt" not in names and "other.json" not in names
