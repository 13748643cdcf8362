"""Every planted fault in every guest, and sound candidates, over dtype, attention and padding."""

from __future__ import annotations

import copy
import itertools
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn

from tests.helpers.climb_faults import FAULTS
from tests.helpers.climb_guests import GUESTS, ClimbGuest

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
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


@torch.no_grad()
def trial(guest: ClimbGuest, fault: str, setting: Setting, device: str = "cpu") -> Outcome | None:
    """Plant one fault ("" for none) and climb. None if the guest has no place for it."""
    from deskocr_kit.compare import climb

    dtype = DTYPES[setting.dtype]
    reference, given = guest.build(setting.attention), guest.given(setting.padded)
    candidate = sound_port(reference, dtype, device)
    expected = FAULTS[fault](candidate, reference, dtype) if fault else None
    if fault == "wrong mask" and not setting.padded:
        expected = None
    if fault and expected is None:
        return None

    def run(model: nn.Module):
        p = next(model.parameters())
        moved = {k: v.to(p.device, p.dtype if v.is_floating_point() else v.dtype) for k, v in given.items()}
        output = model(**moved)
        return output if isinstance(output, torch.Tensor) else output.logits

    try:
        first = climb(reference, candidate, run).first
    except Exception as error:
        text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        return Outcome(guest.name, fault, str(setting), "raised", text[:300])
    if not fault:
        word = "right" if first is None else "false alarm"
    elif first is None:
        word = "missed"
    else:
        word = "right" if expected.named(first) else "wrong"
    return Outcome(guest.name, fault, str(setting), word, str(first)[:300] if first else "")


def battery(guests=None, faults=None, device: str = "cpu"):
    """The outcomes of all trials, in order, as a generator."""
    chosen = [GUESTS[name] for name in guests or GUESTS]
    for guest, fault in itertools.product(chosen, ["", *FAULTS] if faults is None else faults):
        for setting in settings(guest):
            if (outcome := trial(guest, fault, setting, device)) is not None:
                yield outcome
