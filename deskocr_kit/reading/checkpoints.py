"""Find the folder of a checkpoint. This file does not import torch, because doctor uses it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from model.official import CHECKPOINTS

VARIABLE = "DESKOCR_MODEL"


def model_folder() -> Path:
    """The installed `model` package, found without importing it."""
    spec = importlib.util.find_spec("model")
    assert spec is not None and spec.submodule_search_locations  # it is installed with this package
    return Path(next(iter(spec.submodule_search_locations)))


def named() -> dict[str, Path]:
    """The checkpoints that have a name: the embedded one, and a folder for each official one."""
    return {name: model_folder() / name for name in ("nano", *CHECKPOINTS)}


def official_size(name: str, word: str = "official") -> str | None:
    """The model of the family whose official size is meant, without weights; None for any other name.

    "official" is DeepSeek-OCR, "official:unlimited-ocr" another. word: what stands for "official".

    Raises ValueError for an unknown model.
    """
    first, _, model = name.partition(":")
    if first != word:
        return None
    if model and model not in CHECKPOINTS:
        raise ValueError(f"no model named {model!r}; choose one of {', '.join(CHECKPOINTS)}")
    return model or next(iter(CHECKPOINTS))


def find_checkpoint(name: str | Path | None = None) -> Path:
    """The folder for a name, a path, or None.

    Order for None: the variable DESKOCR_MODEL, then model/deepseek-ocr if it has a config.json, then nano.
    """
    name = name or os.environ.get(VARIABLE)
    if name:
        return named().get(str(name), Path(name))
    official = named()["deepseek-ocr"]
    return official if (official / "config.json").exists() else named()["nano"]
