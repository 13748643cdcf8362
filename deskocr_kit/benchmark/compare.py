"""Comparison of two benchmarks: ratios and verdicts where they measured the same thing, else the reason."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.untrusted import UntrustedFile, read_json_object, shown

from .spec import FORMAT
from .summary import tpot

DATA = Path(__file__).with_name("original_figures.json")
BYTES = 64 << 20  # of a bench.json; a page with its text and 8,192 times has 0.2 MB
SMALLEST = 0.03  # a change of less than 3 % counts as noise, whatever the interval is
BETTER, WORSE, NOISE = "better", "worse", "noise"
TIMES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "end to end"}


def load_benchmark(path: str | Path) -> dict:
    """Read a bench.json. Raises ValueError with the file name for any other content.

    The content is data from elsewhere: what a comparison uses is checked here, so that it cannot fail later.
    """
    name = shown(path)
    try:
        found = read_json_object(path, limit=BYTES)
        if found.get("format") != FORMAT or "pages" not in found:
            raise UntrustedFile(f"{name}: not written by `deskocr bench` (format {FORMAT})")
        if "stamp" in found:
            check_numbers(found)
            compare_benchmarks(found, found)
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror or error}") from error
    except UntrustedFile:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
        why = f"{type(error).__name__}: {shown(str(error), 80)}"
        raise ValueError(f"{name}: damaged, or not written by `deskocr bench` ({why})") from error
    return found


def check_numbers(result: dict) -> None:
    """Raise ValueError or TypeError if a time or a count is no number."""
    times = [value for name in TIMES for value in runs(result, name)]
    phases = result["counts"]["phases"] if "counts" in result else {}
    counted = [value for phase in phases.values() for value in phase.values()]
    for value in (*times, *counted):
        if isinstance(value, bool) or not math.isfinite(value) or value < 0:
            raise ValueError(f"{value!r} is neither a time nor a count")


def timing_verdict(old: Sequence[float], new: Sequence[float], rounds: int = 2000) -> dict:
    """Ratio of new to old times with its 95 % bootstrap interval and a verdict; less is better.

    Returns {"ratio", "interval_95", "verdict"}. With equal numbers of times the ratio is the median of the
    ratios run by run (the same page), else the ratio of the medians. The verdict is noise if the interval
    contains 1 or if the change is below SMALLEST. Without a ratio, as with times of 0, the values are None.
    """
    unknown = {"ratio": None, "interval_95": None, "verdict": NOISE}
    if not len(old) or not len(new):
        return unknown
    rng, before, after = np.random.default_rng(0), np.asarray(old), np.asarray(new)

    def medians(x):
        return np.median(x[rng.integers(0, len(x), (rounds, len(x)))], axis=1)

    paired = len(old) == len(new)
    with np.errstate(all="ignore"):
        drawn = medians(after / before) if paired else medians(after) / medians(before)
        ratio = float(np.median(after / before) if paired else np.median(after) / np.median(before))
    if not (math.isfinite(ratio) and np.isfinite(drawn).all()):
        return unknown
    low, high = (float(x) for x in np.quantile(drawn, (0.025, 0.975)))
    word = NOISE
    if abs(ratio - 1) >= SMALLEST and not low <= 1 <= high:
        word = BETTER if ratio < 1 else WORSE
    return {"ratio": ratio, "interval_95": [low, high], "verdict": word}


def identity(result: dict) -> dict:
    """The properties that must be equal, else a ratio of times has no meaning."""
    stamp = result["stamp"]
    return {
        "simulated device": result["simulated"],
        "device": stamp["device"]["name"],
        "processor": stamp["machine"]["processor"],
        "checkpoint": stamp["checkpoint"]["sha256"] or stamp["checkpoint"]["name"],  # an engine tells no sum
        "pages": [(page["name"], page["characters"]) for page in result["pages"]],
        "mode": result["method"]["mode"],
    }


def conditions(result: dict) -> dict:
    """The properties that may differ; such a difference is then the subject of the comparison.

    With another prompt or limit of tokens the answers have other lengths, so times per page differ, too.
    """
    stamp, method = result["stamp"], result["method"]
    return {
        **{name: method.get(name) for name in ("prompt", "target", "max_tokens")},
        "commit": stamp["kit"]["commit"],
        "dtype": stamp["checkpoint"]["dtype"],
        "weights": stamp["checkpoint"].get("weights", "plain"),  # absent before --weights existed
        "graph": method.get("graph", False),  # absent before --graph existed
        "threads": stamp["threads"],
        **stamp["packages"],
        **{f"slot {name}": function for name, function in stamp["slots"].items()},
    }


def different(old: dict, new: dict) -> list[str]:
    """The sorted names whose values differ."""
    return [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]


def runs(result: dict, name: str) -> list[float]:
    """Every TTFT, TPOT or end-to-end time, in seconds."""
    if name != "tpot":
        return [run[name] for page in result["pages"] for run in page["runs"]]
    found = [
        tpot(run["e2e"], run["ttft"], page["new_tokens"]) for page in result["pages"] for run in page["runs"]
    ]
    return [value for value in found if value is not None]


def compare_benchmarks(old: dict, new: dict) -> dict:
    """Compare the times and the counts of two results of `bench`.

    Returns {"why_not", "differs", "times": {name: verdict}, "counts": {phase: {…: [old, new, word]}}}. Times
    of different devices, checkpoints, pages or modes have no ratio. Counts do not depend on the machine: they
    are compared if checkpoint, mode and simulated device are the same.

    Raises:
        ValueError: one of the runs stopped before the checkpoint was loaded.
    """
    if not ("stamp" in old and "stamp" in new):
        raise ValueError("a benchmark that stopped before the checkpoint was loaded cannot be compared")
    apart = different(identity(old), identity(new))
    why = [f"{name} differs" for name in apart]
    why += ["a simulated device has no times"] if new["simulated"] else []
    found: dict = {
        "why_not": why,
        "differs": different(conditions(old), conditions(new)),
        "times": {},
        "counts": {},
    }
    if not why:
        found["times"] = {name: timing_verdict(runs(old, name), runs(new, name)) for name in TIMES}
    same_kind = not {"checkpoint", "simulated device", "mode"} & set(apart)
    if same_kind and "counts" in old and "counts" in new:
        for phase, after in new["counts"]["phases"].items():
            before = old["counts"]["phases"].get(phase, {})
            found["counts"][phase] = {
                key: [before[key], value, counted_word(before[key], value)]
                for key, value in after.items()
                if key in before
            }
    return found


def counted_word(old: float, new: float) -> str:
    return "same" if old == new else BETTER if new < old else WORSE


def original() -> dict:
    """The published figures of the original project with their source, unverified; see docs/background.md."""
    return json.loads(DATA.read_text(encoding="utf-8"))
