"""Confidence: its average, and log-probabilities that equal those of the network."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from PIL import Image

from deskocr_kit.course.page_pictures import Beside, Boxes
from deskocr_kit.reading.reader import Reader, load_tokenizer
from model.confidence import UNSURE, Scores, geometric_mean, token_spans
from model.generation import GreedyOptions, GreedyState
from model.inference import Reading, read_page, read_pages
from model.observer import Observer
from model.overlay import draw_overlay
from model.results import cell_confidences, parse_boxes, tables, to_markdown, write_results
from model.tables import located_tables
from tests.helpers.golden import inputs, tensors
from tests.helpers.paths import NANO as FOLDER

END = 1


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(FOLDER)


def by_character(text: str, probabilities: dict[str, float], default: float = 1.0) -> Scores:
    """One token per character, with a probability for each character."""
    logprobs = [math.log(probabilities.get(c, default)) for c in text]
    return Scores(text, logprobs, [(i, i + 1) for i in range(len(text))])


# ------------------------------------------------------------------ arithmetic on made-up probabilities
def test_the_geometric_mean():
    assert geometric_mean([math.log(0.5), math.log(0.125)]) == pytest.approx(0.25)
    assert geometric_mean([]) is None


def test_a_line_counts_its_characters_and_its_break_and_blank_lines_are_left_out():
    scores = by_character("ab\n\ncd", {"a": 0.5, "\n": 0.25, "c": 0.1})
    (first, a), (second, b) = scores.lines()
    assert (first, second) == ("ab", "cd")
    assert a == pytest.approx((0.5 * 1 * 0.25) ** (1 / 3)) and b == pytest.approx(0.1**0.5)
    assert scores.page == pytest.approx((0.5 * 0.25 * 0.25 * 0.1) ** (1 / 6))


def test_the_end_token_counts_for_the_page_only():
    scores = Scores("ab", [0.0, 0.0, math.log(0.125)], [(0, 1), (1, 2), (2, 2)])
    assert scores.page == pytest.approx(0.5) and scores.lines() == [("ab", 1.0)]
    assert scores.tokens == pytest.approx([1, 1, 0.125])


GROUNDED = (
    "<|ref|>title<|/ref|><|det|>[[1, 2, 3, 4], [5, 6, 7, 8]]<|/det|>\nHead\n\n"
    "<|ref|>x<|/ref|><|det|>[[9, 9, 9, 9], [30, 30, 40, 40]]<|/det|>tail"
)


def test_a_box_has_a_value_of_its_text_and_one_of_its_place():
    scores = by_character(GROUNDED, {"2": 0.5, "6": 0.25, "H": 0.1, "x": 0.3, "0": 0.6})
    (first, second), (last,) = scores.boxes()  # the box without area is omitted, as in Ref.boxes
    framed = len("title") + len("\nHead\n\n")
    assert first[0] == second[0] == pytest.approx(0.1 ** (1 / framed))
    assert first[1] == pytest.approx(0.5 ** (1 / len("[1, 2, 3, 4]")))
    assert second[1] == pytest.approx(0.25 ** (1 / len("[5, 6, 7, 8]")))
    assert last[0] == pytest.approx(0.3 ** (1 / len("xtail")))
    assert last[1] == pytest.approx(0.6 ** (4 / len("[30, 30, 40, 40]")))


def test_numbers_and_tags_of_boxes_do_not_count_for_page_and_lines():
    doubtful = by_character(GROUNDED, dict.fromkeys("123456789[]<|,", 0.01))
    assert doubtful.page == 1 and all(value == 1 for _, value in doubtful.lines())
    assert [text for text, _ in doubtful.lines()] == ["title", "Head", "xtail"]


def test_a_token_of_several_characters_counts_for_each_line_that_it_touches():
    scores = Scores("ab\ncd", [math.log(0.5), 0.0], [(0, 4), (4, 5)])
    assert [value for _, value in scores.lines()] == pytest.approx([0.5, 0.5**0.5])


TABLES = (
    "see\n<table><tr><td>a</td><td colspan=2>b &amp; c</td></tr><tr><td></td><td>d</td></tr></table>\n"
    "<|ref|>image<|/ref|><|det|>[[0, 0, 9, 9]]<|/det|>\\coloneqq\n\n| h | i |\n|---|---|\n| j | |\n"
)


def test_each_table_cell_has_the_value_of_its_content():
    scores = by_character(TABLES, {c: 0.1 * (i + 1) for i, c in enumerate("bdhij")})
    html, pipes = cell_confidences(scores)
    wide = pytest.approx(0.1 ** (1 / len("b &amp; c")), abs=1e-4)
    assert html == [[1.0, wide, wide], [None, 0.2, None]]
    third = pytest.approx
    assert pipes == [
        [third(0.3 ** (1 / 3), abs=1e-4), third(0.4 ** (1 / 3), abs=1e-4)],
        [third(0.5 ** (1 / 3), abs=1e-4), None],
    ]


@pytest.mark.parametrize(
    "text",
    [
        TABLES,
        "<table><tr><td>a<td>b\n<tr><th rowspan=2>c</th><td>x<table><tr><td>in</td></tr></table>y</td>\n"
        "<tr><td>un\nclosed",
        "  || a \\| b | |c\n|:-|-|-|-\n| 1",
    ],
)
def test_the_place_of_a_cell_holds_its_text(text):
    markdown = to_markdown(text)
    located = located_tables(markdown)
    assert [[[cell.text for cell in row] for row in table] for table in located] == tables(markdown)
    for cell in (cell for table in located for row in table for cell in row if cell.text):
        content = markdown[slice(*cell.span)].replace("&amp;", "&").replace("\\|", "|")
        if "<" not in content:
            assert " ".join(content.split()) == cell.text


def test_tokens_that_end_inside_a_character_share_it(tokenizer):
    text = "a€ b<|ref|>ü"
    ids = tokenizer.encode(text, add_special_tokens=False)
    spans = token_spans(tokenizer, ids)
    assert spans == [(0, 1), *[(1, 2)] * 3, (2, 3), (3, 4), (4, 11), *[(11, 12)] * 2]
    scores = Scores.of(tokenizer, [*ids, END], END, [-0.5] * 10)
    assert scores.text == text and scores.spans == [*spans, (12, 12)]


def test_blanks_at_the_ends_and_half_characters_keep_the_lists_in_step(tokenizer):
    ids = tokenizer.encode(" \n a b \n", add_special_tokens=False) + tokenizer.encode("€")[-3:-1]
    for given in (ids, [*ids, END]):
        scores = Scores.of(tokenizer, given, END, [-1.0] * len(given))
        assert len(scores.spans) == len(given) and scores.text.startswith("a b")
        assert all(0 <= a <= b <= len(scores.text) for a, b in scores.spans)
        assert scores.spans == sorted(scores.spans) and scores.text[slice(*scores.spans[3])] == "a"


def test_an_answer_without_any_text_has_values_of_its_tokens_only():
    scores = Scores("", [math.log(0.5)], [(0, 0)])
    assert (scores.page, scores.lines(), scores.boxes()) == (pytest.approx(0.5), [], [])
    assert Scores("", [], []).record()["confidence"] is None


# ------------------------------------------------------------------ the log-probabilities of the network
def teacher_forced(model, given: dict, ids: torch.Tensor) -> torch.Tensor:
    """(b, new): log-softmax of the same tokens in one pass without cache, guard or rules."""
    n, new = given["input_ids"].shape[1], ids.shape[1] - given["input_ids"].shape[1]
    whole = dict(given, input_ids=ids)
    whole["images_seq_mask"] = torch.nn.functional.pad(given["images_seq_mask"], (0, new))
    whole["attention_mask"] = torch.nn.functional.pad(given["attention_mask"], (0, new), value=1)
    with torch.no_grad():
        logits = model(**whole).logits[:, n - 1 : -1]
    return torch.log_softmax(logits.float(), -1).gather(2, ids[:, n:, None])[..., 0]


RULES = {
    "plain": {},
    "guard": {"no_repeat_ngram_size": 2},
    "suppressed": {"suppress_tokens": [3, 500], "min_new_tokens": 20},
}


@pytest.mark.parametrize("how", RULES)
@pytest.mark.parametrize("case", ["text", "g640", "batch2"])
def test_they_are_those_of_one_teacher_forced_pass(golden_model, case, how):
    """Guard and suppressed tokens change the choice, not the meaning of a value. Padding changes neither."""
    given = inputs(case)
    how = {"max_new_tokens": 20, "eos_token_id": None, **RULES[how]}
    ids, logprobs = golden_model.generate(**given, **how, return_logprobs=True)
    assert logprobs.shape == (len(ids), 20) and logprobs.dtype == torch.float32
    torch.testing.assert_close(logprobs, teacher_forced(golden_model, given, ids), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("how", [{"no_repeat_ngram_size": 1}, {"suppress_tokens": [5]}])
def test_a_forbidden_token_keeps_its_share_of_the_probability(golden_model, how):
    """Token 5 is the likeliest but forbidden: token 7 is chosen, with its probability among all tokens."""
    options = GreedyOptions(max_new_tokens=2, **how)
    state = GreedyState(golden_model, torch.tensor([[5]]), options)
    logits = torch.full((1, golden_model.config.decoder.vocab), -50.0)
    logits[0, 5], logits[0, 7] = math.log(0.9), math.log(0.1)
    assert state.pick(logits).tolist() == [[7]]
    ((tokens, (logprob,), finite),) = state.sync()
    assert (tokens, finite) == ([7], True) and math.exp(logprob) == pytest.approx(0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_logits_that_are_not_finite_are_noticed_at_the_look(golden_model, dtype, bad):
    model = copy.deepcopy(golden_model).to(dtype)
    state = GreedyState(model, torch.tensor([[5], [6]]), GreedyOptions(max_new_tokens=3))
    for values in ([0.0, 0.0], [0.0, bad], [-65504.0, 65504.0]):
        logits = torch.zeros(2, model.config.decoder.vocab)
        logits[:, 9] = torch.tensor(values)
        state.pick(logits)
    assert [finite for *_, finite in state.sync()] == [True, False, True]


def test_they_do_not_depend_on_how_rarely_the_host_looks(golden_model, monkeypatch):
    given = inputs("batch2")
    seen = [
        golden_model.generate(**given, max_new_tokens=24, look_every=every, return_logprobs=True)
        for every in (1, 5, 16)
    ]
    monkeypatch.setattr("model.greedy.SOFTMAX_ELEMENTS", 1)  # one step per softmax
    seen.append(golden_model.generate(**given, max_new_tokens=24, look_every=16, return_logprobs=True))
    for ids, logprobs in seen[1:]:
        assert torch.equal(ids, seen[0][0]) and torch.equal(logprobs, seen[0][1])
    n = given["input_ids"].shape[1]
    assert seen[0][0][:, n:].tolist() == tensors("batch2")["gen24"].tolist()


def test_a_recorded_step_gives_the_same(golden_model):
    """The next replay overwrites the memory of its logits."""
    given, new = inputs("g640"), 20

    def record(run):
        buffer = run().clone()

        def replay():
            return buffer.copy_(run())

        return replay

    expected = golden_model.generate(**given, max_new_tokens=new, return_logprobs=True)
    found = golden_model.generate(
        **given, max_new_tokens=new, return_logprobs=True, record=record, look_every=8
    )
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_floats_come_back_from_the_transfer_as_they_were(golden_model, dtype):
    model = copy.deepcopy(golden_model).to(dtype)
    given = inputs("g640")
    ids, logprobs = model.generate(**given, max_new_tokens=12, eos_token_id=None, return_logprobs=True)
    expected = teacher_forced(model, given, ids)
    assert (logprobs <= 0).all() and torch.allclose(logprobs, expected, atol=0.15)


def test_the_observer_hears_them_before_the_tokens(golden_model):
    class Ear(Observer):
        def __init__(self):
            self.heard = []

        def logprobs(self, logprobs):
            self.heard.append(logprobs)

        def token(self, tokens):
            self.heard.append(tokens)

    ear = Ear()
    ids, logprobs = golden_model.generate(
        **inputs("batch2"), max_new_tokens=6, observer=ear, return_logprobs=True
    )
    assert torch.equal(torch.tensor(ear.heard[::2]).T, logprobs)
    assert torch.equal(torch.tensor(ear.heard[1::2]).T, ids[:, -logprobs.shape[1] :])


# ------------------------------------------------------------------ readings, pictures, files
def test_pages_of_a_batch_have_the_values_that_each_has_alone():
    nano = Reader.load("nano", "cpu", "fp32")
    pages = [FOLDER / "pages" / f"{name}.png" for name in ("4_code", "2_invoice")]
    together = nano.read_batch(pages)
    for page, one in zip(pages, together, strict=True):
        pieces = []
        alone = read_page(
            nano.model, nano.tokenizer, page, "<image>\nFree OCR.", "tiny", on_text=pieces.append
        )
        assert alone.text == one.text == "".join(pieces).strip()
        assert len(alone.logprobs) == len(alone.ids) == len(alone.spans)
        assert alone.logprobs == pytest.approx(one.logprobs, abs=2e-3)
        assert 0 < alone.confidence <= 1 and f"confidence {alone.confidence:.2f}" in repr(alone)
    assert read_pages(nano.model, nano.tokenizer, pages[:1], "x", "tiny", max_new_tokens=1)[0].confidence > 0


def drawn(value: float) -> np.ndarray:
    refs = parse_boxes("<|ref|>a<|/ref|><|det|>[[200, 200, 800, 800]]<|/det|>")
    return np.asarray(draw_overlay(Image.new("RGB", (200, 200), "white"), refs, [[(value, None)]]))


def test_a_doubtful_box_differs_by_dashes_hatch_and_number():
    """Not by colour: the outline has only two colours, paper and that of the label."""
    sure, unsure = drawn(UNSURE), drawn(UNSURE - 0.01)
    edge = slice(45, 150), 40  # the left outline
    outline = {tuple(pixel) for pixel in sure[edge]}
    dashes = [tuple(pixel) in outline for pixel in unsure[edge]]
    assert len(outline) == 1 and 0.3 < sum(dashes) / len(dashes) < 0.7
    inner = slice(60, 140), slice(60, 140)
    assert len(np.unique(sure[inner].reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(unsure[inner].reshape(-1, 3), axis=0)) == 2
    assert (sure[:39] != unsure[:39]).any(), "80 % and 79 %"


def test_result_json_holds_the_values_and_refuses_those_of_another_text(tmp_path):
    scores = by_character(GROUNDED, {"2": 0.5, "H": 0.1})
    page = Image.new("RGB", (99, 99), "white")
    result = write_results(tmp_path, page, GROUNDED, scores=scores)
    assert result["confidence"] == round(scores.page, 4)
    assert [len(ref["confidences"]) for ref in result["refs"]] == [2, 1]
    assert result["refs"][0]["place_confidences"][0] < 1 == result["refs"][1]["place_confidences"][0]
    assert len(result["token_confidences"]) == len(result["token_spans"]) == len(GROUNDED)
    assert result["table_confidences"] == result["tables"] == []
    plain = write_results(tmp_path / "plain", page, GROUNDED)
    assert plain.keys() == result.keys() - {*scores.record(), "table_confidences"}
    with pytest.raises(ValueError, match="another text"):
        write_results(tmp_path, page, "other", scores=scores)


def test_pictures_of_notebooks_show_the_values():
    page = Image.new("RGB", (120, 120), "white")
    scores = by_character(GROUNDED, {"H": 1e-9})
    for picture, plain in (
        (Beside(page, "a\nb", scores=by_character("a\nb", {"b": 0.5})), Beside(page, "a\nb")),
        (Boxes(page, GROUNDED, scores), Boxes(page, GROUNDED)),
    ):
        assert picture._repr_png_()[0] != plain._repr_png_()[0]
        before, after = repr(picture).split("≈")
        assert before == repr(plain).split("≈")[0] and ", confidence 0." in after


def test_a_reading_made_without_values_has_none():
    reading = Reading("a", "a", [5, END], 3, 1, (1, 1), False, 0.5)
    assert reading.confidence is None and "confidence" not in repr(reading)
