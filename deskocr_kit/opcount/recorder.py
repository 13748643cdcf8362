"""Records every operator of a forward: what, on which shapes and dtypes, in which module, from which line.

    with Recorder(model) as recorder:
        model(pixels)
    recorder.counts            # {Call: how often}

Works on real tensors of any device, on "meta" and under FakeTensor. Two modes are stacked: one below
PyTorch's own decompositions sees the operators that reach a device; one above catches those that a device
does in one kernel although PyTorch would take them apart (attention, matmul, softmax).
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import sys
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from ..ascend.operator_facts import NO_LAUNCH, WAITS
from .assume import Assume, patched_for_meta

TORCH = os.path.dirname(torch.__file__) + os.sep
KIT = os.path.dirname(os.path.dirname(__file__)) + os.sep
# The instruments, which are not the subject.
HERE = tuple(
    KIT + folder.replace("/", os.sep) + os.sep
    for folder in ("opcount", "operator_census", "compare", "operators/prove", "simulator")
)
SDPA = "aten::scaled_dot_product_attention"
# Python name of a call -> the operator that both published wheels do in one kernel.
ONE_CALL = {
    "scaled_dot_product_attention": SDPA,
    "matmul": "aten::matmul",
    "__matmul__": "aten::matmul",
    "softmax": "aten::softmax.int",
    "isfinite": "aten::isfinite",
    "lstm": "aten::lstm.input",
    "gru": "aten::gru.input",
}
# Start nothing, though their schema does not say that they are views.
SILENT = NO_LAUNCH | {"aten::_unsafe_view", "aten::lift_fresh", "aten::detach", "aten::alias"}
READS = {"aten::_local_scalar_dense", "aten::item"}
# In eval mode they hand all they do to one operator, `_native_multi_head_attention` or
# `_transformer_encoder_layer_fwd`, but not where a function mode listens (torch.overrides).
FAST_PATHS = (torch.nn.MultiheadAttention, torch.nn.TransformerEncoderLayer)


@dataclass(frozen=True)
class Call:
    """One kind of operator call; calls that agree in all of this are counted together.

    kind: "launch" (the device has something to do), "view", "alloc", "h2d", "d2h", "read" (a scalar), "host".
    """

    phase: str
    operator: str  # "aten::convolution", overload appended unless it is the default one
    inputs: tuple[str, ...]  # "float16[1, 3, 1024, 1024]", tensors only
    outputs: tuple[str, ...]
    options: str  # the arguments that are no tensors
    module: str  # path from the root, "" for the root's own code
    site: str  # "model/vision.py:77 forward"
    kind: str
    waits: bool  # the host stops until the device has answered
    flops: int  # multiply and add counted as two, as PyTorch's counter does; 0 where it knows none
    moved: int  # bytes of inputs and outputs


class Recorder(TorchDispatchMode):
    """Enter it around a forward of `root` (or of anything). Read `counts` and `examples` afterwards.

    assume: answers for what cannot be known without values (see assume.py); None raises DryRunError there.
    composites: operators without a kernel on the device that are taken apart further, so that their parts are
        counted (see verdicts.composites).
    """

    def __init__(self, root=None, assume: Assume | None = None, composites: frozenset[str] = frozenset()):
        super().__init__()
        self.counts: collections.Counter[Call] = collections.Counter()
        self.examples: dict[Call, tuple] = {}  # hollow arguments, to ask rules that look at them
        self.phase: str | None = ""  # None: nothing is counted
        self.assume, self.composites = assume, composites
        self._names = {id(m): name for name, m in root.named_modules()} if root is not None else {}
        self._path, self._inside, self._deaf = [""], 0, []
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
            above = self._stack.enter_context(_Above(self))
            self._stack.enter_context(_seen_by(above, torch.nn.functional, "scaled_dot_product_attention"))
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
        if isinstance(module, FAST_PATHS):
            self._deaf.append(torch._C.DisableTorchFunction())
            self._deaf[-1].__enter__()

    def _leave_module(self, module, args, output):
        self._path.pop()
        if isinstance(module, FAST_PATHS):
            self._deaf.pop().__exit__(None, None, None)

    # ------------------------------------------------------------------ seeing
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function._schema.name
        if function._overloadname != "default":
            name += f".{function._overloadname}"
        if name in self.composites and (parts := _taken_apart(name, function, args)) is not None:
            with self:  # its parts arrive here in its place
                return parts(*args, **kwargs)
        answered, output = (False, None)
        if any(t.is_meta or type(t) is not Tensor for t in _tensors(args)):
            answered, output = Assume.answer(self.assume, name, args, kwargs)
        if not answered:
            output = function(*args, **kwargs)
        self.note(name, function, args, kwargs, output)
        return output

    def note(self, name: str, function, args, kwargs, output) -> None:
        """Count one call."""
        if self.phase is None:
            return
        given, made = list(_tensors((args, kwargs))), list(_tensors(output))
        kind = self._kind(name, function, given, made)
        options = "" if kind in ("view", "alloc") else _options(args, kwargs)
        call = Call(
            phase=self.phase,
            operator=name,
            inputs=tuple(map(describe, given)),
            outputs=tuple(map(describe, made)),
            options=options,
            module=self._path[-1],
            site=call_site(),
            kind=kind,
            waits=kind in ("read", "d2h") or name in WAITS or _masked_index(name, given),
            flops=_flops(name, function, args, kwargs, output) if kind == "launch" else 0,
            moved=sum(t.numel() * t.element_size() for t in (*given, *made)) if kind != "view" else 0,
        )
        self.counts[call] += 1
        self.examples.setdefault(call, tuple(_hollow(a) for a in args))

    def _kind(self, name: str, function, given: list[Tensor], made: list[Tensor]) -> str:
        if name in READS:
            return "read" if self._on_device(given) else "host"
        places = {t.device.type for t in (*given, *made)}
        if not places:
            return "host"  # promote_types and the like: no tensor, no device
        if len(places) == 2 and "cpu" in places and name in ("aten::_to_copy", "aten::copy_"):
            return "d2h" if (made and made[0].device.type == "cpu") else "h2d"
        if self._device not in (None, "cpu") and places == {"cpu"}:
            return "host"
        if name in NO_LAUNCH:
            return "alloc"
        aliases = [r.alias_info for r in function._schema.returns if r.alias_info is not None]
        is_view = name in SILENT or (aliases and not any(a.is_write for a in aliases))
        return "view" if is_view else "launch"

    def _on_device(self, tensors: list[Tensor]) -> bool:
        return self._device in (None, "cpu") or any(t.device.type != "cpu" for t in tensors)


class _Above(TorchFunctionMode):
    """Counts the calls of ONE_CALL as one operator and hides their parts."""

    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = ONE_CALL.get(getattr(function, "__name__", ""))
        if name is None or self.recorder.phase is None or not isinstance(args[0] if args else None, Tensor):
            return function(*args, **kwargs)
        recorder, phase = self.recorder, self.recorder.phase
        recorder.phase = None
        try:
            if name == SDPA and type(args[0]) in (Tensor, torch.nn.Parameter) and args[0].is_meta:
                # Its shape is known; PyTorch's way to it on "meta" is a slow one.
                output = args[0].new_empty(*args[0].shape[:-1], args[2].shape[-1])
            else:
                output = function(*args, **kwargs)
        finally:
            recorder.phase = phase
        if name == SDPA and "attn_mask" in kwargs:  # the verdict asks what kind of mask it is
            args, kwargs = (
                (*args[:3], kwargs["attn_mask"]),
                {k: v for k, v in kwargs.items() if k != "attn_mask"},
            )
        packet, _, overload = name.removeprefix("aten::").partition(".")
        recorder.note(
            name, getattr(getattr(torch.ops.aten, packet), overload or "default"), args, kwargs, output
        )
        return output


@contextlib.contextmanager
def _seen_by(above: _Above, owner, name: str):
    """Calls of owner.name reach `above` also from functions that took its place, such as
    `F.multi_head_attention_forward`: a function mode does not hear what runs inside of one."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: above.__torch_function__(original, (), args, kwargs))
    try:
        yield
    finally:
        setattr(owner, name, original)


# ---------------------------------------------------------------------- small things
def describe(t: Tensor) -> str:
    return f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}"


def _tensors(value):
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _hollow(value):
    """Shape and dtype; the tensor itself would be memory."""
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    return [_hollow(v) for v in value] if isinstance(value, (list, tuple)) else value


def _options(args, kwargs) -> str:
    plain = [repr(a) for a in args if not isinstance(a, Tensor) and not any(True for _ in _tensors(a))]
    plain += [
        f"{k}={v}" for k, v in kwargs.items() if not isinstance(v, (Tensor, torch.device)) and v is not None
    ]
    return ", ".join(plain)[:80]


def _masked_index(name: str, tensors: list[Tensor]) -> bool:
    """Indexing by a bool mask: the host waits for the number of rows."""
    return name.startswith(("aten::index.", "aten::index_put")) and any(
        t.dtype in (torch.bool, torch.uint8) for t in tensors[1:]
    )


def _flops(name: str, function, args, kwargs, output) -> int:
    tensors = list(_tensors(args))
    if name == SDPA:
        return sdpa_flop_count(*(t.shape for t in tensors[:3]))
    if name == "aten::matmul":
        return 2 * output.numel() * tensors[0].shape[-1]
    formula = flop_registry.get(function._overloadpacket)
    return int(formula(*args, **kwargs, out_val=output)) if formula else 0


def _masked_scatter(x: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """As PyTorch's own composite, whose body cannot be reached on "meta"."""
    shape = torch.broadcast_shapes(x.shape, mask.shape)
    x, mask = x.expand(shape), mask.expand(shape)
    return x.clone(memory_format=torch.contiguous_format).masked_scatter_(mask, source)


def _taken_apart(name: str, function, args):
    """What runs a composite by its parts, on plain CPU and meta tensors; None elsewhere."""
    tensors = list(_tensors(args))
    kinds = {t.device.type for t in tensors}
    if len(kinds) != 1 or any(type(t) not in (Tensor, torch.nn.Parameter) for t in tensors):
        return None
    if name == "aten::masked_scatter":
        return _masked_scatter
    key = {"cpu": torch._C.DispatchKey.CPU, "meta": torch._C.DispatchKey.Meta}.get(kinds.pop())
    if key is None or torch._C._dispatch_has_kernel_for_dispatch_key(name, key.name):
        return None  # PyTorch has another body there
    return lambda *given, **named: function.redispatch(torch._C.DispatchKeySet(key), *given, **named)


@functools.cache
def passed_over(file: str) -> bool:
    """Whether a source file is torch's or an instrument's, not the subject's."""
    return file.startswith((TORCH, *HERE, "<"))


def call_site() -> str:
    """`folder/file.py:line function` of the innermost frame outside torch and the census."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if not passed_over(file):
            short = "/".join(file.replace("\\", "/").split("/")[-2:])
            if short.startswith("ipykernel_"):  # its numbers are a process's and a hash: other ones each time
                return f"a cell of this notebook, line {frame.f_lineno}"
            return f"{short}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
    return "?"
