"""The reported figures, computed from the measurements of single pages, without torch.

TTFT = request to first token; TPOT = (end to end - TTFT) / (n - 1), n new tokens; ITL = the times between
tokens, as they reach the caller. A request is a page in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from ..evaluation.evaluate import interval

PHASES = ("preprocess", "vision", "prefill", "decode", "post")
# As in the published table of the original project (docs/background.md), which has no row for "between".
CATEGORIES = {
    "short": "fewer than 50 characters",
    "medium": "50 to 499 characters",
    "between": "500 to 1000 characters",
    "long": "more than 1000 characters",
}


def category(characters: int) -> str:
    if characters < 50:
        return "short"
    if characters < 500:
        return "medium"
    return "between" if characters <= 1000 else "long"


def tpot(e2e: float, ttft: float, tokens: int) -> float | None:
    """Seconds per token after the first; None for a single token."""
    return (e2e - ttft) / (tokens - 1) if tokens > 1 else None


def gaps(arrivals: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(arrivals)]


def spread(values: Iterable[float | None]) -> dict | None:
    """n, mean, p50 and p99 (linear interpolation) of the values that are not None; None without any."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    p50, p99 = np.percentile(known, (50, 99))
    return {"n": len(known), "mean": float(np.mean(known)), "p50": float(p50), "p99": float(p99)}


def success_share(hits: int, total: int) -> dict | None:
    """{"count", "of", "rate", "interval_95"}, with the Wilson interval: 4 of 4 does not prove 100 %.

    None if `total` is 0.
    """
    if not total:
        return None
    z, p = 1.959964, hits / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return {"count": hits, "of": total, "rate": p, "interval_95": [low, high]}


def success(page: dict, bound: float) -> bool | None:
    """Whether text was returned, complete, without a loop, with a CER of at most `bound`.

    None if this depends on the CER and the expected text is not known.
    """
    if not page["characters_read"] or page["truncated"] or page["loop"]:
        return False
    return None if page["cer"] is None else page["cer"] <= bound


def accuracy(pages: list[dict]) -> dict:
    """CER (sum of edits / sum of lengths), NED (mean of edits / longer text); 95 % intervals by bootstrap."""
    known = [page for page in pages if page["cer"] is not None]
    if not known:
        return {"pages_with_truth": 0, "cer": None, "ned": None}
    edits = np.array([page["edits"] for page in known])
    length = np.array([page["characters"] for page in known])
    ned = np.array([page["ned"] for page in known])
    ones = np.ones(len(known), dtype=int)
    cer = float(edits.sum() / max(1, length.sum()))
    return {
        "pages_with_truth": len(known),
        "cer": {"value": cer, "interval_95": list(interval(edits, length))},
        "ned": {"value": float(ned.mean()), "interval_95": list(interval(ned, ones))},
    }


def times(pages: list[dict]) -> dict:
    """Phases, TTFT, TPOT, ITL, seconds per page and rates over every run of every page."""
    runs = [(page, run) for page in pages for run in page["runs"]]
    decoded = sum(page["new_tokens"] - 1 for page, _ in runs)
    spent = sum(run["e2e"] for _, run in runs)
    decoding = sum(run["e2e"] - run["ttft"] for _, run in runs)
    used = sum(run["cpu"] for _, run in runs)
    return {
        "runs": len(runs),
        "phases": {name: spread(run[name] for _, run in runs) for name in PHASES},
        "ttft": spread(run["ttft"] for _, run in runs),
        "tpot": spread(tpot(run["e2e"], run["ttft"], page["new_tokens"]) for page, run in runs),
        "itl": spread(gap for _, run in runs for gap in run["gaps"]),
        "seconds_per_page": spread(run["seconds"] for _, run in runs),
        "characters_per_second": sum(page["characters_read"] for page, _ in runs)
        / max(1e-12, sum(run["seconds"] for _, run in runs)),
        "tokens_per_second": decoded / decoding if decoded and decoding > 0 else None,
        "cpu_share": used / spent if spent else None,
    }


def rows(pages: list[dict], bound: float, timed: bool) -> dict:
    judged = [page["success"] for page in pages if page["success"] is not None]
    return {
        "pages": len(pages),
        "characters": spread(page["characters"] for page in pages),
        "vision_tokens": spread(page["vision_tokens"] for page in pages),
        "new_tokens": spread(page["new_tokens"] for page in pages),
        **accuracy(pages),
        "loops": success_share(sum(page["loop"] for page in pages), len(pages)),
        "truncated": success_share(sum(page["truncated"] for page in pages), len(pages)),
        "success": success_share(sum(judged), len(judged)),
        **(times(pages) if timed and any(page["runs"] for page in pages) else {}),
    }


def summarise(pages: list[dict], bound: float, timed: bool) -> dict:
    """{"all": …, and each category that has pages: …}."""
    found = {"all": rows(pages, bound, timed)} if pages else {}
    for name in CATEGORIES:
        group = [page for page in pages if page["category"] == name]
        if group:
            found[name] = rows(group, bound, timed)
    return found
