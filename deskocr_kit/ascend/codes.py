"""Codes in error texts: which component prints them, what family of faults they name, and which are fatal.

    EI0007      CANN: its first two characters name the component, its title the family
    507035      a return code of acl, which the runtime, the graph engine and aclnn share
    ERR02200    torch_npu: two digits for its part, three for the reason

`data/cann_codes.json` lists components, titles, return codes and families. A fatal family means that the
process has lost its device: each later call in it fails, so it must be started again.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

DATA = Path(__file__).parent / "data"

_PTA_PARTS = {"00": "framework", "01": "operators", "02": "distributed", "03": "graph", "04": "profiler"}
_PTA_REASONS = {
    "001": "invalid parameter", "002": "invalid type", "003": "invalid value", "004": "invalid pointer",
    "005": "internal error", "006": "memory error", "007": "feature not supported",
    "008": "resource not found", "009": "resource unavailable", "010": "system call failed",
    "011": "timeout", "012": "permission denied", "100": "a call to acl failed",
    "200": "a call to hccl failed", "300": "a call to the graph engine failed",
}  # fmt: skip
_ACL_RANGES = {
    "100": "a wrong parameter or the order of acl calls", "107": "a wrong parameter for the runtime",
    "145": "a wrong parameter for the graph engine", "148": "the order or the configuration of acl calls",
    "161": "a wrong parameter for an aclnn operator", "207": "a missing or exhausted resource",
    "361": "a call from aclnn to the runtime", "500": "an internal error of acl or the graph engine",
    "507": "an internal error of the runtime on the device",
    "561": "an internal or parameter error of an aclnn operator",
}  # fmt: skip

# All digits, such as E30006, is a code only where it stands like one; part numbers look the same.
_CANN = re.compile(
    r"(?<!\w)(?:(?:E[A-Z]|WE)\d{4}(?!\w)|[EW][1-9]\d{4}(?=[:\[)])|(?<=\()[EW][1-9]\d{4}(?=\)))"
)
_CANN_ALONE = re.compile(r"\W{0,20}([EW][A-Z1-9]\d{4})\W{0,20}")
_PTA = re.compile(r"(?<!\w)ERR(\d\d)(\d{3})(?!\w)")
# A number is a return code where the text calls it one. `_NAMED` is what other software says too.
_NUMBER = r"(?P<code>\d{6}|0x0{0,8}[0-9a-f]{5})(?!\w|\.\d)"
_LINK = r"\b[\s:=,\[(]{0,4}(?:is|was|of)?[\s:=\[(]{0,3}"
_CALLED = (
    re.compile(rf"\b(?:error|err|ret|result|errno)?_?code{_LINK}{_NUMBER}", re.I),
    re.compile(rf"(?<![\w.]){_NUMBER}\W{{0,3}}\[Error", re.I),
)
_NAMED = re.compile(
    rf"\b(?:ret\w{{0,20}}|result|status|err\w{{0,20}}|aclError|failed|with|reason|ACL_\w{{1,60}}){_LINK}{_NUMBER}",
    re.I,
)
_ALONE = re.compile(rf"\W{{0,20}}{_NUMBER}\W{{0,20}}", re.I)


@dataclass(frozen=True)
class Called:
    """A code at a position of the text. `found` is how the text says it."""

    code: int | str
    found: str
    start: int


@dataclass(frozen=True)
class Family:
    """What a code means by its family."""

    id: str
    cause: str
    remedy: str
    found: str
    start: int
    fatal: bool


@lru_cache(maxsize=1)
def tables() -> dict:
    """The content of `data/cann_codes.json`."""
    return json.loads((DATA / "cann_codes.json").read_text(encoding="utf-8"))


def cann_codes(text: str) -> list[Called]:
    """Codes like EI0007 and E30006, each once."""
    if alone := _CANN_ALONE.fullmatch(text):
        return [Called(alone[1], alone[1], alone.start(1))]
    out: dict[str, Called] = {}
    for match in _CANN.finditer(text):
        out.setdefault(match.group(), Called(match.group(), match.group(), match.start()))
    return list(out.values())


def acl_codes(text: str, context: bool) -> list[Called]:
    """Return codes, decimal or hexadecimal, that the text calls codes, each once.

    `context` says that the text is about an NPU; "failed with 507015" alone may be of other software.
    """
    matches = [match for form in _CALLED for match in form.finditer(text)]
    if context:
        matches += _NAMED.finditer(text)
    if alone := _ALONE.fullmatch(text):
        matches.append(alone)
    out: dict[int, Called] = {}
    for match in sorted(matches, key=lambda match: match.start()):
        code = int(match["code"], 16 if match["code"][:2].lower() == "0x" else 10)
        out.setdefault(code, Called(code, match.group().strip(), match.start()))
    return list(out.values())


def component(code: str) -> str | None:
    """The part of CANN that prints a code such as "EI0007"."""
    return tables()["components"].get(code[:2])


@lru_cache(maxsize=512)
def _title_family(title: str) -> dict:
    return next(family for family in tables()["families"] if re.search(family["titles"], title))


@lru_cache(maxsize=1)
def _acl_families() -> dict[int, dict]:
    return {code: family for family in tables()["acl_families"] for code in family["codes"]}


def families(text: str, context: bool) -> list[Family]:
    """The families of all codes in the text, each family once, in the order of the text."""
    out: dict[str, Family] = {}
    for called in sorted(cann_codes(text) + acl_codes(text, context), key=lambda called: called.start):
        if isinstance(called.code, int):
            row = _acl_families().get(called.code)
            meaning = f"{called.code} is a return code of acl: {tables()['acl'].get(str(called.code))}"
        else:
            bare = called.code.endswith("9999")  # any error inside of a component
            title = None if bare else tables()["titles"].get(called.code)
            row = _title_family(title) if title else None
            meaning = f"{called.code} is a code of {component(called.code)}: {title}"
        if row and row["id"] not in out:
            out[row["id"]] = Family(
                row["id"], f"{meaning}. In short: {row['cause']}.", row["remedy"],
                called.found, called.start, bool(row.get("fatal")),
            )  # fmt: skip
    return list(out.values())


def meanings(text: str) -> list[str]:
    """What the structure of each code in the text says, without a table of causes."""
    out = []
    for code in (str(called.code) for called in cann_codes(text)):
        part = component(code) or "CANN, of a component not known here"
        kind = "internal error" if code.endswith("9999") else tables()["titles"].get(code, "")
        out.append(f"{code}: a code of {part}" + (f" ({kind})" if kind else ""))
    for part, reason in dict.fromkeys(_PTA.findall(text)):
        if part + reason == "99999":
            out.append("ERR99999: printed after any Python exception; the traceback above is the cause")
        else:
            where, why = _PTA_PARTS.get(part, "unknown part"), _PTA_REASONS.get(reason, "unknown reason")
            out.append(f"ERR{part}{reason}: torch_npu, {where}: {why}")
    for called in acl_codes(text, True):
        code = str(called.code)
        driver = "an internal error in the driver module" if code == "507899" else None
        if meaning := driver or _ACL_RANGES.get(code[:3]):
            out.append(f"{code}: an acl return code for {meaning}")
    return out
