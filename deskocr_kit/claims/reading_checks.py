"""The checks of the claims ledger that read pages.

They decide with the official weights on an NPU. Elsewhere their outcome states what is missing.
"""

from __future__ import annotations

import functools
import json
import re
import time
from pathlib import Path

from model.fast import references
from model.processing import load_image

from ..compare import headroom
from ..device import Timer, describe_device
from ..operator_census.ocr_model import census_ocr
from ..operators.substitutes.registry import candidates
from ..reading.reader import Reader
from ..reading.sample_pages import sample_pages
from ..reading.text_distance import cer
from .claim import FAILS, HOLDS, NEEDS, Outcome
from .setting import Setting

VERSIONS = Path(__file__).resolve().parents[1] / "ascend" / "data" / "ascend_versions.json"
MISSING = "the official weights and an NPU"
REPEATS = 3


@functools.lru_cache
def one_page():
    """The census of a dry run of one page at the official size, with the references, as in the original."""
    return census_ocr(plan=references())


def fallback_cost(facts: dict, here: Setting) -> Outcome:
    if not here.decides:
        calls = [e for e in one_page().select() if "masked_scatter" in e.call.operator]
        n = sum(e.count for e in calls)
        counted = f"{n} call in the {one_page().launches()} launches of one page and one token"
        return Outcome(NEEDS, f"{counted}; its time needs {MISSING}")

    reader, page = _reader(here), _pages()[0][0]

    def seconds(name: str) -> float:
        reader.model.use_plan({"place_images": candidates("place_images")[name]})
        reader.read(page, "free")  # warm
        took = []
        for _ in range(REPEATS):
            with Timer(here.device) as timer:
                reader.read(page, "free")
            took.append(timer.seconds)
        return min(took)

    ratio = seconds("cpu_fallback") / seconds("cumsum_where")
    word = HOLDS if facts["low"] <= ratio <= facts["high"] else FAILS
    return Outcome(
        word, f"one page with the fallback takes {ratio:.2f} times as long as without it", here.name
    )


def cann_84(facts: dict, here: Setting) -> Outcome:
    releases = json.loads(VERSIONS.read_text())["cann_releases"]
    named = [r for r in releases if r.startswith(facts["release"])]
    later = [r for r in releases if _number(r) >= _number(facts["release"])]
    stated = f"released as {facts['release']}: {', '.join(named) or 'nothing'}; later: {', '.join(later)}"
    if not later:
        return Outcome(FAILS, f"no release {facts['release']} or later among {len(releases)}")
    cann = str(describe_device(here.device)["cann"])
    if not here.decides or _number(cann) < _number(facts["release"]):
        return Outcome(NEEDS, f"{stated}; the factor needs {MISSING} with one of these")
    rate, _ = _rate(here, original=True)
    word = HOLDS if rate >= facts["low"] * facts["figure"] else FAILS
    return Outcome(
        word,
        f"CANN {cann}, expert loop as in the original: {rate:.1f} characters/s, "
        f"{rate / facts['figure']:.1f} times the {facts['figure']} published",
        here.name,
    )


def _number(version: str) -> tuple[int, ...]:
    """ "8.3.RC1" -> (8, 3); () if this is not a version."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, found.groups())) if found else ()


def fp16(facts: dict, here: Setting) -> Outcome:
    reader = Reader.load(here.model or "nano", here.device, "fp32")
    inputs = reader.inputs(load_image(sample_pages()[0][0]))
    found = headroom(reader.model, lambda: reader.model(**inputs, logits_to_keep=1))
    share = max(found.layers.values()) / 65504
    evidence = f"{reader.name}, one page: the largest layer output is {share:.1%} of 65504"
    beyond = [p for p in found.needs_fp32() if p.module]
    evidence += f"; above it: {', '.join(p.operator for p in beyond)}" if beyond else ""
    if not here.official:
        return Outcome(NEEDS, f"{evidence}; only the official weights decide", here.name)
    return Outcome(FAILS if share >= 1 else HOLDS, evidence, here.name)


def load_time(facts: dict, here: Setting) -> Outcome:
    if not here.decides:
        return Outcome(NEEDS, MISSING)
    start = time.perf_counter()
    _reader(here)
    took = time.perf_counter() - start
    return Outcome(HOLDS if took <= facts["figure"] * 1.1 else FAILS, f"{took:.1f} s", here.name)


def speed(facts: dict, here: Setting) -> Outcome:
    if not here.decides:
        return Outcome(NEEDS, MISSING)
    rate, seconds = _rate(here)
    return Outcome(
        HOLDS if rate >= 0.9 * facts["figure"] else FAILS,
        f"{rate:.1f} characters/s, {seconds:.1f} s per page, our decoding loop and pages",
        here.name,
    )


def success(facts: dict, here: Setting) -> Outcome:
    bound = 0.05 ** (1 / facts["trials"])  # Clopper-Pearson, one-sided 95 %, no failure seen
    shown = f"{facts['trials']} of {facts['trials']} proves only a rate above {bound:.0%}"
    if not here.decides:
        return Outcome(NEEDS, f"{shown}; the rate needs {MISSING}")
    reader = _reader(here)
    good = [
        not r.truncated and cer(r.text, truth.strip()) <= 0.1
        for page, truth in _pages()
        for r in [reader.read(page, "free")]
    ]
    return Outcome(
        HOLDS if all(good) else FAILS, f"{sum(good)} of {len(good)} pages read; {shown}", here.name
    )


def _rate(here: Setting, original: bool = False) -> tuple[float, float]:
    """(characters per second, seconds per page) over the sample pages, after one as warm-up.

    original: use the references, as in the original, for every slot.
    """
    reader, pages = _reader(here), _pages()
    if original:
        reader.model.use_plan(references())
    reader.read(pages[0][0], "free")
    readings = [reader.read(page, "free") for page, _ in pages]
    seconds = sum(r.seconds for r in readings)
    return sum(len(r.text) for r in readings) / seconds, seconds / len(pages)


def _reader(here: Setting):
    return Reader.load(here.model or "nano", here.device, "fp16")


def _pages() -> list[tuple]:
    return [(load_image(path), text) for path, text in sample_pages()]
