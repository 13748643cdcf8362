"""The tokenizer of a foreign folder: read as it is, tried in a process of its own, and no code of it runs."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deskocr_kit.commands import weights
from deskocr_kit.reading.reader import Reader
from model import load_tokenizer, tokenizer
from model.examination import examine
from model.inference import TextStream
from model.loading import read_config
from model.tokenizer_trial import TEXT
from model.weight_files import CheckpointError
from tests.helpers import weight_folders as made
from tests.helpers.paths import NANO, ROOT
from tests.helpers.weight_folders import set_keys

CODE = "open({!r}, 'w').write('it ran')\nclass Tokenizer: pass\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    return made.copy_of_nano(tmp_path / "weights")


def refused(folder: Path, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        load_tokenizer(folder, read_config(folder))
    assert str(folder) in str(caught.value) and "\x1b" not in str(caught.value)


# ---------------------------------------------------------------------------- code of the folder
@pytest.mark.parametrize("where", ["tokenizer_config.json", "config.json"])
def test_no_code_of_the_folder_runs_whatever_is_answered(folder, where, tmp_path, monkeypatch):
    """transformers would ask "run the custom code? [y/N]", and a "y" on standard input would run it."""
    mark = tmp_path / "ran"
    (folder / "evil.py").write_text(CODE.format(str(mark)))
    for name in ("tokenizers.py", "json.py", "transformers.py", "tokenization_evil.py", "sitecustomize.py"):
        (folder / name).write_text(CODE.format(str(mark)))
    mapped = {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"], "AutoConfig": "evil.Tokenizer"}
    set_keys(where, auto_map=mapped, tokenizer_class="Tokenizer")(folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    monkeypatch.chdir(folder)
    reader = Reader.load(str(folder), "cpu", "fp32")
    assert reader.tokenizer.decode(reader.tokenizer.encode("中 文")) == "中 文"
    assert examine(folder).usable and not mark.exists()
    if where == "tokenizer_config.json":
        done = CliRunner().invoke(weights.app, ["check", str(folder)], input="y\ny\n", catch_exceptions=False)
        assert done.exit_code == 0 and "auto_map in tokenizer_config.json names code" in done.output
        assert "complete; warnings: tokenizer" in done.output and not mark.exists()


def test_nothing_in_the_repository_trusts_remote_code():
    """Only texts that say so, and `trust_remote_code=False`."""
    for path in [*ROOT.glob("*.md"), *(ROOT / "model").rglob("*.py"), *(ROOT / "deskocr_kit").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"trust_remote_code\s*=\s*True", text), path
        assert not re.search(r"AutoTokenizer\.from_pretrained\((?![^)]*trust_remote_code=False)", text), path


# ---------------------------------------------------------------------------- read as it is
@pytest.mark.parametrize(
    "name", ["LlamaTokenizerFast", "LlamaTokenizer", "GPT2TokenizerFast", "Unknown", None]
)
def test_the_class_in_the_config_changes_nothing(folder, name):
    """Some releases of transformers replace the byte-level parts for the first: blanks and Chinese vanish."""
    set_keys("tokenizer_config.json", tokenizer_class=name, add_prefix_space=True, legacy=True)(folder)
    set_keys("config.json", model_type="deepseek_ocr_of_mine")(folder)
    mine, nano = load_tokenizer(folder, read_config(folder)), load_tokenizer(NANO)
    assert mine.encode(TEXT, add_special_tokens=False) == nano.encode(TEXT, add_special_tokens=False)
    assert mine.decode(mine.encode(TEXT), skip_special_tokens=False) == TEXT
    assert (mine.bos_token_id, mine.eos_token_id, mine.pad_token_id) == (0, 1, 2)


def test_transformers_reads_nano_alike():
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(str(NANO), trust_remote_code=False)
    ours = load_tokenizer(NANO)
    text = f"{TEXT}<image><|ref|>x<|/ref|><｜end▁of▁sentence｜>"
    ids = theirs.encode(text)
    assert ids == ours.encode(text) and len(theirs) == len(ours)
    for skip in (True, False):
        assert theirs.decode(ids, skip_special_tokens=skip) == ours.decode(ids, skip_special_tokens=skip)
    assert theirs.convert_tokens_to_ids(["<td>", "</td>"]) == ours.convert_tokens_to_ids(["<td>", "</td>"])


def test_it_works_without_a_config_beside_it(folder):
    (folder / "tokenizer_config.json").unlink()
    assert load_tokenizer(folder, read_config(folder)).encode("a") == load_tokenizer(NANO).encode("a")


# ---------------------------------------------------------------------------- refused
def edited(edit):
    def spoil(folder: Path) -> None:
        path = folder / "tokenizer.json"
        stored = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(edit(stored) or stored), encoding="utf-8")

    return spoil


def growing(stored):
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
    stored["decoder"] = {"type": "Sequence", "decoders": [step] * 6}


def llama(stored):
    """What transformers 5.3 to 5.15 make of it: blanks are a sign, and what has no piece is dropped."""
    stored["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": "never",
        "split": False,
    }
    stored["decoder"] = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}


def lower(stored):
    stored["normalizer"] = {"type": "Lowercase"}


def moved(stored):
    for token in stored["added_tokens"]:
        token["id"] += token["content"] == "<image>" and 3


def another_end(folder):
    set_keys("tokenizer_config.json", eos_token="<｜▁pad▁｜>")(folder)


REFUSED = {
    "growing decoder": (edited(growing), "replaces text by longer text"),
    "another decoder": (
        edited(lambda s: s.update(decoder={"type": "WordPiece"})),
        "WordPiece.* is not one of",
    ),
    "a decoder of text": (edited(lambda s: s.update(decoder="x")), "decoder is a JSON str"),
    "the pieces of Llama": (edited(llama), "does not give text back"),
    "lower case": (edited(lower), "does not give text back.*free ocr"),
    "no model": (edited(lambda s: s.update(model={})), "damaged or cannot be loaded"),
    "a model of another kind": (
        edited(lambda s: s["model"].update(type="Foo")),
        "damaged or cannot be loaded",
    ),
    "another <image>": (set_keys("config.json", image_token_id=7), "<image> is 259, but config.json has 7"),
    "too few rows": (
        set_keys("config.json", vocab_size=260),
        "has token 270, but config.json has vocab_size 260",
    ),
    "another end": (another_end, "eos_token is 2, but config.json has eos_token_id 1"),
    "an unknown end": (
        set_keys("tokenizer_config.json", eos_token="</s>\x1b[31m"),
        "is not one of its tokens",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_a_tokenizer_that_cannot_be_used_is_refused(folder, fault):
    spoil, words = REFUSED[fault]
    spoil(folder)
    refused(folder, words)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("crash", "status -"),
        ("sleep", "not finished after 1 s"),
        ("flood", "more than"),
        ("complain", "status 3"),
    ],
)
def test_whatever_the_process_does_is_an_answer(folder, module, words, monkeypatch):
    """The library is Rust: a file may abort, hang or fill the memory. Another child stands for it here."""
    real = tokenizer.run_limited

    def child(_, arguments, **limits):
        limits |= {"seconds": 1.0 if module == "sleep" else 60.0, "answer_bytes": 1 << 20}
        return real("tests.helpers.child_that_misbehaves", [module], **limits)

    monkeypatch.setattr(tokenizer, "run_limited", child)
    refused(folder, f"the tokenizer cannot be loaded.*{words}")
    found = examine(folder)
    assert (found.findings[-1].name, found.findings[-1].status) == ("tokenizer", "FAIL")


def test_the_trial_ends_within_its_time(folder, monkeypatch):
    """A text that takes a regular expression for ever: onig gives up, or the limit does."""
    split = {
        "type": "Split",
        "pattern": {"Regex": "(a|a|aa|[a-z ])+$^"},
        "behavior": "Isolated",
        "invert": False,
    }
    edited(
        lambda s: s.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [split, s["pre_tokenizer"]]})
    )(folder)
    monkeypatch.setattr(tokenizer, "SECONDS", 5.0)
    began = time.monotonic()
    try:
        load_tokenizer(folder)
    except CheckpointError as error:
        assert "tokenizer" in str(error)
    assert time.monotonic() - began < 60


def test_infer_refuses_a_tokenizer_that_loses_text(folder):
    """As AutoTokenizer of some releases makes it from the official folder."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    edited(llama)(folder)
    theirs = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(str(folder / "tokenizer.json")))
    model = Reader.load("nano", "cpu", "fp32").model
    with pytest.raises(ValueError, match=r"does not give text back.*load_tokenizer"):
        model.infer(theirs, prompt="<image>\nFree OCR.", image_file=NANO / "pages" / "1_letter.png")


# ---------------------------------------------------------------------------- the end token and the text
def test_the_end_token_is_never_in_the_text(folder):
    """eos_token_id as a list of one is that one; the text, the stream and a batch are without it."""
    set_keys("config.json", eos_token_id=[1])(folder)
    set_keys("generation_config.json", eos_token_id=[1], max_new_tokens=40)(folder)
    reader = Reader.load(str(folder), "cpu", "fp32")
    reader.model.lm_head.weight.zero_()
    reader.model.lm_head.weight[1] = 1e-3  # now and then the end token has the largest logit
    page, pieces = NANO / "pages" / "1_letter.png", []
    reading = reader.read(page, on_text=pieces.append)
    batch = reader.read_batch([page, page])
    for text in (reading.text, "".join(pieces), *(each.text for each in batch)):
        assert "end▁of" not in text
    said = []
    stream = TextStream(reader.tokenizer, {1}, said.append)
    for token in (*reader.tokenizer.encode("ab"), 1):
        stream([token])
    assert "".join(said) == "ab"
