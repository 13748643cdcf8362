"""The official size as a test: `make test-full`, or `pytest -m slow tests/test_full_size.py`."""

from __future__ import annotations

import pytest

from tests import full_size


@pytest.mark.slow
def test_official_size_saves_loads_sees_and_decodes():
    full_size.verify(full_size.run())
