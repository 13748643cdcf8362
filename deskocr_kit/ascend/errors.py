"""Causes and remedies of Ascend error texts: the table `data/errors.json`, searched by `explain`.

A row of the table matches by any of
  pattern  a regular expression that is specific enough alone;
  codes    CANN codes like "EL0004", or acl return codes (507018) if the text calls them a code;
  weak     a phrase that other software prints too ("You have no permission"): needs an Ascend context.
Three marks:
  wrapper  the message hides another one, so the row is listed after the cause that it wraps;
  last     the message says nothing by itself, so the row is listed only if no other matches;
  fatal    the process has lost its device: every later call in it fails.
A code without a row is explained by its family, see `codes.py`. Blanks in a pattern are optional where lines
were broken. Every repetition in a pattern has an upper limit, so that the search is linear.

This module does not import torch, because it explains a broken torch.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from . import codes
from .log_text import one_line, plain_lines, readings

DATA = Path(__file__).parent / "data"

FOUND = 160  # characters of the matching text in a Match
_CONTEXT = re.compile(
    r"(?i:npu|ascend|\bcann\b|hccl|davinci|\bdcmi|aicpu|aicore|aivec)|\bacl(?:rt|nn)?[A-Z]|\bdrv[A-Z]|\brt[A-Z]\w"
    r"|\b(?:ERR\d{5}|E[A-Z]\d{4})\b|\bE[1-9]\d{4}(?=[:\[)])"
)
_EXCEPTION = re.compile(r"[\w.]{0,80}(?:Error|Exception|Interrupt|Exit|Iteration)(?![\w.])")
#: Families that say no more than that something failed: listed only if nothing else matches.
_INTERNAL = ("code_internal", "acl_internal", "acl_aclnn_internal")


@dataclass(frozen=True)
class Match:
    """A row of the table that matches a text. `score` only orders matches of the same text."""

    id: str
    cause: str
    remedy: str
    source: str
    status: str  # "observed" with the published wheels, or "reported" by the source
    found: str  # the part of the text that matched
    certain: bool  # False if only a code or a common phrase matched
    fatal: bool  # the process has lost its device and must be started again
    score: tuple

    def as_dict(self) -> dict:
        names = ("id", "cause", "remedy", "source", "status", "found", "certain", "fatal")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        lines = [f"[{self.id}] {self.found}"]
        if not self.certain:
            lines.append("  note:   only a code or a common phrase matches; compare with your case")
        lines += [f"  cause:  {self.cause}", f"  remedy: {self.remedy}"]
        if self.fatal:
            lines.append("  fatal:  the process has lost its device; restart it")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Test:
    strict: re.Pattern
    loose: re.Pattern  # blanks are optional, for lines that were broken in the middle of words
    certainty: int  # 3 phrase, 1 common phrase
    needs_context: bool


@lru_cache(maxsize=1)
def rows() -> list[dict]:
    """The rows of `data/errors.json`."""
    return json.loads((DATA / "errors.json").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _tests() -> list[tuple[dict, list[_Test]]]:
    table = []
    for row in rows():
        tests = []
        for name, certainty in (("pattern", 3), ("weak", 1)):
            if source := row.get(name):
                loose = source.replace(r"\s?", " ").replace(" ?", " ").replace(" ", r"\s?")
                patterns = re.compile(source, re.I | re.S), re.compile(loose, re.I | re.S)
                tests.append(_Test(*patterns, certainty, needs_context=name == "weak"))
        table.append((row, tests))
    return table


def _shown(text: str) -> str:
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in one_line(text[: 4 * FOUND]))
    return text if len(text) < FOUND else text[: FOUND - 3] + "..."


def _row_matches(spaced: str, glued: str, context: bool) -> list[tuple[dict, Match]]:
    called = codes.cann_codes(spaced) + codes.acl_codes(spaced, context)
    positions = {code.code: code for code in called}
    out = []
    for row, tests in _tests():
        hits = []  # (certainty, the matching text, its position)
        for test in tests:
            if context or not test.needs_context:
                hit = test.strict.search(spaced) or test.loose.search(glued)
                hits += [(test.certainty, hit.group().strip(), hit.start())] if hit else []
        for code in row.get("codes", ()):
            if code in positions:
                certainty = 1 if str(code).endswith("9999") else 2
                hits.append((certainty, positions[code].found, positions[code].start))
        if hits:
            wrapper = bool(row.get("wrapper"))
            scores = [((wrapper, -sure, -min(len(found), 80), start), found) for sure, found, start in hits]
            score, found = min(scores)
            out.append((row, _match(row, found, score)))
    return out


def _match(row: dict, found: str, score: tuple) -> Match:
    texts = {name: row[name] for name in ("id", "cause", "remedy", "source", "status")}
    certain, fatal = score[1] == -3, bool(row.get("fatal"))
    return Match(**texts, found=_shown(found), certain=certain, fatal=fatal, score=score)


def _family_match(family: codes.Family) -> Match:
    return Match(
        family.id, family.cause, family.remedy, "data/cann_codes.json", "reported",
        _shown(family.found), False, family.fatal, (False, -2, -len(family.found), family.start),
    )  # fmt: skip


def _last_exception(lines: list[str]) -> str:
    """The last line of a Python traceback before torch_npu's ERR99999."""
    end = next((i for i, line in enumerate(lines) if "ERR99999" in line), len(lines))
    return next((line for line in reversed(lines[:end]) if _EXCEPTION.match(line)), "")


def explain(text: str) -> list[Match]:
    """Rows of the table that match an error text, best first; [] if none matches.

    Order: a cause before the message that wraps it, a phrase before a bare code, a longer match before a
    shorter one, an earlier position before a later one (errors after a failure on the device only repeat it).
    Linear in the length of the text, and never raises.
    """
    lines = plain_lines(text)
    spaced, glued = readings(lines)
    context = bool(_CONTEXT.search(spaced))
    direct = _row_matches(spaced, glued, context)
    matches = [match for row, match in direct if not row.get("last")]
    families = codes.families(spaced, context)
    if all(match.score[0] for match in matches):  # wrappers only
        useful = [family for family in families if family.id not in _INTERNAL]
        matches += map(_family_match, useful)
    if not matches:
        matches = [match for row, match in direct if row.get("last")]
        if [match.id for match in matches] == ["python_exception"] and (line := _last_exception(lines)):
            (match,) = matches
            matches = [_match(match.as_dict(), f"{line} ... {match.found}", match.score)]
    if not matches:
        matches = list(map(_family_match, families))
    return sorted(matches, key=lambda match: match.score)


def is_fatal(error: str | BaseException) -> bool:
    """Whether the error says that this process has lost its device and must be started again.

    True after an exception on a core of the device, a task that did not end, a memory or link fault, an
    abort, or a device that does not start. False for an error that concerns one call, such as a refused
    dtype or a full memory, and for an unknown one.
    """
    text = exception_text(error) if isinstance(error, BaseException) else error
    spaced, glued = readings(plain_lines(text))
    context = bool(_CONTEXT.search(spaced))
    found = [match.fatal for _, match in _row_matches(spaced, glued, context)]
    return any(found) or any(family.fatal for family in codes.families(spaced, context))


def hints(text: str) -> list[str]:
    """Meanings that follow from the structure of the codes in a text, for texts that are not in the table."""
    spaced, _ = readings(plain_lines(text))
    out = codes.meanings(spaced)
    if out:
        out.append(
            "Run again with ASCEND_LAUNCH_BLOCKING=1 to find the failing operator; "
            "details are in ~/ascend/log/debug/plog."
        )
    return out


def exception_text(exc: BaseException) -> str:
    """Types and messages of an exception and its chain of causes, the first cause first."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = exc
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        notes = "".join(f"\n{note}" for note in getattr(current, "__notes__", ()))
        parts.append(f"{type(current).__name__}: {current}{notes}")
        hidden = None if current.__suppress_context__ else current.__context__
        current = current.__cause__ or hidden
    return "\n".join(reversed(parts))


def explain_exception(exc: BaseException) -> str:
    """The exception in one line, then cause and remedy from the table (at most two rows)."""
    first = (str(exc).strip().splitlines() or [""])[0][:2000]
    head = f"{type(exc).__name__}: {first}".rstrip(": ")
    return "\n".join([head, *(str(match) for match in explain(exception_text(exc))[:2])])
