"""What the programs of an interpreted kernel read and write, address by address.

    with watching(x=x, out=out) as seen:
        kernel[grid](x, out, …)
    seen.loads("x", (0, 0, 0))     # the places of x that program (0, 0, 0) loads, one array per load

Triton's interpreter calls one function for each load and each store of a program. They are replaced within
the context. This works with Triton 3.4 to 3.9 and with tensors on the CPU.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
from torch import Tensor

from ..operators.kernels.launch import interpreted, why_not

Program = tuple[int, int, int]


class NeedsInterpreter(RuntimeError):
    """Kernels are not interpreted in this process. A notebook shows the message alone, in one line."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for it
        return [f"{type(self).__name__}: {self}"]


def need_interpreter() -> None:
    """Raises NeedsInterpreter, with the remedy, if kernels are not interpreted in this process."""
    if (reason := why_not()) or not interpreted():
        raise NeedsInterpreter(
            reason or "kernels are compiled here; set TRITON_INTERPRET=1 before the first import of Triton"
        )


class Seen:
    """The accesses of one or more launches, in order. A place is an index into the flat tensor."""

    def __init__(self, tensors: dict[str, Tensor]):
        self.tensors = tensors
        self.accesses: dict[tuple[str, str, Program], list[np.ndarray]] = defaultdict(list)

    def note(self, kind: str, program: Program, addresses: np.ndarray, mask: np.ndarray) -> None:
        """Keep the addresses (bytes) that the mask lets through, if they lie in one of the tensors."""
        used = addresses[mask].astype(np.int64).ravel()
        for name, tensor in self.tensors.items():
            offset = used - tensor.data_ptr()
            inside = (offset >= 0) & (offset < tensor.numel() * tensor.element_size())
            if inside.any():
                self.accesses[kind, name, program].append(offset[inside] // tensor.element_size())

    def loads(self, name: str, program: Program) -> list[np.ndarray]:
        """The places of a tensor that a program loads: one array per load."""
        return self.accesses.get(("load", name, program), [])

    def stores(self, name: str, program: Program) -> list[np.ndarray]:
        """The places of a tensor that a program stores: one array per store."""
        return self.accesses.get(("store", name, program), [])

    def count(self, kind: str, name: str) -> int:
        """How many numbers of a tensor all programs together load ("load") or store ("store")."""
        return sum(sum(map(len, each)) for (k, n, _), each in self.accesses.items() if (k, n) == (kind, name))

    @property
    def programs(self) -> int:
        """How many programs had a load or a store of one of the tensors."""
        return len({program for _, _, program in self.accesses})


@contextlib.contextmanager
def watching(**tensors: Tensor) -> Iterator[Seen]:
    """Record what interpreted kernels do with these contiguous tensors on the CPU.

    Raises:
        NeedsInterpreter: kernels are not interpreted in this process.
        ValueError: a tensor is not contiguous, or not on the CPU.
    """
    need_interpreter()
    for name, tensor in tensors.items():
        if tensor.device.type != "cpu" or not tensor.is_contiguous():
            raise ValueError(f"{name}: a contiguous tensor on the CPU is needed")
    from triton.runtime.interpreter import interpreter_builder as builder

    seen, load, store = Seen(tensors), builder.create_masked_load, builder.create_masked_store

    def loading(ptrs, mask, *rest):
        seen.note("load", tuple(builder.grid_idx), ptrs.data, mask.data)
        return load(ptrs, mask, *rest)

    def storing(ptrs, value, mask, *rest):
        seen.note("store", tuple(builder.grid_idx), ptrs.data, mask.data)
        return store(ptrs, value, mask, *rest)

    with replaced(builder, create_masked_load=loading, create_masked_store=storing):
        yield seen


@contextlib.contextmanager
def replaced(thing: object, **methods: Callable) -> Iterator[None]:
    """Within the context, `thing` has other methods; afterwards it has those of before."""
    before = {name: vars(thing)[name] for name in methods if name in vars(thing)}
    vars(thing).update(methods)
    try:
        yield
    finally:
        for name in methods:
            del vars(thing)[name]
        vars(thing).update(before)
