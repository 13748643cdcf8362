"""Distance of activations from the fp16 maximum: max|x| / 65504 per layer and per operator.

Measured in one fp32 run on real input, so that overflows keep their size. An operator whose result exceeds
65504 has to stay in fp32; `islands` lists those that a model already keeps there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..device.dtypes import dtype_name
from ..display.palette import BAD, BELOW_LIMIT, INK
from ..display.table import text_table
from ..opcount.definition import effect_of
from ..opcount.recorder import call_site
from .masks import HALF, SHARE, hidden
from .show import html_table
from .trace import blocks_of, hooked, where
from .tree import tensors

LIMIT = 65504.0  # torch.finfo(torch.float16).max
NEAR = 0.1  # of the limit: less than 3.3 bits left, which one unusual page can exceed


@dataclass
class Peak:
    """The largest finite value of one operator in one module. dtypes: those of its results."""

    module: str
    operator: str
    site: str
    largest: float
    dtypes: set[str] = field(default_factory=set)

    @property
    def share(self) -> float:
        return self.largest / LIMIT


@dataclass
class Headroom:
    """Result of `headroom`.

    layers: {module: largest value of its results}, in order of the run. peaks: by operator and source line.
    stored: of every weight and buffer; `operator` is "parameter" or "buffer" and its name.
    """

    layers: dict[str, float]
    peaks: list[Peak]
    dtype: str
    about: str = ""
    stored: list[Peak] = field(default_factory=list)

    def needs_fp32(self, limit: float = 1.0) -> list[Peak]:
        """Operators, weights and buffers that exceed `limit` times 65504, largest first."""
        return sorted((p for p in (*self.peaks, *self.stored) if p.share > limit), key=lambda p: -p.share)

    def near(self) -> list[Peak]:
        """Operators, weights and buffers that exceed NEAR times the limit."""
        return self.needs_fp32(NEAR)

    def _table(self):
        head = ("verdict", "layer", "max |x|", "of 65504", "")
        rows = []
        for name, largest in self.layers.items():
            share = largest / LIMIT
            word = "OVERFLOW" if share > 1 else "near" if share > NEAR else "ok"
            rows.append(
                [word, name, f"{largest:.4g}", f"{share:.2%}", "#" * min(40, round(40 * share**0.25))]
            )
        return head, rows

    def _lines(self) -> list[str]:
        lines = [f"fp16 headroom, measured in {self.dtype}{self.about and ', '}{self.about}"]
        over = self.needs_fp32()
        lines += [
            f"needs fp32: {p.operator} in {p.module or 'the root'} reaches {p.largest:.4g}"
            + (f" ({p.site})" if p.site else "")
            for p in over
        ]
        return lines + ([] if over else ["no value reaches 65504: no operator needs fp32 for its range"])

    def __repr__(self) -> str:
        return "\n".join([text_table(*self._table()), *self._lines()])

    def _repr_html_(self) -> str:
        return html_table(*self._table()) + f"<p>{'<br>'.join(map(escape, self._lines()))}</p>"

    def chart(self):
        """A matplotlib Figure: max|x| of every layer on a log scale, with a line at 65504."""
        from matplotlib.figure import Figure

        names = list(self.layers)
        figure = Figure(figsize=(max(6.0, 0.22 * len(names)), 4.6), layout="constrained")
        axis = figure.subplots()
        values = [max(v, 1e-3) for v in self.layers.values()]
        over = [v > LIMIT for v in values]
        axis.bar(
            range(len(names)),
            values,
            color=[BAD[0] if o else BELOW_LIMIT for o in over],
            hatch=["xx" if o else "" for o in over],
            edgecolor=INK,
            linewidth=0.4,
        )
        axis.axhline(LIMIT, color=INK, linestyle="--", linewidth=1)
        axis.text(0, LIMIT * 1.15, "65504: the fp16 maximum", fontsize=8)
        axis.set_yscale("log")
        axis.set_ylabel("max |x|")
        axis.set_xticks(range(len(names)), [n.removeprefix("model.") for n in names], rotation=90, fontsize=6)
        axis.set_title(f"fp16 headroom{self.about and ', '}{self.about}", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        return figure

    def to_json(self) -> dict:
        return {
            "measured_in": self.dtype,
            "about": self.about,
            "limit": LIMIT,
            "layers": [{"layer": n, "largest": v, "share": v / LIMIT} for n, v in self.layers.items()],
            "needs_fp32": [vars(p) | {"dtypes": sorted(p.dtypes)} for p in self.needs_fp32()],
        }


class _Peaks(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.path, self.found = [""], {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        name = function._schema.name
        if effect_of(function) not in ("view", "alloc"):
            for t in tensors(output):
                if _counts(t):
                    self._note(name, t)
        return output

    def _note(self, name: str, t: Tensor) -> None:
        key = (self.path[-1], name, call_site())
        peak = self.found.setdefault(key, Peak(*key, 0.0))
        peak.dtypes.add(dtype_name(t.dtype))
        peak.largest = max(peak.largest, largest(t))


def _counts(t: Tensor) -> bool:
    return (t.is_floating_point() or t.is_complex()) and t.numel() > 0


def largest(t: Tensor) -> float:
    """max |x| without masks (see masks.py); inf for any other Inf or NaN.

    A complex number is a pair of real ones.
    """
    t = torch.view_as_real(t.detach().resolve_conj()) if t.is_complex() else t.detach()
    if not t.numel():
        return 0.0
    low, high = (float(x) for x in torch.aminmax(t))
    if low > SHARE * HALF:  # no mask: the usual case; false for NaN
        return max(abs(low), abs(high))
    t = t.cpu()
    rest = t[~hidden(t)].double().abs()
    return float(rest.nan_to_num(float("inf"), float("inf")).max()) if len(rest) else 0.0


def stored_peaks(model: nn.Module) -> list[Peak]:
    """The largest value of every floating parameter and buffer. What is infinite in fp16 needs fp32."""
    found = []
    for kind, tensors_ in (("parameter", model.named_parameters()), ("buffer", model.named_buffers())):
        for name, t in tensors_:
            if _counts(t):
                module, _, own = name.rpartition(".")
                found.append(Peak(module, f"{kind} {own}", "", largest(t), {dtype_name(t.dtype)}))
    return found


@torch.no_grad()
def headroom(
    model: nn.Module, run: Callable[[], object], blocks: list[str] | None = None, about: str = ""
) -> Headroom:
    """Call `run()` once and record the largest value of each layer and each operator.

    Args:
        model: in fp32 (in fp16 an overflow gives inf).
        run: runs `model`.
        blocks: paths of the layers in the table; default: trace.blocks_of.
        about: a remark for titles.
    """
    names = blocks or blocks_of(model)
    peaks, hooks = _Peaks(), []
    layers: dict[str, float] = {}

    def before(name):
        return lambda module, args: peaks.path.append(name)

    def after(name):
        def hook(module, args, output):
            if len(peaks.path) > 1:  # else another hook raised before this one saw the call
                peaks.path.pop()
            if name in names and output is not None:
                value = max((largest(t) for t in tensors(output) if _counts(t)), default=0.0)
                layers[name] = max(layers.get(name, 0.0), value)

        return hook

    for name, module in model.named_modules():
        hooks += hooked(module, before(name), after(name))
    try:
        with peaks:
            run()
    finally:
        for hook in hooks:
            hook.remove()
    dtype = dtype_name(where(model, model)[1])
    return Headroom(layers, list(peaks.found.values()), dtype, about, stored_peaks(model))


def islands(half: nn.Module, run: Callable[[], object]) -> set[tuple[str, str, str]]:
    """(module, operator, line) of all operators that a model in fp16 computes in fp32."""
    found = headroom(half, run)
    return {(p.module, p.operator, p.site) for p in found.peaks if p.dtypes == {"float32"}}
