"""Record every operator of a forward pass: shapes, dtypes, module and source line.

    with Recorder(model) as recorder:
        model(pixels)
    recorder.counts            # {Call: number of calls}
    recorder.wholes            # the same, of the few operators that only some torch_npu wheels decompose

Works on real tensors of any device, on "meta" and under FakeTensor. definition.py defines the work that a
call gives to the device; operator_mode.py delivers the operators that a device with its own kernels runs.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import sys
from dataclasses import dataclass
from types import FrameType

import torch
from torch import Tensor

from . import definition
from .assume import Assume, patched_for_meta
from .operator_mode import OperatorMode, tensors

TORCH = os.path.dirname(torch.__file__) + os.sep
KIT = os.path.dirname(os.path.dirname(__file__)) + os.sep
# The instruments, which are not recorded.
HERE = tuple(
    KIT + folder.replace("/", os.sep) + os.sep
    for folder in ("opcount", "operator_census", "compare", "operators/prove", "operators/adapt", "simulator")
)
SDPA = "aten::scaled_dot_product_attention"


@dataclass(frozen=True)
class Call:
    """One kind of operator call; calls with equal fields are counted together.

    kind: "launch" (work for the device), "view", "alloc", "h2d", "d2h", "read" (a scalar), "host";
    see definition.py.
    """

    phase: str
    operator: str  # "aten::convolution", overload appended unless it is the default one
    inputs: tuple[str, ...]  # "float16[1, 3, 1024, 1024]", tensors only
    outputs: tuple[str, ...]
    options: str  # the arguments that are not tensors
    module: str  # path from the root, "" for the root's own code
    site: str  # "model/sam.py:47 forward"
    kind: str
    waits: bool  # the host stops until the device has finished
    flops: int  # multiply and add counted as two, as PyTorch's counter does; 0 if it has no formula
    moved: int  # bytes of inputs and outputs
    h2d_bytes: int = 0
    d2h_bytes: int = 0
    part_of: tuple[str, ...] = ()  # the operators in `wholes` that it is a part of, outermost first


class Recorder(OperatorMode):
    """Enter it around a forward of `root` (or of anything). Read `counts` and `examples` afterwards.

    assume: results that depend on values, for dry runs (see assume.py). With None, these raise DryRunError.
    """

    def __init__(self, root=None, assume: Assume | None = None):
        super().__init__()
        self.counts: collections.Counter[Call] = collections.Counter()
        self.wholes: collections.Counter[Call] = collections.Counter()  # see ascend.dispatch.disputed
        self._part_of: tuple[str, ...] = ()
        self.examples: dict[Call, tuple] = {}  # arguments without data, for rules that inspect them
        self.phase: str | None = ""  # None: nothing is counted
        self.assume = assume
        self._names = {id(m): name for name, m in root.named_modules()} if root is not None else {}
        self._path, self._inside = [""], 0
        devices = {p.device.type for p in root.parameters()} if root is not None else set()
        self._device = devices.pop() if len(devices) == 1 else None

    # ------------------------------------------------------------------ entering and leaving
    def __enter__(self):
        if not self._inside:
            self._stack = contextlib.ExitStack()
            hooks = torch.nn.modules.module
            for handle in (
                hooks.register_module_forward_pre_hook(self._enter_module),
                hooks.register_module_forward_hook(self._leave_module, always_call=True),
            ):
                self._stack.callback(handle.remove)
            self._stack.enter_context(patched_for_meta())
        self._inside += 1
        return super().__enter__()

    def __exit__(self, *error):
        self._inside -= 1
        result = super().__exit__(*error)
        if not self._inside:
            self._stack.close()
        return result

    def _enter_module(self, module, args):
        self._path.append(self._names.get(id(module), self._path[-1]))

    def _leave_module(self, module, args, output):
        self._path.pop()

    # ------------------------------------------------------------------ seeing
    def answer(self, name: str, function, args: tuple, kwargs: dict):
        if any(t.is_meta or type(t) is not Tensor for t in tensors(args)):
            answered, output = Assume.answer(self.assume, name, args, kwargs)
            if answered:
                return output
        return super().answer(name, function, args, kwargs)

    def seen(self, name: str, function, args: tuple, kwargs: dict, output) -> None:
        """Count one call."""
        self._count(self.counts, name, function, args, kwargs, output)

    def whole(self, name: str, function, args: tuple, kwargs: dict, output) -> None:
        self._count(self.wholes, name, function, args, kwargs, output)

    @contextlib.contextmanager
    def inside(self, name: str):
        before, self._part_of = self._part_of, (*self._part_of, name)
        try:
            yield
        finally:
            self._part_of = before

    def _count(self, counts, name: str, function, args: tuple, kwargs: dict, output) -> None:
        if self.phase is None:
            return
        given, made = list(tensors((args, kwargs))), list(tensors(output))
        kind = definition.kind(name, function._schema, given, made, self._device)
        h2d, d2h = definition.copied(name, kind, args)
        call = Call(
            phase=self.phase,
            operator=name,
            inputs=tuple(map(describe, given)),
            outputs=tuple(map(describe, made)),
            options="" if kind in ("view", "alloc") else options_of(args, kwargs),
            module=self._path[-1],
            site=call_site(),
            kind=kind,
            waits=definition.waits(name, kind, args, kwargs, output),
            flops=_flops(name, function, args, kwargs, output) if kind == "launch" else 0,
            moved=sum(t.numel() * t.element_size() for t in (*given, *made)) if kind != "view" else 0,
            h2d_bytes=h2d,
            d2h_bytes=d2h,
            part_of=self._part_of,
        )
        counts[call] += 1
        self.examples.setdefault(call, tuple(_hollow(a) for a in args))


# ---------------------------------------------------------------------- small things
def describe(t: Tensor) -> str:
    return f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}"


def _hollow(value):
    """Keep shape and dtype only; the tensor itself would occupy memory."""
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    return [_hollow(v) for v in value] if isinstance(value, (list, tuple)) else value


def options_of(args, kwargs) -> str:
    plain = [repr(a) for a in args if not isinstance(a, Tensor) and not any(True for _ in tensors(a))]
    plain += [
        f"{k}={v}" for k, v in kwargs.items() if not isinstance(v, (Tensor, torch.device)) and v is not None
    ]
    return ", ".join(plain)[:80]


def _flops(name: str, function, args, kwargs, output) -> int:
    # Here, because this module imports Triton, which reads TRITON_INTERPRET when it is imported.
    from torch.utils.flop_counter import flop_registry, sdpa_flop_count

    given = list(tensors(args))
    if name == SDPA:
        return sdpa_flop_count(*(t.shape for t in given[:3]))
    if name == "aten::matmul":
        return 2 * output.numel() * given[0].shape[-1]
    formula = flop_registry.get(function._overloadpacket)
    return int(formula(*args, **kwargs, out_val=output)) if formula else 0


@functools.cache
def passed_over(file: str) -> bool:
    """Whether a source file belongs to torch or to an instrument."""
    return file.startswith((TORCH, *HERE, "<"))


def call_site() -> str:
    """`folder/file.py:line function` of the innermost frame outside torch and the census."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not passed_over(file):
            short = "/".join(file.replace("\\", "/").split("/")[-2:])
            if short.startswith("ipykernel_"):  # its process number and hash change between runs
                return f"a cell of this notebook, line {frame.f_lineno}"
            return f"{short}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "?"
