"""plan.json: which implementation is used in which slot, why, and for which machine.

    model = DeepseekOCRForCausalLM.from_pretrained(folder, plan="auto")

uses the plan that `deskocr prove` wrote for this device, these versions of torch, torch_npu and CANN, and a
network of these sizes. If no plan fits, it prints the reason and uses the defaults (model/fast).
Importing this file also registers "auto".

The plan is searched in this order: the file in DESKOCR_PLAN; else reports/*/plan.json in the working folder,
then beside the kit.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from model import DeepseekOCRConfig, loading, plans
from model.files import write_json
from model.official import CHECKPOINTS
from model.untrusted import UntrustedFile, read_json_object, shown

from ..device import describe_device
from ..device.dtypes import dtype_name
from ..display.printable import printable
from ..reading.checkpoints import named
from .digests import code_digest, kernel_digest
from .kernels.launch import interpreted, why_not
from .substitutes.cases import ANY, ByCase
from .substitutes.registry import candidate

if TYPE_CHECKING:
    from model.network import Network

VARIABLE = "DESKOCR_PLAN"
FORMAT = 1


class PlanError(ValueError):
    """A plan file that cannot be read, or that names an unknown slot or implementation."""


def fingerprint(device, config) -> dict[str, str]:
    """Everything that the choice of an implementation depends on, as text that can be compared.

    config: the configuration of our network, or a line that describes another. Where kernels in Triton are
    compiled, they are candidates, and their code counts as well.
    """
    told = describe_device(device)
    compiled = not interpreted() and why_not(torch.device(device)) is None
    names = ("name", "simulated", "profile", "torch", "torch_npu", "cann", "machine")
    kind = str(told["device"]).partition(":")[0]
    return {
        "device": kind,
        **{name: str(told[name]) for name in names},
        "network": config if isinstance(config, str) else network(config),
        "substitutes": code_digest(),
        **({"kernels": kernel_digest()} if compiled else {}),
    }


def network(config) -> str:
    """The sizes that the operators of a network depend on, as one line."""
    sam, lm = config.sam, config.decoder
    window = "" if lm.window is None else f", window {lm.window}"
    return (
        f"sam {sam.width}x{sam.heads}/{sam.window}, {config.encoder.sizes}, lm {lm.width}x{lm.heads}, "
        f"experts {lm.experts_per_token} of {lm.experts} x {lm.expert_hidden}{window}"
    )


@dataclass(frozen=True)
class Plan:
    """`choices`: {dtype name: {slot: {kind of call: {"use": name, …evidence}}}}, see prove/choice.py."""

    fingerprint: dict[str, str]
    choices: dict[str, dict[str, dict[str, dict]]]
    about: dict  # command, device, checkpoint: for readers
    path: Path | None = None

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Load a plan. Raises PlanError, which names the file."""
        path = Path(path)
        try:
            stored = read_json_object(path)
            if stored["format"] != FORMAT:
                raise PlanError(
                    f"{shown(path)}: plan format {shown(str(stored['format']), 40)}, this kit reads "
                    f"{FORMAT}; update the kit, or write a new plan with `deskocr prove`"
                )
            parts = [stored[name] for name in ("fingerprint", "choices", "about")]
            if not all(isinstance(part, dict) for part in parts):
                raise ValueError("fingerprint, choices and about must be objects")
            plan = cls(parts[0], parts[1], parts[2], path)
            chosen = [cases for dtype in plan.choices for cases in plan.names(dtype).values()]
            names = [name for cases in chosen for name in cases.values()]
            if not all(isinstance(each, str) for each in (*names, *plan.fingerprint.values())):
                raise ValueError("a name is not a string")
            return plan
        except OSError as error:
            raise PlanError(f"{shown(path)}: {error.strerror or error}") from error
        except PlanError:
            raise
        except UntrustedFile as error:
            raise PlanError(f"{error}; write a new plan with `deskocr prove`") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = shown(str(error).removeprefix(f"{shown(path)}: "))
            raise PlanError(
                f"{shown(path)}: not a plan ({why}); write a new one with `deskocr prove`"
            ) from error

    def save(self, path: str | Path) -> Path:
        """Write the plan. Atomic: a reader finds the old plan or the new one."""
        stored = {
            "format": FORMAT,
            "about": self.about,
            "fingerprint": self.fingerprint,
            "choices": self.choices,
        }
        return write_json(Path(path), stored)

    def differences(self, other: dict[str, str]) -> list[str]:
        """The reasons why this plan is not for that machine: "torch 2.6.0 here, 2.13.0 in the plan", …"""
        keys = sorted(self.fingerprint.keys() | other.keys())
        return [
            f"{key}: {other.get(key)} here, {self.fingerprint.get(key)} in the plan"
            for key in keys
            if self.fingerprint.get(key) != other.get(key)
        ]

    def names(self, dtype: torch.dtype | str) -> dict[str, dict[str, str]]:
        """{slot: {kind of call: candidate}} for a dtype; empty if the plan does not have the dtype."""
        chosen = self.choices.get(dtype_name(dtype), {})
        return {slot: {case: each["use"] for case, each in cases.items()} for slot, cases in chosen.items()}

    def functions(self, dtype: torch.dtype | str) -> dict[str, Callable]:
        """{slot: function}, ready for `model.use_plan` and `adapt`. Raises PlanError for an unknown name."""
        made: dict[str, Callable] = {}
        for slot, cases in self.names(dtype).items():
            try:
                found = {case: candidate(slot, name) for case, name in cases.items()}
                alike = len(set(cases.values())) == 1
                made[slot] = next(iter(found.values())) if alike else ByCase(slot, cases, found)
            except ValueError as error:
                raise PlanError(f"{self.path or 'plan'}: {error}") from error
            if ANY not in found:
                raise PlanError(f"{self.path or 'plan'}: {slot} has no choice for {ANY!r}")
        return made

    def __repr__(self) -> str:
        lines = [f"plan for {self.fingerprint.get('name')} ({self.fingerprint.get('device')})"]
        for dtype in self.choices:
            lines.append(dtype)
            for slot, cases in self.names(dtype).items():
                alike = len(set(cases.values())) == 1
                shown = (
                    next(iter(cases.values())) if alike else ", ".join(f"{k}: {v}" for k, v in cases.items())
                )
                lines.append(f"  {slot:<18} {shown}")
        return "\n".join(lines)


def find() -> list[Path]:
    """The files that may hold a plan, best first."""
    named = os.environ.get(VARIABLE)
    if named:
        return [Path(named)]
    places = dict.fromkeys((Path.cwd(), Path(__file__).resolve().parents[2]))
    return [path for place in places for path in sorted((place / "reports").glob("*/plan.json"))]


def auto(model: Network, path: Path | None = None) -> dict[str, Callable]:
    """{slot: function} for a loaded model: the plan at `path`, or the first that fits. Reports on stderr.

    Returns only slots of the model. A plan that does not fit is never used; the result is {} then. A file
    that cannot be read is ignored with a note; for the file at `path` PlanError is raised.
    """
    here = fingerprint(model.device, model.config)
    dtype = dtype_name(model.dtype)
    refused = []
    for place in [path] if path else find():
        try:
            plan = Plan.load(place)
            different = plan.differences(here)
            if dtype not in plan.choices:
                different.append(f"dtype: {dtype} here, {' and '.join(plan.choices) or 'none'} in the plan")
            if not different:
                found = {slot: f for slot, f in plan.functions(dtype).items() if hasattr(model.slots, slot)}
                _say(f"plan: {place}, {len(found)} slots for {dtype}")
                return found
        except PlanError as error:
            if path:
                raise
            _say(f"plan: ignored: {error}")
            continue
        refused.append((len(different), place, different))
    if refused:
        _, place, different = min(refused, key=lambda each: each[0])
        _say(f"plan: {place} does not fit this machine ({'; '.join(different)}). {_remedy(model)}")
    else:
        _say(f"plan: none found. {_remedy(model)}")
    return {}


def _remedy(model) -> str:
    told = describe_device(model.device)
    name = f"npu-sim:{told['profile']}" if told["simulated"] else told["device"]
    return (
        f"The defaults are used; `deskocr prove --device {name} --checkpoint {_named(model)}` makes a plan."
    )


def _named(model) -> str:
    """The name of these weights for `deskocr prove`, which makes a plan for one network (default: nano's)."""
    official = {name: DeepseekOCRConfig.official(name) for name in CHECKPOINTS}
    known = {"nano": loading.read_config(named()["nano"]), **official}
    mine = network(model.config)
    return next((name for name, config in known.items() if network(config) == mine), "FOLDER")


def _say(text: str) -> None:
    print(printable(text), file=sys.stderr)  # it quotes plan files, which may come from others


plans.makers["auto"] = auto
