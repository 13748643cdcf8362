"""climb on models that are not ours: containers, masks, buffers, text, ScriptModules. No device is needed."""

from __future__ import annotations

import collections
import copy

import pytest
import torch
import torch.nn as nn
import transformers as t
from transformers.modeling_outputs import BaseModelOutput

from deskocr_kit.compare import blocks_of, climb, compare_weights
from deskocr_kit.compare.metrics import worst
from deskocr_kit.compare.operators import alignment
from tests.helpers.climb_battery import FAULTS, Setting, battery, settings, sound_port, trial
from tests.helpers.climb_guests import GUESTS


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def qwen(attention: str = "eager", **changes) -> nn.Module:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    config = t.Qwen2Config(
        **sizes | changes,
        num_key_value_heads=2,
        vocab_size=99,
        eos_token_id=None,
        attn_implementation=attention,
    )
    return t.Qwen2ForCausalLM(config).eval()


# ---------------------------------------------------------------------- the battery
#: A fault and a model for each, so that the default tests see every fault, model, dtype and attention.
PAIRS = [
    ("qwen2", "wrong rope theta", Setting("fp16", "sdpa", True)),
    ("qwen2", "rounded buffer", Setting("bf16", "eager", True)),
    ("gpt2", "swapped heads", Setting("bf16", "sdpa", False)),
    ("gpt2", "wrong weight", Setting("fp32", "eager", True)),
    ("qwen3_moe", "fewer experts", Setting("fp16", "eager", False)),
    ("qwen3_moe", "wrong mask", Setting("fp16", "eager", True)),
    ("deepseek_v2", "scaled module", Setting("bf16", "eager", True)),
    ("llava", "upside down", Setting("fp16", "sdpa", True)),
    ("llava", "swapped heads in code", Setting("fp16", "eager", False)),
    ("florence2", "wrong activation", Setting("bf16", "sdpa", False)),
    ("bart", "dropped residual", Setting("fp16", "eager", True)),
    ("bart", "wrong mask", Setting("fp32", "sdpa", True)),
    ("trocr", "exchanged layers", Setting("bf16", "eager", False)),
    ("trocr", "missing bias", Setting("fp32", "sdpa", False)),
    ("whisper", "overflow", Setting("fp16", "sdpa", False)),
    ("whisper", "skipped layer", Setting("fp32", "eager", False)),
    ("crnn", "wrong eps", Setting("fp16", "eager", False)),
    ("crnn", "scaled module", Setting("fp16", "eager", False)),
]


@pytest.mark.parametrize(("guest", "fault", "setting"), PAIRS, ids=[f"{g}-{f}" for g, f, _ in PAIRS])
def test_a_planted_fault_is_named(guest, fault, setting):
    outcome = trial(GUESTS[guest], fault, setting)
    assert outcome.named == "right", outcome


@pytest.mark.parametrize("guest", GUESTS)
def test_a_sound_port_is_right(guest):
    for setting in settings(GUESTS[guest])[-2:]:
        outcome = trial(GUESTS[guest], "none: other order of sums", setting)
        assert outcome.named == "right", outcome


def test_the_default_pairs_leave_nothing_out():
    assert {g for g, _, _ in PAIRS} == set(GUESTS)
    assert {f for _, f, _ in PAIRS} >= set(FAULTS) - {"scale between blocks"}


@pytest.mark.slow  # 1217 trials: a quarter of an hour
@pytest.mark.parametrize("guest", GUESTS)
def test_every_fault_in_every_setting(guest):
    wrong = [outcome for outcome in battery([guest]) if outcome.named != "right"]
    assert not wrong, "\n".join(map(str, wrong))


# ---------------------------------------------------------------------- blocks
class Tower(nn.Module):
    """Lists in a list, as in Florence-2's vision tower."""

    def __init__(self):
        super().__init__()
        stages = [[nn.Sequential(nn.Linear(16, 16), nn.GELU()) for _ in range(2)] for _ in range(2)]
        self.stages, self.head = nn.ModuleList(map(nn.ModuleList, stages)), nn.Linear(16, 4)

    def forward(self, x):
        for stage in self.stages:
            for block in stage:
                x = x + block(x)
        return self.head(x)


def test_blocks_in_lists_of_lists():
    model = Tower().eval()
    assert blocks_of(model) == ["stages.0.0", "stages.0.1", "stages.1.0", "stages.1.1", "head"]
    wrong = copy.deepcopy(model).half()
    wrong.stages[0][1].register_forward_hook(lambda module, args, y: y * 1.1)
    first = climb(model, wrong, torch.randn(1, 5, 16)).first
    assert first.module == "stages.0.1" and "only the candidate has aten::mul(1.1)" in first.what, first


class ByMethod(nn.Module):
    """Its forward is not called: the model calls `encode`."""

    def __init__(self):
        super().__init__()
        self.inner, self.unused = nn.Linear(8, 8), nn.Linear(8, 8)

    def encode(self, x):
        return self.inner(x).relu()


class CallsMethods(nn.Module):
    def __init__(self):
        super().__init__()
        self.tower, self.spare, self.head = ByMethod(), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.tower.encode(x))


def test_blocks_that_are_called_by_methods_and_what_is_never_compared():
    model = CallsMethods().eval()
    wrong = copy.deepcopy(model)
    wrong.tower.inner.register_forward_hook(lambda module, args, y: y * 1.03)
    ladder = climb(model, wrong, torch.randn(2, 8))
    assert [rung.name for rung in ladder.rungs] == ["tower.inner", "head"]
    assert ladder.first.module == "tower.inner"
    why = "its forward is not called, or returns None"
    assert ladder.never_compared == [f"tower.unused: {why}", f"spare: {why}"]
    for shown in (repr(ladder), ladder._repr_html_()):
        assert f"never compared: tower.unused: {why}; spare: {why}" in shown


# ---------------------------------------------------------------------- masks
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_masks_of_another_dtype_are_equal(dtype):
    model = qwen()
    ids, mask = torch.tensor([[0, 0, 3, 7], [4, 3, 7, 2]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    for given in ({"input_ids": ids}, {"input_ids": ids, "attention_mask": mask}):
        ladder = climb(model, sound_port(model, dtype), given)
        assert ladder.ok, ladder


def test_another_mask_is_a_fault_that_is_named():
    model = qwen()
    ids, mask = torch.tensor([[0, 0, 3, 7], [4, 3, 7, 2]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    run = lambda m: m(ids, attention_mask=mask if m is model else torch.ones_like(mask)).logits  # noqa: E731
    first = climb(model, copy.deepcopy(model), run).first
    assert first.rung == "between blocks" and "masked in one of the two only" in first.what, first


# ---------------------------------------------------------------------- the peer
def test_a_rounded_rotary_frequency_is_no_excuse_for_itself():
    """The copy of the reference in fp16 keeps its frequencies in fp32, as transformers loads them."""
    model = qwen(hidden_size=128, num_attention_heads=2, num_hidden_layers=1)
    run = lambda m: m(torch.arange(300)[None] % 97).logits  # noqa: E731
    for dtype in (torch.float16, torch.bfloat16):
        ladder = climb(model, copy.deepcopy(model).to(dtype), run)
        assert ladder.first.module == "model.rotary_emb", ladder
        assert (
            "inv_freq is rounded to" in ladder.first.what
            and "keep this buffer in float32" in ladder.first.what
        )
        assert climb(model, sound_port(model, dtype), run).ok


class Cancels(nn.Module):
    """A block for which fp16 is too coarse: a small difference of large numbers."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return (x * self.weight + 3000.0) - 3000.0


def test_the_peer_widens_a_budget_only_up_to_a_ceiling_and_it_is_said():
    model = nn.Sequential(Cancels(), nn.Linear(8, 8)).eval()
    ladder = climb(model, copy.deepcopy(model).half(), torch.randn(3, 8))
    assert ladder.first.module == "0" and "as inexact" in ladder.first.what, ladder
    assert ladder.rungs[0].budget == 5e-2 and any("as inexact" in note for note in ladder.notes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_three_percent_do_not_hide_in_16_bits(dtype):
    """In every Linear of a model, in a block whose residual hides it."""
    model = qwen()
    run = lambda m: m(torch.arange(20)[None]).logits  # noqa: E731
    ported = sound_port(model, dtype)
    for name, module in ported.named_modules():
        if isinstance(module, nn.Linear) and name.startswith("model.layers.1"):
            hook = module.register_forward_hook(lambda module, args, y: y * 1.03)
            first = climb(model, ported, run).first
            hook.remove()
            assert first is not None and first.module == name, (name, first)


def test_the_output_has_a_peer():
    """4 % after the last block: less than a network in fp16 may have, more than fp16 makes on the CPU."""
    model = qwen()
    ids = torch.arange(20)[None]
    run = lambda m: m(ids).logits * (1.0 if m is not ported else 1.04)  # noqa: E731
    ported = sound_port(model, torch.float16)
    first = climb(model, ported, run).first
    assert first.rung == "between blocks" and "the output differs" in first.what, first


class Experts(nn.Module):
    """Two experts; for the first token their scores are almost equal."""

    def __init__(self):
        super().__init__()
        self.router, self.experts = nn.Linear(8, 2, bias=False), nn.Parameter(torch.randn(2, 8, 8))

    def forward(self, x):
        chosen = self.router(x).topk(1, -1).indices[..., 0]
        return x + torch.einsum("ntd,ntde->nte", x, self.experts[chosen])


def test_a_near_tie_of_a_router_is_no_fault_and_a_wrong_choice_is():
    model = nn.Sequential(Experts(), nn.Linear(8, 8)).eval()
    x = torch.randn(1, 40, 8)
    with torch.no_grad():
        a, b = model[0].router.weight
        x[0, 0] -= (x[0, 0] @ (a - b) - 1e-5) * (a - b) / (a - b).pow(2).sum()  # scores 1e-5 apart
        best = model[0].router(x).argmax(-1)[0, 0]
    ported = copy.deepcopy(model).half()
    tipped = torch.zeros(2)
    tipped[1 - best] = 2e-3  # what rounding can do
    ported[0].router.register_forward_hook(
        lambda module, args, y: y + tipped.to(y) * (y.dtype == torch.float16)
    )
    ladder = climb(model, ported, x)
    assert ladder.ok and "near ties: 1 of 40 tokens have other experts" in repr(ladder), ladder
    ported[0].router.register_forward_hook(lambda module, args, y: y.flip(-1))
    assert climb(model, ported, x).first.module == "0.router"


# ---------------------------------------------------------------------- alignment
def test_alignment_of_operators():
    assert alignment(["a", "b", "c"], ["a", "b", "c"]) == {0: 0, 1: 1, 2: 2}
    assert alignment(["a", "x", "b", "c"], ["a", "b", "c"]) == {0: 0, 2: 1, 3: 2}
    assert alignment(["a", "c"], ["a", "b", "c"]) == {0: 0, 1: 2}
    assert alignment([], ["a"]) == {} and alignment(["b"], ["a"]) == {}
    long = ["a", "b"] * 600
    assert len(alignment(["x", *long], long)) == len(long)


class InOtherOperators(nn.Module):
    """x * x in the place of x ** 2, which is no fault, and a real one after it."""

    def __init__(self, other: bool, factor: float = 1.0):
        super().__init__()
        self.fc, self.other, self.factor = nn.Linear(8, 8), other, factor

    def forward(self, x):
        x = x * x if self.other else x.pow(2)
        y = self.fc(x)
        return y.sigmoid() + (y if self.factor == 1.0 else y * self.factor)


def test_other_operators_with_the_same_result_are_no_fault():
    model = InOtherOperators(False).eval()
    same, wrong = copy.deepcopy(model), copy.deepcopy(model)
    same.other = wrong.other = True
    x = torch.rand(3, 8)
    assert climb(model, same, x).ok
    wrong.factor = 1.5
    first = climb(model, wrong, x).first
    assert "aten::mul(1.5)" in first.what, first


# ---------------------------------------------------------------------- values of any kind
class Angles(nn.Module):
    def forward(self, x):
        return torch.polar(torch.ones(5, 4), torch.arange(20.0).view(5, 4))


class Turn(nn.Module):
    def __init__(self):
        super().__init__()
        self.angles, self.layers = Angles(), nn.ModuleList([nn.Linear(8, 8)])

    def forward(self, x):
        y = torch.view_as_complex(x.view(5, 4, 2)) * self.angles(x)
        return self.layers[0](torch.view_as_real(y).flatten(-2))


def test_complex_angles_of_the_wrong_sign():
    model = Turn().eval()
    wrong = copy.deepcopy(model)
    wrong.angles.forward = lambda x: Angles()(x).conj().resolve_conj()
    assert climb(model, copy.deepcopy(model), torch.randn(5, 8)).ok
    assert climb(model, wrong, torch.randn(5, 8)).first.module == "angles"


Pair = collections.namedtuple("Pair", "a b")


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, given, packed, pair):
        return Pair(self.fc(given.last_hidden_state), {"of pair": self.fc(pair.b), "sum": packed.data.sum()})


class TakesTrees(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.head = nn.ModuleList([nn.Linear(8, 8)]), Head()

    def forward(self, x):
        x = self.layers[0](x)
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 2]), batch_first=True)
        return self.head(BaseModelOutput(last_hidden_state=x), packed, pair=Pair(x, x + 1))


def test_blocks_that_take_and_return_any_tree():
    model = TakesTrees().eval()
    for dtype in (torch.float32, torch.float16):
        ported = copy.deepcopy(model).to(dtype)
        assert climb(model, ported, torch.randn(2, 3, 8)).ok
        ported.head.fc.register_forward_hook(lambda module, args, y: y * 1.05)
        assert climb(model, ported, torch.randn(2, 3, 8)).first.module == "head.fc"


class Reads(nn.Module):
    """Returns what a function makes of its result, as the `chat` of an OCR model."""

    def __init__(self, says):
        super().__init__()
        self.fc, self.says = nn.Linear(4, 4), says

    def forward(self, x):
        return self.says(self.fc(x))


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("Invoice 17", "lnvoice 17", "text differs at character 0: 'lnvoice 17', expected 'Invoice 17'"),
        ("Invoice 17", "Invoice 17 €", "text differs at character 10"),
        ([3, 7, 9], [3, 7, 8], "value 2 is 8, expected 9"),
        ([3, 7, 9], [3, 7], "2 values, expected 3"),
        ({"text": ["a"], "score": 0.5}, {"text": ["a"], "score": 0.6}, "relative"),
        (True, 1, "value 0 is 1, expected True"),
        (torch.tensor([3, 7, 9]), torch.tensor([3, 7, 8]), "relative"),
        ("Invoice 17", torch.zeros(3), "a tensor, expected str 'Invoice 17'"),
    ],
)
def test_a_run_that_returns_no_tensor(right, wrong, words):
    model = Reads(lambda y: right).eval()
    ported = copy.deepcopy(model)
    x = torch.randn(2, 4)
    assert climb(model, ported, x).ok
    ported.says = lambda y: wrong
    ladder = climb(model, ported, x)
    assert not ladder.ok and words in str(ladder.output), ladder
    assert "the output" in ladder.first.what


def test_nothing_to_compare_is_said():
    model = Reads(lambda y: None).eval()
    ladder = climb(model, copy.deepcopy(model), torch.randn(2, 4))
    assert str(ladder.output) == "no tensor to compare"
    assert ladder.never_compared == ["the output: no tensor to compare"]
    assert str(worst((), ())) == "no tensor to compare"


# ---------------------------------------------------------------------- range
class Product(nn.Module):
    """Its product exceeds fp16; the layer after it receives it."""

    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        with torch.no_grad():
            self.gate.weight *= 900
            self.up.weight *= 900
            self.down.weight *= 1e-5

    def forward(self, x):
        return self.down(self.gate(x).relu() * self.up(x))


def test_an_overflow_is_blamed_on_the_operator_that_makes_it():
    model = nn.Sequential(Product(), nn.Linear(16, 4)).eval()
    first = climb(model, copy.deepcopy(model).half(), torch.randn(1, 3, 16)).first
    assert (first.module, first.operator) == ("0", "aten::mul"), first
    assert "of the reference reaches" in first.what and "65504" in first.what and "fp32" in first.what


def test_an_overflow_between_blocks():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

        def forward(self, x):
            return self.layers[1](self.layers[0](x) * 1e6)

    for scale in (1.0, 1e-3):  # with 1 the block that receives it overflows too
        model = Net().eval()
        model.layers[1].weight.data *= scale
        first = climb(model, copy.deepcopy(model).half(), torch.randn(2, 8)).first
        assert (first.rung, first.operator) == ("between blocks", "aten::mul") and "65504" in first.what, (
            first
        )


# ---------------------------------------------------------------------- weights
def test_a_weight_keeps_its_name_and_those_of_its_ties():
    model = t.GPT2LMHeadModel(
        t.GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=50, n_positions=16)
    ).eval()
    wrong = copy.deepcopy(model)
    wrong.transformer.wte.weight.data[49, 3] += 1e-6  # a token that does not occur
    (fault,) = compare_weights(model, wrong)
    assert fault.name == "transformer.wte.weight" and fault.tied == ("lm_head.weight",)
    assert "(tied to lm_head.weight)" in str(fault)
    first = climb(model, wrong, {"input_ids": torch.tensor([[3, 7]])}).first
    assert "transformer.wte.weight" in first.what, first
    untied = copy.deepcopy(model)
    untied.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    assert compare_weights(model, untied) == [], "equal values: more memory, no fault"
    untied.lm_head.weight.data[0, 0] += 1
    assert [fault.name for fault in compare_weights(model, untied)] == ["lm_head.weight"]


def test_a_weight_that_no_block_shows_is_named_with_its_parameter():
    model = nn.Sequential(nn.Linear(4, 4)).eval()
    wrong = copy.deepcopy(model)
    wrong[0].bias.data[2] += 1e-7
    first = climb(model, wrong, torch.randn(2, 4)).first
    assert first.rung == "weights" and first.what.startswith("0.bias: "), first


def test_a_buffer_that_becomes_infinite():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)
            self.register_buffer("scale", torch.full((4,), 1e5))
            self.register_buffer("mask", torch.tensor([0.0, torch.finfo(torch.float32).min]))

        def forward(self, x):
            return self.fc(x) * (self.scale * 1e-5)

    (fault,) = compare_weights(Scaled(), Scaled().half())[-1:]
    assert str(fault) == "scale: 100000 is infinite in float16: keep this tensor in fp32"


# ---------------------------------------------------------------------- modules of other kinds
class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        return self.fc(x).relu()


def test_script_modules():
    model = nn.Sequential(nn.Linear(4, 4), torch.jit.script(Inner())).eval()
    x = torch.randn(2, 4)
    assert climb(model, copy.deepcopy(model), x).ok and climb(model[1], copy.deepcopy(model[1]), x).ok
    python = copy.deepcopy(model)
    python[1] = Inner()
    python[1].load_state_dict(model[1].state_dict())
    assert climb(model, python, x).ok
    python[1].register_forward_hook(lambda module, args, y: y * 1.5)
    assert climb(model, python, x).first.module == "1"


def test_a_module_without_parameters():
    assert climb(nn.Softmax(-1), nn.Softmax(-1), torch.randn(2, 4)).ok
    first = climb(nn.Softmax(-1), nn.Softmax(0), torch.randn(2, 4)).first
    assert "dim is 0, expected -1" in first.what, first


# ---------------------------------------------------------------------- what is shown
def test_a_long_error_is_short_in_the_table():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
    wrong, words = copy.deepcopy(model), "aten::convolution has no kernel on this device; " * 8

    def fail(module, args):
        raise NotImplementedError(words)

    wrong[1].register_forward_pre_hook(fail)
    ladder = climb(model, wrong, torch.randn(2, 4))
    row = next(line for line in repr(ladder).splitlines() if line.startswith("WRONG"))
    assert len(row) < 160 and "raises NotImplementedError" in row
    assert words in ladder.first.what, "the whole text is in the divergence"


def test_models_with_two_kinds_of_attention_are_told_apart():
    model, other = qwen("sdpa"), qwen("eager")
    other.load_state_dict(model.state_dict())
    ladder = climb(model, other, {"input_ids": torch.arange(6)[None]})
    assert "the attention is 'eager', the reference's 'sdpa'" in ladder.first.what, ladder
