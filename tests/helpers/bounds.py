"""Measure the bounds of docs/security.md: `python -m tests.helpers.bounds` prints its tables in minutes.

Model text: all texts of a group run in one child process whose address space is limited, so that a bound that
is broken fails. Pages: each file is read in a process of its own, which starts the child that decodes it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers import hostile_files
from tests.helpers.paths import ROOT

MEMORY = 256 << 20  # bytes beyond the page
SIZES = {"A4 at 150 dpi": (1240, 1754), "A4 at 600 dpi": (4961, 7016)}


def results_of(names: list[str], size: tuple[int, int], scored: bool = False) -> list[dict]:
    """For each text: {"name", "characters", "seconds" (CPU), "disk" (bytes), "cut"}.

    Raises RuntimeError if one of them raises, for example MemoryError.
    """
    words = [
        sys.executable,
        "-m",
        "tests.helpers.bounds",
        "results",
        str(size[0]),
        str(size[1]),
        str(int(scored)),
        *names,
    ]
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


def page_of(name: str) -> dict:
    """{"seconds", "bytes" of the file, "child" and "reader" (peak MB), "first": what became of page 1}."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.bounds", "page", name],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def wall() -> bytes:
    """A PNG of 13,300 x 13,300 pixels, just below Pillow's limit."""
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (13_300, 13_300), "white").save(file, "PNG", compress_level=1)
    return file.getvalue()


PAGES = {
    "forms in forms": lambda: hostile_files.nested_forms(),
    "1,000,000 curves": lambda: hostile_files.many_operators(1_000_000),
    "13,300 x 13,300 pixels": wall,
    "JPEG of 3,000 empty scans": lambda: hostile_files.empty_scans(9000, 9000, 3000),
    "animation of 2,500 frames": lambda: hostile_files.animation(2500),
}


def _page(name: str) -> None:
    import resource

    from deskocr_kit.reading import page_source
    from deskocr_kit.reading.pages import iter_pages

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page"
        # Made in another process: what this one needed for it would count.
        make = "import sys; from tests.helpers.bounds import PAGES; "
        make += "sys.stdout.buffer.write(PAGES[sys.argv[1]]())"
        with path.open("wb") as file:
            subprocess.run([sys.executable, "-c", make, name], stdout=file, cwd=ROOT, check=True)
        made = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        start = time.monotonic()
        pages = [
            str(p.error or p.image.size).replace(folder, "…") for p in iter_pages(path, collect_errors=True)
        ]
        seconds = time.monotonic() - start
        page_source.close()
        child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        found = {
            "seconds": seconds, "bytes": path.stat().st_size, "child": child / 1024 if child > made else None,
            "reader": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "first": pages[0],
            "last": pages[-1],
        }  # fmt: skip
    print(json.dumps(found))


def main() -> None:
    print(
        "| page | size | seconds, all pages | decoder MB | reader MB | page 1 | last page |\n"
        + "|---" * 7
        + "|"
    )
    for name in PAGES:
        found = page_of(name)
        child = "less than to make it" if found["child"] is None else f"{found['child']:,.0f}"
        print(
            f"| {name} | {found['bytes']:,} | {found['seconds']:.1f} | {child} | {found['reader']:,.0f} "
            f"| {found['first']} | {found['last']} |", flush=True,
        )  # fmt: skip
    print("\n| page | slowest text, per 100,000 characters | most on disk |\n|---|---|---|")
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
    if sys.argv[1:2] == ["page"]:
        _page(sys.argv[2])
    elif sys.argv[1:2] == ["results"]:
        _results(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1", sys.argv[5:])
    else:
        main()
