"""Compare a model, on any device and in any dtype, with its reference: from single operators to text.

    from deskocr_kit.compare import climb, teacher_forced, compare_caches, replay, headroom

    climb(reference, candidate, inputs)                    # weights, blocks, first divergence by name
    teacher_forced(reference, candidate, inputs, ids)      # logits, top-1 and top-5 agreement, first token
    compare_caches(reference, candidate, inputs, ids)      # keys and values, layer by layer
    with replay(candidate, decisions(reference, run)): …   # the reference's experts in the candidate
    headroom(reference, run)                               # max|x| / 65504 per layer, what needs fp32

tree.py, masks.py, metrics.py: how close two values of any kind are; trace.py, walk.py: recorded calls and
operators; weights.py, ladder.py, judge.py, whole_run.py: what is compared, with which budget; locate.py,
operators.py, overflow.py, hypotheses.py: from a wrong block to the mistake; router.py, logits.py, cache.py,
headroom.py. docs/porting_faults.md shows which faults are found in other models.
"""

from __future__ import annotations

from .cache import CacheRow, compare_caches
from .headroom import Headroom, headroom
from .ladder import Divergence, Ladder, LayerComparison, climb
from .logits import Forced, teacher_forced
from .metrics import Closeness, closeness
from .router import RouterRow, compare_decisions, decisions, replay
from .trace import blocks_of, traced
from .weights import WeightFault, compare_weights

__all__ = [
    "CacheRow",
    "Closeness",
    "Divergence",
    "Forced",
    "Headroom",
    "Ladder",
    "LayerComparison",
    "RouterRow",
    "WeightFault",
    "blocks_of",
    "climb",
    "closeness",
    "compare_caches",
    "compare_decisions",
    "compare_weights",
    "decisions",
    "headroom",
    "replay",
    "teacher_forced",
    "traced",
]
