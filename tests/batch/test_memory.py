"""The memory of the main process does not grow with the number of pages."""

from __future__ import annotations

import re

import pytest

from tests.helpers.killing import start
from tests.helpers.stub_reader import GOOD, save


@pytest.mark.slow  # 2,200 pages are written
@pytest.mark.parametrize("devices", [0, 1])
def test_the_peak_for_2000_small_pages_is_within_a_tenth_of_that_for_200(tmp_path, devices):
    peaks = {}
    for count in (200, 2000):
        files = save(tmp_path / f"in{count}", [GOOD] * count)
        process = start([tmp_path / f"in{count}"], tmp_path / f"out{count}", devices, 8)
        output, errors = process.communicate(timeout=1200)
        assert process.returncode == 0 and len(files) == count, errors
        peaks[count], seconds = re.search(r"peak (\d+) kB, ([\d.]+) s", output).groups()
        print(f"{devices} workers, {count} pages: peak {int(peaks[count]) / 1024:.0f} MiB, {seconds} s")
    assert int(peaks[2000]) <= 1.1 * int(peaks[200]), peaks
