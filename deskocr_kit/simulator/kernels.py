"""A PrivateUse1 kernel for every ATen operator that the CPU can compute, made from the operator's schema.

Each kernel aliases the npu arguments to the CPU, runs the CPU operator and aliases the result back. The
dispatcher calls a kernel through `table`, so that a profile can replace it and restore it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from ..ascend.operator_facts import INDEXING, QUICK, TAKES_NUMBERS, WAITS
from ..opcount.definition import MASKS, effect_of
from . import counters, state
from .alias import CPU, fixed_alias, to_cpu, to_npu
from .rounding import moves_data, rounded_call
from .widening import widened_call

Tensor = torch.Tensor
CPU_KEYS = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
NUMBERS = (int, float, bool, complex)

#: The kernels in use by operator name, and those before any profile was applied.
table: dict[str, Callable[..., Any]] = {}
plain: dict[str, Callable[..., Any]] = {}
#: Operators of every device: allocation, copies and views. No profile can remove them.
always: set[str] = set()


def operator(name: str):
    """The OpOverload of "aten::name.overload". Raises AttributeError if this torch does not have it."""
    packet, _, overload = name.removeprefix("aten::").partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def mixed_devices(name: str, one: str, other: str):
    raise RuntimeError(
        "Expected all tensors to be on the same device, but found at least two devices, "
        f"{one} and {other}! (when checking arguments of {name})"
    )


def register(library, name: str, body) -> None:
    """Register `body` as the kernel of `name` on an npu, called through `table`."""
    plain[name] = table[name] = body
    if name in always:
        library.impl(name.removeprefix("aten::"), body, "PrivateUse1")
        return

    def enter(*args, **kwargs):
        return table[name](*args, **kwargs)

    library.impl(name.removeprefix("aten::"), enter, "PrivateUse1")


def make(name: str, call=None, host: tuple[int, ...] = (), stays: tuple[int, ...] = ()):
    """The kernel of `name`: a view, a reader or a writer, according to its schema.

    For readers only: call: a function of CPU tensors instead of the CPU's operator; host, stays: positions of
    arguments and results that are on the host.
    """
    op = operator(name)
    schema = op._schema
    written = tuple(
        (i, a.name) for i, a in enumerate(schema.arguments) if a.alias_info and a.alias_info.is_write
    )
    if written:
        return _writer(op, name, written)
    if any(r.alias_info is not None for r in schema.returns):
        always.add(name)
        return _view(op, name)
    return _reader(op, name, call, host, stays)


def _view(op, name: str):
    """PyTorch's own kernel on the npu tensor: it reads no memory, and keeps sharing and version counters."""
    redispatch, active = op._handle.redispatch_boxed, counters.active

    def view(*args, **kwargs):
        if active:
            counters.note("view", name)
        return redispatch(CPU_KEYS, *args, **kwargs)

    return view


def _reader(op, name: str, call=None, host: tuple = (), stays: tuple = ()):
    bring, call = _bringer(op, name, host), call or op._op
    if name in QUICK:
        call = getattr(torch._C._VariableFunctions, QUICK[name])
    active, launches, rounds = counters.active, effect_of(op) == "launch", not moves_data(name)

    def reader(*args, **kwargs):
        index, half, args, kwargs = bring(args, kwargs)
        if active and launches:
            counters.note("launch", name)
        try:
            if half and rounds and state.round_half:
                result = rounded_call(call, args, kwargs, ())
            else:
                result = call(*args, **kwargs)
        except RuntimeError as error:  # NotImplementedError; in torch 2.6 a RuntimeError
            result = widened_call(error, name, call, (), *args, **kwargs)
        if stays:
            return tuple(x if i in stays else send_back(x, index) for i, x in enumerate(result))
        return to_npu(result, index) if isinstance(result, Tensor) else send_back(result, index)

    return reader


def _writer(op, name: str, written: tuple):
    schema = op._schema
    bring, call = _bringer(op, name), op._op
    active, launches, rounds = counters.active, effect_of(op) == "launch", not moves_data(name)
    outs = [argument for i, argument in written if schema.arguments[i].kwarg_only]
    returned = [_returned_argument(schema, r) for r in schema.returns]

    def writer(*args, **kwargs):
        index, half, cpu_args, cpu_kwargs = bring(args, kwargs)
        if active and launches:
            counters.note("launch", name)
        try:
            if outs:
                result = _call_out(call, cpu_args, cpu_kwargs, kwargs, outs)
            elif half and rounds and state.round_half:
                result = rounded_call(call, cpu_args, cpu_kwargs, written)
            else:
                result = call(*cpu_args, **cpu_kwargs)
        except RuntimeError as error:
            wide = functools.partial(widened_call, error, name, call, written)
            result = (
                _call_out(wide, cpu_args, cpu_kwargs, kwargs, outs) if outs else wide(*cpu_args, **cpu_kwargs)
            )
        if not returned:
            return None

        def one(place, value):
            if place is None:
                return send_back(value, index)
            return args[place[0]] if place[0] < len(args) else kwargs[place[1]]

        if len(returned) == 1:
            return one(returned[0], result)
        return tuple(one(place, value) for place, value in zip(returned, result, strict=True))

    return writer


def _returned_argument(schema, returned):
    """(position, name) of the argument that is returned, or None for a new tensor."""
    if returned.alias_info is None:
        return None
    for i, argument in enumerate(schema.arguments):
        if (
            argument.alias_info is not None
            and argument.alias_info.before_set == returned.alias_info.before_set
        ):
            return i, argument.name
    return None


def _call_out(call, args, cpu_kwargs, kwargs, outs):
    """An `out=` call.

    The CPU must not resize an alias of npu memory, so a result of another size is computed separately and
    becomes the memory of the npu tensor afterwards.
    """
    for name in outs:
        out = kwargs[name]
        if isinstance(out, Tensor):
            cpu_kwargs[name] = (
                fixed_alias(out) if out.numel() else torch.empty(0, dtype=out.dtype, device=CPU)
            )
    try:
        result = call(*args, **cpu_kwargs)
    except RuntimeError as error:
        if "resize" not in str(error):
            raise
        for name in outs:
            cpu_kwargs[name] = torch.empty(0, dtype=kwargs[name].dtype, device=CPU)
        result = call(*args, **cpu_kwargs)
    for name in outs:
        out, new = kwargs[name], cpu_kwargs[name]
        if isinstance(out, Tensor) and (out.numel() == 0 or out.shape != new.shape):
            out.set_(to_npu(new, out.get_device()))  # type: ignore[call-overload]  # the stubs miss tensors
    return result


def send_back(value, index: int):
    """Convert all tensors in a nested result to npu:index."""
    if isinstance(value, Tensor):
        return to_npu(value, index)
    if type(value) in (list, tuple):
        return type(value)([send_back(x, index) for x in value])
    return value


def _bringer(op, name: str, on_host: tuple = ()):
    """A function that moves the arguments of `op` to the CPU, except those `on_host`, by position.

    (args, kwargs) -> (device index, whether any is fp16, CPU args, CPU kwargs). It checks that all are on one
    device, and counts the waits of the host. It runs for every operator, so it only checks the arguments that
    are tensors in the schema, and its names are local.
    """
    kinds = [str(a.type) for a in op._schema.arguments]
    tensors = tuple(
        i for i, kind in enumerate(kinds) if kind in ("Tensor", "Optional[Tensor]") and i not in on_host
    )
    lists = tuple(i for i, kind in enumerate(kinds) if "List[" in kind and "Tensor" in kind)
    numbers_ok = name[6:].partition(".")[0].rstrip("_") in TAKES_NUMBERS
    waits, indexing, active, half = name in WAITS, name in INDEXING, counters.active, torch.float16

    def bring(args, kwargs):
        found, host, is_half = -1, False, False
        given, args = args, list(args)
        for i in tensors:
            if i >= len(args):
                break
            value = args[i]
            if isinstance(value, Tensor):
                device = value.get_device()
                if device >= 0:
                    if found < 0:
                        found = device
                    elif found != device:
                        mixed_devices(name, f"npu:{found}", f"npu:{device}")
                    args[i] = value = to_cpu(value)
                elif value.dim():
                    host = True
                if value.dtype is half:
                    is_half = True
            elif type(value) in NUMBERS and not numbers_ok:
                args[i] = _wrapped_number(value, given)
        for i in lists:
            if i < len(args) and args[i]:
                args[i], found, host = bring_list(args[i], found, host)
                is_half = is_half or any(x is not None and x.dtype is half for x in args[i])
        if kwargs:
            kwargs, found, host = bring_keywords(kwargs, found, host)
        if host and found >= 0:
            mixed_devices(name, f"npu:{found}", "cpu")
        if waits and active:
            counters.note("sync", name)
        return (found if found > 0 else 0), is_half, args, kwargs

    def bring_list(values, found: int, host: bool):
        result = []
        for value in values:
            if isinstance(value, Tensor):
                device = value.get_device()
                if device >= 0:
                    if found >= 0 and device != found:
                        mixed_devices(name, f"npu:{found}", f"npu:{device}")
                    found, value = device, to_cpu(value)
                elif not indexing:
                    host = host or bool(value.dim())
                elif active:
                    counters.note("h2d", name, value.nbytes)
                if indexing and active and value.dtype in MASKS:
                    counters.note("sync", name + " (bool mask)")
            result.append(value)
        return result, found, host

    def bring_keywords(kwargs: dict, found: int, host: bool):
        result = {}
        for key, value in kwargs.items():
            if isinstance(value, Tensor):
                device = value.get_device()
                if device < 0:
                    host = host or bool(value.dim())
                else:
                    found, value = device if found < 0 else found, to_cpu(value)
            elif type(value) is torch.device:
                if value.type == "npu":
                    found = state.checked_index(value.index)
                value = CPU
            elif type(value) is list and value and isinstance(value[0], Tensor):
                value, found, host = bring_list(value, found, host)
            result[key] = value
        return result, found, host

    return bring


def _wrapped_number(number, args):
    """A number as a tensor that does not promote the dtypes of the other arguments.

    Boxed kernels get wrapped numbers as Python scalars. If all tensors are 0-dim, the number takes the dtype
    of the first, provided that its category is not lower (bool < int < float < complex).
    """
    tensor = torch.tensor(number, device=CPU)
    partners = [x for x in args if isinstance(x, Tensor)]
    if (
        partners
        and all(x.dim() == 0 for x in partners)
        and _category(partners[0].dtype) >= _category(tensor.dtype)
    ):
        tensor = tensor.to(partners[0].dtype)
    return tensor


def _category(dtype: torch.dtype) -> int:
    return 3 if dtype.is_complex else 2 if dtype.is_floating_point else 0 if dtype is torch.bool else 1
