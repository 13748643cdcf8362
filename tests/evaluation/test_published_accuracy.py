"""OmniDocBench and Fox-style folders: read, predicted, scored; on pages of that form that are made here."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from deskocr_kit.cli import app
from deskocr_kit.evaluation.benchmarks import BenchmarkPage, fox, omnidocbench, published
from deskocr_kit.evaluation.published_accuracy import benchmark_text, read_benchmark
from deskocr_kit.evaluation.text_blocks import METRIC, plain, score_page
from deskocr_kit.reading.reader import Reader
from tests.helpers.nano import bound
from tests.helpers.paths import NANO

PAGES = NANO / "pages"


def block(category, text, order, **more):
    return {"category_type": category, "poly": [0] * 8, "ignore": False, "order": order, "text": text, **more}


def sample(name, truth, language="english"):
    """A page in the form of OmniDocBench.json; the truth in two blocks, stored in the wrong order."""
    lines = truth.split("\n")
    half = len(lines) // 2
    attributes = {"language": language, "data_source": "book"}
    return {
        "layout_dets": [
            block("text_block", "\n".join(lines[half:]), 2, anno_id=1),
            block("header", "never part of the text", 0),
            {"category_type": "figure", "poly": [0] * 8, "ignore": False, "order": 4},
            block("text_block", "ignored", 3) | {"ignore": True},
            block("title", "\n".join(lines[:half]), 1, anno_id=0),
        ],
        "page_info": {"page_no": 0, "image_path": name, "page_attribute": attributes},
        "extra": {"relation": []},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two of nano's sample pages as an OmniDocBench folder."""
    folder = tmp_path_factory.mktemp("omnidocbench")
    (folder / "images").mkdir()
    samples = []
    for name in ("1_letter", "5_notes"):
        shutil.copy(PAGES / f"{name}.png", folder / "images")
        samples.append(sample(f"{name}.png", (PAGES / f"{name}.txt").read_text(encoding="utf-8").strip()))
    (folder / "OmniDocBench.json").write_text(json.dumps(samples))
    return folder


@pytest.fixture(scope="module")
def reader():
    return Reader.load("nano", "cpu", "fp32")


def test_the_annotation_file_gives_text_blocks_in_reading_order(folder):
    pages = omnidocbench(folder)
    truth = (PAGES / "1_letter.txt").read_text(encoding="utf-8").strip()
    assert "\n".join(pages[0].truth) == truth and pages[0].language == "english"
    assert [page.picture.name for page in pages] == ["1_letter.png", "5_notes.png"]


def test_predictions_are_written_as_the_official_scorer_takes_them(folder, reader, tmp_path):
    record = read_benchmark(reader, omnidocbench(folder), [None], tmp_path, "omnidocbench")
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["evaluation.json", "tiny/1_letter.md", "tiny/5_notes.md"]
    found = record["modes"]["tiny"]
    assert (found["pages"], found["blocks"], found["failed"]) == (2, 4, [])
    assert 0 <= found["ned_text_blocks"] <= bound("samples", 0.08)
    assert found["by_language"]["english"]["pages"] == 2
    assert found["paper"] == {"english": 0.373, "chinese": 0.307}
    text = benchmark_text(record)
    assert METRIC in text and "0.373" in text and "other metric" in text

    (tmp_path / "tiny" / "1_letter.md").write_text("")  # kept predictions are scored, not made again
    again = read_benchmark(reader, omnidocbench(folder), [None], tmp_path, "omnidocbench", keep=True)
    assert again["modes"]["tiny"]["ned_text_blocks"] > 0.4


def test_fox_pages_are_sorted_into_buckets_beside_the_papers(tmp_path, reader):
    for name in ("1_letter", "6_dense"):
        for end in (".png", ".txt"):
            shutil.copy(PAGES / f"{name}{end}", tmp_path)
    record = read_benchmark(reader, fox(tmp_path), [None], tmp_path / "out", "fox")
    buckets = record["modes"]["tiny"]["buckets"]
    assert sum(each["pages"] for each in buckets) == 2
    assert all(each["high"] - each["low"] == 100 and each["paper"] is None for each in buckets)
    assert all(each["compression"] > 1 and each["accuracy"] > 0.8 for each in buckets)
    record["modes"]["tiny"]["buckets"][0]["paper"] = published()["fox"]["rows"][0]["tiny"]
    assert "96.5%, 10.5" in benchmark_text(record)


def test_the_papers_figures_fit_together():
    rows = published()["fox"]["rows"]
    assert sum(row["pages"] for row in rows) == 100  # as the paper says
    assert [row["low"] for row in rows] == list(range(600, 1300, 100))
    for row in rows:  # text tokens / vision tokens = compression
        for mode, vision in published()["fox"]["vision_tokens"].items():
            assert row["low"] <= row[mode]["compression"] * vision <= row["high"]


def test_a_page_that_cannot_be_read_is_named_and_counts_as_empty(folder, reader, tmp_path):
    (tmp_path / "1_letter.png").write_bytes(b"no picture")
    pages = [BenchmarkPage(tmp_path / "1_letter.png", omnidocbench(folder)[0].truth)]
    record = read_benchmark(reader, pages, [None], tmp_path / "out", "omnidocbench")
    found = record["modes"]["tiny"]
    assert found["ned_text_blocks"] == 1 and "1_letter.png" in found["failed"][0]
    assert (tmp_path / "out" / "tiny" / "1_letter.md").read_text() == ""


# ---------------------------------------------------------------------- the metric
def test_where_blocks_break_and_what_surrounds_them_does_not_count():
    truth = ["The first paragraph, rather long.", "A second one."]
    around = "<table><tr><td>7</td></tr></table>\n$$x^2$$"
    joined = f"# The first paragraph,\nrather long. A **second** one.\n\n{around}"
    assert score_page(joined, truth).blocks == (0.0, 0.0)
    assert score_page("A second one.\n\nThe first paragraph, rather long.", truth).blocks == (0.0, 0.0)


def test_the_metric_by_hand():
    assert score_page("abcd", ["abXd"]).blocks == (0.25,)
    assert score_page("", ["abc"]).blocks == (1.0,) and score_page("abc", []).blocks == ()
    same = score_page("one two", ["one two", "one two"])  # one stretch serves one block
    assert sorted(same.blocks) == [0.0, 1.0]
    assert score_page("", []).page == 0 and score_page("x", []).page == 1


def test_plain_text_of_markdown():
    markdown = "## Head\n- item\n> quote\n![alt](images/0.jpg)\n| a | b |\n|---|---|\n\\[ y \\] and 2 * 3"
    assert plain(markdown) == "Head item quote and 2 * 3"


# ---------------------------------------------------------------------- foreign folders
@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        "[1]",
        "[",
        '[{"page_info": {}}]',
        '[{"page_info": {"image_path": 3}, "layout_dets": []}]',
    ],
)
def test_another_json_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "OmniDocBench.json").write_text(content)
    with pytest.raises(ValueError) as error:
        omnidocbench(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../outside.png", "/etc/hostname", "missing.png", "a\\..\\..\\x.png"])
def test_a_name_leads_to_no_file_outside(tmp_path, name):
    (tmp_path / "outside.png").write_bytes(b"x")
    inside = tmp_path / "set"
    inside.mkdir()
    (inside / "OmniDocBench.json").write_text(json.dumps([sample(name, "a\nb")]))
    with pytest.raises(ValueError, match="is not in"):
        omnidocbench(inside)


def test_folders_without_pages_are_refused(tmp_path):
    for read in (fox, omnidocbench):
        with pytest.raises(ValueError):
            read(tmp_path)
        with pytest.raises(ValueError):
            read(tmp_path / "nothing")
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="no text beside it"):
        fox(tmp_path)


def test_the_command_wants_one_benchmark_and_known_modes(tmp_path):
    run = CliRunner().invoke
    assert run(app, ["evaluate"]).exit_code == 2
    assert run(app, ["evaluate", "--fox", "a", "--omnidocbench", "b"]).exit_code == 2
    assert run(app, ["evaluate", "--fox", str(tmp_path), "--modes", "huge"]).exit_code != 0
