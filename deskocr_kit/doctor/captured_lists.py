"""Parse the captured lists: environment variables and Python packages, in the forms of many tools.

What was not understood is no finding: `misunderstood` says it, for every captured file.
"""

from __future__ import annotations

import json
import re

from model.untrusted import check_depth

from ..ascend import versions
from . import npu_smi

NAME, VALUE = 200, 32_768  # characters of a name, and of a value (LD_LIBRARY_PATH is the longest)
VARIABLES, PACKAGES = 20_000, 20_000
LINE = 2000  # characters of a line of a package list

_ENV_ALONE = re.compile(
    r"(?:export|declare\s{1,9}-\w{1,9}|typeset\s{1,9}-\w{1,9}|set)\s{1,9}[A-Za-z_]\w*\s*\Z"
)
_ENV_PREFIX = re.compile(r"(?:export|declare\s{1,9}-\w{1,9}|typeset\s{1,9}-\w{1,9}|set)\s{1,9}")
_ENV_NAME = re.compile(r"[A-Za-z_][\w.()%]*\Z")


def parse_env(text: str) -> dict[str, str]:
    """Parse the output of `env`, `env -0`, `export -p` or `declare -x`.

    A line without `=` continues the value before it.
    """
    values: dict[str, list[str]] = {}
    last: str | None = None
    for line in text.replace("\r", "").replace("\0", "\n").splitlines():
        bare = line.lstrip()
        prefix = _ENV_PREFIX.match(bare)
        name, mark, value = bare[prefix.end() if prefix else 0 :].partition("=")
        if mark and len(name) <= NAME and _ENV_NAME.match(name):
            known = name in values or len(values) < VARIABLES
            last = name if known else None
            if known:
                values[name] = [_unquoted(value.strip())]
        elif len(bare) < 2 * NAME and _ENV_ALONE.match(bare):  # `export NAME`, without a value
            last = None
        elif last and bare and not bare.startswith("#"):
            values[last].append(line)
    return {name: "\n".join(lines)[:VALUE] for name, lines in values.items()}


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        quote, value = value[0], value[1:-1]
        value = re.sub(r'\\(["$`\\])', r"\1", value) if quote == '"' else value.replace("'\\''", "'")
    return value


_PIP_NAME, _PIP_VERSION = r"(?<![\w.-])([A-Za-z0-9][\w.-]{0,100})", r"(\d[\w.+!-]{0,60})"
_PIP_LINES = tuple(
    re.compile(form)
    for form in (
        rf"{_PIP_NAME}\s{{0,60}}===?\s{{0,9}}([\w.+!-]{{1,60}})",
        rf"{_PIP_NAME}={_PIP_VERSION}(?:=\S{{0,100}})?$",  # conda's export
        rf"{_PIP_NAME}\s{{1,9}}\({_PIP_VERSION}[,)]",  # pip before 10
        rf"{_PIP_NAME}\s{{0,9}}@\s{{0,9}}\S{{0,1000}}[-_](\d+\.\d[\w.+]{{0,40}}?)(?=-(?:cp|py)\d|\.whl|\.tar|\.zip)",
        rf"{_PIP_NAME}\s{{1,200}}v?{_PIP_VERSION}(?:\s|$)",  # list
    )
)
# What other tools write before a line: numbers of lines, bullets, `[pip3]` of torch's collect_env, quotes.
_PIP_BEFORE = re.compile(
    r"(?:\s{1,40}|\[(?:pip3?|conda)\]|\d{1,6}(?:[.):]|\t|\s{1,9}(?=[A-Za-z]))|[-*•>|│]|[\"'`])"
)
_PIP_HEADING = re.compile(
    r"(?:Package|Name)\s{1,200}Version|[-=+\s|]*$|#|@EXPLICIT|\$ |\[notice\]|WARNING|DEPRECATION|Obtaining "
    r"|name:|channels:|dependencies:|prefix:|pip:",
    re.I,
)


def normal(name: str) -> str:
    return re.sub(r"[-_.]{1,100}", "-", name).lower()


def parse_pip(text: str) -> dict[str, str]:
    """Parse the output of `pip list [--format=json]`, `pip freeze`, `conda list` or torch's collect_env.

    Returns {normalised name: version}.
    """
    return packages_and_rest(text)[0]


def packages_and_rest(text: str) -> tuple[dict[str, str], int]:
    """({normalised name: version}, number of lines that are neither a package nor a heading)."""
    text = text.strip()
    if found := re.search(r"^\[\s{0,100}(?=[{\]])", text, re.M):  # notices of pip may precede and follow it
        return _from_json(text[found.start() :]), 0
    out: dict[str, str] = {}
    strange = 0
    for line in text.splitlines():
        line, before = _without_decoration(line[:LINE])
        match = next((match for form in _PIP_LINES if (match := form.match(line))), None)
        if match and len(out) < PACKAGES:
            out[normal(match[1])] = match[2]
        elif not match and not _PIP_HEADING.match(line) and not before.strip().startswith("#"):
            strange += 1
    return out, strange


def _without_decoration(line: str) -> tuple[str, str]:
    """(the line without what stands before and after the package, what stands before it)."""
    line = line.translate({ord(bar): " " for bar in "|│┃"})
    position = 0
    while (match := _PIP_BEFORE.match(line, position)) and match.end() > position:
        position = match.end()
    return line[position:].rstrip(" \t\"'`,;|│"), line[:position]


def _from_json(text: str) -> dict[str, str]:
    try:
        check_depth(text, "a list", 32)
        rows, _ = json.JSONDecoder().raw_decode(text)
        return {normal(row["name"][:NAME]): str(row.get("version", ""))[:60] for row in rows[:PACKAGES]}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        # a truncated list: keep its complete entries
        pairs = re.findall(r'"name":\s{0,9}"([^"\n]{1,200})",\s{0,99}"version":\s{0,9}"([^"\n]{1,60})"', text)
        return {normal(name): version for name, version in pairs[:PACKAGES]}


def misunderstood(name: str, text: str) -> str | None:
    """Why a captured file says nothing, or None if it was understood."""
    if not text.strip():
        return "empty"
    smi = npu_smi.parse(text) if name == "npu-smi.txt" else None
    understood = {
        "npu-smi.txt": lambda: smi and (smi.chips or smi.details or smi.card_count or smi.complaint),
        "ascend_toolkit_install.info": lambda: versions.parse_toolkit(text)["version"],
        "version.cfg": lambda: versions.parse_version_cfg(text)["version"],
        "driver_version.info": lambda: versions.parse_driver(text)["version"],
        "firmware_version.info": lambda: versions.parse_firmware(text)["version"],
        "env.txt": lambda: parse_env(text),
        "pip-list.txt": lambda: _pip_says_something(text),
    }[name]()
    return None if understood else "not understood"


def _pip_says_something(text: str) -> bool:
    packages, strange = packages_and_rest(text)
    return bool(packages) and strange <= len(packages) and "No module named pip" not in text[:2000]
