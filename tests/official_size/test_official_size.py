"""The official size as a test: `make test-full`, or `pytest -m slow tests/official_size`."""

from __future__ import annotations

import pytest
import torch

from model import DeepseekOCRForCausalLM
from tests.helpers.family import tiny
from tests.official_size import measure as full_size
from tests.official_size import race


@pytest.mark.slow
def test_official_size_saves_loads_sees_and_decodes():
    full_size.verify(full_size.run())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deepseek-ocr-2", "unlimited-ocr"])
def test_the_other_models_at_their_official_size(name):
    full_size.verify(full_size.run(name), name)


@pytest.mark.parametrize(
    "name",
    # The second takes the same code with other weights.
    ["deepseek-ocr-2", pytest.param("unlimited-ocr", marks=pytest.mark.slow)],
)
def test_the_race_at_a_tiny_size(name, tmp_path, monkeypatch):
    """The script of `make race` runs for each model; its figures at this size have no meaning."""
    pytest.importorskip(
        "transformers.models.deepseek_ocr2", reason="this transformers has no peer (5.23 has)"
    )
    DeepseekOCRForCausalLM.random(tiny(name), dtype=torch.bfloat16).save_pretrained(tmp_path)
    monkeypatch.setattr(race, "ROUNDS", 1)
    monkeypatch.setattr(race, "PAGE", (800, 700))
    figures = race.race(tmp_path, name)
    assert figures["decode gain"] > 0 and figures["vision gain"] > 0
