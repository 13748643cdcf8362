"""Does a checkpoint know when it is wrong? Clean and damaged pages -> AUROC of its confidence, threshold.

    python -m deskocr_kit.evaluation --confidence --model nano

Pages are drawn equally from `domain` and the four kinds of damage. A page is *wrong* if its CER exceeds
WRONG. The score is `Reading.confidence`, the geometric mean of the tokens' probabilities, and nothing else.

AUROC: the probability that a wrong page has a lower confidence than a page that is not wrong, both drawn at
random; ties count one half. The threshold comes from pages of another seed, by the rule RULE.

The record is written to confidence.json beside the weights; reading/doubt.py warns by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from model.files import write_json

from ..device.dtypes import dtype_name
from ..reading.doubt import FILE, limits_of
from ..reading.fingerprint import weights_digest
from ..reading.reader import Reader
from ..reading.text_distance import cer
from .evaluate import DAMAGED, pages

MIXED = ("domain", *DAMAGED)
WRONG = 0.1  # CER
PROMPT = "free"
CALIBRATION_SEED = 7001  # `--seed`, 2026 by default, is that of the pages that are evaluated
RULE = (
    "the threshold with the largest share of wrong pages below it minus share of other pages below it "
    "(Youden's index); the lowest of equals"
)
Row = tuple[str, float, float]  # make, CER, confidence
Confidences = Sequence[float] | np.ndarray
Flags = Sequence[bool] | np.ndarray


def read_mixed(reader: Reader, count: int, seed: int, progress: Callable = lambda pages: pages) -> list[Row]:
    """(make, CER, confidence) of `count` pages, equally many of each make in MIXED."""
    rows: list[Row] = []
    for make in progress(MIXED):
        for image, truth in pages(make, count // len(MIXED), seed):
            reading = reader.read(image, PROMPT)
            # Without a token to judge by, doubt.py does not warn: the page counts as sure.
            sure = 1.0 if reading.confidence is None else reading.confidence
            rows.append((make, cer(reading.text, truth), sure))
    return rows


def auroc(confidence: Confidences, wrong: Flags) -> float | None:
    """The area under the ROC curve of low confidence as a sign of a wrong page; None if all are alike."""
    score, is_wrong = np.asarray(confidence, dtype=np.float64), np.asarray(wrong, dtype=bool)
    bad, good = np.sort(score[is_wrong]), score[~is_wrong]
    if not len(bad) or not len(good):
        return None
    below = np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")
    return float(below.sum() / (2 * len(bad) * len(good)))


def interval(confidence: Confidences, wrong: Flags, rounds: int = 2000) -> tuple[float, float] | None:
    """95 % bootstrap interval of the AUROC over pages. Rounds with pages of one kind only are left out."""
    score, is_wrong = np.asarray(confidence), np.asarray(wrong, dtype=bool)
    rng = np.random.default_rng(0)
    drawn = (rng.integers(0, len(score), len(score)) for _ in range(rounds))
    areas = [area for at in drawn if (area := auroc(score[at], is_wrong[at])) is not None]
    if not areas:
        return None
    low, high = np.quantile(areas, (0.025, 0.975))
    return float(low), float(high)


def best_threshold(confidence: Confidences, wrong: Flags) -> float | None:
    """The threshold by RULE, half-way between two confidences; None if all pages are alike."""
    score, is_wrong = np.asarray(confidence, dtype=np.float64), np.asarray(wrong, dtype=bool)
    if is_wrong.all() or not is_wrong.any():
        return None
    known = np.unique(score)
    between = (known[1:] + known[:-1]) / 2
    bad, good = score[is_wrong], score[~is_wrong]
    # Both shares times the numbers of pages, as integers: equals are equal.
    youden = [int((bad < at).sum()) * len(good) - int((good < at).sum()) * len(bad) for at in between]
    return float(between[int(np.argmax(youden))]) if len(between) else None


def evaluate_confidence(
    reader: Reader, count: int, seed: int, progress: Callable = lambda pages: pages
) -> dict:
    """AUROC and threshold of a checkpoint as one plain record; count / 2 further pages give the threshold."""
    start = time.perf_counter()
    calibration = read_mixed(reader, count // 2, CALIBRATION_SEED, progress)
    threshold = best_threshold([row[2] for row in calibration], [row[1] > WRONG for row in calibration])
    if threshold is not None:
        threshold = round(threshold, 4)
    rows = read_mixed(reader, count, seed, progress)
    score, wrong = np.array([row[2] for row in rows]), np.array([row[1] > WRONG for row in rows])
    area, edges = auroc(score, wrong), interval(score, wrong)
    warned = score < (0 if threshold is None else threshold)
    return {
        "threshold": threshold,
        "prompt": PROMPT,
        "score": "geometric mean of the probabilities of the tokens, see model/confidence.py",
        "rule": RULE,
        "wrong": f"CER > {WRONG}",
        "calibration": {
            "seed": CALIBRATION_SEED,
            "pages": len(calibration),
            "wrong": sum(row[1] > WRONG for row in calibration),
        },
        "evaluation": {
            "seed": seed,
            "pages": len(rows),
            "wrong": int(wrong.sum()),
            "auroc": None if area is None else round(area, 4),
            "interval_95": None if edges is None else [round(edge, 4) for edge in edges],
            "wrong_pages_warned": int((warned & wrong).sum()),
            "other_pages_warned": int((warned & ~wrong).sum()),
            "makes": {make: _by_make(rows, make, warned) for make in MIXED},
        },
        "weights": weights_digest(reader.folder),
        "mode": reader.settings["mode"],
        "device": str(reader.model.device),
        "dtype": dtype_name(reader.model.dtype),
        "seconds_per_page": round((time.perf_counter() - start) / (len(rows) + len(calibration)), 3),
    }


def store(reader: Reader, record: dict) -> None:
    """Write the record to confidence.json of the checkpoint. Entries of other origin ("domain") are kept."""
    merged = limits_of(reader.folder) | record
    write_json(reader.folder / FILE, merged)


def _by_make(rows: list[Row], make: str, warned: np.ndarray) -> dict:
    own = [(row, bool(at)) for row, at in zip(rows, warned, strict=True) if row[0] == make]
    return {
        "pages": len(own),
        "wrong": sum(row[1] > WRONG for row, _ in own),
        "warned": sum(at for _, at in own),
        "median_confidence": round(float(np.median([row[2] for row, _ in own])), 4),
    }
