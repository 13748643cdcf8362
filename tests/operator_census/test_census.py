"""The census: a dry run equals a real one, lines are named, verdicts follow the tables, any module works."""

from __future__ import annotations

import collections
import json
import time

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from deskocr_kit.ascend.dispatch import VERDICTS, composites, judge, nearest_wheel, wheel_versions
from deskocr_kit.opcount.assume import Assume, DryRunError
from deskocr_kit.operator_census.any_module import census
from deskocr_kit.operator_census.figure import names
from deskocr_kit.operator_census.ocr_model import census_ocr
from model import DeepseekOCRConfig, slots
from model.fast import references


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, x):
        x = self.patch(x).mean((2, 3))
        for layer in self.layers:
            x = F.gelu(layer(x))
        return x.softmax(-1)


@pytest.fixture(scope="module")
def dry():
    """The official size; made once, because all its tests only read it."""
    start = time.process_time()
    made = census_ocr(mode="gundam", grid=(2, 1))
    made.seconds = time.process_time() - start
    return made


# ---------------------------------------------------------------------- any module


def test_meta_needs_no_memory_and_counts_the_same():
    real = census(Small(), torch.zeros(1, 3, 8, 8))
    with torch.device("meta"):
        dry = census(Small(), torch.empty(1, 3, 8, 8))
    assert dry.operators() == real.operators()


def test_under_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        found = census(Small(), torch.empty(1, 3, 8, 8))
    assert found.operators()["aten::convolution"] == 1


def test_values_are_asked_for_and_waits_are_seen():
    class Reads(nn.Module):
        def forward(self, x):
            kept = x[x > 0]
            return kept * float(x.sum())

    found = census(Reads(), torch.ones(4))
    assert found.syncs() == 2  # the rows of the mask, and the number
    with pytest.raises(DryRunError, match="index"):
        census(Reads(), torch.empty(4, device="meta"))
    told = census(Reads(), torch.empty(4, device="meta"), assume=Assume(rows=3, scalar=1.0))
    assert told.launches() == found.launches() and len(told.assumed) == 2


def test_what_touches_no_tensor_is_no_launch():
    class Asks(nn.Module):
        def forward(self, x):
            return x.to(torch.promote_types(x.dtype, torch.float32))

    found = census(Asks(), torch.zeros(2, dtype=torch.float16))
    assert found.operators() == {"aten::_to_copy": 1} and found.launches() == 1


def test_a_recurrent_layer_is_the_kernel_of_the_wheels_not_the_cpus():
    for made in (nn.LSTM(4, 4), nn.GRU(4, 4)):
        found = census(made, torch.zeros(3, 1, 4))
        (entry,) = found.select(operator=f"{type(made).__name__.lower()}.input")
        assert entry.count == 1 and entry.verdict.word == "kernel" and not found.worst()


def test_attention_of_torch_nn_goes_the_way_that_it_goes_on_a_device():
    """In eval mode one operator, which an NPU lacks for the layer of an encoder; else SDPA."""
    x, attention = torch.zeros(1, 3, 8), nn.MultiheadAttention(8, 2, batch_first=True)
    given = {"query": x, "key": x, "value": x, "need_weights": False}
    found = census(attention.eval(), given)
    assert found.operators() == {"aten::_native_multi_head_attention": 1} and not found.worst()
    found = census(attention.train(), given)
    assert found.operators()["aten::scaled_dot_product_attention"] == 1
    assert not [name for name in found.operators() if name.endswith("_for_cpu")] and not found.worst()
    layer = nn.TransformerEncoderLayer(8, 2, batch_first=True).eval()
    (entry,) = census(nn.Sequential(layer, nn.Linear(8, 8)), x).worst()
    assert entry.call.operator == "aten::_transformer_encoder_layer_fwd"
    assert entry.verdict.word == "CPU fallback" and entry.call.module == "0"


def test_a_transformers_model():
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    found = census(CLIPVisionModel(config), {"pixel_values": torch.zeros(1, 3, 28, 28)})
    (conv,) = found.select(operator="convolution")
    assert conv.call.module.endswith("embeddings.patch_embedding")
    assert "modeling_clip.py" in conv.call.site
    assert found.operators()["aten::scaled_dot_product_attention"] == 2


# ---------------------------------------------------------------------- verdicts
def test_tables_and_versions():
    assert wheel_versions() == ["2.6.0.post5", "2.13.0"]
    assert (
        nearest_wheel("2.9.0.post2") == "2.6.0.post5"
        and nearest_wheel("2.14.0") == "2.13.0"
        and nearest_wheel("2.1.0") == "2.6.0.post5"
    )
    with pytest.raises(ValueError, match="not a torch_npu version"):
        nearest_wheel("newest")


def meta(shape, dtype=torch.float16):
    return torch.empty(shape, dtype=dtype, device="meta")


@pytest.mark.parametrize(
    "name, args, options, version, word",
    [
        ("aten::mm", (meta((2, 2)), meta((2, 2))), "", "2.13.0", "kernel"),
        ("aten::mode", (meta((2, 2)),), "", "2.13.0", "CPU fallback"),
        ("aten::cumsum", (meta((4,), torch.int64),), "0", "2.13.0", "AI CPU"),
        ("aten::cumsum", (meta((4,), torch.int32),), "0", "2.13.0", "kernel"),
        (
            "aten::masked_scatter_",
            (meta((4, 8)), meta((4, 1), torch.bool), meta((2, 8))),
            "",
            "2.13.0",
            "AI CPU",
        ),
        (
            "aten::masked_scatter_",
            (meta((4, 8)), meta((4, 8), torch.bool), meta((2, 8))),
            "",
            "2.13.0",
            "kernel",
        ),
        ("aten::convolution", (meta((1, 3, 8, 8)),), "", "2.6.0.post5", "slow kernel"),
        ("aten::convolution", (meta((1, 3, 8, 8)),), "", "2.13.0", "kernel"),
        ("aten::einsum", (), "", "2.13.0", "composite"),
        ("aten::not_yet_there", (), "", "2.13.0", "unknown"),
        ("mylib::op", (), "", "2.13.0", "unknown"),
        ("aten::add.Tensor", (meta((2,), torch.float64),), "", "2.13.0", "AI CPU"),
        ("aten::convolution", (meta((1, 3, 8, 8), torch.float64),), "", "2.6.0.post5", "AI CPU"),
        ("aten::mkldnn_rnn_layer", (meta((2, 2)),), "", "2.13.0", "unknown"),
    ],
)
def test_verdict(name, args, options, version, word):
    assert judge(name, "launch", args, options, version).word == word


def test_composites_are_counted_by_their_parts():
    """masked_scatter has no kernel of its own: it expands the mask, clones, and calls masked_scatter_."""
    assert "aten::masked_scatter" in composites()

    class Places(nn.Module):
        def forward(self, x, mask, source):
            return x.masked_scatter(mask, source)

    given = torch.zeros(4, 8), torch.tensor([[True], [False], [True], [False]]), torch.ones(2, 8)
    found = census(Places(), given)
    assert set(found.operators()) == {"aten::clone", "aten::masked_scatter_"}
    (entry,) = found.select(operator="masked_scatter_")
    assert entry.call.inputs[1] == "bool[4, 8]" and entry.verdict.word == "kernel"

    class InPlace(nn.Module):
        def forward(self, x, mask, source):
            return x.masked_scatter_(mask, source)

    (entry,) = census(InPlace(), given).select(operator="masked_scatter_")
    assert entry.verdict.word == "AI CPU"


# ---------------------------------------------------------------------- our network
def by_module(found, phase):
    """{(module, operator): calls} inside modules. Copies are left out: the result of a fused attention may
    have another memory layout than on the CPU, so that a reshape copies it."""
    counts = collections.Counter()
    for e in found.select(phase):
        if e.call.module and e.call.kind == "launch" and e.call.operator != "aten::clone":
            counts[e.call.module, e.call.operator] += e.count
    return counts


@pytest.mark.parametrize("phase", ["vision", "decode"])
def test_dry_run_counts_what_a_real_one_does(golden_model, phase, real_and_dry):
    real, dry = real_and_dry
    assert by_module(real, phase) == by_module(dry, phase)


def test_dry_prefill_differs_only_by_the_experts_it_assumes(real_and_dry):
    """In the real run an expert may get no token; all experts use the same operators."""
    real, dry = (by_module(c, "prefill") for c in real_and_dry)
    per_expert = set("matmul index.Tensor silu mul.Tensor eq.Scalar nonzero index_add _to_copy".split())
    for key in real.keys() | dry.keys():
        if key[0].endswith(".mlp") and key[1].removeprefix("aten::") in per_expert:
            assert real[key] <= dry[key]
        else:
            assert real[key] == dry[key], key


@pytest.fixture(scope="module")
def real_and_dry(golden_model):
    real = census_ocr(golden_model, "tiny", plan=references())
    return real, census_ocr(golden_model.config, "tiny", dtype=torch.float32, plan=references())


def test_the_official_size_in_seconds(dry):
    assert dry.phases() == ["vision", "prefill", "decode"]
    assert dry.seconds < 30, "CPU seconds; a few on an idle machine"
    attention = dry.select("decode", "scaled_dot_product_attention")
    assert sum(e.count for e in attention) == 12
    assert {e.call.module for e in dry.select("vision", "convolution")} == {
        f"model.sam_model.{name}" for name in ("patch_embed.proj", "neck.0", "neck.2", "net_2", "net_3")
    }


def test_the_calls_of_the_official_sizes_in_vision(dry):
    """The weights (out, in, height, width) of SAM's five convolutions; CLIP's 24 layers, twice."""
    weights = {e.call.inputs[1] for e in dry.select("vision", "convolution")}
    shapes = [(768, 3, 16, 16), (256, 768, 1, 1), (256, 256, 3, 3), (512, 256, 3, 3), (1024, 512, 3, 3)]
    assert weights == {f"float16{list(shape)}" for shape in shapes}
    attention = dry.select("vision", "scaled_dot_product_attention")
    assert sum(e.count for e in attention) == 2 * 24
    assert all(e.call.module.startswith("model.vision_model.") for e in attention)


def test_flops_agree_with_the_published_count(dry):
    """Two operations for each of the 574 M active weights, plus a little for attention."""
    flops = dry.flops("decode")
    assert 2 * 574.1e6 < flops < 2 * 574.1e6 * 1.06


def test_syncs_of_the_reference(masked):
    """Per MoE layer one for the set of experts and one for the rows of each; one for the choice."""
    assert masked.syncs("decode") == 11 * (1 + 1 + 6) + 1
    assert masked.syncs("vision") == 0


def test_syncs_of_the_default_in_vision(dry):
    """A position table of another size than the view is copied to the host once per size, to be resized."""
    waits = [e for e in dry.select("vision") if e.call.waits]
    assert {e.call.site.split(":")[0] for e in waits} == {"fast/position_tables.py"}
    c = DeepseekOCRConfig()
    # one page, a 1024 view and 640 tiles: two grids of the tiles, and two tables in the global blocks of SAM
    assert dry.syncs("vision") == 2 + 2 * len(c.sam.global_blocks)


def test_a_plan_changes_the_count_and_is_taken_back(golden_model):
    def one_matmul(x, gate_up, down, ids, weights):
        both = torch.einsum("nd,ntid->nti", x, gate_up[ids])
        return torch.einsum("nti,ntdi,nt->nd", slots.swiglu(both), down[ids], weights.to(x.dtype))

    config = golden_model.config
    before = census_ocr(config, "tiny", plan=references())
    after = census_ocr(config, "tiny", plan={"moe": one_matmul})
    assert after.syncs("decode") == 1 < before.syncs("decode")
    before_plan = golden_model.slots.moe
    census_ocr(golden_model, "tiny", plan={"moe": one_matmul})
    assert golden_model.slots.moe is before_plan


# ---------------------------------------------------------------------- showing
def test_output(dry, tmp_path):
    text, html = repr(dry), dry._repr_html_()
    assert "not from a device" in text and "verdicts from the published torch_npu" in text
    assert "launches" in text and "assumed:" in text
    assert "<table>" in html and "gelu" in html
    paths = dry.save(tmp_path)
    data = json.loads(paths[0].read_text())
    assert data["phases"]["decode"]["syncs"] == dry.syncs("decode") and data["calls"][0]["site"]
    assert paths[2].read_bytes()[:4] == b"\x89PNG"
    assert {r["verdict"] for r in data["operators"]} <= set(VERDICTS)


def test_html_is_escaped():
    model = Small()
    model.add_module("<b>", nn.Linear(2, 2))
    found = census(model, run=lambda: model.get_submodule("<b>")(torch.zeros(1, 2)), subject="<i>x</i>")
    html = found._repr_html_()
    assert "<i>" not in html and "&lt;i&gt;" in html


def test_another_version_judges_the_same_calls(masked):
    older = masked.judged_by("2.9.0")
    assert older.launches() == masked.launches() and older.asked == "2.9.0"
    assert older.torch_npu == "2.6.0.post5" and "nearest table to 2.9.0" in older.title()
    assert {e.call.operator for e in older.worst()} >= {
        "aten::convolution",
        "aten::scaled_dot_product_attention",
    }


@pytest.fixture(scope="module")
def masked():
    """The reference implementations: the attention of SAM with its bias as a float mask."""
    return census_ocr(plan=references(), mode="tiny")


def test_sam_attention_with_a_float_mask_is_no_fast_kernel(masked, dry):
    attention = "scaled_dot_product_attention"
    masks = [e for e in masked.select("vision", attention) if "sam_model" in e.call.module]
    assert masks and all(e.verdict.word == "slow kernel" for e in masks)
    for found in (masked, dry):
        plain = [e for e in found.select("vision", attention) if "vision_model" in e.call.module]
        assert plain and all(e.verdict.word == "kernel" for e in plain)


def test_the_default_needs_no_masked_attention(dry):
    assert {e.verdict.word for e in dry.select("vision", "scaled_dot_product_attention")} == {"kernel"}


def test_one_is_not_a_plural(dry):
    assert dry.work("decode") == f"{dry.launches('decode')} launches, 1 sync"
    assert dry.work("no such phase") == "0 launches, 0 syncs"


def test_what_is_left_out_can_be_found(dry):
    left = len(dry.rows()) - 24
    assert f"… and {left} more rows: all with --json, or .rows()" in repr(dry)
    few = census(nn.Linear(2, 2), torch.ones(1, 2))
    assert "more rows" not in repr(few) and "1 launch, 0 syncs" in repr(few)


def test_bars_of_one_operator_have_different_names():
    pairs = (("a", "kernel"), ("b", "kernel"), ("a", "slow kernel"))
    rows = [{"operator": operator, "verdict": verdict} for operator, verdict in pairs]
    assert names(rows) == ["a\n(kernel)", "b", "a\n(slow kernel)"]


# ---------------------------------------------------------------------- one run, judged for several wheels
class OfTheirTime(nn.Module):
    """Operators that the two wheels treat differently."""

    def forward(self, x, numbers):
        joined = torch._chunk_cat([x, x], 0, 1)  # 2.6.0 decomposes it, 2.13.0 has a kernel
        return joined, 2 << numbers, torch.repeat_interleave(numbers)  # the last: 2.6.0 asks the host

    given = (torch.ones(4, 2), torch.tensor([1, 2, 0]))


@pytest.mark.parametrize("made_for", [None, "2.6.0.post5", "2.13.0"])
@pytest.mark.parametrize("version", ["2.6.0.post5", "2.13.0"])
def test_judged_by_a_version_is_the_census_for_it(version, made_for):
    model = OfTheirTime()
    again = census(model, model.given, torch_npu=made_for).judged_by(version)
    assert again.to_json() == census(model, model.given, torch_npu=version).to_json()
    operators = again.operators()
    assert ("aten::_chunk_cat" in operators) == (version == "2.13.0")
    assert ("aten::bitwise_left_shift.Scalar_Tensor" in operators) == (version == "2.13.0")


@pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="this torch has no _grouped_mm")
def test_an_operator_that_a_wheel_does_not_know_stays_whole():
    """The experts of transformers 5 call it; torch_npu 2.6.0 is older than the operator."""

    class Experts(nn.Module):
        def forward(self, x, w, ends):
            return torch._grouped_mm(x, w, ends)

    ends = torch.tensor([4, 8], dtype=torch.int32)
    found = census(Experts(), (torch.randn(8, 16).bfloat16(), torch.randn(2, 16, 16).bfloat16(), ends))
    assert found.verdicts() == {"kernel": 2, "transfer": 2} and found.syncs() == 2  # it reads the ends
    older = found.judged_by("2.6.0.post5")
    assert older.operators() == {"aten::_grouped_mm": 1} and older.verdicts() == {"unknown": 1}
    assert older.judged_by("2.13.0").to_json() == found.to_json()


def test_what_falls_back_to_the_host_is_no_launch():
    """A wait, and copies in both directions, as on the simulated NPU (tests/simulator/test_opcount.py)."""
    numbers = torch.tensor([1, 2, 0])
    found = census(nn.Module(), run=lambda: torch.repeat_interleave(numbers), torch_npu="2.6.0.post5")
    assert found.verdicts() == {"CPU fallback": 1}
    assert (found.launches(), found.syncs(), found.traffic()) == (0, 1, (24, 24))
    newer = found.judged_by("2.13.0")
    assert (newer.launches(), newer.syncs(), newer.traffic()) == (1, 1, (0, 0))


def test_a_figure_says_how_many_operators_it_leaves_out():
    def many():
        x = torch.ones(2, 2)
        for name in sorted(
            set(dir(torch)) & {"sin", "cos", "tan", "exp", "log", "abs", "neg", "sqrt", "erf"}
        ):
            x = getattr(torch, name)(x)
        return [getattr(x, name)() for name in ("floor", "ceil", "round", "trunc", "sign", "tanh", "square")]

    for run, expected in ((many, "calls; 14 of "), (lambda: torch.ones(2).neg(), "calls")):
        (axis,) = census(torch.nn.Identity(), run=run).draw().axes
        assert axis.get_xlabel().startswith(expected) and ("of" in axis.get_xlabel()) == (run is many)


def test_an_operator_with_two_verdicts_has_the_worse_one():
    q, mask = torch.ones(1, 1, 4, 8), torch.zeros(4, 4)

    def run():
        for each in (None, mask):
            nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=each)

    found = census(nn.Identity(), run=run)
    assert [row["verdict"] for row in found.rows()] == ["slow kernel", "kernel"]
    assert found.worst_verdicts() == {"scaled_dot_product_attention": "slow kernel"}
