"""ATen operators on the simulated device against the same operators on the CPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from deskocr_kit import simulator

NPU = torch.device("npu:0")

COMMON = {
    "matmul": lambda x, y: x @ y,
    "linear": lambda x, y: F.linear(x, y.t(), torch.ones(6, device=x.device)),
    "einsum": lambda x, y: torch.einsum("ij,jk->ki", x, y),
    "gelu_sum": lambda x, y: F.gelu(x).sum(1, keepdim=True),
    "softmax": lambda x, y: F.softmax(x, -1),
    "layer_norm": lambda x, y: F.layer_norm(x, (5,)),
    "cat": lambda x, y: torch.cat([x, y.t()[:, :5]], 0),
    "topk": lambda x, y: x.topk(2, 1)[0],
    "argmax": lambda x, y: x.argmax(-1),
    "stack_mean": lambda x, y: torch.stack([x, x]).mean(0),
    "std": lambda x, y: x.std(0),
    "where": lambda x, y: torch.where(x > 0, x, torch.zeros_like(x)),
    "cumsum": lambda x, y: x.cumsum(0),
    "bicubic": lambda x, y: F.interpolate(x[None, None], size=(8, 8), mode="bicubic", antialias=True),
    "conv2d": lambda x, y: F.conv2d(x[None, None], torch.ones(2, 1, 3, 3, device=x.device)),
    "pad": lambda x, y: F.pad(x, (1, 1)),
    "repeat": lambda x, y: x.repeat(2, 2),
    "sort": lambda x, y: x.sort(1)[1],
    "unfold": lambda x, y: F.unfold(x[None, None], 2),
    "gather": lambda x, y: x.gather(1, torch.zeros(4, 1, dtype=torch.long, device=x.device)),
    "rsqrt": lambda x, y: torch.rsqrt(x.abs() + 1),
    "silu": lambda x, y: F.silu(x) ** 2,
    "outer": lambda x, y: torch.outer(x[0], x[1]),
    "scatter_add": lambda x, y: x.new_zeros(5).scatter_add_(0, x[0].argsort(), x[0]),
    "one_hot": lambda x, y: F.one_hot(x[0].argsort(), 5),
    "polar": lambda x, y: torch.polar(x.abs(), x).real,
    "complex": lambda x, y: torch.view_as_real(
        torch.view_as_complex(x[:, :4].reshape(4, 2, 2).contiguous()) * 1j
    ),
    "roll_flip": lambda x, y: x.roll(1, 0).flip(1),
    "bincount": lambda x, y: torch.bincount(x[0].argsort()),
    "cross_entropy": lambda x, y: F.cross_entropy(x, torch.tensor([0, 1, 2, 3], device=x.device)),
    "isin": lambda x, y: torch.isin(x, x[0]),
    "histc": lambda x, y: torch.histc(x, 4),
    "searchsorted": lambda x, y: torch.searchsorted(x[0].sort()[0], x[1].contiguous()),
    "norm": lambda x, y: x.norm(),
    "max_pool2d": lambda x, y: F.max_pool2d(x[None, None], 2),
    "adaptive_avg_pool2d": lambda x, y: F.adaptive_avg_pool2d(x[None, None], 2),
    "svdvals": lambda x, y: torch.linalg.svdvals(x),
    "repeat_interleave": lambda x, y: x.repeat_interleave(x[:, 0].argsort(), 0),
    "embedding": lambda x, y: F.embedding(x[:, 0].argsort(), x),
    "isfinite": lambda x, y: (x / x.relu()).isfinite(),
}


@pytest.mark.parametrize("compute", COMMON.values(), ids=COMMON)
def test_common_operators(compute):
    torch.manual_seed(0)
    a, b = torch.randn(4, 5), torch.randn(5, 6)
    result = compute(a.npu(), b.npu())
    assert result.device == NPU
    torch.testing.assert_close(result.cpu(), compute(a, b))


@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"attn_mask": torch.zeros(1, 1, 6, 6)}, {"scale": 0.3}]
)
def test_attention(options):
    q = torch.randn(1, 4, 6, 8)
    on_npu = {k: v.npu() if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    expected = F.scaled_dot_product_attention(q, q, q, **options)
    result = F.scaled_dot_product_attention(q.npu(), q.npu(), q.npu(), **on_npu)
    torch.testing.assert_close(result.cpu(), expected)


def test_grouped_attention():
    q, k = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 6, 8)
    expected = F.scaled_dot_product_attention(q, k, k, enable_gqa=True)
    result = F.scaled_dot_product_attention(q.npu(), k.npu(), k.npu(), enable_gqa=True)
    torch.testing.assert_close(result.cpu(), expected)


# ---------------------------------------------------------------------- fp16
def test_fp16_is_computed_in_fp32_and_rounded_once_per_operator():
    torch.manual_seed(0)
    a, b = torch.randn(64, 256).half(), torch.randn(256, 64).half()
    exact = a.float() @ b.float()
    result = (a.npu() @ b.npu()).cpu()
    assert result.dtype is torch.float16 and torch.equal(result, exact.half())
    x = a.npu()
    x.mul_(3).add_(b.npu().t())
    assert torch.equal(x.cpu(), ((a.float() * 3).half().float() + b.float().t()).half())


def test_native_fp16_is_the_cpus_own():
    torch.manual_seed(0)
    a, b = torch.randn(64, 256).half(), torch.randn(256, 64).half()
    with simulator.using("all", half="native"):
        assert torch.equal((a.npu() @ b.npu()).cpu(), a @ b)


def test_fp16_promotes_as_everywhere():
    half, single = torch.ones(3, dtype=torch.float16, device=NPU), torch.ones(3, device=NPU)
    assert (half * single).dtype is torch.float32 and (half * 2.5).dtype is torch.float16
    assert half.sum(dtype=torch.float32).dtype is torch.float32 and half.softmax(0).dtype is torch.float16
    assert (half > 0.5).dtype is torch.bool and half.to(torch.bfloat16).dtype is torch.bfloat16
    assert half.float().dtype is torch.float32 and (half * torch.tensor(2.0)).dtype is torch.float16


def test_bf16_is_native():
    torch.manual_seed(0)
    a = torch.randn(32, 32, dtype=torch.bfloat16)
    assert torch.equal((a.npu() @ a.npu()).cpu(), a @ a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 3, 6), (2, 2, 3, 6), (0, 6)])
def test_linear_in_one_step_is_linear_in_parts(shape, bias, dtype):
    """Operators that are decomposed in a recording are computed in one step without it: the same bits."""
    torch.manual_seed(0)
    given = [torch.randn(shape), torch.randn(5, 6)] + ([torch.randn(5)] if bias else [])
    given = [x.to(NPU, dtype) for x in given]
    strided = [given[0].transpose(0, -1).contiguous().transpose(0, -1), *given[1:]]
    for arguments in (given, strided):
        whole = F.linear(*arguments)
        with simulator.record() as seen:
            parts = F.linear(*arguments)
        assert seen.launches and torch.equal(whole.cpu(), parts.cpu())
        if dtype is torch.float32:
            assert torch.equal(whole.cpu(), F.linear(*(x.cpu() for x in arguments)))


def test_linear_still_asks_the_profile_and_knows_gradients():
    layer, x = torch.nn.Linear(6, 5).to(NPU), torch.randn(2, 6, device=NPU)
    layer(x).sum().backward()
    assert layer.weight.grad.shape == (5, 6)
    with torch.inference_mode():
        assert layer(x).shape == (2, 5)
    for part in ("aten::addmm", "aten::linear"):
        lacking = {"name": "no " + part, "block": {part: "not-implemented"}}
        with simulator.using(lacking), torch.no_grad(), pytest.raises(NotImplementedError, match=part):
            layer(x)
    with torch.no_grad(), pytest.raises(RuntimeError, match="same device"):
        layer(x.cpu())
