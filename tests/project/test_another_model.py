"""docs/another_model.md adds a fourth model: its code runs, and every instrument takes the result."""

from __future__ import annotations

import re

import pytest
import torch

from deskocr_kit.operator_census.ocr_model import census_ocr
from deskocr_kit.operators.plan import network
from deskocr_kit.operators.prove.probes import Sizes, probes
from deskocr_kit.quantise.apply import quantise
from model import DeepseekOCRForCausalLM, official, parts, vision
from tests.helpers.family import batch
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs/another_model.md").read_text(encoding="utf-8")
TABLES = (official.CHECKPOINTS, parts.ENCODERS, vision.TOWERS)


@pytest.fixture(scope="module")
def fourth():
    """The names that the code of the page defines. The registries are as before afterwards."""
    before = [dict(table) for table in TABLES]
    names: dict = {"__name__": "another_model"}
    try:
        code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
        exec(compile(code, "docs/another_model.md", "exec", dont_inherit=True), names)
        yield names
    finally:
        for table, entries in zip(TABLES, before, strict=True):
            table.clear()
            table.update(entries)


def test_it_saves_loads_and_generates(fourth, tmp_path):
    model, page = fourth["model"], fourth["page"]
    model.save_pretrained(tmp_path)
    again = DeepseekOCRForCausalLM.from_pretrained(tmp_path)
    assert again.config.checkpoint is fourth["fourth"]
    how = {"max_new_tokens": 6, "eos_token_id": None, "no_repeat_ngram_size": 2}
    assert model.generate(**page, **how).equal(again.generate(**page, **how))
    padded = batch(model.config, [[(1, 1)], []])
    assert model(**padded).logits.isfinite().all()


def test_every_instrument_takes_it(fourth):
    model = fourth["model"]
    assert "swiglu 48x64" in network(model.config)
    assert any("swiglu_model" in e.call.module for e in census_ocr(model.config).select("vision"))
    assert {"conv2d", "moe", "swiglu"} <= {probe.slot for probe in probes(Sizes.of(model.config))}
    copy = DeepseekOCRForCausalLM.random(model.config, dtype=torch.float32)
    assert any("swiglu_model.mlp" in error.name for error in quantise(copy))


def test_the_files_that_the_page_names_exist():
    named = set(re.findall(r"`((?:model|deskocr_kit|tests)/[\w/]+\.py)`", PAGE))
    assert len(named) >= 8 and all((ROOT / name).is_file() for name in named)
    listed = re.findall(r"^\d\. (?:`(.+?)`|a new file)", PAGE, re.MULTILINE)
    assert len(listed) == 4 and "Four, if its encoder is new" in PAGE
