"""Rules for the host: operating system, processor, memory, disk. Only for the live machine."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from .case import Case
from .report import Row

GIB = 2**30
WEIGHTS_GIB = 6.2  # the official checkpoint; it is streamed, so that a CPU holds the weights only once


def rules(case: Case) -> Iterator[Row]:
    if not case.live:
        return
    system = platform.system()
    name = _os_name(case.at("/etc/os-release")) or f"{system} {platform.release()}"
    libc = " ".join(platform.libc_ver()).strip()
    seen = name + (f", {libc}" if libc else "")
    if case.hardware and system != "Linux":
        yield Row("Machine", "system", "FAIL", seen, "Ascend drivers exist for Linux only.")
    else:
        yield Row("Machine", "system", "OK", seen)
    arch = platform.machine()
    if arch in ("aarch64", "x86_64", "arm64", "AMD64"):
        yield Row("Machine", "processor", "OK", f"{arch}, {os.cpu_count()} cores")
    else:
        yield Row("Machine", "processor", "WARN", f"{arch}: torch wheels exist for aarch64 and x86_64")
    yield _memory()
    yield _disk()


def _os_name(path: Path) -> str | None:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split("=", 1)[1].strip("\"'") for line in lines if line.startswith("PRETTY_NAME=")]
    return found[0] if found else None


def _memory() -> Row:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
    except (AttributeError, ValueError, OSError):
        return Row("Machine", "memory", "SKIP", "not reported by this system")
    limit = _cgroup_limit()
    seen = f"{total:.1f} GiB" + (f", this container may use {limit:.1f}" if limit and limit < total else "")
    if min(total, limit or total) < 2 * WEIGHTS_GIB:
        remedy = (
            "Enough for the nano checkpoint. An NPU needs less host memory: the weights are streamed to it."
        )
        return Row(
            "Machine",
            "memory",
            "WARN",
            f"{seen}; the official weights take {WEIGHTS_GIB} GiB in 16 bit",
            remedy,
        )
    return Row("Machine", "memory", "OK", seen)


def _cgroup_limit() -> float | None:
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            return int(text) / GIB
    return None


def _disk() -> Row:
    free = shutil.disk_usage(Path(__file__).parent).free / GIB
    if free < 1:
        return Row(
            "Machine",
            "disk",
            "WARN",
            f"{free:.1f} GiB free",
            "Free some space: reports, caches and kernels need about 1 GiB.",
        )
    if free < 1.2 * WEIGHTS_GIB:
        seen = f"{free:.1f} GiB free: not enough to download the official weights ({WEIGHTS_GIB} GiB)"
        return Row("Machine", "disk", "WARN", seen, "Use the embedded nano checkpoint, or free some space.")
    return Row("Machine", "disk", "OK", f"{free:.1f} GiB free")
