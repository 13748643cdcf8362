"""Compare weights bit by bit; name the tensor, the value, the bit, or an exchange."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn as nn
from torch import Tensor

from ..device.dtypes import dtype_name
from .masks import exceeds, hidden

INTEGER = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}


@dataclass(frozen=True)
class WeightFault:
    """A parameter that differs from the reference's parameter, rounded to the candidate's dtype."""

    name: str
    what: str
    index: tuple[int, ...] | None = None
    bit: int | None = None
    other: str | None = None  # the second module of an exchange
    tied: tuple[str, ...] = ()  # further names of the same tensor

    def __str__(self) -> str:
        also = f" (tied to {', '.join(self.tied)})" if self.tied else ""
        return f"{self.name}{also}: {self.what}"

    def concerns(self, module: str) -> bool:
        """Whether this fault is in `module`, or `module` is part of an exchanged one."""
        places = [self.name, *self.tied] + ([self.other] if self.other else [])
        return any(p.startswith(module + ".") or (module + ".").startswith(p + ".") for p in places)


def compare_weights(reference: nn.Module, candidate: nn.Module) -> list[WeightFault]:
    """The differences between the parameters and buffers of two models.

    Two exchanged blocks count as one fault, not as one per tensor. The reference is first rounded to the
    candidate's dtype, so an fp16 copy of it has no fault, unless a value becomes infinite. A tied weight is
    one fault with all its names. Weights that are equal, but tied in only one of the models, are no fault.
    """
    ours, theirs = named(candidate), named(reference)
    faults = [WeightFault(n, "missing in the candidate") for n in theirs if n not in ours]
    faults += [WeightFault(n, "not in the reference") for n in ours if n not in theirs]
    wrong = []
    for name in theirs:
        if name in ours and (fault := _compare(name, ours[name].detach(), theirs[name].detach())):
            wrong.append(fault)
    wrong = _tied(wrong, ours)
    wrong = _pairs(wrong, ours, theirs)
    swaps = _exchanged(reference, candidate, {f.name for f in wrong}) if len(wrong) > 1 else []
    reported = [prefix for pair in swaps for prefix in pair[:2]]
    faults += [
        WeightFault(a, f"exchanged with {b}: each holds the weights of the other", other=b) for a, b in swaps
    ]
    return faults + [f for f in wrong if not any(f.name.startswith(p + ".") for p in reported)]


def named(model: nn.Module) -> dict[str, Tensor]:
    """{name: parameter or buffer}; a tied parameter appears under each of its names."""
    return dict(model.named_parameters(remove_duplicate=False)) | dict(
        model.named_buffers(remove_duplicate=False)
    )


def _tied(wrong: list[WeightFault], ours: dict[str, Tensor]) -> list[WeightFault]:
    """Join the faults of one tensor with several names."""
    found: dict[int, WeightFault] = {}
    for fault in wrong:
        first = found.setdefault(id(ours[fault.name]), fault)
        if first is not fault:
            found[id(ours[fault.name])] = replace(first, tied=(*first.tied, fault.name))
    return list(found.values())


def _compare(name: str, ours: Tensor, theirs: Tensor) -> WeightFault | None:
    if ours.shape != theirs.shape:
        return WeightFault(name, f"shape {tuple(ours.shape)}, expected {tuple(theirs.shape)}")
    if lost := _lost(ours, theirs):
        return WeightFault(name, lost)
    a, b = ours.cpu().contiguous(), theirs.cpu().to(ours.dtype).contiguous()
    if a.is_complex():
        a, b = (torch.view_as_real(t.resolve_conj()) for t in (a, b))
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
    if moved := _moved(x, y):
        return WeightFault(name, moved, index)
    return WeightFault(
        name, f"{len(at)} of {a.numel()} values differ, the first at {list(index)}: {shown}", index
    )


def _lost(ours: Tensor, theirs: Tensor) -> str:
    """Describe values of the reference that are infinite in the candidate's dtype, masks excepted; or ""."""
    if not exceeds(theirs.cpu(), ours.dtype) or bool(torch.isfinite(ours).all()):
        return ""
    reach = float(theirs.detach().cpu().abs().masked_fill(hidden(theirs), 0.0).max())
    return f"{reach:.6g} is infinite in {dtype_name(ours.dtype)}: keep this tensor in fp32"


def _moved(x: Tensor, y: Tensor) -> str:
    """Describe slices of the reference at other positions of one axis, or "".

    Examples: halves of a stacked matrix (gate and up), heads (q and k), experts, a reversed table.
    """
    for axis in range(min(x.dim(), 2)):
        a, b = (t.movedim(axis, 0).reshape(t.shape[axis], -1) for t in (x, y))
        wrong = (a != b).any(1).nonzero().flatten().tolist()
        places: dict[bytes, int] = {}
        for i in range(len(b)):
            places.setdefault(b[i].numpy().tobytes(), i)
        found = [places.get(a[i].numpy().tobytes()) for i in wrong]
        source = [place for place in found if place is not None]
        if len(wrong) < 2 or len(source) < len(found) or len(set(source)) < len(source):
            continue
        word = "rows" if axis == 0 else f"places of axis {axis}"
        if (
            len(wrong) >= len(b) - 1 and source == wrong[::-1]
        ):  # if their number is odd, the middle one keeps its place
            return f"{word} in reverse order"
        runs: list[list[int]] = []  # first place, first source, length
        for place, origin in zip(wrong, source, strict=True):
            if runs and (place, origin) == (sum(runs[-1][::2]), sum(runs[-1][1:])):
                runs[-1][2] += 1
            else:
                runs.append([place, origin, 1])
        moved = [f"{_span(p, n)} hold what belongs in {_span(o, n)}" for p, o, n in runs[:2]]
        return f"{word} at the wrong place: {', '.join(moved)}" + (", …" if len(runs) > 2 else "")
    return ""


def _span(first: int, length: int) -> str:
    return str(first) if length == 1 else f"{first}:{first + length}"


def _number(value: Tensor) -> str:
    return f"{float(value):.6g}"


def _pairs(wrong: list[WeightFault], ours: dict, theirs: dict) -> list[WeightFault]:
    """Merge the faults of two exchanged tensors of one module, such as rel_pos_h and rel_pos_w."""
    found, merged = [], set()
    for i, first in enumerate(wrong):
        for second in wrong[i + 1 :]:
            a, b = first.name, second.name
            beside = a.rpartition(".")[0] == b.rpartition(".")[0] and ours[a].shape == theirs[b].shape
            if beside and _same(ours[a], theirs[b]) and _same(ours[b], theirs[a]):
                what = f"exchanged with {b.rpartition('.')[2]}: each holds the values of the other"
                found.append(WeightFault(a, what, first.index, other=b))
                merged |= {a, b}
    return found + [fault for fault in wrong if fault.name not in merged]


def _same(ours: Tensor, theirs: Tensor) -> bool:
    return torch.equal(ours.detach().cpu(), theirs.detach().cpu().to(ours.dtype))


def _exchanged(reference: nn.Module, candidate: nn.Module, wrong: set[str]) -> list[tuple[str, str]]:
    """The largest modules of one type that hold each other's weights, as pairs."""
    mine, theirs = dict(candidate.named_modules()), dict(reference.named_modules())
    pairs: list[tuple[str, str]] = []
    prefixes = [n for n in theirs if n and any(w.startswith(n + ".") for w in wrong) and n in mine]
    for i, a in enumerate(prefixes):
        if any(a.startswith(known + ".") for pair in pairs for known in pair):
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
