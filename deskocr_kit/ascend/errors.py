"""Causes and remedies of Ascend error texts: the table `data/errors.json`, searched by `explain`.

A row of the table matches by any of
  pattern  a regular expression that is specific enough alone;
  codes    CANN codes like "EL0004", or acl return codes (507018) if the text calls them a code;
  weak     a phrase that other software prints too ("You have no permission"): needs an Ascend context.
A `wrapper` row is a message that hides another one, so it is listed after the cause that it wraps.

This module does not import torch, because it explains a broken torch.
"""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

DATA = Path(__file__).parent / "data"
LIMIT = 600_000  # characters searched; of a longer log, its ends and the lines between that resemble faults

_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")
_FRAME = re.compile(r"^[\s│┃|>]*|[\s│┃|]*$")  # borders of a rich traceback, quote marks in mail
_PREFIX = re.compile(
    r"""^(?: \(\w[^()]*?pid=\d+[^()]*\) | \[(?:rank|default)?\d+\]: | \[\d+,\d+\]<std\w+>: | [\w.-]+\[\d+\]:
        | \[?\d{4}[-/]\d\d[-/]\d\d[ T-]\d\d:\d\d:\d\d[\w.,:+]*\]?
        | \[?\b(?:DEBUG|INFO|WARN(?:ING)?|ERROR|CRITICAL)\b\]?[:\s]
        | std(?:out|err)\ F )\s*""",
    re.X,
)
_CONTEXT = re.compile(
    r"(?i:npu|ascend|\bcann\b|hccl|davinci|\bdcmi|aicpu|aicore)|\bacl[A-Z]|\bdrv[A-Z]|\brt[A-Z]\w+|\b(ERR\d{5}|E[A-Z]\d{4})\b"
)
_MODULES = {
    "E": "Runtime", "H": "AscendCL", "I": "HCCL", "J": "HCCP", "L": "Driver", "K": "Profiling",
    "Z": "operators",
}  # fmt: skip
_PTA_SUBMODULES = {"00": "framework", "01": "operators", "02": "distributed", "03": "graph", "04": "profiler"}
_PTA_REASONS = {
    "001": "invalid parameter", "002": "invalid type", "003": "invalid value", "004": "invalid pointer",
    "005": "internal error", "006": "memory error", "007": "feature not supported",
    "008": "resource not found", "009": "resource unavailable", "010": "system call failed",
    "011": "timeout", "012": "permission denied", "100": "a call to acl failed",
    "200": "a call to hccl failed", "300": "a call to the graph engine failed",
}  # fmt: skip
_ACL_RANGES = {
    "100": "a wrong parameter or the order of acl calls", "107": "a wrong parameter for the runtime",
    "145": "a wrong parameter for the graph engine", "161": "a wrong parameter for an aclnn operator",
    "207": "a missing or exhausted resource", "500": "an internal error of acl or the graph engine",
    "507": "an internal error of the runtime on the device",
    "561": "an internal or parameter error of an aclnn operator",
}  # fmt: skip


# Words of relevant lines, in lower case. Plain words, because a regular expression takes ten times as long.
_FAULT = (
    "err", "fail", "except", "fault", "abort", "denied", "invalid", "illegal", "support", "undefined symbol",
    "out of memory", "timeout", "time out", "times out", "cannot", "could not", "insufficient", "busy",
    "permission", "depends on", "please", "no module", "caution", "warn", "507", "561",
)  # fmt: skip
_PUNCTUATION = str.maketrans("：（），；！？。【】“”‘’\xa0", ":(),;!?.[]\"\"'' ", "\u200b")


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
    score: tuple

    def as_dict(self) -> dict:
        names = ("id", "cause", "remedy", "source", "status", "found", "certain")
        return {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        doubt = "" if self.certain else " (only a code or a common phrase matches: compare with your case)"
        return f"[{self.id}]{doubt} {self.found}\n  cause:  {self.cause}\n  remedy: {self.remedy}"


@dataclass(frozen=True)
class _Test:
    strict: re.Pattern
    loose: re.Pattern | None  # blanks are optional, for lines that were broken in the middle of words
    certainty: int  # 3 phrase, 2 code, 1 common phrase, or the code of "any internal error"
    needs_context: bool = False


def _number_tests(code: int) -> list[_Test]:
    """Tests for an acl return code, decimal or hexadecimal, that the text calls a code."""
    spelled = rf"(?:{code}|0x0*{code:x})(?![\w.])"
    link = r"\b[\s:=,\[(]{0,4}(?:is|was|of)?[\s:=\[(]{0,3}"
    plain = rf"\bcode{link}{spelled}|(?<![\w.]){spelled}\W{{0,3}}\[Error|^\W*{spelled}\W*$"
    named = rf"\b(?:ret\w*|result|status|err\w*|aclError|failed|with|reason|ACL_\w+){link}{spelled}"
    return [
        _Test(re.compile(plain, re.I), None, 2),
        _Test(re.compile(named, re.I), None, 2, needs_context=True),
    ]


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
                loose = source.replace(r"\s?", r"\s*").replace(" ", r"\s*")
                patterns = re.compile(source, re.I | re.S), re.compile(loose, re.I | re.S)
                tests.append(_Test(*patterns, certainty, needs_context=name == "weak"))
        for code in row.get("codes", []):
            if isinstance(code, int):
                tests += _number_tests(code)
            else:
                tests.append(
                    _Test(re.compile(rf"(?<!\w){code}(?!\w)"), None, 1 if code.endswith("9999") else 2)
                )
        table.append((row, tests))
    return table


def _shared_start(lines: list[str]) -> str:
    first, last = min(lines), max(lines)  # a prefix of these two is a prefix of all
    size = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:size]


def _condensed(text: str) -> str:
    """Shorten a long log to LIMIT characters.

    Keeps both ends, a quarter of LIMIT each, and from the middle the lines that resemble faults, each with
    the two lines after it. Of lines that differ only in figures, the first is kept.
    """
    end = LIMIT // 4
    kept, seen, room, follow = [], set(), LIMIT - 2 * end, 0
    for match in re.finditer(r"[^\n]+", text[end:-end]):
        line = match.group()[:2000]
        lower = line.lower()
        if any(word in lower for word in _FAULT):
            shape = re.sub(r"[\d.]+", "0", line)
            follow = 0 if shape in seen else 3
            seen.add(shape)
        if follow and room > 0:
            follow -= 1
            room -= len(line) + 1
            kept.append(line)
        elif room <= 0:
            break
    return "\n".join([text[:end], *kept, text[-end:]])


def _readings(text: str) -> tuple[str, str]:
    """The text without colours, frames and log prefixes; lines joined (a) by a blank, (b) by nothing."""
    if len(text) > LIMIT:
        text = _condensed(text)
    text = _ANSI.sub("", text).replace("\\n", "\n").replace("\\'", "'").replace('\\"', '"')
    text = html.unescape(text).translate(_PUNCTUATION)  # from a web page, or retyped by a chat program
    lines = [_FRAME.sub("", line) for line in text.splitlines()]
    lines = [line for line in lines if line]
    shared = _shared_start(lines) if len(lines) > 1 else ""
    cut = (
        len(shared) if re.search(r"[\]:|>)]\s*$", shared) else 0
    )  # a log prefix ends like this; words do not
    plain = []
    for line in lines:
        line = line[cut:]
        while (rest := _PREFIX.sub("", line)) != line:
            line = rest
        plain.append(line.strip())
    return re.sub(r"\s+", " ", " ".join(plain)), "".join(plain)


def explain(text: str) -> list[Match]:
    """Rows of the table that match an error text, best first; [] if none matches.

    Order: a cause before the message that wraps it, a phrase before a bare code, a longer match before a
    shorter one, an earlier position before a later one (errors after a failure on the device only repeat it).
    """
    spaced, glued = _readings(text)
    context = bool(_CONTEXT.search(spaced))
    matches = []
    for row, tests in _tests():
        best = None
        for test in tests:
            if test.needs_context and not context:
                continue
            hit = test.strict.search(spaced) or (test.loose.search(glued) if test.loose else None)
            if hit:
                found = hit.group().strip()
                score = (bool(row.get("wrapper")), -test.certainty, -min(len(found), 80), hit.start())
                best = min(best, (score, found)) if best else (score, found)
        if best:
            score, found = best
            found = found if len(found) < 160 else found[:157] + "..."
            texts = {name: row[name] for name in ("id", "cause", "remedy", "source", "status")}
            matches.append(Match(**texts, found=found, certain=score[1] == -3, score=score))
    return sorted(matches, key=lambda match: match.score)


def hints(text: str) -> list[str]:
    """Meanings that follow from the structure of the codes in a text, for texts that are not in the table."""
    spaced, _ = _readings(text)
    titles = json.loads((DATA / "cann_codes.json").read_text(encoding="utf-8"))["titles"]
    out = []
    for code in dict.fromkeys(
        re.findall(r"(?<!\w)E[A-Z]\d{4}(?!\w)|(?<=\()E[1-9]\d{4}(?=\))|(?<!\w)E[1-9]\d{4}(?=:)", spaced)
    ):
        module = _MODULES.get(code[1], "operator compiler" if code[1].isdigit() else "")
        kind = "internal error" if code.endswith("9999") else titles.get(code, "")
        out.append(
            f"{code}: a code of CANN" + (f"'s {module}" if module else "") + (f" ({kind})" if kind else "")
        )
    for sub, reason in dict.fromkeys(re.findall(r"(?<!\w)ERR(\d\d)(\d{3})(?!\w)", spaced)):
        where, why = _PTA_SUBMODULES.get(sub, "unknown part"), _PTA_REASONS.get(reason, "unknown reason")
        out.append(f"ERR{sub}{reason}: torch_npu, {where}: {why}")
    for code in dict.fromkeys(
        re.findall(r"(?:error|ret|result)\s?code\W{0,3}(?:is)?\W{0,3}(\d{6})(?!\d)", spaced, re.I)
    ):
        if meaning := ("the driver" if code == "507899" else _ACL_RANGES.get(code[:3])):
            out.append(f"{code}: an acl return code about {meaning}")
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
    first = (str(exc).strip().splitlines() or [""])[0]
    head = f"{type(exc).__name__}: {first}".rstrip(": ")
    return "\n".join([head, *(str(match) for match in explain(exception_text(exc))[:2])])
