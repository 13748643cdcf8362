"""The definition of a launch, a copy and a wait, used by all parts of the kit that count them.

The device is an NPU with torch_npu: a device with kernels of its own. The definition does not depend
on where the code runs. A composite operator for which both published wheels have a kernel counts once, also
if PyTorch decomposes it (on a CPU, on "meta"). A composite without a kernel counts as its parts, also if
PyTorch does not decompose it. Where the wheels differ, the parts count; a census for one wheel goes by that
wheel. An operator that falls back to the host is no launch: it is a wait, with copies in both directions.

launch  one operator that gives the device something to do. CANN may start several kernels for one. Views,
        allocations and changes of shape or storage are not launches; nor are copies to and from the host.
copy    bytes between host memory and the device ("h2d", "d2h"), by `_to_copy`, `copy_`, an index tensor on
        the host, or reading a scalar. The bytes are those of the source.
wait    the host stops until the device has finished: a copy to the host (unless it is asynchronous, into
        pinned memory), reading a scalar, a result whose size only the device knows.

On a CPU the numbers of one program may still differ from those on another device, for two reasons. The
device's memory is the host's: nothing is copied, `.tolist()` does not wait, and work that an accelerator
would leave to its host is the device's. And other operators run there: model/fast chooses by device,
transformers counts the tokens of its experts in another dtype, and PyTorch decomposes GRU cells.

The functions take an operator's name, its schema and its tensors. They read device, dtype and size of a
tensor, never its values. Their lists are data: ascend/operator_facts.py, and the wheels' dispatch tables.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..ascend.operator_facts import INDEXING, METADATA, NO_LAUNCH, WAITS

READS = frozenset({"aten::_local_scalar_dense", "aten::item"})
COPIES = frozenset({"aten::_to_copy", "aten::copy_"})
#: An index of one of these dtypes is a mask: only the device knows the number of its rows.
MASKS = (torch.bool, torch.uint8)


def operator_name(function) -> str:
    """ "aten::add.Tensor" for an OpOverload; the default overload has no suffix."""
    overload = function._overloadname
    return function._schema.name + (f".{overload}" if overload != "default" else "")


def effect(name: str, schema) -> str:
    """The effect of the operator on any device: "launch", "view", "alloc" or "read"."""
    if name in READS:
        return "read"
    if name in NO_LAUNCH:
        return "alloc"
    if name in METADATA:
        return "view"
    aliases = [r.alias_info for r in schema.returns if r.alias_info is not None]
    return "view" if aliases and not any(a.is_write for a in aliases) else "launch"


@functools.cache
def effect_of(function) -> str:
    """`effect` of an OpOverload, cached."""
    return effect(operator_name(function), function._schema)


def kind(
    name: str, schema, inputs: Sequence[Tensor], outputs: Sequence[Tensor], device: str | None = None
) -> str:
    """One of "launch", "view", "alloc", "h2d", "d2h", "read" (a scalar), "host" (no work for the device).

    device: the type of the device that is counted, such as "npu". None or "cpu": host memory is the device's.
    """
    places = {t.device.type for t in (*inputs, *outputs)}
    if not places or name.startswith("prim::"):
        return "host"  # such as promote_types: no tensor, or only a query about one
    if device not in (None, "cpu") and places == {"cpu"}:
        return "host"
    if name in COPIES and len(places) == 2 and "cpu" in places:
        return "d2h" if outputs[0].device.type == "cpu" else "h2d"
    return effect(name, schema)


def waits(name: str, kind: str, args: tuple = (), kwargs: dict | None = None, output=None) -> bool:
    """Whether the host waits for the device in this call. kind: what `kind` returned for it."""
    if kind == "read":
        return True
    if kind == "d2h":
        return not _asynchronous(name, args, kwargs or {}, output)
    if kind != "launch":
        return False
    if name == "aten::one_hot":  # without a number of classes it needs the largest index
        return (args[1] if len(args) > 1 else (kwargs or {}).get("num_classes", -1)) < 0
    return name in WAITS or any(t.dtype in MASKS for t in _indices(name, args))


def copied(name: str, kind: str, args: tuple = ()) -> tuple[int, int]:
    """(bytes host to device, bytes device to host) of this call. kind: what `kind` returned for it."""
    if kind == "read":
        return 0, args[0].element_size()
    if kind in ("h2d", "d2h"):
        source = args[1] if name == "aten::copy_" else args[0]
        return (source.nbytes, 0) if kind == "h2d" else (0, source.nbytes)
    if kind == "launch" and name in INDEXING and not args[0].is_cpu:
        return sum(t.nbytes for t in _indices(name, args) if t.is_cpu), 0
    return 0, 0


def _indices(name: str, args: tuple) -> Iterator[Tensor]:
    if name in INDEXING and len(args) > 1:
        yield from (t for t in args[1] if isinstance(t, Tensor))


def _asynchronous(name: str, args: tuple, kwargs: dict, output) -> bool:
    """Whether a copy to the host is asynchronous: into pinned memory, which `.to("cpu", non_blocking=True)`
    allocates.
    """
    if name == "aten::_to_copy":
        return bool(kwargs.get("non_blocking"))
    asked = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
    return bool(asked) and output.is_pinned()
