"""Measure the bounds of docs/security.md: `python -m tests.helpers.bounds` prints its table.

Each group runs in a child process whose address space is limited, so that a bound that is broken fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.paths import ROOT

MEMORY = 256 << 20  # bytes beyond the page
SIZES = {"A4 at 150 dpi": (1240, 1754), "A4 at 600 dpi": (4961, 7016)}


def results_of(names: list[str], size: tuple[int, int], scored: bool = False) -> list[dict]:
    """For each text: {"name", "characters", "seconds" (CPU), "disk" (bytes), "cut"}.

    Raises RuntimeError if one of them raises, for example MemoryError.
    """
    words = [sys.executable, "-m", __name__, "results", str(size[0]), str(size[1]), str(int(scored)), *names]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout[-500:] + done.stderr[-3000:])
    return [json.loads(line) for line in done.stdout.splitlines()]


def _results(width: int, height: int, scored: bool, names: list[str]) -> None:
    import resource

    import numpy as np
    from PIL import Image

    from model.confidence import Scores
    from model.results import clean_text, write_results
    from tests.helpers.hostile_text import TEXTS

    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)  # hard to compress
    page = Image.fromarray(noise)
    del noise
    with tempfile.TemporaryDirectory() as warm_up:
        write_results(warm_up, page.crop((0, 0, 99, 99)), "<table><tr><td>x</table>")
    if sys.platform == "linux":
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    for name in names or TEXTS:
        text = clean_text(TEXTS[name])
        spans = [
            (i, min(i + 3, len(text))) for i in range(0, len(text), 3)
        ]  # the official tokens are as short
        scores = Scores(text, [-0.5] * len(spans), spans) if scored else None
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            result = write_results(folder, page, text, scores=scores)
            seconds = time.process_time() - start
            disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        found = {
            "name": name,
            "characters": len(text),
            "seconds": seconds,
            "disk": disk,
            "cut": result["cut"],
        }
        print(json.dumps(found), flush=True)


def main() -> None:
    print("| page | slowest text, per 100,000 characters | most on disk |\n|---|---|---|")
    for what, size in SIZES.items():
        for scored in (False, True):
            found = results_of([], size, scored)
            slow = max(found, key=lambda each: each["seconds"] / each["characters"])
            large = max(found, key=lambda each: each["disk"])
            rate = slow["seconds"] / slow["characters"] * 1e5
            with_scores = ", with confidences" if scored else ""
            print(
                f"| {what}{with_scores} | {rate:.2f} s ({slow['name']}) | {large['disk'] / 1e6:.1f} MB "
                f"({large['name']}) |"
            )
    print(f"\nAll of them within {MEMORY >> 20} MiB beyond the page: the child's address space is limited.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["results"]:
        _results(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1", sys.argv[5:])
    else:
        main()
