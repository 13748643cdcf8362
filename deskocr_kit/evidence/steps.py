"""The steps of `deskocr evidence`: each is a command of this kit, run as a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.limited import START

MODULE = [sys.executable, "-c", START]  # `python -m NAME`, but nothing is imported from the working folder
KIT = [*MODULE, "deskocr_kit"]
PAGES = "notebooks"  # the only step whose files can contain pictures of pages


@dataclass(frozen=True)
class Setting:
    """What the evidence is of. folder: where the steps write. dtype: the name for --dtype."""

    device: str
    checkpoint: str
    folder: Path
    dtype: str

    @property
    def plan(self) -> Path:
        return self.folder / "plan.json"


@dataclass(frozen=True)
class Step:
    """One step.

    about: what it does, for the list. command: its words. minutes: (with nano, with the official weights), an
    estimate. limit: minutes after which it is stopped. accept: exit statuses with a usable result.
    """

    name: str
    about: str
    command: Callable[[Setting], list[str]]
    minutes: tuple[float, float]
    limit: float
    accept: tuple[int, ...] = (0,)


def _doctor(s: Setting) -> list[str]:
    return [*KIT, "doctor", "--model", s.checkpoint, "--bundle", str(s.folder / "doctor.zip")]


def _weights(s: Setting) -> list[str]:
    return [*KIT, "weights", "check", s.checkpoint, "--hash", "--json"]


def _kernels(s: Setting) -> list[str]:
    return _module("kernels", s)


def _prove(s: Setting) -> list[str]:
    return [*KIT, "prove", "--device", s.device, "--checkpoint", s.checkpoint, "--dtype", s.dtype,
            "--repeats", "5", "--out", str(s.folder / "prove")]  # fmt: skip


def _bench(s: Setting) -> list[str]:
    plan = ["--plan", str(s.plan)] if s.plan.exists() else []
    return [*KIT, "bench", "--device", s.device, "--model", s.checkpoint, "--dtype", s.dtype, *plan,
            "--count", "2", "--repeats", "3", "--out", str(s.folder / "bench")]  # fmt: skip


def _profile(s: Setting) -> list[str]:
    plan = ["--plan", str(s.plan)] if s.plan.exists() else []
    return [*KIT, "profile", "--device", s.device, "--model", s.checkpoint, "--dtype", s.dtype, *plan,
            "--out", str(s.folder / "profile"), "--json"]  # fmt: skip


def _claims(s: Setting) -> list[str]:
    return [*MODULE, "deskocr_kit.claims", "--device", s.device, "--model", s.checkpoint,
            "--out", str(s.folder / "claims.md"), "--json", str(s.folder / "claims.json")]  # fmt: skip


def _notebooks(s: Setting) -> list[str]:
    return [*KIT, "notebooks", "run", "--device", s.device, "--checkpoint", s.checkpoint,
            "--out", str(s.folder / PAGES)]  # fmt: skip


def _module(name: str, s: Setting) -> list[str]:
    return [*MODULE, f"deskocr_kit.evidence.{name}", "--device", s.device,
            "--checkpoint", s.checkpoint, "--out", str(s.folder / f"{name}.json")]  # fmt: skip


STEPS = (
    Step("doctor", "diagnosis of the machine", _doctor, (0.3, 1), 4, (0, 1)),
    Step("weights", "names, shapes and SHA-256 of the weights", _weights, (0.1, 1), 5),
    Step("kernels", "kernels that the installed software has for each operator", _kernels, (0.2, 1), 4),
    Step("prove", "every substitute against a CPU reference; the plan", _prove, (1, 5), 10, (0, 1)),
    Step("bench", "time by phase, launches, memory, accuracy", _bench, (0.5, 6), 12),
    Step("profile", "one page under the device's profiler", _profile, (0.2, 3), 8),
    Step("claims", "the claims ledger on this device", _claims, (0.7, 4), 8),
    Step("notebooks", "every notebook, executed", _notebooks, (5, 9), 15, (0, 2)),
)
NAMES = tuple(step.name for step in STEPS)
