"""Find the trace in a folder: the best source of kernels of one run, and what stands beside it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from model.untrusted import UntrustedFile, read_json, shown

from .files import head, read_text
from .forms import read_table
from .kernels import Trace, TraceError
from .tables import form_of
from .timeline import read_record, read_timeline

ABOUT = "deskocr_profile.json"  # written by `deskocr profile`
RECORD = "simulator_record"
MOST_FILES, DEPTH = 20_000, 8
#: Best source of kernels first; the last three have none, but say more about the run.
RANK = (
    "kernel_details", "timeline", "op_statistic", "operator_details", RECORD,
    "step_trace_time", "api_statistic", "memory_record",
)  # fmt: skip
WITH_KERNELS = RANK[:5]


def read_trace(path: str | Path) -> Trace:
    """Read the trace of a profiler's output folder, of any folder above it, or of one file.

    The source with the most detail gives the kernels; step times, host calls and memory are added from the
    tables beside it. If the folder has several runs, the newest is read, and a note names the others.

    Raises TraceError, in one line, if there is nothing to read.
    """
    path = Path(path)
    if not path.exists():
        raise TraceError(f"{shown(path)}: no such file or folder")
    if not path.is_dir():
        return _read(_kind_of(path, strict=True), path, path.name)
    found = [(kind, file) for file in _files(path) if (kind := _kind_of(file))]
    if not found:
        raise TraceError(
            f"{shown(path)}: no profiler's table or trace in it; name the folder that the profiler wrote"
        )
    runs: dict[Path, list[tuple[str, Path]]] = {}
    for kind, file in found:
        runs.setdefault(_run_of(file, path), []).append((kind, file))
    chosen = max(runs, key=lambda run: (min(RANK.index(kind) for kind, _ in runs[run]) < 5, _when(run)))
    trace = _combined(runs[chosen], path)
    if others := sorted(_shown(run, path) for run in runs if run != chosen):
        listed = ", ".join(others[:5]) + (", …" if len(others) > 5 else "")
        trace.notes.append(f"read the newest run, {_shown(chosen, path)}; name another to read it: {listed}")
    trace.about = {**trace.about, **_about(chosen, path)}
    return trace


def _combined(files: list[tuple[str, Path]], root: Path) -> Trace:
    """The best readable source, with what the other tables add."""
    files = sorted(files, key=lambda each: (RANK.index(each[0]), str(each[1])))
    trace, problems = None, []
    for kind, file in files:
        if trace is not None and kind in WITH_KERNELS:
            continue
        try:
            more = _read(kind, file, _shown(file, root))
        except TraceError as error:
            problems.append(str(error))
            continue
        if trace is None:
            trace = more
            continue
        trace.steps = trace.steps or more.steps
        trace.host_api = trace.host_api or more.host_api
        trace.memory = trace.memory or more.memory
        if more.free_us is not None and trace.free_us is None:
            trace.free_us, trace.busy_given = more.free_us, more.busy_given
        trace.notes += more.notes
    if trace is None:
        raise TraceError(problems[0])
    trace.notes += problems
    return trace


def _read(kind: str | None, file: Path, where: str) -> Trace:
    content = read_text(file)
    if not content.strip():
        raise TraceError(f"{where}: the file is empty")
    if kind == RECORD and (record := read_record(content, where)) is not None:
        return record
    return read_timeline(content, where) if kind in (RECORD, "timeline") else read_table(content, where)


def _kind_of(file: Path, strict: bool = False) -> str | None:
    """The kind of a file by its beginning, one of RANK; None if it is none.

    strict: raise TraceError instead, with the reason.
    """
    begin = head(file).lstrip()
    if strict and not begin:
        read_text(file)  # says what is wrong with it
        raise TraceError(f"{shown(file)}: the file is empty")
    if begin[:1] in ("[", "{"):
        sample = begin[: 1 << 14]
        if '"operator"' in sample and '"kind"' in sample and '"count"' in sample:
            return RECORD
        if strict or '"traceEvents"' in begin or re.search(r'"ph"\s*:', begin):
            return "timeline"
        return None
    form = form_of(begin) if begin else None
    if form is None and strict:
        raise TraceError(
            f"{shown(file)}: neither a table of a profiler (its columns are unknown) nor a trace"
        )
    return form


def _files(root: Path) -> Iterator[Path]:
    """CSV and JSON files below a folder; links to folders are not followed."""
    count = 0
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(each for each in inner if not each.startswith("."))
        if len(Path(folder).relative_to(root).parts) >= DEPTH:
            inner.clear()
        for name in sorted(names):
            count += 1
            if count > MOST_FILES:
                raise TraceError(
                    f"{shown(root)}: more than {MOST_FILES} files; name the profiler's own folder"
                )
            if name.endswith((".csv", ".json", ".json.gz")):
                yield Path(folder) / name


def _run_of(file: Path, root: Path) -> Path:
    """The folder of the run that a file belongs to: the profiler's own, or the file's."""
    for parent in file.parents:
        if parent.name.endswith("_ascend_pt") or (parent / ABOUT).is_file():
            return parent
        if parent == root:
            break
    own = file.parent
    return own.parent if own.name == "ASCEND_PROFILER_OUTPUT" and own != root else own


def _when(run: Path) -> tuple[str, float]:
    """For the newest run: the time in the name of an Ascend profiler's folder, else that of the folder."""
    named = re.search(r"_(\d{14,})_ascend_pt$", run.name)
    try:
        changed = run.stat().st_mtime
    except OSError:
        changed = 0.0
    return (named.group(1) if named else "", changed)


def _about(run: Path, root: Path) -> dict:
    """Facts about the run: what `deskocr profile` wrote, and the versions in profiler_info_*.json."""
    facts: dict = {}
    inside = [*run.glob("profiler_info*.json"), *run.glob("*/profiler_info*.json")]
    above = [run, *run.parents]
    above = above[: above.index(root) + 1] if root in above else above[:1]
    for file in [*sorted(inside), *(folder / ABOUT for folder in reversed(above))]:
        try:
            stored = read_json(file, 1 << 20) if file.is_file() else {}
        except (UntrustedFile, OSError):
            continue
        if not isinstance(stored, dict):
            continue
        if file.name == ABOUT:
            facts.update(stored)
        else:
            facts.update({k: str(v) for k, v in stored.items() if k in ("cann_version", "torch_npu_version")})
    return facts


def _shown(path: Path, root: Path) -> str:
    """A path below the folder that was asked for."""
    shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return root.name if shown == "." else shown
