"""The environment of a measurement, to repeat it, without private data."""

from __future__ import annotations

import datetime
import hashlib
import os
import platform
import subprocess
from importlib import metadata
from math import prod
from pathlib import Path

from model.loading import official_shapes

from ..device import describe_device, device_memory
from ..device.dtypes import dtype_name
from ..doctor.variables import settings
from .spec import BenchSpec

PACKAGES = ("torch", "torch-npu", "transformers", "tokenizers", "numpy", "pillow", "safetensors")


def environment(spec: BenchSpec) -> dict:
    """What does not depend on what reads the pages."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": spec.command(),
        "seed": spec.seed,
        "kit": revision(),
        "packages": versions(),
        "python": platform.python_version(),
        "machine": {
            "system": f"{platform.system()} {platform.release()}",
            "architecture": platform.machine(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
            "memory_bytes": device_memory("cpu").total,
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        },
        "variables": variables(),
    }


def stamp(spec: BenchSpec, reader) -> dict:
    import torch

    return {
        **environment(spec),
        "device": describe_device(reader.model.device),
        "threads": torch.get_num_threads(),
        "checkpoint": {
            "name": reader.name,
            "sha256": digest(reader.folder),
            "parameters": sum(map(prod, official_shapes(reader.model.config).values())),
            "dtype": dtype_name(reader.model.dtype),
            "weights": reader.options.weights,
        },
        "slots": {name: named(function) for name, function in vars(reader.model.slots).items()},
    }


def named(function) -> str:
    """Module and name of a function, without the prefix "deskocr_kit."."""
    where = getattr(function, "__module__", "") or ""
    return f"{where}.{getattr(function, '__name__', type(function).__name__)}".removeprefix("deskocr_kit.")


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def revision() -> dict:
    """The commit of the kit and whether tracked files differ from it; both None outside git."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(Path(__file__).parents[2]), *words],
                capture_output=True,
                text=True,
                timeout=20,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "model", "deskocr_kit")
    return {"commit": git("rev-parse", "HEAD"), "changed": None if changed is None else bool(changed)}


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        return next(line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def variables() -> dict[str, str]:
    """Variables that change speed or operators, with values of a known shape: no paths, no names."""
    return settings(os.environ)


def digest(folder: Path) -> str:
    """SHA-256 of config.json and the weight files, in the order of their names."""
    total = hashlib.sha256()
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        total.update(path.name.encode())
        with path.open("rb") as file:
            while piece := file.read(1 << 22):
                total.update(piece)
    return total.hexdigest()
