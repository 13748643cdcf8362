"""Trees of tensors, masks and complex numbers: what the instruments compare."""

from __future__ import annotations

import collections
import copy
import dataclasses

import pytest
import torch
import torch.nn as nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from transformers import DynamicCache
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

from deskocr_kit.compare import closeness, headroom, teacher_forced
from deskocr_kit.compare.headroom import islands, largest
from deskocr_kit.compare.masks import exceeds, hidden
from deskocr_kit.compare.metrics import worst
from deskocr_kit.compare.trace import keep, move_to
from deskocr_kit.compare.tree import mapped, tensors

HALF, FULL = torch.finfo(torch.float16).min, torch.finfo(torch.float32).min
Pair = collections.namedtuple("Pair", "a b")


@dataclasses.dataclass
class Fields:
    x: torch.Tensor
    name: str = "fields"


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: torch.Tensor


class State:
    def __init__(self, x):
        self.x, self.list, self.me = x, [x], self


def cache_of(x):
    cache = DynamicCache()
    cache.update(x[None, None], x[None, None] + 1, 0)
    return cache


TREES = {
    "tensor": lambda x: x,
    "nested": lambda x: [x, (x + 1, {"a": x + 2, "b": None}), "text", 3],
    "named tuple": lambda x: Pair(x, Pair(x + 1, 2)),
    "output of transformers": lambda x: BaseModelOutput(last_hidden_state=x, hidden_states=(x, x + 1)),
    "dataclass": Fields,
    "frozen dataclass": Frozen,
    "object in a circle": State,
    "cache": cache_of,
    "result of max": lambda x: x.max(-1),
    "ordered": lambda x: collections.OrderedDict(a=x, b=x + 1),
    "packed": lambda x: pack_padded_sequence(x[None], torch.tensor([2]), batch_first=True),
}


@pytest.mark.parametrize("make", TREES.values(), ids=TREES)
def test_a_tree_is_copied_moved_and_compared(make):
    x = torch.tensor([[1.0, -3.0], [2.0, 0.5]])
    tree = make(x)
    kept = keep(tree)
    assert type(kept) is type(tree)
    assert worst(kept, tree).relative == 0.0 and not worst(kept, tree).problem
    for mine, theirs in zip(tensors(kept), tensors(tree), strict=True):
        assert not mine.is_floating_point() or mine.data_ptr() != theirs.data_ptr()
    half = move_to(tree, "cpu", torch.float16)
    floating = [t for t in tensors(half) if t.is_floating_point()]
    assert floating and all(t.dtype == torch.float16 for t in floating)
    assert all(t.dtype != torch.float16 for t in tensors(tree)), "the original is as it was"
    twice = mapped(tree, lambda t: t * 2 if t.is_floating_point() else t)
    assert worst(twice, tree).relative == pytest.approx(1.0)


def test_outputs_of_transformers_keep_attributes_and_keys_together():
    moved = move_to(BaseModelOutput(last_hidden_state=torch.ones(2)), "meta", torch.float16)
    for t in (moved.last_hidden_state, moved["last_hidden_state"], moved[0]):
        assert t.is_meta and t.dtype == torch.float16


def test_the_batches_of_a_packed_sequence_stay_on_the_host():
    packed = pack_padded_sequence(torch.ones(2, 3, 4), torch.tensor([3, 1]), batch_first=True)
    moved = move_to(packed, "meta", torch.float16)
    assert isinstance(moved, PackedSequence) and moved.data.is_meta and not moved.batch_sizes.is_meta


def test_a_module_in_a_tree_is_not_copied():
    layer = nn.Linear(2, 2)
    assert keep([layer])[0] is layer and list(tensors([layer])) == []


# ---------------------------------------------------------------------- masks
def test_masks_of_every_dtype_are_one_class():
    full = torch.tensor([0.5, FULL, 2.0])
    for low in (HALF, -torch.inf, FULL, -1e9, -1e4 * 1e5, HALF + 32):
        assert closeness(torch.tensor([0.5, low, 2.0]), full).relative == 0.0, low
    assert closeness(torch.tensor([0.5, HALF, 2.0]).half(), full).ok(0)
    assert closeness(torch.tensor([0.5, -torch.inf, 2.0]).bfloat16(), torch.tensor([0.5, -1e9, 2.0])).ok(0)


def test_a_mask_does_not_hide_the_other_values():
    off = closeness(torch.tensor([0.5, FULL, 3.0]), torch.tensor([0.5, FULL, 2.0]))
    assert off.relative == pytest.approx(1 / 4.25**0.5) and off.first == (2,)


def test_another_mask_is_a_problem_that_is_placed():
    wrong = closeness(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, FULL]]))
    assert (
        "1 of 2 places are masked in one of the two only, the first, [0, 1], by the reference"
        in wrong.problem
    )
    wrong = closeness(torch.tensor([[FULL, FULL]]), torch.tensor([[0.0, FULL]]))
    assert "[0, 0], by the candidate" in wrong.problem and wrong.first == (0, 0)


def test_an_overflow_is_no_mask():
    for low in (-torch.inf, torch.inf, torch.nan):
        found = closeness(torch.tensor([1.0, low, torch.inf]).half(), torch.tensor([1.0, -70000.0, 70000.0]))
        assert not found.ok(1e9) and not found.finite
    activations = torch.tensor([1.0, -70000.0])
    assert not hidden(activations).any() and exceeds(activations, torch.float16)
    assert not exceeds(activations, torch.bfloat16) and not exceeds(torch.tensor([1.0, FULL]), torch.float16)


def test_recorded_masks_become_masks_of_the_new_dtype():
    moved = move_to(torch.tensor([0.0, FULL, -torch.inf, 1e30]), "cpu", torch.float16)
    assert moved.tolist() == [0.0, HALF, -torch.inf, -HALF]


# ---------------------------------------------------------------------- complex
def test_complex_tensors_are_pairs_of_reals():
    z = torch.polar(torch.ones(3, 4), torch.rand(3, 4))
    assert closeness(z, z).ok(0) and closeness(z.conj(), z).relative > 0.1
    wrong = z.clone()
    wrong[1, 2] = wrong[1, 2].conj()
    assert closeness(wrong, z).first == (1, 2)
    assert closeness(z.real, z).problem == "real values, expected complex ones"
    assert largest(torch.tensor([3 - 7j])) == 7.0 and largest(
        torch.tensor([complex(1, float("inf"))])
    ) == float("inf")


def test_integers_count_by_their_number():
    """A token id that is off by one in 100000 is another token."""
    assert closeness(torch.tensor([100000, 5]), torch.tensor([100001, 5])).relative == 0.5


# ---------------------------------------------------------------------- headroom
class Scaled(nn.Module):
    def __init__(self, value: float = 1e5):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("scale", torch.full((4,), value))
        self.register_buffer("mask", torch.tensor([0.0, FULL]))

    def forward(self, x):
        return self.fc(x) * 1e-5 * self.scale + (self.mask + 0)[:1]


def test_headroom_sees_weights_and_buffers_and_no_masks():
    torch.manual_seed(0)
    model, x = Scaled().eval(), torch.randn(2, 4)
    (found,) = headroom(model, lambda: model(x)).needs_fp32()
    assert (found.module, found.operator, found.largest) == ("", "buffer scale", 1e5)
    model.fc.weight.data[0, 0] = -7e4
    found = headroom(model, lambda: model(x))
    assert {(p.module, p.operator) for p in found.needs_fp32()} >= {
        ("fc", "parameter weight"),
        ("", "buffer scale"),
    }
    assert "needs fp32: parameter weight in fc reaches 7e+04" in repr(found)
    small = Scaled(10.0).eval()
    found = headroom(small, lambda: small(x))
    assert found.needs_fp32() == [] and "no operator needs fp32" in repr(found)
    assert not any("buffer" in operator for _, operator, _ in islands(small, lambda: small(x)))


# ---------------------------------------------------------------------- text
class Speaks(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(9, 9)

    def forward(self, input_ids, bias, logits_to_keep):
        assert bias.dtype == self.table.weight.dtype
        return CausalLMOutput(logits=self.table(input_ids)[:, -logits_to_keep:] + bias)


def test_teacher_forcing_moves_the_inputs():
    torch.manual_seed(0)
    model = Speaks()
    inputs = {"input_ids": torch.tensor([[1, 2]]), "bias": torch.zeros(1)}
    assert teacher_forced(model, copy.deepcopy(model).half(), inputs, [3, 4]).top1 == 1.0
