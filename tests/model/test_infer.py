"""`infer`, the call of the original code, and the streaming of text."""

from __future__ import annotations

from typing import ClassVar

import pytest
from PIL import Image

from deskocr_kit.nano_training.batches import encode
from deskocr_kit.reading.reader import Reader, load_tokenizer
from deskocr_kit.reading.text_distance import cer
from model.infer import compression
from model.inference import TextStream, defaults, read_page
from model.observer import Observer
from model.processing import ImageError
from model.safetensors_io import CheckpointError
from tests.helpers.nano import bound
from tests.helpers.paths import NANO

PAGES = NANO / "pages"
LETTER = PAGES / "1_letter.png"
TINY = {"base_size": 512, "image_size": 512, "crop_mode": False}


@pytest.fixture(scope="module")
def nano() -> Reader:
    return Reader.load("nano", "cpu", "fp32")


def infer(nano, **how):
    return nano.model.infer(
        nano.tokenizer, **{"prompt": "<image>\nFree OCR.", "image_file": LETTER, **TINY, **how}
    )


def test_infer_always_returns_the_text_and_writes_nothing(nano, tmp_path, capsys):
    text = infer(nano, output_path=tmp_path)
    assert cer(text, LETTER.with_suffix(".txt").read_text()) <= bound("samples", 0.05)
    assert text == infer(nano, output_path="", eval_mode=True)
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().out == ""


def test_infer_saves_when_asked(nano, tmp_path):
    infer(nano, prompt="<image>\n<|grounding|>OCR this image.", output_path=tmp_path, save_results=True)
    assert {"result.mmd", "result_with_boxes.jpg", "result.json"} <= {
        path.name for path in tmp_path.iterdir()
    }
    with Image.open(tmp_path / "result_with_boxes.jpg") as picture:
        assert picture.size == (512, 512)


def test_infer_streams(nano):
    pieces = []
    assert "".join(pieces) == "" and infer(nano, on_text=pieces.append) == "".join(pieces).strip()
    assert len(pieces) > 20


def test_an_observer_sees_the_phases_and_every_token(nano):
    class Seen(Observer):
        calls: ClassVar[list] = []

        def phase(self, name):
            self.calls.append(name)

        def token(self, tokens):
            self.calls.append(tokens[0])

    reading = nano.read(Image.open(LETTER), "free", max_new_tokens=5, observer=Seen())
    assert Seen.calls == ["preprocess", "vision", "prefill", *reading.ids, "decode"]
    assert infer(nano, observer=Observer()) == infer(nano)


def test_compression_is_printed_on_request(nano, capsys):
    text = infer(nano, test_compress=True)
    assert (
        f"valid image tokens 64, text tokens {len(encode(text)) + 1}, compression ratio"
        in capsys.readouterr().out
    )


def test_compression_without_valid_tokens_does_not_divide(nano):
    """The original raises ZeroDivisionError for base 640 with crops and a small page."""
    from model.processing import find_mode

    reading = nano.read(Image.new("RGB", (64, 64), "white"), "free", "tiny", max_new_tokens=1)
    assert "undefined" in compression(reading, (64, 64), find_mode(640, 640, True))


def test_other_modes_run_through_the_same_network(nano):
    """Nano was not trained for this: the test only runs the whole path, with tiles."""
    page = Image.new("RGB", (1300, 700), "white")
    reading = nano.read(page, "free", "gundam", max_new_tokens=2)
    assert reading.grid == (2, 1) and reading.image_tokens == 483 and reading.truncated


def test_text_only_prompts_run(nano):
    reading = read_page(nano.model, nano.tokenizer, None, "Hello", max_new_tokens=2, no_repeat_ngram_size=0)
    assert reading.image_tokens == 0 and reading.prompt_tokens == 6


@pytest.mark.parametrize(
    ("how", "error", "word"),
    [
        ({"prompt": "  "}, ValueError, "prompt is empty"),
        ({"save_results": True}, ValueError, "output_path"),
        ({"image_file": "missing.png"}, ImageError, "missing.png"),
        ({"image_file": ""}, ValueError, "no page was given"),
        ({"image_size": 500}, ValueError, "500"),
    ],
)
def test_bad_calls(nano, how, error, word):
    with pytest.raises(error, match=word):
        infer(nano, **how)


def test_defaults_come_from_the_folder(nano, tmp_path):
    assert defaults(nano.folder)["mode"] == "tiny" and defaults(nano.folder)["no_repeat_ngram_size"] == 0
    assert defaults(tmp_path) == {
        "mode": "gundam",
        "max_new_tokens": 8192,
        "no_repeat_ngram_size": 20,
        "ngram_window": None,
    }


def test_training_and_stored_tokenizer_agree(nano):
    text = "<image>\n<|grounding|>a b<|ref|>é~<|/ref|><|det|>[[1, 2]]<|/det|><td>\t€</td> \\"
    assert nano.tokenizer.encode(text, add_special_tokens=False) == encode(text)
    assert nano.tokenizer.decode(encode(text), skip_special_tokens=False) == text


def test_stream_holds_back_half_characters(nano):
    said = []
    stream = TextStream(nano.tokenizer, {1}, said.append)
    for token in encode("a€b") + [1]:
        stream([token])
    assert said == ["a", "€", "b"]
    for token in encode("€")[:2] + [1]:
        stream([token])
    assert said[3:] == ["\ufffd"]


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_tokenizer_that_does_not_load_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer"):
        load_tokenizer(tmp_path)
