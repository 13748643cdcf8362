"""How a kernel is started, counted and recorded; and whether kernels can run here.

A kernel is started with `launch`, as an operator of torch: instruments that count operators count it as one.
Listeners see every start; the lowering check records the launches of official shapes with one, on "meta".
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ...device import device_count, is_simulated
from ...simulator.custom_operators import launched

KERNEL = "triton"  # the candidate's name in every slot
GRID_LIMIT = 65_535  # programs of one launch on an Ascend NPU, the product over the axes
#: Triton types of the pointers to tensors, for the compilers.
TYPES = {
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.bool: "i1",
}


#: {kind of device: the parts of Triton that compile for it}.
COMPILERS = {"cuda": ("nvidia", "amd"), "npu": ("ascend",)}
INTERPRET = "set TRITON_INTERPRET=1 before Python starts to interpret kernels"


@dataclass(frozen=True)
class Launch:
    """One start of a kernel. types: (argument, "*fp16", "i32" or "fp32"); constants: known when compiling."""

    kernel: Any
    grid: tuple[int, ...]
    types: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    args: tuple = ()

    @property
    def name(self) -> str:
        return self.kernel.__name__ if hasattr(self.kernel, "__name__") else self.kernel.fn.__name__


LISTENERS: list[Callable[[Launch], None]] = []


def why_not(device: torch.device | None = None) -> str | None:
    """None if kernels can run, on `device` or on any device; else the reason and the remedy, in one line.

    They run interpreted on every device, and compiled on a CUDA card or a real NPU.
    """
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed; run: pip install triton (Linux only)"
    if interpreted():
        return _import_problem()
    kinds = [kind for kind in COMPILERS if device_count(kind)] if device is None else [device.type]
    reasons = [_not_compiled(kind) for kind in kinds or ["cpu"]]
    return None if None in reasons else reasons[0]


def _not_compiled(kind: str) -> str | None:
    """Why the installed Triton compiles no kernel for a kind of device, or None."""
    if kind == "npu" and is_simulated(kind):
        return f"the simulated NPU only interprets kernels; {INTERPRET}"
    if kind not in COMPILERS:
        return f"Triton compiles for no device here; {INTERPRET}"
    if problem := _import_problem():
        return problem
    if any(importlib.util.find_spec(f"triton.backends.{each}") for each in COMPILERS[kind]):
        return None
    if kind == "npu":
        return "this Triton has no compiler for NPUs; replace it by triton-ascend (never both)"
    return "this Triton has no compiler for CUDA; replace triton-ascend by triton (never both)"


def _import_problem() -> str | None:
    problem = importlib.import_module(f"{__package__}.language").PROBLEM
    return f"Triton cannot be imported ({problem}); install it again" if problem else None


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter: TRITON_INTERPRET=1 was set before the first import.

    Triton makes its own functions for the interpreter or for a compiler when it is imported, so that a later
    change of the variable has no effect.
    """
    made = getattr(sys.modules.get("triton.language.standard"), "sum", None)
    if made is not None:
        return type(made).__name__ == "InterpretedFunction"
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


def widens(*tensors: Tensor) -> bool:
    """Whether a product must convert its factors to fp32 first.

    The interpreter's `tl.dot` of bf16 numbers is wrong (Triton 3.7 to 3.9: it multiplies the bit patterns).
    """
    return interpreted() and any(t.dtype == torch.bfloat16 for t in tensors)


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **constants: Any) -> None:
    """Start `kernel` on a grid of programs. args: tensors and numbers; constants: compile-time arguments.

    Tensors on "meta" are recorded and nothing is computed. An empty grid starts nothing.

    Raises:
        ValueError: more programs than an NPU takes in one launch.
    """
    programs = 1
    for side in grid:
        programs *= side
    if programs == 0:
        return
    if programs > GRID_LIMIT:
        raise ValueError(
            f"{kernel.__name__}: {programs:,} programs in one launch; an NPU takes {GRID_LIMIT:,}: use "
            "larger blocks, or split the call"
        )
    if LISTENERS:
        names = kernel.arg_names
        types = tuple((name, _type(value)) for name, value in zip(names, args, strict=False))
        started = Launch(kernel, grid, types, tuple(constants.items()), args)
        for listener in LISTENERS:
            listener(started)
    tensors = [each for each in args if isinstance(each, Tensor)]
    _started.append((kernel, grid, args, constants))
    try:
        _operator(kernel.__name__)(tensors)
    finally:
        _started.pop()


# ---------------------------------------------------------------------- a kernel as an operator of torch
#: Arguments of the launches that are on their way through torch's dispatcher, which takes only tensors here.
_started: list[tuple] = []
_library = torch.library.Library("deskocr", "FRAGMENT")


@functools.cache
def _operator(name: str) -> Callable:
    """`torch.ops.deskocr.<name>`: so every instrument that counts operators counts a launch as one."""
    _library.define(f"{name}(Tensor(a!)[] tensors) -> ()")
    for key in ("CPU", "CUDA"):
        _library.impl(name, _run, key)
    _library.impl(name, functools.partial(_run_on_npu, f"deskocr::{name}"), "PrivateUse1")
    _library.impl(name, lambda tensors: None, "Meta")
    return getattr(torch.ops.deskocr, name)


def _run_on_npu(name: str, tensors: list[Tensor]) -> None:
    _run(launched(name, tensors) if is_simulated("npu") else tensors)


def _run(tensors: list[Tensor]) -> None:
    """Run the kernel with the tensors that the dispatcher delivers, in the place of those of the call."""
    if any(map(without_numbers, tensors)):
        return
    kernel, grid, args, constants = _started[-1]
    delivered = iter(tensors)
    args = tuple(next(delivered) if isinstance(each, Tensor) else each for each in args)
    if tensors and tensors[0].device.type == "cuda":
        with torch.cuda.device(tensors[0].device):
            kernel[grid](*args, **constants)
    else:
        kernel[grid](*args, **constants)


def without_numbers(tensor: Tensor) -> bool:
    """Whether a tensor has a shape only: on "meta", or in torch's inference of shapes."""
    return tensor.is_meta or isinstance(tensor, FakeTensor)


def _type(value: Any) -> str:
    if isinstance(value, Tensor):
        return "*" + TYPES[value.dtype]
    if isinstance(value, float):
        return "fp32"
    return "i32" if -(1 << 31) <= value < 1 << 31 else "i64"


@contextlib.contextmanager
def listening(listener: Callable[[Launch], None]) -> Iterator[None]:
    """Within the context, `listener` sees every launch."""
    LISTENERS.append(listener)
    try:
        yield
    finally:
        LISTENERS.remove(listener)


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n: the side of a block that holds n numbers."""
    return 1 << max(0, n - 1).bit_length()


def blocks(n: int, size: int) -> int:
    """How many blocks of `size` cover n."""
    return -(-n // size)
