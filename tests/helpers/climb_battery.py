"""Every planted fault in every guest, and sound candidates, over dtype, attention and padding."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn

from tests.helpers.climb_faults import FAULTS, SOUND, Expected, modules_that_count, three_percent
from tests.helpers.climb_guests import GUESTS, ClimbGuest

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
EVERY_MODULE = "3 % in each module in turn"
#: Each pair of dtype, attention and padding occurs in at least one row.
PAIRWISE = (
    ("fp32", "eager", False), ("fp32", "sdpa", True), ("fp16", "eager", True), ("fp16", "sdpa", False),
    ("bf16", "eager", False), ("bf16", "sdpa", True),
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    dtype: str
    attention: str
    padded: bool

    def __str__(self) -> str:
        return f"{self.dtype} {self.attention}{' padded' if self.padded else ''}"


@dataclass(frozen=True)
class Outcome:
    """named: "right", "wrong" (another place is named), "missed", "raised"; for a sound candidate "right" or
    "false alarm".
    """

    guest: str
    fault: str
    setting: str
    named: str
    first: str

    def to_json(self) -> dict:
        return asdict(self)


def settings(guest: ClimbGuest) -> list[Setting]:
    """The rows of PAIRWISE that differ for this guest."""
    rows = {
        (dtype, attention if guest.attention else "eager", padded and guest.padding)
        for dtype, attention, padded in PAIRWISE
    }
    return [Setting(*row) for row in sorted(rows)]


def sound_port(model: nn.Module, dtype: torch.dtype, device: str = "cpu") -> nn.Module:
    """A copy as transformers loads it: buffers that no checkpoint stores keep their dtype."""
    stored = set(model.state_dict())
    ported = copy.deepcopy(model).to(device, dtype)
    kept = dict(model.named_buffers())
    for name, buffer in ported.named_buffers():
        if name not in stored and buffer.is_floating_point():
            buffer.data = kept[name].data.to(device, copy=True)
    return ported


def runner(given: dict):
    """A function that runs a model on its own device in its own dtype."""

    def run(model: nn.Module):
        p = next(model.parameters())
        moved = {k: v.to(p.device, p.dtype if v.is_floating_point() else v.dtype) for k, v in given.items()}
        output = model(**moved)
        return output if isinstance(output, torch.Tensor) else output.logits

    return run


@torch.no_grad()
def trial(guest: ClimbGuest, fault: str, setting: Setting, device: str = "cpu") -> Outcome | None:
    """Plant one fault, or make a sound candidate, and climb. None if the guest has no place for the fault."""
    dtype = DTYPES[setting.dtype]
    reference = guest.build(setting.attention)
    candidate = sound_port(reference, dtype, device)
    if fault in SOUND:
        SOUND[fault](candidate)
        return judged(guest, fault, setting, None, reference, candidate)
    expected = FAULTS[fault](candidate, reference, dtype)
    if expected is None or (fault == "wrong mask" and not setting.padded):
        return None
    return judged(guest, fault, setting, expected, reference, candidate)


@torch.no_grad()
def every_module(guest: ClimbGuest, setting: Setting, device: str = "cpu") -> Iterator[Outcome]:
    """3 % in each module with weights, one after the other."""
    reference = guest.build(setting.attention)
    candidate = sound_port(reference, DTYPES[setting.dtype], device)
    for name in modules_that_count(reference, runner(guest.given(setting.padded))):
        handle = three_percent(candidate, name)
        yield judged(guest, EVERY_MODULE, setting, Expected(name), reference, candidate)
        handle.remove()


def judged(guest: ClimbGuest, fault: str, setting: Setting, expected, reference, candidate) -> Outcome:
    """Climb, and compare the first divergence with the expected one (None for a sound candidate)."""
    from deskocr_kit.compare import climb

    try:
        first = climb(reference, candidate, runner(guest.given(setting.padded))).first
    except Exception as error:
        text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        return Outcome(guest.name, fault, str(setting), "raised", text[:300])
    if expected is None:
        word = "right" if first is None else "false alarm"
    elif first is None:
        word = "missed"
    else:
        word = "right" if expected.named(first) else "wrong"
    return Outcome(guest.name, fault, str(setting), word, str(first)[:300] if first else "")


def battery(guests=None, device: str = "cpu") -> Iterator[Outcome]:
    """The outcomes of all trials, in order."""
    for guest in [GUESTS[name] for name in guests or GUESTS]:
        for fault, setting in itertools.product([*SOUND, *FAULTS], settings(guest)):
            if (outcome := trial(guest, fault, setting, device)) is not None:
                yield outcome
        # In fp16 only, where small errors hide best behind the budgets.
        yield from every_module(guest, [s for s in settings(guest) if s.dtype == "fp16"][-1], device)
