"""The official size as a test: `make test-full`, or `pytest -m slow tests/official_size`."""

from __future__ import annotations

import pytest

from tests.official_size import measure as full_size


@pytest.mark.slow
def test_official_size_saves_loads_sees_and_decodes():
    full_size.verify(full_size.run())
