"""The operators of every slot, for every candidate: counted in one dry run of the network.

The dry run uses the references, as the original does, and keeps the calls of each slot as tensors without
data. Each candidate then gets the same calls. A fused operator of torch_npu, which cannot run here, counts as
one launch with a result of the right shape.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest.mock import patch

import torch

from model import DeepseekOCRConfig
from model.fast import references
from model.loading import skeleton
from model.slots import SPANNING

from ..opcount.assume import Assume
from ..opcount.recorder import Recorder
from ..operator_census.ocr_model import census_ocr
from ..operators.substitutes import npu
from ..operators.substitutes.registry import SLOTS, candidates
from .families import family_of_operator

Counts = collections.Counter  # {family of work: launches}
#: They compute once per size and process, so a page costs nothing (model/fast/position_tables.py).
ONCE = ("cached_grid", "cached_relative_table")


@dataclass
class SlotCalls:
    """The calls of one slot: {key: [times per page, times per token, args, kwargs]}."""

    calls: dict[tuple, list] = field(default_factory=dict)

    def add(self, phase: str, args: tuple, kwargs: dict) -> None:
        key = (phase == "decode", *map(_key, args), *((k, _key(v)) for k, v in kwargs.items()))
        found = self.calls.setdefault(key, [0, 0, args, kwargs])
        found[phase == "decode"] += 1


@dataclass(frozen=True)
class NetworkWork:
    """Launches of one page by family, with `tokens` decoded tokens.

    rest: outside all slots. slots: {slot: {candidate: its launches; None if it cannot be counted here}}.
    """

    rest: Counts
    slots: dict[str, dict[str, Counts | None]]
    tokens: int

    def of(self, chosen: dict[str, str]) -> Counts:
        """All launches with these candidates; "reference" where a slot is not named."""
        total = Counts(self.rest)
        for slot, found in self.slots.items():
            total += found.get(chosen.get(slot, "reference")) or found["reference"] or Counts()
        return total


def network_work(
    config: DeepseekOCRConfig | None = None,
    mode: str = "gundam",
    grid: tuple[int, int] = (2, 3),
    tokens: int = 1,
    dtype: torch.dtype = torch.float16,
) -> NetworkWork:
    """Count one page. config: None is the official size. Takes some seconds."""
    config = config or DeepseekOCRConfig()
    seen = {slot: SlotCalls() for slot in vars(skeleton(config).slots)}
    phase = ["vision"]

    def watched(slot: str, function: Callable) -> Callable:
        def call(*args, **kwargs):
            seen[slot].add(phase[0], args, kwargs)
            return function(*args, **kwargs)

        return call

    plan = {slot: watched(slot, f) for slot, f in references().items() if slot not in SPANNING}
    census = census_ocr(config, mode, grid, dtype, plan, on_phase=lambda name: phase.__setitem__(0, name))
    total: Counts = Counts()
    for name in census.phases():
        times = tokens if name == "decode" else 1
        for entry in census.select(name):
            if entry.call.kind == "launch":
                total[family_of_operator(entry.call.operator)] += entry.count * times
    slots = {}
    for slot, found in seen.items():
        if slot in SLOTS and found.calls:
            slots[slot] = {
                name: Counts() if name in ONCE else _count(function, found, tokens, config)
                for name, function in candidates(slot).items()
            }
    inside: Counts = sum((work["reference"] or Counts() for work in slots.values()), Counts())
    return NetworkWork(total - inside, slots, tokens)


def _count(function: Callable, calls: SlotCalls, tokens: int, config: DeepseekOCRConfig) -> Counts | None:
    """Launches of all calls of a slot. A call that the candidate leaves to the reference counts there."""
    plain = getattr(function, "unchecked", function)
    on_meta = torch.nn.Linear(1, 1, device="meta")  # tells the recorder which device is counted
    counts: Counts = Counts()
    for per_page, per_token, args, kwargs in calls.calls.values():
        recorder = Recorder(on_meta, _assume(config, args))
        extra: Counts = Counts()
        try:
            with torch.no_grad(), _stand_ins(recorder, extra), recorder:
                plain(*args, **kwargs)
        except Exception:  # it needs a device, values, or refuses these arguments: it is not counted
            return None
        times = per_page + per_token * tokens
        for call, n in recorder.counts.items():
            if call.kind == "launch":
                extra[family_of_operator(call.operator)] += n
        for family, n in extra.items():
            counts[family] += n * times
    return counts


def _assume(config: DeepseekOCRConfig, args: tuple) -> Assume:
    """As census_ocr: tokens spread evenly over as many experts as can be chosen."""
    c = config.decoder
    whole = [t.numel() for t in args if isinstance(t, torch.Tensor) and not t.is_floating_point()]
    pairs = max(whole, default=1)  # of token and expert

    def distinct(chosen):
        return min(c.experts, chosen.numel())

    def rows(hit):
        return max(1, hit.numel() // distinct(hit))

    return Assume(distinct=distinct, rows=rows, scalar=1, sizes=pairs)


@contextmanager
def _stand_ins(recorder: Recorder, extra: Counts) -> Iterator[None]:
    """torch_npu's operators as one launch each."""

    def operator(name: str) -> Callable:
        def run(first, *args, **kwargs):
            extra[family_of_operator(name)] += 1
            before, recorder.phase = recorder.phase, None
            try:
                return _result(name, first, args)
            finally:
                recorder.phase = before

        return run

    with patch.object(npu, "operator", operator):
        yield


def _result(name: str, first, args: tuple):
    """A tensor without data in the shape of the result of one of torch_npu's operators."""
    if name == "npu_grouped_matmul":
        return (first[0].new_empty(first[0].shape[0], args[0][0].shape[-1]),)
    if name == "npu_swiglu":
        return first.new_empty(*first.shape[:-1], first.shape[-1] // 2)
    made = torch.empty_like(first)
    several = ("npu_rms_norm", "npu_fusion_attention", "npu_fused_infer_attention_score")
    return (made, made) if name in several else made


def _key(value):
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), str(value.dtype), tuple(value.stride())
    return repr(value)
