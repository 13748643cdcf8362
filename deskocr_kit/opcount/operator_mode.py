"""A dispatch mode that sees the operators that a device with its own kernels would run.

A plain dispatch mode sees other operators. PyTorch decomposes composite operators above the backend (`matmul`
into views and a product, attention into five): this mode keeps those whole for which both published torch_npu
wheels have a kernel. It decomposes operators for which a wheel has none (`new_full`, `masked_scatter`), and
reports also the whole of those that another wheel does not decompose.
The result is the same on a CPU, on "meta", under FakeTensor and on an NPU.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from ..ascend.dispatch import composites, disputed, wheel_versions
from ..ascend.operator_facts import ONE_KERNEL
from .definition import effect_of, operator_name

_IMPLICIT = torch._C.DispatchKey.CompositeImplicitAutograd
_EXPLICIT = torch._C.DispatchKey.CompositeExplicitAutograd
_has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
_SDPA = "aten::scaled_dot_product_attention"


class OperatorMode(TorchDispatchMode):
    """Calls `seen(name, function, args, kwargs, output)` once for each operator that runs inside."""

    def __init__(self):
        super().__init__()
        self._entered = 0

    def seen(self, name: str, function, args: tuple, kwargs: dict, output) -> None:
        raise NotImplementedError

    def whole(self, name: str, function, args: tuple, kwargs: dict, output) -> None:
        """Called after the parts of an operator that some published wheels do not decompose."""

    def inside(self, name: str) -> contextlib.AbstractContextManager:
        """A context around the parts of such an operator."""
        return contextlib.nullcontext()

    def answer(self, name: str, function, args: tuple, kwargs: dict):
        """The output of one operator.

        A fused attention's result is contiguous, (batch, heads, tokens, width). On the CPU tokens come
        before heads in memory. Whether a later reshape copies must not depend on this.
        """
        if name != _SDPA:
            try:
                return function(*args, **kwargs)
            except RuntimeError as error:
                if "Expected a value of type 'Tensor'" not in str(error):
                    raise
                return function(*_with_tensors(function, args), **kwargs)
        if type(args[0]) in (Tensor, torch.nn.Parameter) and args[0].is_meta:
            return args[0].new_empty(*args[0].shape[:-1], args[2].shape[-1])  # PyTorch's own path is slow
        return function(*args, **kwargs).contiguous()

    def __enter__(self):
        if not self._entered:
            self._whole = contextlib.ExitStack()
            self._whole.enter_context(kept_whole())
        self._entered += 1
        return super().__enter__()

    def __exit__(self, *error):
        self._entered -= 1
        result = super().__exit__(*error)
        if not self._entered:
            self._whole.close()
        return result

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        parts = _parts(function, _place(args, kwargs))
        name = operator_name(function)
        if parts is not None and name in disputed():
            with self.inside(name), self:
                output = parts(*args, **kwargs)
            self.whole(name, function, args, kwargs, output)
            return output
        if parts is not None:
            with self:  # the parts arrive here instead
                return parts(*args, **kwargs)
        output = self.answer(name, function, args, kwargs)
        self.seen(name, function, args, kwargs, output)
        return output


# ---------------------------------------------------------------------- decomposed
@functools.cache
def _without_kernel() -> frozenset[str]:
    """Composite operators without a kernel in a published wheel, which PyTorch decomposes."""
    return frozenset().union(*(composites(version) for version in wheel_versions()))


@functools.cache
def _parts(function, place: str) -> Callable | None:
    """A function that runs a composite operator by its parts; None for an operator that counts as one."""
    name = operator_name(function)
    if not name.startswith("aten::") or name in ONE_KERNEL or effect_of(function) == "read":
        return None
    own = {"cpu": "CPU", "cuda": "CUDA", "npu": "PrivateUse1"}.get(place)
    if own is not None and _has_kernel(name, own):
        return None
    if _has_kernel(name, "CompositeImplicitAutograd"):  # arrives whole in inference mode only
        return functools.partial(function._op_dk, _IMPLICIT)
    # Views and allocations start nothing, decomposed or not.
    apart = name in _without_kernel() and effect_of(function) == "launch"
    if apart and _has_kernel(name, "CompositeExplicitAutograd"):
        return functools.partial(function._op_dk, _EXPLICIT)
    return None


def counts_as_parts(function) -> bool:
    """Whether an OpOverload counts as the operators that it calls, and not as one."""
    return _parts(function, "cpu") is not None


def _with_tensors(function, args: tuple) -> list:
    """The arguments with 0-dim tensors for numbers, where the schema wants tensors.

    The parts of `2 << x` arrive like this: a number that PyTorch wrapped reaches Python as the number.
    """
    kinds = [str(argument.type) for argument in function._schema.arguments]
    return [
        torch.scalar_tensor(each, dtype=torch.int64 if isinstance(each, int) else None)
        if kind == "Tensor" and isinstance(each, (int, float))
        else each
        for kind, each in zip(kinds, args, strict=False)
    ]


def _place(args, kwargs: dict) -> str:
    """The type of the device that an operator runs on: that of its first tensor, or its argument `device`."""
    first = next(tensors(args), None)
    if first is None:
        first = next(tensors(kwargs), None)
    if first is not None:
        return first.device.type
    named = kwargs.get("device")
    return torch.device(named).type if named is not None else "cpu"


# ---------------------------------------------------------------------- kept whole
_open = 0
_library: torch.library.Library | None = None


@contextlib.contextmanager
def kept_whole() -> Iterator[None]:
    """Inside, dispatch modes see the composites of ONE_KERNEL as one operator. Contexts may be nested.

    A kernel on the autograd key replaces PyTorch's decomposition. If a gradient is required, they are still
    decomposed. An NPU already has such kernels.
    """
    global _open, _library
    if not _open:
        _library = torch.library.Library("aten", "IMPL")
        for name in ONE_KERNEL:
            for key in _autograd_keys():
                _library.impl(name.removeprefix("aten::"), _above(name), key)
    _open += 1
    try:
        yield
    finally:
        _open -= 1
        if not _open:
            assert _library is not None  # made by the outermost context
            _library._destroy()
            _library = None


def _autograd_keys() -> tuple[str, ...]:
    return ("AutogradCPU", "AutogradMeta", *(["AutogradCUDA"] if torch.cuda.is_available() else []))


@functools.cache
def _above(name: str) -> Callable:
    packet, _, overload = name.removeprefix("aten::").partition(".")
    op = getattr(getattr(torch.ops.aten, packet), overload or "default")
    below = torch._C._AutoDispatchBelowAutograd

    def above(*args, **kwargs):
        if differentiated((*args, *kwargs.values())):
            return op._op_dk(_IMPLICIT, *args, **kwargs)
        with below():
            return op(*args, **kwargs)

    return above


def differentiated(args) -> bool:
    """Whether a gradient of these arguments is required: backward, or inside a level of forward mode."""
    if forward_ad._current_level >= 0:
        return True
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors(args))


def tensors(value) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dicts, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
