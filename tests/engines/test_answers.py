"""What a server sends is checked before it is used; the text is that of the kit's own readings."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deskocr_kit.reading.engines.answers import BadAnswer, by_page, joined, parsed, reading_of
from deskocr_kit.reading.engines.requests import Served
from deskocr_kit.reading.repetition import loops
from model.inference import Reading
from model.official import DEEPSEEK_OCR

PLAIN = Served("transformers", DEEPSEEK_OCR)
SURE = Served("vllm", DEEPSEEK_OCR, "ocr", logprobs=True)


def answer(text, reason="stop", tokens=None, usage=None) -> dict:
    choice = {"message": {"content": text}, "finish_reason": reason}
    if tokens is not None:
        choice["logprobs"] = {"content": tokens}
    return {"choices": [choice], "usage": usage}


def entry(token: bytes, logprob: float) -> dict:
    return {"token": token.decode("utf-8", "replace"), "bytes": list(token), "logprob": logprob}


@pytest.mark.parametrize("reason", ["length", "content_filter", "tool_calls", "abort", None, 7, ["stop"]])
def test_any_end_but_stop_is_a_truncated_page(reason):
    assert reading_of(answer("x", reason), PLAIN, 1.0).truncated
    assert not reading_of(answer("x"), PLAIN, 1.0).truncated


def test_the_text_is_stripped_and_has_no_end_token():
    for text in ("\n a b \n", "a b<｜end▁of▁sentence｜>", "a b <|end_of_sentence|>\n"):
        assert reading_of(answer(text), PLAIN, 1.0).text == "a b"
    assert reading_of(answer("a\ud800b"), PLAIN, 1.0).text == "a\ufffdb"


def test_confidences_are_those_of_the_tokens():
    euro = "€".encode()
    tokens = [entry(b" Total", -0.1), entry(b": 5", -0.2), entry(euro[:2], -0.3), entry(euro[2:], -0.4)]
    tokens.append(entry("<｜end▁of▁sentence｜>".encode(), -0.5))
    reading = reading_of(answer(" Total: 5€", tokens=tokens), SURE, 1.0)
    assert reading.text == "Total: 5€" and len(reading.ids) == 5
    assert list(reading.spans) == [(0, 5), (5, 8), (8, 9), (8, 9), (9, 9)]
    assert reading.confidence == pytest.approx(math.exp(-0.3))
    unknown = reading_of(answer(" Total: 5€", tokens=tokens), PLAIN, 1.0)
    assert unknown.confidence is None and unknown.scores.record()["token_confidences"] == []


@pytest.mark.parametrize(
    "tokens",
    [
        [], [entry(b"other", -0.1)], [{"token": "x"}], [{"token": "x", "logprob": "no"}], ["x"], "x", [None],
        [{"token": "x", "logprob": True}], [entry(b"x", -0.1), entry(b"y", -0.1), entry(b"z", -0.1)],
    ],
)  # fmt: skip
def test_tokens_that_are_not_the_text_give_no_confidence(tokens):
    assert reading_of(answer("x", tokens=tokens), SURE, 1.0).confidence is None


def test_the_number_of_tokens_is_that_of_the_server_if_it_is_sensible():
    text = "one two three"
    assert reading_of(answer(text, usage={"completion_tokens": 4}), PLAIN, 1.0).new_tokens == 4
    for wrong in (-1, 1e99, "4", True, None, 10**9):
        reading = reading_of(answer(text, usage={"completion_tokens": wrong}), PLAIN, 1.0)
        assert reading.new_tokens == len(reading.ids) == 5


def test_a_loop_is_found_without_token_ids():
    assert loops(reading_of(answer("<td>12</td>the same again\n" * 60), PLAIN, 1.0).ids)
    assert not loops(reading_of(answer(" ".join(f"word{i}" for i in range(300))), PLAIN, 1.0).ids)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b'"x"', b"{", b"\xff", b'{"a": NaN}', b'{"a": Infinity}', b"[" * 5000,
        b'{"a": 1, "a": 2}', b'{"a": ' + b"9" * 5000 + b"}", b"<html>Sign in</html>", b"data: {}",
    ],
)  # fmt: skip
def test_what_is_not_a_json_object_is_a_bad_answer(body):
    with pytest.raises(BadAnswer):
        parsed(body)


@pytest.mark.parametrize(
    "value",
    [
        {}, {"choices": []}, {"choices": {}}, {"choices": [3]}, {"choices": None, "error": {"message": "x"}},
        {"choices": [{"message": {"content": 5}}]}, {"choices": [{"message": {"content": ["x"]}}]},
        {"choices": [{"message": {"content": "x" * 600_000}}]},
    ],
)  # fmt: skip
def test_an_answer_without_a_text_is_a_bad_answer(value):
    with pytest.raises(BadAnswer):
        reading_of(value, PLAIN, 1.0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "finish_reason", "logprobs", "usage", "delta", "token",
                 "logprob", "bytes", "completion_tokens", "prompt_tokens", "error"]
            ),
            inner, max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.fuzz
@given(st.lists(JSON, max_size=3), st.dictionaries(st.sampled_from(["choices", "usage", "error"]), JSON))
def test_any_json_is_a_reading_or_a_bad_answer(events, value):
    for make in (lambda: value, lambda: joined(each for each in events if isinstance(each, dict))):
        try:
            reading = reading_of(make(), SURE, 1.0)
        except BadAnswer:
            continue
        assert isinstance(reading, Reading) and isinstance(reading.text, str) and reading.new_tokens >= 0
        json.dumps(reading.scores.record())


def test_an_answer_for_several_pages_is_cut_at_the_marks():
    reading = reading_of(answer("<PAGE>\nfirst\n<PAGE>\nsecond one", "length"), SURE, 2.0)
    first, second, third = by_page(reading, 3)
    assert (first.text, second.text, third.text) == ("first", "second one", "")
    assert (first.truncated, second.truncated, third.truncated) == (False, True, True)
    assert first.confidence is None and first.seconds + second.seconds == pytest.approx(2.0)
