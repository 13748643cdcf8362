"""The work of one page by phase: operators to start, waits, FLOP and bytes; counted, not timed.

Launches and FLOP come from a dry census at the size of the network. Bytes come from its shapes: the weights,
which a phase reads once, and the KV cache. Results between operators may stay in a cache, so a lower bound
does not include them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch

from model import DeepseekOCRConfig
from model.fast import DEFAULTS, references
from model.loading import skeleton
from model.slots import operator

from ..benchmark.limits import LANGUAGE, VISION, active_bytes, weight_bytes
from ..operator_census.ocr_model import census_ocr, page_inputs
from ..operator_census.result import Census
from ..operators.kernels.candidates import CANDIDATES
from ..operators.kernels.launch import KERNEL
from ..operators.substitutes import npu
from ..operators.substitutes.registry import candidates
from .original_loop import census_original


@dataclass(frozen=True)
class Phase:
    """Work of a phase of one page, or of one token (decode)."""

    launches: int
    syncs: int
    flops: int
    bytes: int


@dataclass(frozen=True)
class Work:
    """Work of one page with a plan, in the phases "vision", "prefill", "decode" (one token)."""

    plan: str
    phases: dict[str, Phase]


def original_plan() -> dict[str, Callable]:
    """The reference of every slot, including the original's expert loop."""
    return references()


def portable_plan() -> dict[str, Callable]:
    """Chosen experts gathered for few tokens and grouped for many, instead of the expert loop.

    With the default norm and rotation, which select the network's own decode step (model/fast/step.py).
    """
    found = {slot: DEFAULTS[slot] for slot in ("rms_norm", "rotary")}
    return {**original_plan(), **found, "moe": candidates("moe")["gathered"]}


def fused_plan() -> dict[str, Callable]:
    """The portable plan with torch_npu's fused norm, activation and grouped product. See `counted_once`."""

    gathered: Any = candidates("moe")["gathered"]  # an Operator

    @operator(prepare=npu.npu_gathered_swiglu.prepare)
    def moe(x, gate_up, down, ids, weights):
        supported = gathered.supports(x, gate_up, down, ids)
        return (gathered if supported else npu.npu_grouped_matmul)(x, gate_up, down, ids, weights)

    return {
        **portable_plan(),
        "rms_norm": npu.npu_rms_norm,
        "swiglu": npu.npu_swiglu,
        "gelu": npu.npu_gelu,
        "moe": moe,
    }


def kernel_plan() -> dict[str, Callable]:
    """Kernels in every slot that has one. They are counted without Triton and without a device."""
    return {**DEFAULTS, **{slot: found[KERNEL] for slot, found in CANDIDATES.items()}}


def counted_once():
    """Replace each operator of torch_npu by a single operator with the same result shape.

    These stand-ins are for counting only: their values and FLOP are meaningless. The code around a fused
    operator (copies that make it contiguous, sorting) is the real one and is counted.
    """
    one = {
        "npu_rms_norm": lambda x, weight, eps: (x * weight,),
        "npu_swiglu": lambda x, dim: x[..., : x.shape[-1] // 2].neg(),
        "npu_gelu": lambda x, approximate: x.neg(),
        "npu_grouped_matmul": lambda x, w, **how: (x[0].new_zeros(x[0].shape[0], w[0].shape[-1]),),
    }
    return patch.object(npu, "operator", one.__getitem__)


#: {name: (function that returns its slots, description)}, slowest first.
PLANS: dict[str, tuple[Callable[[], dict], str]] = {
    "original": (original_plan, "the original's expert loop"),
    "portable": (portable_plan, "experts gathered or grouped, plain operators"),
    "fused": (fused_plan, "portable with torch_npu's fused operators; stand-ins were counted"),
    "kernels": (kernel_plan, "kernels in Triton, which never ran on an NPU: see deskocr kernels"),
    "graph": (
        portable_plan,
        "portable, and each further token replays a graph: one call of the host; the time that the device "
        "itself needs between two operators is not published and not included",
    ),
}


def work_of(
    config: DeepseekOCRConfig | None = None,
    mode: str = "gundam",
    grid: tuple[int, int] = (2, 3),
    dtype: torch.dtype = torch.float16,
    tokens: int = 256,
    plans: tuple[str, ...] = tuple(PLANS),
) -> list[Work]:
    """One Work per plan, for a page and `tokens` generated tokens. config: None is the official size."""
    config = config or DeepseekOCRConfig()
    model = skeleton(config).to(dtype)
    prompt = page_inputs(config, mode, grid)["input_ids"].shape[1]
    # On average half of the answer is in the cache, or the window.
    seen = min(tokens // 2, config.decoder.window or tokens)
    size = {
        "vision": weight_bytes(model, VISION),
        "prefill": weight_bytes(model, LANGUAGE) + cache_bytes(config, prompt, dtype),
        "decode": active_bytes(model) + cache_bytes(config, prompt + seen, dtype),
    }
    made: list[Work] = []
    flops = None
    for name in plans:
        if name == "graph" and (done := [work for work in made if work.plan == "portable"]):
            made.append(_replayed(done[0]))
            continue
        with counted_once() if name == "fused" else nullcontext():
            census = census_ocr(config, mode, grid, dtype, plan=PLANS[name][0]())
        if flops is None:  # the same sums in every plan; those inside a kernel are not seen
            plain = census
            if name != "original":
                plain = census_ocr(config, mode, grid, dtype, plan=original_plan())
            flops = {phase: plain.flops(phase) for phase in size}
        phases = {phase: _phase(census, phase, flops[phase], n) for phase, n in size.items()}
        if name == "original":  # our references wait more often than the original, see original_loop.py
            token = census_original(config, prompt, dtype)
            phases["decode"] = _phase(token, "decode", flops["decode"], size["decode"])
        work = Work(name, phases)
        made.append(_replayed(work) if name == "graph" else work)
    return made


def _replayed(work: Work) -> Work:
    """The same work, with a further token as one call of the host."""
    token = replace(work.phases["decode"], launches=1)
    return Work("graph", {**work.phases, "decode": token})


def _phase(census: Census, phase: str, flops: int, size: int) -> Phase:
    return Phase(census.launches(phase), census.syncs(phase), flops, size)


def cache_bytes(config: DeepseekOCRConfig, tokens: int, dtype: torch.dtype) -> int:
    """Bytes of the keys and values of `tokens` tokens in all layers."""
    c = config.decoder
    return 2 * c.layers * c.heads * c.head_dim * tokens * dtype.itemsize
