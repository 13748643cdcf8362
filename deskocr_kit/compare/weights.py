"""The first rung: are the weights the same, bit for bit? Names the tensor, the value, the bit, or a swap."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

INTEGER = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}


@dataclass(frozen=True)
class WeightFault:
    """A parameter that is not the reference's, rounded to the candidate's dtype."""

    name: str
    what: str
    index: tuple[int, ...] | None = None
    bit: int | None = None
    other: str | None = None  # of an exchange: the second module

    def __str__(self) -> str:
        return f"{self.name}: {self.what}"

    def concerns(self, module: str) -> bool:
        """Whether this fault lies in `module`, or the module in what was exchanged."""
        places = [self.name] + ([self.other] if self.other else [])
        return any(p.startswith(module + ".") or (module + ".").startswith(p + ".") for p in places)


def compare_weights(reference: nn.Module, candidate: nn.Module) -> list[WeightFault]:
    """Every difference; exchanged blocks are named as such, once, instead of all their tensors.

    The reference is rounded to the candidate's dtype first, so that an fp16 copy of it has no fault.
    """
    ours, theirs = dict(candidate.named_parameters()), dict(reference.named_parameters())
    ours |= dict(candidate.named_buffers())
    theirs |= dict(reference.named_buffers())
    faults = [WeightFault(n, "missing in the candidate") for n in theirs if n not in ours]
    faults += [WeightFault(n, "not in the reference") for n in ours if n not in theirs]
    wrong = []
    for name in theirs:
        if name in ours and (fault := _compare(name, ours[name].detach(), theirs[name].detach())):
            wrong.append(fault)
    swaps = _exchanged(reference, candidate, {f.name for f in wrong}) if len(wrong) > 1 else []
    told = [prefix for pair in swaps for prefix in pair[:2]]
    faults += [
        WeightFault(a, f"exchanged with {b}: each holds the weights of the other", other=b) for a, b in swaps
    ]
    return faults + [f for f in wrong if not any(f.name.startswith(p + ".") for p in told)]


def _compare(name: str, ours: Tensor, theirs: Tensor) -> WeightFault | None:
    if ours.shape != theirs.shape:
        return WeightFault(name, f"shape {tuple(ours.shape)}, expected {tuple(theirs.shape)}")
    a, b = ours.cpu().contiguous(), theirs.cpu().to(ours.dtype).contiguous()
    width = INTEGER[a.element_size()]
    x, y = a.view(width), b.view(width)  # bits: NaN equals itself, -0 is not 0
    if torch.equal(x, y):
        return None
    at = (x != y).nonzero()
    index = tuple(at[0].tolist())
    bits = int(x[index]) ^ int(y[index])
    bits &= (1 << (8 * a.element_size())) - 1
    shown = f"{_number(a[index])}, expected {_number(b[index])}"
    if len(at) == 1 and bits.bit_count() == 1:
        bit = bits.bit_length() - 1
        return WeightFault(name, f"one wrong bit (bit {bit}) at {list(index)}: {shown}", index, bit)
    if a.dim() == 2 and a.shape[0] == a.shape[1] and torch.equal(x, y.T):
        return WeightFault(name, "transposed", index)
    return WeightFault(
        name, f"{len(at)} of {a.numel()} values differ, the first at {list(index)}: {shown}", index
    )


def _number(value: Tensor) -> str:
    return f"{float(value):.6g}"


def _exchanged(reference: nn.Module, candidate: nn.Module, wrong: set[str]) -> list[tuple[str, str]]:
    """Pairs of modules of one type, each holding the other's weights; the largest such modules."""
    mine, theirs = dict(candidate.named_modules()), dict(reference.named_modules())
    pairs: list[tuple[str, str]] = []
    prefixes = [n for n in theirs if n and any(w.startswith(n + ".") for w in wrong) and n in mine]
    for i, a in enumerate(prefixes):
        if any(a.startswith(told + ".") for pair in pairs for told in pair):
            continue
        for b in prefixes[i + 1 :]:
            nested = a.startswith(b + ".") or b.startswith(a + ".")
            if nested or type(theirs[a]) is not type(theirs[b]):
                continue
            if _holds(mine[a], theirs[b]) and _holds(mine[b], theirs[a]):
                pairs.append((a, b))
                break
    return pairs


def _holds(module: nn.Module, other: nn.Module) -> bool:
    a, b = list(module.parameters()), list(other.parameters())
    return len(a) == len(b) > 0 and all(
        x.shape == y.shape and torch.equal(x.cpu(), y.cpu().to(x.dtype)) for x, y in zip(a, b, strict=True)
    )
