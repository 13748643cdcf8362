"""The real reader: the text of a page does not depend on the batch; the command, the dry run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from deskocr_kit.batch.devices import LocalDevice
from deskocr_kit.batch.dry_run import estimate
from deskocr_kit.batch.run import Plan, read_batch, run
from deskocr_kit.batch.sources import sources
from deskocr_kit.cli import app
from deskocr_kit.reading.options import PageOptions
from deskocr_kit.reading.reader import Reader
from model.inference import Reading
from model.processing import build_inputs
from model.tiling import make_views
from tests.helpers.batches import check_lines, lines
from tests.helpers.paths import NANO

SAMPLES = sorted((NANO / "pages").glob("*.png"))
SHORT = PageOptions(max_tokens=12)


@pytest.fixture(scope="module")
def reader():
    return Reader.load("nano", "cpu", "fp32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pages of unequal size: in mode gundam some have tiles and some have none."""
    place = tmp_path_factory.mktemp("pages")
    for i, path in enumerate(SAMPLES[:5]):
        image = Image.open(path).convert("RGB")
        image.resize((900, 500) if i == 3 else image.size).save(place / f"{i}.png")
    shutil.copy(SAMPLES[0], place / "5.png")
    return place


def texts(out):
    return [
        (Path(line["file"]).name, line["text"], line["tokens"], line["confidence"]) for line in lines(out)
    ]


def test_the_text_of_a_page_does_not_depend_on_the_pages_in_its_batch(reader, folder, tmp_path):
    files = sorted(folder.iterdir())
    for size in (1, 3, 8):
        read_batch(files, reader, tmp_path / str(size), batch_size=size, options=SHORT)
        assert len(check_lines(tmp_path / str(size))) == 6
    one, three, eight = (texts(tmp_path / str(size)) for size in (1, 3, 8))
    assert [row[:3] for row in one] == [row[:3] for row in three] == [row[:3] for row in eight]
    assert max(abs(a[3] - b[3]) for a, b in zip(one, eight, strict=True)) < 1e-3


def test_views_made_elsewhere_give_the_same_inputs(reader):
    image = Image.open(SAMPLES[1]).convert("RGB").resize((900, 700))
    for mode in ("tiny", "gundam"):
        alone = build_inputs(reader.tokenizer, "<image>\nFree OCR.", image, mode)
        views = build_inputs(reader.tokenizer, "<image>\nFree OCR.", make_views(image, mode), mode)
        assert (alone["input_ids"] == views["input_ids"]).all()
        assert all((a == b).all() for a, b in zip(alone["images"][0], views["images"][0], strict=True))


def test_groups_share_one_shape(reader, folder, tmp_path, monkeypatch):
    groups = []

    def read_batch(pages, options):
        groups.append([page.grid for page in pages])
        return [Reading("x", "x", [5, 1], 3, 1, (1, 1), False, 0.1, [-0.1] * 2, [(0, 1)] * 2) for _ in pages]

    monkeypatch.setattr(reader, "read_batch", read_batch)
    device = LocalDevice(reader, PageOptions(mode="gundam"))
    device.prepares = True
    monkeypatch.setattr(device, "read", lambda items, guard=None: read_batch([i.views for i in items], None))
    run(sources([str(folder)]), tmp_path, [device], PageOptions(mode="gundam"), Plan(batch_size=4))
    assert sum(map(len, groups)) == 6 and all(len(set(group)) == 1 for group in groups)
    assert any(grid != (1, 1) for group in groups for grid in group)


def test_a_dry_run_counts_finds_damage_estimates_and_leaves_nothing(reader, folder, tmp_path):
    first, *rest = (Image.open(path).convert("RGB") for path in SAMPLES[:3])
    first.save(tmp_path / "scan.pdf", save_all=True, append_images=rest)
    (tmp_path / "bad.png").write_bytes(b"x")
    given = [str(folder), str(tmp_path / "scan.pdf") + ":2-3", str(tmp_path / "bad.png")]
    before = sorted(tmp_path.rglob("*"))
    found = estimate(sources(given), [LocalDevice(reader, SHORT)], SHORT, Plan())
    assert (found.files, found.pages, len(found.damaged), found.sample) == (8, 9, 1, 4)
    assert found.seconds > 0 and found.bytes > 1000 and "bad.png" in found.damaged[0]
    assert sorted(tmp_path.rglob("*")) == before
    assert json.loads(json.dumps(found.record()))["pages"] == 9 and "estimate, from 4 pages" in repr(found)


def command(*words):
    given = [
        "batch",
        *map(str, words),
        "--model",
        "nano",
        "--device",
        "cpu",
        "--max-tokens",
        "4",
        "--one-process",
    ]
    return CliRunner().invoke(app, given)


def test_the_command(folder, tmp_path):
    out = tmp_path / "out"
    done = command(folder / "0.png", tmp_path / "no.png", "--out", out, "--format", "md,csv,json", "--json")
    assert done.exit_code == 1, done.output
    assert json.loads(done.stdout)["counts"]["read"] == 1 and f"look at {out}/index.html" in done.stderr
    assert (out / "documents" / "0.md").exists() and (out / "documents" / "0.json").exists()
    again = command("--out", out, "--retry-failed")
    assert again.exit_code == 1 and "skipped         0" in again.stdout and "no.png" in again.stdout
    for words, what in (
        (["--out", out], "no PAGE was given"),
        ([folder, "--out", out, "--format", "docx"], "unknown format 'docx'"),
        ([folder, "--out", out, "--devices", "cpu,cpu"], "leave --devices out"),
    ):
        wrong = command(*words)
        assert wrong.exit_code == 2 and what in wrong.stderr.replace("\n│", "").replace("  ", " "), (
            wrong.stderr
        )
