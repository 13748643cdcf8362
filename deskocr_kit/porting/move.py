"""Move any module to a device and a dtype, as a loader in that dtype would have made it.

    moved = port_module(model, where, "fp16")
    print(moved)                 # what stayed in fp32, what `.to` would have left behind
    moved.module(pixels)

`module.to(device, torch.float16)` alone is wrong in two ways. It rounds buffers that the model computes in
fp32 on purpose: the rotary frequencies of nearly every language model, off by a few radians at position 4000
in bf16. And it leaves tensors that are plain attributes on the host.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn as nn

from ..device import pick_device
from ..device.dtypes import dtype_name, find_dtype
from .left_behind import attributes, same_place

HALVES = (torch.float16, torch.bfloat16)


@dataclass
class Moved:
    """The ported module, and what `.to(device, dtype)` alone would have done wrong.

    kept: names of parameters and buffers that stayed in fp32. left_behind: names of tensors that `.to` does
    not move, because they are plain attributes; they were moved here.
    """

    module: nn.Module
    device: torch.device
    dtype: torch.dtype
    kept: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        lines = [f"{type(self.module).__name__} on {self.device} in {dtype_name(self.dtype)}"]
        if self.kept:
            lines.append(f"in float32: {_listed(self.kept)}")
        if self.left_behind:
            lines.append(
                f"plain attributes, which .to() does not move: {_listed(self.left_behind)}; make them buffers"
            )
        return "\n".join(lines)


def port_module(
    module: nn.Module,
    device: torch.device | str,
    dtype: torch.dtype | str | None = None,
    keep: Iterable[str] | None = None,
    in_place: bool = False,
) -> Moved:
    """Move a copy of `module` to a device and a dtype, and list what needs care.

    Args:
        module: any nn.Module. It does not change, unless `in_place` is true.
        device: a torch.device, or a name as for pick_device.
        dtype: of the floating parameters and buffers: a torch.dtype or a name such as "fp16". None keeps
            their own.
        keep: names of parameters and buffers (or of modules) that stay in fp32. None: floating buffers that
            are not part of the state dict, such as rotary frequencies, and what transformers itself loads in
            fp32 (`_keep_in_fp32_modules`).
        in_place: move `module` itself, which saves the memory of a copy.

    Raises ValueError for a name in `keep` that the module does not have, DeviceError for a device that is not
    available.
    """
    where = pick_device(device, quiet=True) if isinstance(device, str) else device
    kind = find_dtype(dtype, where) if isinstance(dtype, str) else dtype
    ported = module if in_place else copy.deepcopy(module)
    low = kind in HALVES
    kept = sorted(_kept(ported, kind, keep)) if low else []
    exact = {name: tensor.detach().float() for name, tensor in _named(ported) if name in set(kept)}
    ported.to(device=where, dtype=kind)
    for name, tensor in exact.items():
        _put(ported, name, tensor.to(where))
    behind = []
    for name, tensor, put in list(attributes(ported)):
        floating = tensor.is_floating_point() and kind is not None and tensor.dtype == torch.float32
        if not same_place(tensor.device, where):
            behind.append(name)
            put(tensor.to(where, kind if floating else tensor.dtype))
    own = next((p.dtype for p in ported.parameters() if p.is_floating_point()), torch.float32)
    return Moved(ported, where, kind or own, kept, behind)


def _kept(module: nn.Module, dtype: torch.dtype | None, keep: Iterable[str] | None) -> Iterator[str]:
    """The names that stay in fp32."""
    floating = [name for name, tensor in _named(module) if tensor.is_floating_point()]
    if keep is not None:
        for wanted in keep:
            found = [name for name in floating if name == wanted or name.startswith(f"{wanted}.")]
            if not found:
                raise ValueError(f"keep: the module has no floating parameter or buffer {wanted!r}")
            yield from found
        return
    for path, part in module.named_modules():
        names = part._non_persistent_buffers_set
        yield from (n for name in names if (n := f"{path}.{name}".lstrip(".")) in floating)
    words = set(getattr(module, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.float16:
        words |= set(getattr(module, "_keep_in_fp32_modules", None) or ())
    if words:  # whole parts of a name, `*` for any number; the rule of transformers' loader
        any_word = "|".join(re.escape(word).replace(r"\*", ".*") for word in sorted(words))
        pattern = re.compile(rf"(^|\.)({any_word})($|\.)")
        yield from (name for name in floating if pattern.search(name))


def _named(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _put(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    path, _, last = name.rpartition(".")
    owner = module.get_submodule(path)
    held = owner._parameters.get(last)
    if held is not None:
        held.data = tensor  # the same Parameter, so that tied weights stay tied
    else:
        owner._buffers[last] = tensor


def _listed(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
