"""`deskocr doctor --bundle FILE`: the seven texts and the report in one zip, without private data.

Everything in it passes a list of what is known, because no list of what is secret is complete:

    env.txt         variables by exact name, values by their shape (variables.py)
    pip-list.txt    packages that matter here, with public versions
    version files   known keys, with versions and known folders
    npu-smi.txt     known words and numbers; of a process only the program's base name
    report.*        made again from these texts; on a live machine, its rows in known words
    removed.txt     what was removed, as numbers

A word is known if this kit uses it itself (words.py).
"""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from . import facts as _facts
from . import npu_smi_pages, variables, words
from .capture import FILES, Capture
from .captured_lists import normal, parse_env, parse_pip
from .examination import judge
from .report import Report, Row

_VERSION_KEYS = re.compile(
    r"(?:(?:inner|package_|firmware_)?version|version_dir|compatible_version\w{0,20}|arch|os|package_name|path"
    r"|ascend-cann-[\w-]{1,30}|[a-z_]{1,30}_(?:running|installed|upgrade)_version)\Z",
    re.I,
)
_PAGE_KEYS = re.compile(
    r"(?:NPU ID|Chip Count|Chip ID|Total Count|Chip Name|Chip Logic ID|Chip Phy-ID|Product Name|Model"
    r"|Manufacturer|Software Version|Firmware Version|Compatibility|PCIe Bus Info|Health(?: Status)?"
    r"|[\w -]{1,40} ?\((?:%|MB|MHz|W|C)\))\Z"
)
_NUMPY_AND_KIN = re.compile(
    r"torch|torch-npu|torchvision|torchaudio|numpy|transformers|tokenizers|safetensors|huggingface-hub|accelerate"
    r"|pillow|pypdfium2|scipy|sympy|decorator|attrs|psutil|cffi|pyyaml|protobuf|cloudpickle|absl-py|ml-dtypes"
    r"|tornado|pathlib2|requests|te|topi|tbe|hccl|auto-tune|op-compile-tool|opc-tool|vllm|vllm-ascend|mindie\w{0,20}"
    r"|deepspeed|peft|triton|triton-ascend|modelscope|einops|addict|easydict|matplotlib|opencv-python(?:-headless)?"
    r"|typer|rich|click|deskocr-kit\Z"
)
_PUBLIC_VERSION = re.compile(
    r"\d{1,4}(?:\.(?:\d{1,8}|\*)){0,4}(?:(?:\.?(?:post|dev|rc|a|b))\d{0,8}){0,3}(\+(?:cpu|cu\d{1,4}|rocm[\d.]{1,8}))?"
)


def clean_env(text: str, removed: Counter) -> str:
    """Variables that matter on an NPU, with values of the expected shape. The others are only counted."""
    lines = []
    for name, value in sorted(parse_env(text).items()):
        shape = variables.SHAPES.get(name)
        if shape is None:
            removed["variables that this kit does not know"] += 1
        elif shape is variables.PRESENT:
            removed["values of proxies"] += 1
            lines.append(f"{name}=<set>")
        elif shape is variables.PATH:
            lines.append(f"{name}={words.clean_path(value, removed)}")
        elif variables.fits(name, value):
            lines.append(f"{name}={value}")
        else:
            removed["values of an unexpected shape"] += 1
            lines.append(f"{name}={words.REMOVED}")
    others = removed["variables that this kit does not know"]
    return "\n".join([f"# {others} other variables left out", *lines]) + "\n"


def clean_pip(text: str, removed: Counter) -> str:
    """The packages that matter, with their public version."""
    lines = []
    for name, version in parse_pip(text).items():
        match = _PUBLIC_VERSION.match(version)
        if match and _NUMPY_AND_KIN.fullmatch(normal(name)):
            lines.append(f"{name}=={match.group()}")
            removed["parts of versions"] += match.group() != version
        else:
            removed["packages that this kit does not know"] += 1
    return "\n".join(lines or ["# no package that this kit knows"]) + "\n"


def clean_version_file(text: str, removed: Counter) -> str:
    """The lines with a version, a processor or a known folder."""
    lines = []
    for line in text.replace("\r", "").lstrip("\ufeff").splitlines():
        mark = re.search(r"[=:]", line[:100])
        key = line[: mark.start()].strip() if mark else ""
        if mark and _VERSION_KEYS.match(key):
            value = line[mark.end() :].strip()
            path = key.lower() == "path"
            kept = (
                words.clean_path(value, removed) if path else words.clean(value, removed, versions_only=True)
            )
            lines.append(f"{key}={kept}")
        elif not mark and line.strip():
            lines.append(words.clean(line, removed, versions_only=True))
        elif line.strip():
            removed["lines of version files that this kit does not use"] += 1
    return "\n".join(lines) + "\n"


def clean_npu_smi(text: str, removed: Counter) -> str:
    """Tables and pages in known words and numbers; of a process the base name of its program."""
    lines, processes = [], False
    for line in text.replace("\r", "").splitlines():
        line = line[: words.LINE]
        start, end = line.find("|"), line.rfind("|")
        cells = line[start + 1 : end].split("|") if 0 <= start < end else []
        if "process id" in line.lower() and cells:
            processes = True
        elif "health" in line.lower() and cells:
            processes = False
        elif processes and len(cells) > 2 and cells[1].strip().isdecimal():
            name = words.program(cells[2], removed)
            kept = [words.clean(cells[0]), words.clean(cells[1]), f" {name} ", words.clean(cells[-1])]
            lines.append("|" + "|".join(kept if len(cells) > 3 else kept[:3]) + "|")
            continue
        elif match := npu_smi_pages.PROCESS.search(line):
            name = words.program(match["name"], removed) or "NA"
            lines.append(f"Process id : {match[1]} Process name : {name} Process memory(MB) : {match[3]}")
            continue
        elif not cells and _names_something_else(line):
            removed["lines with serial numbers, identifiers and the like"] += 1
            continue
        lines.append(words.clean(line, removed))
    return "\n".join(lines) + "\n"


def _names_something_else(line: str) -> bool:
    """Whether the line is `key : value` of a page, with a key that this kit does not use."""
    key, mark, value = line.partition(":")
    key = " ".join(key.split())
    return bool(mark and value[:1].isspace() and npu_smi_pages.KEY.match(key) and not _PAGE_KEYS.match(key))


_CLEANERS = {"env.txt": clean_env, "pip-list.txt": clean_pip, "npu-smi.txt": clean_npu_smi}


def cleaned(capture: Capture) -> tuple[Capture, dict[str, Counter]]:
    """The capture without private data, and what was removed: {file: {what: number}}."""
    removed: dict[str, Counter] = {}
    files = {}
    for name in FILES:
        if name in capture.files:
            removed[name] = Counter()
            files[name] = _CLEANERS.get(name, clean_version_file)(capture.files[name], removed[name])
    notes = {name: words.clean(note) for name, note in capture.notes.items()}
    unread = {name: words.clean(note) for name, note in capture.unread.items()}
    source = "this machine" if capture.live else "captured files"
    return Capture(source, files, notes, unread, {}, capture.live), removed


def _cleaned_report(report: Report, clean: Capture, removed: Counter) -> Report:
    """The report of cleaned files. On a live machine the rows of its probes stay, in known words."""
    facts = _facts.collect(clean)
    libraries = report.facts.get("libraries", {})
    if not clean.live:
        return replace(report, rows=judge(clean, facts), source=clean.source, facts=facts, capture=clean)
    rows = [
        Row(
            row.group,
            words.clean(row.name),
            row.status,
            words.clean(row.seen, removed),
            words.clean(row.remedy),
        )
        for row in report.rows
    ]
    facts["libraries"] = {name: words.clean(str(state), removed) for name, state in libraries.items()}
    return replace(report, rows=rows, source=clean.source, facts=facts, capture=clean)


def contents(capture: Capture, report: Report) -> dict[str, str]:
    """{name inside the bundle: text}."""
    clean, removed = cleaned(capture)
    removed["report"] = Counter()
    report = _cleaned_report(report, clean, removed["report"])
    out = dict(clean.files)
    out["report.txt"] = report.text() + "\n"
    out["report.json"] = report.json() + "\n"
    out["removed.txt"] = "\n".join(removal_lines(removed) or ["nothing was removed"]) + "\n"
    return out


def removal_lines(removed: dict[str, Counter]) -> list[str]:
    """What was removed, one line for each file and kind."""
    return [
        f"{file}: {number} {what}"
        for file, counts in removed.items()
        for what, number in sorted(counts.items())
        if number
    ]


def write(file: str | Path, capture: Capture, report: Report) -> list[str]:
    """Write the bundle (a zip) atomically and return the names inside it. Raises OSError."""
    inside = contents(capture, report)
    target = Path(file)
    handle, temporary = tempfile.mkstemp(dir=target.parent or ".", prefix=target.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, text in inside.items():
                bundle.writestr(name, text.encode("utf-8", "replace"))
        os.replace(temporary, target)  # a half-written bundle never has the requested name
    except BaseException:
        os.unlink(temporary)
        raise
    return list(inside)
