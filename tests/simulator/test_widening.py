"""Dtypes that the CPU's kernels lack and those of the NPU have: computed in a wider dtype, cast back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from deskocr_kit import simulator

NPU = torch.device("npu:0")
PICTURE = torch.linspace(-1, 1, 2 * 3 * 16).view(2, 3, 4, 4)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_histogram_of_integers(dtype):
    """Both wheels have a kernel for histc, and the experts of transformers 5 call it with int32."""
    values = torch.tensor([0, 1, 1, 3, 3, 3], dtype=dtype)
    with pytest.raises(RuntimeError, match="not implemented for"):
        torch.histc(values, bins=4, min=0, max=3)
    with simulator.using("as-published"), simulator.record() as seen:
        counts = torch.histc(values.to(NPU), bins=4, min=0, max=3)
    assert counts.tolist() == [1, 2, 0, 3] and counts.dtype == dtype and counts.device == NPU
    assert seen.by_operator()["aten::histc"] == 1 and seen.fallbacks == 0


LACKING = {
    "bicubic": lambda x: F.interpolate(x, size=(7, 5), mode="bicubic"),
    "bicubic, antialiased": lambda x: F.interpolate(x, size=(7, 5), mode="bicubic", antialias=True),
    "bilinear, antialiased": lambda x: F.interpolate(x, size=(2, 3), mode="bilinear", antialias=True),
    "grid_sample": lambda x: F.grid_sample(x, torch.zeros(2, 3, 3, 2, dtype=x.dtype, device=x.device)),
    "histc": lambda x: torch.histc(x, bins=4, min=-1, max=1),
    "cdist": lambda x: torch.cdist(x[0], x[1]),
    "cummax": lambda x: torch.cummax(x, -1)[0],
}


@pytest.mark.filterwarnings("ignore:Default grid_sample")
@pytest.mark.parametrize("half", ["round", "native"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LACKING)
def test_half_precision_is_computed_wider(name, dtype, half):
    x = PICTURE.to(dtype)
    want = LACKING[name](x.float())
    with simulator.using("as-published", half=half):
        ours = LACKING[name](x.to(NPU))
    assert ours.dtype == dtype and ours.device == NPU
    torch.testing.assert_close(ours.cpu().float(), want, rtol=2e-2, atol=1e-2)


def test_a_given_result_is_written():
    x, out = PICTURE[0, 0].to(NPU, torch.bfloat16), torch.empty(4, device=NPU, dtype=torch.bfloat16)
    assert torch.histc(x, bins=4, min=-1, max=1, out=out) is out
    torch.testing.assert_close(out.cpu().float(), torch.histc(PICTURE[0, 0], bins=4, min=-1, max=1))
    empty = torch.empty(0, device=NPU, dtype=torch.bfloat16)
    torch.histc(x, bins=4, min=-1, max=1, out=empty)
    assert torch.equal(empty, out)


def test_what_no_accelerator_computes_keeps_its_error():
    whole = torch.ones(2, 3, dtype=torch.int32)
    for call in (lambda x: F.softmax(x, -1), F.gelu):
        with pytest.raises((NotImplementedError, RuntimeError)) as of_cpu:
            call(whole)
        with pytest.raises(type(of_cpu.value)) as ours:
            call(whole.to(NPU))
        assert str(ours.value) == str(of_cpu.value)


@pytest.mark.filterwarnings("ignore:CAUTION")
def test_an_operator_without_a_kernel_falls_back_to_a_host_that_refuses_too():
    """linalg_eig has no kernel in the wheels; the CPU computes it, in the dtype that it is given."""
    with simulator.using("as-published"), pytest.raises((NotImplementedError, RuntimeError)):
        torch.linalg.eig(torch.eye(2, device=NPU, dtype=torch.bfloat16))


# ---------------------------------------------------------------------- experts of transformers 5
#: Compiled CUDA kernels from the hub.
FOR_NVIDIA = ("deepgemm", "sonicmoe")


def experts():
    transformers = pytest.importorskip("transformers", minversion="5.0")  # the switch is new there
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    def build(how):
        torch.manual_seed(0)
        config = transformers.DeepseekV2Config(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=99,
            num_key_value_heads=4, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2,
            moe_intermediate_size=24, first_k_dense_replace=1, kv_lora_rank=16, q_lora_rank=None,
            qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8, eos_token_id=None,
        )  # fmt: skip
        config._experts_implementation = how
        return transformers.DeepseekV2ForCausalLM(config).eval()

    return build, ["eager", *ALL_EXPERTS_FUNCTIONS.valid_keys()]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("profile", ["as-published", "as-published-2.6.0", "as-believed"])
@torch.no_grad()
def test_every_implementation_of_experts_that_a_cpu_runs(profile):
    build, ways = experts()
    ids, ran = torch.tensor([[3, 7, 11, 5]]), []
    for how in ways:
        model = build(how)
        if how in FOR_NVIDIA:
            with pytest.raises((ImportError, ValueError, NotImplementedError, RuntimeError)):
                model(ids)
            continue
        want = model(ids).logits
        ran.append(how)
        for dtype, tolerance in ((torch.float32, 1e-4), (torch.float16, 1e-2), (torch.bfloat16, 6e-2)):
            with simulator.using(profile):
                ours = model.to(NPU, dtype)(ids.to(NPU)).logits.cpu().float()
            assert (ours - want).norm() < tolerance * want.norm(), (how, dtype)
            model.float().cpu()
    assert {"eager", "batched_mm", "grouped_mm"} <= set(ran)
