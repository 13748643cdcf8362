"""The embedded checkpoint: small, readable by everything that reads the official one, and it really reads."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deskocr_kit.evaluate import MAKES, evaluate, pages
from deskocr_kit.metrics import edits
from deskocr_kit.reader import Reader
from model.boxes import parse_boxes, to_pixels_box
from model.loading import check_folder
from model.nano import render, sample_pages, tokenizer
from model.nano.train import Recipe, answer, encode, make_batch, nano_config, place_labels, rate_at, style_at

NANO = Path(__file__).parents[1] / "model" / "nano"
RECORDS = {record["make"]: record for record in json.loads((NANO / "evaluation.json").read_text())}
BOUNDS = {"domain": 0.02, "typeset": 0.05}  # the promise of model/nano/README.md


@pytest.fixture(scope="module")
def nano() -> Reader:
    return Reader.load("nano", "cpu", "fp32")


def test_small_and_whole():
    config, entries = check_folder(NANO)
    assert (NANO / "model.safetensors").stat().st_size <= 12e6
    assert config.sam == nano_config().sam and config.decoder == nano_config().decoder
    assert {entry.dtype for entry in entries.values()} == {torch.float16}
    for name, tensor in load_file(NANO / "model.safetensors").items():
        assert torch.isfinite(tensor).all(), name


@pytest.mark.parametrize("make", BOUNDS)
def test_the_committed_evaluation_keeps_the_promise(make):
    record = RECORDS[make]
    assert record["cer"] <= BOUNDS[make] and record["pages"] >= 200 and record["truncated"] == 0


@pytest.mark.parametrize("make", BOUNDS)
def test_fresh_pages_are_read(nano, make):
    """Twelve pages from seeds that nobody has seen; the bound leaves room for one bad page among so few."""
    record = evaluate(nano, make, 12, seed=77)
    assert record["cer"] <= BOUNDS[make] + 0.02, record["worst"]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_reads_the_sample_pages_as_well(nano, dtype):
    """Reading costs no more than two edits over all sample pages; fp16 on a CPU is slow, so one short page
    there.
    """
    half = Reader.load("nano", "cpu", dtype)
    names = ["5_notes"] if dtype == "fp16" else list(sample_pages.PAGES)
    off = 0
    for name in names:
        page = sample_pages.draw(name)
        off += edits(half.read(page.image, "free").text, nano.read(page.image, "free").text)[0]
    assert off <= 2


def test_sample_pages_are_what_the_script_draws():
    for name in sample_pages.PAGES:
        page = sample_pages.draw(name)
        assert (sample_pages.FOLDER / f"{name}.txt").read_text() == page.text + "\n"


def test_boxes_lie_on_the_ink(nano):
    """Lines of fresh pages: the box overlaps the ink by half at least, for nine lines of ten."""
    good = total = 0
    for i in range(6):
        page = render.render(random.Random(f"boxes/{i}"), render.Style(lines=(2, 4), dirt=0.0, styled=0.0))
        refs = parse_boxes(nano.read(page.image, "ocr").text)
        total += len(page.lines)
        for ref, line in zip(refs, page.lines, strict=False):
            box = to_pixels_box(ref.boxes[0], render.SIDE, render.SIDE) if ref.boxes else (0, 0, 0, 0)
            good += overlap(box, line.box) >= 0.5
    assert good >= 0.9 * total, f"{good} of {total}"


def overlap(a, b) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])  # noqa: E731
    return width * height / (area(a) + area(b) - width * height)


# ---- the pieces of the training
# --------------------------------------------------------------------------------


def test_pages_repeat_from_their_seed_and_differ_between_seeds():
    first, again, other = (render.render(random.Random(seed)) for seed in (1, 1, 2))
    assert first.text == again.text and first.image.tobytes() == again.image.tobytes()
    assert first.text != other.text


@pytest.mark.parametrize("make", MAKES)
def test_held_out_pages_are_whole(make):
    for image, truth in pages(make, 8, seed=5):
        assert image.size == (512, 512) and image.mode == "RGB"
        lines = truth.split("\n")
        assert 1 <= len(lines) <= 8 and all(line.strip() == line and line for line in lines)
        border = [
            image.crop(box).convert("L").getextrema()[0] for box in ((510, 0, 512, 512), (0, 510, 512, 512))
        ]
        assert min(border) > 128, "ink at the right or lower edge: text was cut off"


def test_evaluation_pages_are_not_training_pages():
    held_out = {truth for _, truth in pages("domain", 20, seed=2026)}
    trained = {
        render.render(random.Random(f"1/{step}/0"), style_at(Recipe(), step)).text
        for step in range(2500, 2520)
    }
    assert not held_out & trained


def test_place_labels_put_each_character_into_its_cell():
    page = sample_pages.draw("5_notes")
    labels = torch.tensor(place_labels(page)).view(8, 8, -1)
    rows = [row for row in labels if row.any()]
    assert len(rows) == len(page.lines)
    for row, line in zip(rows, page.lines, strict=True):
        assert "".join(chr(int(label) + 31) for label in row.flatten() if label) == line.text


def test_answers_are_parsed_back():
    page = sample_pages.draw("1_letter")
    refs = parse_boxes(answer(page, boxes=True))
    assert [ref.label for ref in refs] == [line.text for line in page.lines]
    assert answer(page, boxes=False) == page.text


def test_batches_ask_for_the_answer_and_nothing_else():
    pages = [sample_pages.draw(name) for name in ("1_letter", "5_notes")]
    batch = make_batch(pages, boxes=False)
    for row, page in enumerate(pages):
        asked = batch.targets[row][batch.targets[row] >= 0].tolist()
        assert asked == encode(page.text) + [1]
        at = int((batch.targets[row] >= 0).nonzero()[0])
        assert batch.ids[row, at + 1 : at + len(asked)].tolist() == asked[:-1], "the input runs one behind"


def test_rate_rises_holds_and_falls():
    r = Recipe()
    rates = [rate_at(r, step) for step in (0, r.warmup, r.steps - r.decay, r.steps - 1)]
    assert rates[0] < rates[1] == r.stages[0].rate
    assert rates[2] == r.stages[-1].rate and rates[3] < 0.05 * rates[2]


def test_tokenizer_has_the_official_special_tokens(tmp_path):
    tokenizer.write(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_text() == (NANO / name).read_text()
    vocabulary = json.loads((NANO / "tokenizer.json").read_text())["added_tokens"]
    assert {token["content"] for token in vocabulary} >= {
        "<image>",
        "<|ref|>",
        "<|/det|>",
        "<|grounding|>",
        "<td>",
    }
