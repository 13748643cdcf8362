"""Model text -> boxes, figures, markdown, tables, files, compared with goldens/postprocess.json."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import model.results
from model.results import (
    EOS,
    clean_text,
    crop_box,
    crops,
    draw_overlay,
    label_colour,
    parse_boxes,
    to_markdown,
    to_pixels_box,
    write_results,
)
from tests.helpers.paths import GOLDENS
from tests.helpers.recipes import synth_image

CASES = json.loads((GOLDENS / "postprocess.json").read_text(encoding="utf-8"))
PAGE = Image.fromarray(synth_image(640, 480, 0))


def grounded(label, boxes):
    return f"<|ref|>{label}<|/ref|><|det|>{boxes}<|/det|>"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_parsing_equals_the_original(case):
    text = clean_text(case["model_text"] + EOS)
    assert text == case["eval_mode_return"]
    found = [[text[r.span[0] : r.span[1]], r.label, r.raw] for r in parse_boxes(text)]
    assert found == case["matches"]
    assert not any(r.problems for r in parse_boxes(text))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_files_equal_the_original(case, tmp_path):
    assert case["image_size"] == list(PAGE.size)
    write_results(tmp_path, PAGE, case["model_text"])
    sizes = {f.name: list(Image.open(f).size) for f in (tmp_path / "images").iterdir()}
    assert sizes == case["crops"]
    assert list(Image.open(tmp_path / "result_with_boxes.jpg").size) == case["boxes_jpg"]
    assert {f.name for f in tmp_path.iterdir()} >= set(case["files"])
    if case["name"] != "two_boxes_one_ref":
        assert (tmp_path / "result.mmd").read_text(encoding="utf-8") == case["result_mmd"]


def test_deviation_every_box_of_a_ref_gets_its_own_line_so_that_crops_and_references_agree():
    case = next(c for c in CASES if c["name"] == "two_boxes_one_ref")
    assert len(case["crops"]) == 3  # the original cuts three pictures ...
    assert case["result_mmd"].count("![]") == 2  # ... refers to two, and shows the second for the third
    text = clean_text(case["model_text"])
    assert to_markdown(text) == ("![](images/0.jpg)\n![](images/1.jpg)\n\nx\n![](images/2.jpg)\n")
    assert [list(c.size) for c in crops(PAGE, parse_boxes(text))] == list(case["crops"].values())


def test_identical_refs_show_one_figure_which_is_written_once(tmp_path):
    """As in the original, which however writes the figure twice. A model in a loop frames it many times."""
    ref, other = (
        grounded("image", "[[1, 2, 300, 400]]"),
        grounded("image", "[[5, 6, 30, 40], [1, 2, 300, 400]]"),
    )
    lines = "![](images/0.jpg)\na![](images/0.jpg)\n![](images/1.jpg)\n![](images/0.jpg)\n"
    assert to_markdown(f"{ref}a{ref}{other}") == lines
    write_results(tmp_path, PAGE, f"{ref}a{ref}{other}")
    assert sorted(f.name for f in (tmp_path / "images").iterdir()) == ["0.jpg", "1.jpg"]


def test_deviation_coloneqq_is_always_replaced():
    """The original does it only if there is a ref that is not an image."""
    assert to_markdown(r"a \coloneqq b \eqqcolon c") == "a := b =: c"
    assert to_markdown(grounded("text", "[[1, 2, 3, 4]]") + r"a \coloneqq b") == "a := b"


def test_deviation_an_unclosed_ref_does_not_swallow_the_text_behind_it():
    text = "<|ref|>broken\nA sentence.\n" + grounded("title", "[[1, 2, 3, 4]]") + "\nB"
    refs = parse_boxes(text)
    assert [r.label for r in refs] == ["title"]
    assert "A sentence." in to_markdown(text)
    cut = "<|ref|>a<|/ref|><|det|>[[1, 2," + grounded("b", "[[1, 2, 3, 4]]")
    assert [r.label for r in parse_boxes(cut)] == ["b"]
    assert parse_boxes("<|ref|>a<|/ref|><|det|>[[1, 2, 3, 4]]") == []


@pytest.mark.parametrize("size", [(640, 480), (1, 1), (1240, 1754), (37, 20000)])
def test_pixels_are_rounded_down_as_in_the_original(size):
    width, height = size
    for v in range(1000):
        want = (int(v / 999 * width), int(v / 999 * height))
        assert to_pixels_box((v, v, v, v), width, height) == want * 2
    assert to_pixels_box((0, 0, 999, 999), width, height) == (0, 0, width, height)


@pytest.mark.parametrize(
    ("raw", "boxes", "problem"),
    [
        ("[[1, 2, 3, 4]]", [(1, 2, 3, 4)], None),
        ("[[1,2,3,4],[5,6,7,8]]", [(1, 2, 3, 4), (5, 6, 7, 8)], None),
        ("\n[ [ 1 ,\n2,\t3 , 4 ] , ]\n", [(1, 2, 3, 4)], None),
        ("[1, 2, 3, 4]", [(1, 2, 3, 4)], None),
        ("[(1, 2, 3, 4)]", [(1, 2, 3, 4)], None),
        ("[[1, 2, 3, 4,]]", [(1, 2, 3, 4)], None),
        ("[[1.5, 2, 300.25, 4]]", [(1.5, 2, 300.25, 4)], None),
        ("[[+1, 2, 3, 4]]", [(1, 2, 3, 4)], None),
        ("[[-5, 2, 1000, 4]]", [(0, 2, 999, 4)], "outside 0..999, clipped"),
        ("[[300, 400, 100, 200]]", [(100, 200, 300, 400)], "wrong order, swapped"),
        ("[[5, 2, 5, 4]]", [], "no area"),
        ("[[1000, 2, 2000, 4]]", [], "outside 0..999, clipped, no area"),
        ("[[1, 2, 3]]", [], "3 values instead of 4"),
        ("[[1, 2, 3, 4, 5]]", [], "5 values instead of 4"),
        ("[[1, 2, 3, 4], [1, 2]]", [(1, 2, 3, 4)], "box 2 [1, 2]: 2 values"),
        ("[[1, 2, 3, x]]", [], "not four plain numbers"),
        ("[[1, 2, 3, 1e9]]", [], "not four plain numbers"),
        ("[[1, 2, 3, nan]]", [], "not four plain numbers"),
        ("[[1, 2, 3, " + "9" * 5000 + "]]", [], "not four plain numbers"),
        ("[[1, 2, 3, 4], [5, 6", [(1, 2, 3, 4)], "text beside the boxes ignored: 5, 6"),
        ("[[]]", [], "1 values instead of 4"),
        ("[]", [], "1 values instead of 4"),
        ("", [], "no box in the list"),
        ("somewhere on the left", [], "text beside the boxes"),
        ("__import__('os').system('echo hello > proof')", [], "left out"),
        ("[[1, 2, 3, 4]] or exit()", [(1, 2, 3, 4)], "exit"),
    ],
)
def test_odd_boxes_are_repaired_or_reported(raw, boxes, problem):
    (ref,) = parse_boxes(grounded("a", raw))
    assert ref.boxes == boxes
    if problem is None:
        assert ref.problems == []
    else:
        assert problem in "; ".join(ref.problems)
        assert all(len(p) < 120 for p in ref.problems)


def test_model_text_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attack = "open('proof', 'w').write('ran')"
    text = grounded("image", attack) + grounded(attack, f"[{attack}]") + f"{{'line_type': {attack}}}"
    result = write_results("out", PAGE, text)
    assert [f.name for f in tmp_path.iterdir()] == ["out"]
    assert result["geometry"] == text
    for name in ("results", "boxes", "overlay", "tables"):
        source = (Path(model.results.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        assert "eval(" not in source
        assert "exec(" not in source


def test_file_names_never_come_from_the_text(tmp_path):
    text = grounded("../../evil", "[[1, 2, 3, 4]]") + grounded("image", "[[1, 2, 300, 400]]")
    text += "<table><tr><td>../../evil</td></tr></table>"
    write_results(tmp_path / "out", PAGE, text)
    written = {f.relative_to(tmp_path / "out").as_posix() for f in tmp_path.rglob("*") if f.is_file()}
    assert written == {"images/0.jpg", "tables/0.csv", "result.mmd", "result_with_boxes.jpg", "result.json"}


def test_crops_show_the_place_that_the_box_names():
    refs = parse_boxes(grounded("image", "[[100, 200, 500, 700]]"))
    x1, y1, x2, y2 = to_pixels_box((100, 200, 500, 700), *PAGE.size)
    assert np.array_equal(np.asarray(crops(PAGE, refs)[0]), np.asarray(PAGE)[y1:y2, x1:x2])


def test_a_box_smaller_than_a_pixel_is_still_cut_out():
    for size in [(1, 1), (2, 900), (640, 480)]:
        for box in [(0, 0, 1, 1), (998, 998, 999, 999), (0, 0, 999, 999)]:
            x1, y1, x2, y2 = crop_box(box, *size)
            assert 0 <= x1 < x2 <= size[0]
            assert 0 <= y1 < y2 <= size[1]


def test_lines_in_the_markdown_count_like_the_crops_even_with_bad_boxes():
    text = grounded("image", "[[5, 5, 5, 9], [1, 2, 300, 400]]") + grounded("image", "bad")
    text += grounded("image", "[[0, 0, 1, 1]]")
    assert to_markdown(text).split() == ["![](images/0.jpg)", "![](images/1.jpg)"]
    assert len(crops(PAGE, parse_boxes(text))) == 2


def test_overlay_is_deterministic_and_marks_the_box():
    white = Image.new("RGB", (400, 300), "white")
    refs = parse_boxes(
        grounded("title", "[[250, 250, 750, 750]]") + grounded("text", "[[10, 800, 200, 990]]")
    )
    drawn = np.asarray(draw_overlay(white, refs))
    assert np.array_equal(drawn, np.asarray(draw_overlay(white, refs)))
    assert np.asarray(white).min() == 255, "the page itself must stay as it is"
    x1, _, x2, _ = to_pixels_box((250, 250, 750, 750), 400, 300)
    title, text = label_colour("title"), label_colour("text")
    assert title != text
    assert max(title[:2]) < 200
    for inset in range(4):  # a title has four pixels of outline
        assert tuple(drawn[150, x1 + inset]) != (255, 255, 255)
        assert np.abs(drawn[150, x1 + inset].astype(int) - title).max() < 25
    inside = drawn[150, (x1 + x2) // 2].astype(int)
    assert np.abs(inside - (255 + (np.array(title) - 255) * 20 / 255)).max() <= 1.5
    assert tuple(drawn[5, 5]) == (255, 255, 255)


@pytest.mark.parametrize("label", ["", "标题", "ti\ntle", "x" * 5000, "\ud800", "é😀"])
def test_any_label_can_be_drawn(label):
    refs = parse_boxes(grounded(label, "[[0, 0, 999, 999]]"))
    assert draw_overlay(Image.new("L", (60, 40)), refs).size == (60, 40)


def test_result_json_holds_everything(tmp_path):
    text = "T" + grounded("title", "[[1, 2, 998, 999], [0]]") + "<table><tr><td>=1</td></tr></table>" + EOS
    result = write_results(tmp_path, PAGE, text, extra={"tokens": 7, "text": "not this"})
    stored = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert stored == result
    assert stored["tokens"] == 7
    assert stored["text"] == clean_text(text)
    assert stored["refs"] == [
        {
            "label": "title",
            "boxes": [[1, 2, 998, 999]],
            "pixels": [[0, 0, 639, 480]],
            "problems": ["box 2 [0]: 1 values instead of 4, left out"],
        }
    ]
    assert stored["tables"] == [[["=1"]]], "JSON keeps the cell as read; only CSV is disarmed"
    assert (tmp_path / "tables" / "0.csv").read_text(encoding="utf-8") == "'=1\n"
    assert stored["geometry"] is None
    assert set(stored["files"]) == {"result.mmd", "result_with_boxes.jpg", "tables/0.csv"}
    assert not list(tmp_path.rglob("*.part"))


def test_a_second_run_leaves_no_stale_files_and_touches_no_others(tmp_path):
    write_results(tmp_path, PAGE, grounded("image", "[[0, 0, 9, 9], [0, 0, 99, 99]]"))
    mine = tmp_path / "images" / "7.jpg"
    mine.write_bytes(b"mine")
    victim = tmp_path.parent / "victim.txt"
    victim.write_text("keep", encoding="utf-8")
    stored = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    stored["files"] += ["../victim.txt", str(victim), "images/../../victim.txt", 5]
    (tmp_path / "result.json").write_text(json.dumps(stored), encoding="utf-8")
    write_results(tmp_path, PAGE, "plain", overlay=False)
    assert sorted(f.name for f in (tmp_path / "images").iterdir()) == ["7.jpg"]
    assert not (tmp_path / "result_with_boxes.jpg").exists()
    assert victim.read_text(encoding="utf-8") == "keep"


@pytest.mark.parametrize("before", ["", "{", "[]", '{"files": 3}', '{"files": null}'])
def test_a_damaged_result_json_is_replaced(tmp_path, before):
    (tmp_path / "result.json").write_text(before, encoding="utf-8")
    write_results(tmp_path, PAGE, "plain")
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["text"] == "plain"


def test_a_run_cut_off_in_the_middle_leaves_no_half_file_and_no_result_json(tmp_path, monkeypatch):
    write_results(tmp_path, PAGE, "first")
    replace, calls = model.results.os.replace, []

    def fails_at_the_second(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError("disk full")
        replace(source, target)

    monkeypatch.setattr(model.results.os, "replace", fails_at_the_second)
    with pytest.raises(OSError, match="disk full"):
        write_results(tmp_path, PAGE, grounded("image", "[[0, 0, 9, 9]]"))
    assert not (tmp_path / "result.json").exists()
    assert not list(tmp_path.rglob("*.part"))


def test_text_without_a_picture(tmp_path):
    result = write_results(tmp_path, None, "a" + grounded("image", "[[0, 0, 9, 9]]") + "\ud800")
    assert result["markdown"] == "a\ud800"
    assert result["image_size"] is None
    assert {f.name for f in tmp_path.rglob("*") if f.is_file()} == {"result.mmd", "result.json"}


def test_clean_text_takes_off_one_end_token():
    assert clean_text(f" a {EOS}") == "a"
    assert clean_text(f"{EOS} a ") == f"{EOS} a"
    assert clean_text("a</s>", eos="</s>") == "a"
    assert clean_text(" a ", eos="") == "a"
