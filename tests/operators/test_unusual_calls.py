"""Unusual calls of all slots except conv2d: the result of the reference, or a refusal with a message.

The rule is in helpers/unusual_calls.py.
"""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from deskocr_kit.operators.substitutes.registry import SLOTS, candidates
from model.slots import SPANNING
from tests.helpers.unusual_calls import gradients, hold_to_the_rule, outcome, portable

torch.manual_seed(0)
r, z = torch.randn, torch.zeros


def holes(t, value=torch.nan, above=1.8):
    return torch.where(t > above, value, t)


# ---------------------------------------------------------------------- attention
Q, K, V = r(2, 3, 5, 8), r(2, 3, 7, 8), r(2, 3, 7, 8)
MASK = torch.rand(2, 1, 5, 7) < 0.6
MASK[..., 0] = True
BLIND = MASK.clone()
BLIND[0, 0, 2] = False  # every key of one query is masked
ATTENTION = {
    "a query that may look nowhere": (Q, K, V, BLIND),
    "mask and causal": (Q, K, V, MASK, True),
    "a mask for all": (Q, K, V, MASK[0, 0]),
    "a mask for one sample": (Q, K, V, MASK[:1]),
    "a mask per head": (Q, K, V, torch.rand(2, 3, 5, 7) < 0.9),
    "a mask of keys alone": (Q, K, V, MASK[0, 0, 0]),
    "a mask of another shape": (Q, K, V, MASK[..., :3]),
    "a mask of numbers": (Q, K, V, MASK.int()),
    "a mask of bytes": (Q, K, V, MASK.byte()),
    "a mask that is added": (Q, K, V, r(2, 1, 5, 7)),
    "no batch": (Q[0], K[0], V[0], MASK[0]),
    "one head": (Q[0, 0], K[0, 0], V[0, 0]),
    "vectors": (Q[0, 0, 0], K[0, 0, 0], V[0, 0, 0]),
    "no sample": (Q[:0], K[:0], V[:0]),
    "no query": (Q[:, :, :0], K, V),
    "no key": (Q, K[:, :, :0], V[:, :, :0]),
    "no key, masked": (Q, K[:, :, :0], V[:, :, :0], MASK[..., :0]),
    "no head": (Q[:, :0], K[:, :0], V[:, :0]),
    "no width": (Q[..., :0], K[..., :0], V),
    "no width of values": (Q, K, V[..., :0]),
    "other width of values": (Q, K, r(2, 3, 7, 4)),
    "one head of keys": (Q, K[:, :1], V[:, :1]),
    "groups of heads": (r(2, 4, 5, 8), r(2, 2, 7, 8), r(2, 2, 7, 8)),
    "keys for all samples": (Q, K[:1], V[:1]),
    "fewer values than keys": (Q, K, V[:, :, :5]),
    "other width of keys": (Q, K[..., :4], V),
    "causal, more queries than keys": (K, Q, Q, None, True),
    "two dtypes": (Q.half(), K, V),
    "double": (Q.double(), K.double(), V.double(), MASK),
    "half": (Q.half(), K.half(), V.half(), BLIND),
    "bfloat16": (Q.bfloat16(), K.bfloat16(), V.bfloat16(), None, True),
    "missing values": (Q, K, holes(V), MASK),
    "infinite values": (Q, K, holes(V, torch.inf)),
    "infinite keys": (Q, holes(K, torch.inf), V),
    "expanded": (Q[:, :1].expand(2, 3, 5, 8), K, V),
    "as cut from a cache": (Q, r(2, 3, 9, 8)[:, :, :7], r(2, 7, 3, 8).transpose(1, 2)),
}
if torch.__version__ >= (2, 14):  # it refuses both together; the network never passes both
    del ATTENTION["mask and causal"]

# ---------------------------------------------------------------------- SAM's attention
S = 4
QKV, REL = [r(2, 3, S * S, 8) for _ in range(3)], (r(S, S, 8), r(S, S, 8))
REL_POS = {
    "no sample": (*(t[:0] for t in QKV), *REL),
    "no head": (*(t[:, :0] for t in QKV), *REL),
    "no map": (*(z(1, 2, 0, 8) for _ in "qkv"), z(0, 0, 8), z(0, 0, 8)),
    "no width": (*(t[..., :0] for t in QKV), *(t[..., :0] for t in REL)),
    "a map of one": (*(t[:, :, :1] for t in QKV), *(t[:1, :1] for t in REL)),
    "not a square": (*(t[:, :, :12] for t in QKV), *REL),
    "tables of another size": (*QKV, r(3, 3, 8), r(3, 3, 8)),
    "tables of two sizes": (*(t[:, :, :12] for t in QKV), r(3, 3, 8), r(4, 4, 8)),
    "tables of another width": (*QKV, r(S, S, 4), REL[1]),
    "no batch": (*(t[0] for t in QKV), *REL),
    "two dtypes": (*(t.half() for t in QKV), *REL),
    "double": (*(t.double() for t in QKV), *(t.double() for t in REL)),
    "other width of values": (*QKV[:2], r(2, 3, 16, 4), *REL),
    "missing queries": (holes(QKV[0]), *QKV[1:], *REL),
    "infinite values": (*QKV[:2], holes(QKV[2], torch.inf, 2.5), *REL),
    "great in half": (*(t.half() * 60 for t in QKV), *(t.half() * 60 for t in REL)),
    "heads inside": (*(t.transpose(1, 2).contiguous().transpose(1, 2) for t in QKV), REL[0].mT, REL[1]),
    "expanded": (*(t[:1].expand(2, -1, -1, -1) for t in QKV), REL[0][:1].expand(S, S, 8), REL[1]),
}
REL_POS["heads inside"] = (*REL_POS["heads inside"][:3], REL[0].transpose(0, 1), REL[1])

# ---------------------------------------------------------------------- experts
E, I, D = 9, 24, 16
ROWS, GATE_UP, DOWN = r(6, D), r(E, 2 * I, D) / 4, r(E, D, I) / 5
IDS = torch.stack([torch.randperm(E)[:3] for _ in range(6)])
SHARES = torch.rand(6, 3)
ABSENT = IDS.clone()
ABSENT[0, 0] = E
MOE = {
    "no token": (ROWS[:0], GATE_UP, DOWN, IDS[:0], SHARES[:0]),
    "no choice": (ROWS, GATE_UP, DOWN, IDS[:, :0], SHARES[:, :0]),
    "no choice, one token": (ROWS[:1], GATE_UP, DOWN, IDS[:1, :0], SHARES[:1, :0]),
    "one expert twice": (ROWS, GATE_UP, DOWN, torch.zeros_like(IDS), SHARES),
    "short ids": (ROWS, GATE_UP, DOWN, IDS.int(), SHARES),
    "ids that are no numbers of experts": (ROWS, GATE_UP, DOWN, ABSENT, SHARES),
    "one such": (ROWS[:1], GATE_UP, DOWN, ABSENT[:1], SHARES[:1]),
    "ids that are not whole": (ROWS, GATE_UP, DOWN, IDS.float(), SHARES),
    "half, shares too": (ROWS.half(), GATE_UP.half(), DOWN.half(), IDS, SHARES.half()),
    "double": (ROWS.double(), GATE_UP.double(), DOWN.double(), IDS, SHARES),
    "shares in double": (ROWS, GATE_UP, DOWN, IDS, SHARES.double()),
    "two dtypes": (ROWS.half(), GATE_UP, DOWN, IDS, SHARES),
    "odd sizes": (r(6, 5), r(E, 6, 5), r(E, 5, 3), IDS, SHARES),
    "odd sizes, one token": (r(1, 5), r(E, 6, 5), r(E, 5, 3), IDS[:1], SHARES[:1]),
    "no hidden width": (ROWS, GATE_UP[:, :0], DOWN[..., :0], IDS, SHARES),
    "no width": (ROWS[:, :0], GATE_UP[..., :0], DOWN[:, :0], IDS, SHARES),
    "turned in memory": (ROWS.t().contiguous().t(), GATE_UP.mT.contiguous().mT, DOWN, IDS, SHARES),
    "one expert": (ROWS, GATE_UP[:1], DOWN[:1], IDS[:, :1] * 0, SHARES[:, :1]),
    "missing rows": (holes(ROWS), GATE_UP, DOWN, IDS, SHARES),
    "infinite shares": (ROWS, GATE_UP, DOWN, IDS, holes(SHARES, torch.inf, 0.9)),
    "fewer shares than ids": (ROWS, GATE_UP, DOWN, IDS, SHARES[:, :2]),
    "a sequence": (ROWS[None], GATE_UP, DOWN, IDS, SHARES),
    "expanded": (ROWS[:1].expand(6, D), GATE_UP, DOWN, IDS, SHARES),
}

# ---------------------------------------------------------------------- element by element
WEIGHT = r(32)
NORM = {
    "one vector": (r(32), WEIGHT, 1e-6),
    "no vector": (r(0, 32), WEIGHT, 1e-6),
    "no width": (r(3, 0), r(0), 1e-6),
    "half with a weight in float": (r(2, 32).half(), WEIGHT, 1e-6),
    "bfloat16 with a weight in float": (r(2, 32).bfloat16(), WEIGHT, 1e-6),
    "float with a weight in half": (r(2, 32), WEIGHT.half(), 1e-6),
    "squares beyond half": (r(2, 32).half() * 1e4, WEIGHT.half(), 1e-6),
    "zeros": (z(2, 32), WEIGHT, 1e-6),
    "zeros and no eps": (z(2, 32), WEIGHT, 0.0),
    "double": (r(2, 32).double(), WEIGHT.double(), 1e-6),
    "infinite": (holes(r(4, 32), torch.inf), WEIGHT, 1e-6),
    "missing": (holes(r(4, 32)), WEIGHT, 1e-6),
    "one weight": (r(2, 32), r(1), 1e-6),
    "a weight of two dimensions": (r(2, 3, 32), r(3, 32), 1e-6),
    "a weight too short": (r(2, 32), r(16), 1e-6),
    "whole numbers": (torch.ones(2, 32).long(), WEIGHT, 1e-6),
    "a number": (torch.tensor(3.0), r(1), 1e-6),
    "turned": (r(32, 4).t(), WEIGHT, 1e-6),
}
TURN, C = r(2, 3, 4, 8), lambda b, n, k: torch.rand(b, 1, n, k)
ROTARY = {
    "angles for a batch of one": (TURN, C(1, 4, 8), C(1, 4, 8)),
    "more angles than samples": (TURN[:1], C(2, 4, 8), C(2, 4, 8)),
    "halves that differ": (TURN, C(2, 4, 8), C(2, 4, 8)),
    "an odd width": (r(2, 3, 4, 7), C(2, 4, 7), C(2, 4, 7)),
    "a width of one": (r(2, 3, 4, 1), C(2, 4, 1), C(2, 4, 1)),
    "a width of two": (r(2, 3, 4, 2), C(2, 4, 2), C(2, 4, 2)),
    "no width": (r(2, 3, 4, 0), C(2, 4, 0), C(2, 4, 0)),
    "no token": (r(2, 3, 0, 8), C(2, 0, 8), C(2, 0, 8)),
    "no sample": (r(0, 3, 4, 8), C(0, 4, 8), C(0, 4, 8)),
    "half, angles in float": (TURN.half(), C(2, 4, 8), C(2, 4, 8)),
    "float, angles in half": (TURN, C(2, 4, 8).half(), C(2, 4, 8).half()),
    "one angle for all": (TURN, C(2, 4, 1), C(2, 4, 1)),
    "half as many angles": (TURN, C(2, 4, 4), C(2, 4, 4)),
    "other positions": (TURN, C(2, 5, 8), C(2, 5, 8)),
    "no batch": (TURN[0], C(1, 4, 8)[0], C(1, 4, 8)[0]),
    "infinite": (holes(TURN, torch.inf), C(2, 4, 8), C(2, 4, 8) * 0),
    "heads inside": (TURN.transpose(1, 2).contiguous().transpose(1, 2), C(2, 4, 8), C(2, 4, 8)),
    "expanded": (TURN[:, :1].expand(2, 3, 4, 8), C(2, 4, 8), C(2, 4, 8)),
    "whole numbers": (TURN.long(), C(2, 4, 8), C(2, 4, 8)),
}
ENDS = torch.tensor([0.0, -0.0, 1e-8, 3, -3, 30, -30, 1e4, -1e4, 6e4, -6e4, torch.inf, -torch.inf, torch.nan])
GELU = {
    **{f"the ends of {dtype}": (ENDS.to(dtype),) for dtype in (torch.float16, torch.float64)},
    "the ends of fp32": (ENDS[torch.inf != ENDS],),  # torch's own vectorised gelu gives NaN for inf there
    "nothing": (r(0),),
    "a number": (torch.tensor(1.5),),
    "whole numbers": (torch.arange(4),),
    "turned": (r(3, 4).t(),),
    "expanded": (r(1, 4).expand(3, 4),),
}
SWIGLU = {
    "an odd width": (r(3, 7),),
    "a width of three": (r(2, 3),),
    "a width of one": (r(3, 1),),
    "no width": (r(3, 0),),
    "no row": (r(0, 8),),
    "a number": (torch.tensor(1.0),),
    "one row": (r(8),),
    "infinite": (torch.tensor([torch.inf, -torch.inf, 0, 1, 2, 0, torch.inf, torch.nan]),),
    "great in half": (torch.tensor([3e4, -3e4, 1, 2, 3, 1e-3]).half(),),
    "whole numbers": (torch.arange(8),),
    "turned": (r(8, 3).t(),),
    "expanded rows": (r(1, 8).expand(3, 8),),
    "expanded columns": (r(3, 1).expand(3, 8),),
}

# ---------------------------------------------------------------------- tables
GRID, STRIP = r(1, 6, 6, 4), r(11, 4)
SIDES = {"same": 6, "larger": 9, "smaller": 3, "one": 1, "none": 0, "negative": -2}
TABLE = {
    "resize_grid": {
        **{word: (GRID, side) for word, side in SIDES.items()},
        "no width": (GRID[..., :0], 4), "half": (GRID.half(), 4), "two tables": (r(2, 6, 6, 4), 4),
        "not a square": (r(1, 6, 5, 4), 6), "not a square, resized": (r(1, 6, 5, 4), 3),
        "no batch": (GRID[0], 4), "shapes alone": (GRID.to("meta"), 4), "missing": (holes(GRID), 4),
        "turned": (GRID.transpose(1, 2), 4), "expanded": (GRID[:, :1].expand(1, 6, 6, 4), 4),
    },
    "relative_table": {
        **{word: (STRIP, side) for word, side in SIDES.items()},
        "no width": (STRIP[:, :0], 4), "half": (STRIP.half(), 4), "an even number": (r(10, 4), 6),
        "no row": (STRIP[:0], 4), "shapes alone": (STRIP.to("meta"), 4), "missing": (holes(STRIP), 4),
        "shapes alone, as it is": (STRIP.to("meta"), 6), "turned": (r(4, 11).t(), 4),
    },
}  # fmt: skip

CALLS = {
    "attention": ATTENTION, "rel_pos_attention": REL_POS, "moe": MOE, "rms_norm": NORM, "rotary": ROTARY,
    "gelu": GELU, "quick_gelu": GELU, "swiglu": SWIGLU, **TABLE,
}  # fmt: skip
PAIRS = [(slot, name) for slot in CALLS for name in portable(slot)]
#: Slots with unusual calls in test_conv2d_unusual_calls.py, test_place_images_unusual_calls.py. Those that
#: span others are called by the network only: tests/kernels.
ELSEWHERE = {"conv2d", "place_images", "masked_scatter_", *SPANNING}


def test_every_slot_has_unusual_calls():
    assert set(CALLS) | ELSEWHERE == set(SLOTS), "add the slot to CALLS"


@pytest.mark.parametrize(("slot", "name"), PAIRS)
def test_hard_calls(slot, name):
    for call, args in CALLS[slot].items():
        try:
            hold_to_the_rule(slot, name, args)
        except AssertionError as error:
            raise AssertionError(f"{call}: {error}") from error


#: Every call that is declined although the reference accepts it, by slot or candidate.
DECLINED = {
    "attention": {"a mask that is added", "fewer values than keys"},
    "fused_rms_norm": {"one weight", "a weight of two dimensions", "whole numbers", "a number"},
    "rotary": {"an odd width", "one angle for all"},
    "triton": set(),
}


@pytest.mark.parametrize(("slot", "name"), PAIRS)
def test_little_is_declined(slot, name):
    declined = {
        call
        for call, args in CALLS[slot].items()
        if not isinstance(outcome(candidates(slot)["reference"], args), Exception)
        and isinstance(outcome(candidates(slot)[name], args), Exception)
    }
    assert declined == DECLINED.get(name, DECLINED.get(slot, set()))


LEARNING = {
    "attention": (Q, K, V, MASK), "rel_pos_attention": (*QKV, *REL),
    "moe": (ROWS, GATE_UP, DOWN, IDS, SHARES),
    "rms_norm": (r(3, 32), WEIGHT, 1e-6), "rotary": (TURN, C(2, 4, 8), C(2, 4, 8)), "gelu": (r(3, 5),),
    "quick_gelu": (r(3, 5),), "swiglu": (r(3, 8),), "resize_grid": (GRID, 4), "relative_table": (STRIP, 4),
}  # fmt: skip


@pytest.mark.parametrize(("slot", "name"), [pair for pair in PAIRS if pair[0] in LEARNING])
def test_gradients_and_inference_mode(slot, name):
    function, reference, args = candidates(slot)[name], candidates(slot)["reference"], LEARNING[slot]
    for some in (args, (ROWS[:1], GATE_UP, DOWN, IDS[:1], SHARES[:1])) if slot == "moe" else (args,):
        for a, b in zip(gradients(function, some), gradients(reference, some), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    expected = reference(*args)
    with torch.inference_mode():
        torch.testing.assert_close(function(*args), expected, rtol=1e-4, atol=1e-4)
    again = function(*args)  # tensors made in inference mode must not reach training
    assert not again.is_inference() and torch.allclose(again, expected, rtol=1e-4, atol=1e-4)


#: These read the chosen experts on the host, as documented, and like the reference.
LOOKING = {("moe", "in_place"), ("moe", "grouped"), ("moe", "auto")}


@pytest.mark.parametrize(("slot", "name"), [p for p in PAIRS if p[0] in LEARNING and p not in LOOKING])
def test_shapes_are_inferred_without_numbers(slot, name):
    args = (ROWS[:1], GATE_UP, DOWN, IDS[:1], SHARES[:1]) if name == "gathered" else LEARNING[slot]
    if name == "grouped_mm":  # torch infers its shape only in bfloat16
        args = [a.bfloat16() if a.is_floating_point() else a for a in args]
    expected = candidates(slot)["reference"](*args)
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(a) if torch.is_tensor(a) else a for a in args]
        ours = candidates(slot)[name](*fake)
    assert (ours.shape, ours.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize(
    ("slot", "name"), [("resize_grid", "cached_grid"), ("relative_table", "cached_relative_table")]
)
def test_who_writes_into_a_table_spoils_nobodys(slot, name):
    table = LEARNING[slot][0].clone()
    for side in (4, 9):
        candidates(slot)[name](table, side).add_(1)
        assert torch.equal(candidates(slot)[name](table, side), candidates(slot)["reference"](table, side))
