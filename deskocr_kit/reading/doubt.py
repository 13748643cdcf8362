"""Reasons not to trust a reading, one line each, with a remedy.

A checkpoint may have a file `confidence.json` beside its weights. It describes the pages that the checkpoint
reads, and the confidence below which a text is probably wrong:

    threshold   written by `python -m deskocr_kit.evaluation --confidence`, with the measurement behind it.
                Without it there is no warning about the confidence of a page.
    prompt      the prompt that the threshold was measured with. It does not apply to other prompts.
    domain      the pages that the checkpoint was made for: modes (names), reduction (how many times smaller
                the page may become in its mode), enlargement (how many times larger), paper (darkest grey
                level of white paper, of 255), angle (degrees). Without it, only a blank page is reported.

The official weights have no such file: they have no threshold until the same command has measured one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from model.modes import Mode, get_mode
from model.side_files import CONFIDENCE, confidence_limits

from .page_look import look
from .repetition import looped

if TYPE_CHECKING:
    from PIL import Image

    from model.inference import Reading

FILE = CONFIDENCE


def limits_of(folder: str | Path) -> dict:
    """The content of confidence.json; {} if the checkpoint has none. Raises CheckpointError."""
    return confidence_limits(folder)


def doubts(
    image: Image.Image,
    reading: Reading,
    limits: dict,
    mode: str | Mode,
    prompt: str,
    name: str = "the checkpoint",
) -> list[str]:
    """The warnings for one page; [] if there is no reason to doubt its text.

    Args:
        image: the RGB page.
        limits: the content of confidence.json, see `limits_of`.
        mode: the mode of the reading.
        prompt: the prompt of the reading, a name in PROMPTS or free text.
        name: the name of the checkpoint, for the messages.
    """
    mode = get_mode(mode)
    warnings = list(_page_doubts(image, limits.get("domain") or {}, mode, name))
    if repeated := looped(reading.ids):
        warnings.append(
            f"the text loops: {repeated} of {len(reading.ids)} tokens repeat others; try another mode, "
            "another prompt, or a part of the page"
        )
    threshold, value = limits.get("threshold"), reading.confidence
    if threshold is not None and value is not None and limits.get("prompt") == prompt and value < threshold:
        warnings.append(
            f"confidence {value:.2f} is below {threshold:.2f}: compare the text with the page, or use a "
            "sharper, straighter or larger picture of it"
        )
    return warnings


def one_line(file: str, page: int, warnings: Iterable[str]) -> str:
    """The warnings of a page as one line for a terminal; "" if there are none."""
    text = "; ".join(warnings)
    return f"warning: {file} page {page}: {text}" if text else ""


def _page_doubts(image: Image.Image, domain: dict, mode: Mode, name: str) -> Iterable[str]:
    seen = look(image)
    if seen.blank:
        yield "the page is blank: check the file"
        return
    if (modes := domain.get("modes")) and mode.name not in modes:
        yield f"{name} does not support mode {mode.name}: use --mode {modes[0]}"
    if "reduction" in domain:
        yield from _size_doubts(max(image.size), domain, mode)
    if seen.paper < domain.get("paper", 0):
        yield f"the page is dark (its paper is at {seen.paper} of 255): brighten it"
    if abs(seen.angle) > domain.get("angle", 90):
        yield f"its lines are rotated by about {abs(seen.angle)} degrees: straighten the page"


def _size_doubts(side: int, domain: dict, mode: Mode) -> Iterable[str]:
    seen = mode.base_size if mode.crop_mode else mode.image_size
    if side > domain["reduction"] * seen:
        limit = int(domain["reduction"] * seen)
        yield (
            f"the page is {side} pixels long and is reduced {side / seen:.1f} times: small print is lost; "
            f"cut it into parts of at most {limit} pixels"
        )
    if side * domain["enlargement"] < seen:
        yield f"the page is only {side} pixels long: use a larger picture"
