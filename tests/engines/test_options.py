"""The options of --engine, and the registry of what they select."""

from __future__ import annotations

from deskocr_kit.batch.engines import MAKERS
from deskocr_kit.reading.engines.options import ENGINES


def test_every_engine_has_a_help_text_and_a_maker():
    assert list(ENGINES) == list(MAKERS)
