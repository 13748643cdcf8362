"""Required speed: ratios to torch's own operators on the CPU, one thread, sizes of the model.

Both are timed in turns in one process, so that other programs affect both; the shortest time counts.
"""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F

from deskocr_kit.operators.substitutes.registry import candidates
from model.official import DEEPSEEK_OCR

WIDTH = DEEPSEEK_OCR.language["hidden_size"]

pytestmark = pytest.mark.slow
CONV = candidates("conv2d")
# c_in, c_out, side, kernel, stride, padding: the five layers at 1024 pixels
LAYERS = {
    "16x16/16": (3, 768, 1024, 16, 16, 0),
    "1x1": (768, 256, 64, 1, 1, 0),
    "3x3": (256, 256, 64, 3, 1, 1),
    "3x3/2": (256, 512, 64, 3, 2, 1),
    "3x3/2, 32": (512, 1024, 32, 3, 2, 1),
}


def ratio(ours, theirs, samples: int = 15) -> float:
    """Shortest time of ours divided by theirs, in CPU seconds of this process, which exclude waiting."""
    times = {ours: [], theirs: []}
    ours(), theirs()
    for _ in range(samples):
        for call in (ours, theirs):
            start = time.process_time()
            call()
            times[call].append(time.process_time() - start)
    return min(times[ours]) / min(times[theirs])


def amx() -> bool:
    """Whether this CPU multiplies bf16 in tiles."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


def layer(name: str, dtype: torch.dtype) -> tuple:
    c_in, c_out, side, kernel, stride, padding = LAYERS[name]
    torch.manual_seed(0)
    weight = torch.randn(c_out, c_in, kernel, kernel) * (c_in * kernel**2) ** -0.5
    return torch.randn(1, c_in, side, side).to(dtype), weight.to(dtype), None, stride, padding


def product(args: tuple):
    """Only the matrix product of a layer, with prepared operands: no substitute that uses it is faster.

    If a native convolution already runs near the peak of the CPU (AVX512-BF16 without tiles), this is the
    bound for a substitute, not the one in the table. One core of a Zen 5 at 1x1, as fractions of native: rows
    first 0.82 (0.77 with prepared rows, 0.76 into an existing result), weights first 0.81, batched 0.80. All
    of them run at 195 to 206 GFLOP/s, as does a product of two squares of 2048 (199); 0.6 would need 260.
    With the channels innermost, as in the model, native takes as long as the product.
    """
    x, weight = args[:2]
    rows = torch.randn(F.conv2d(*args)[0, 0].numel(), weight[0].numel()).to(x.dtype)
    return lambda: F.linear(rows, weight.flatten(1))


@pytest.mark.parametrize(
    ("name", "which", "bound"),
    [
        ("patchify", "16x16/16", 0.7),
        ("pointwise", "1x1", 0.6),
        ("unfold_einsum", "16x16/16", 1.0),
        ("unfold_einsum", "3x3", 2.5),
    ],
)
@torch.no_grad()
def test_convolution_in_bf16(name, which, bound):
    if (name, which) == ("unfold_einsum", "3x3") and amx():
        bound = 3.5  # tiles make native even faster; F.unfold still copies element by element
    args = layer(which, torch.bfloat16)
    found = ratio(lambda: CONV[name](*args), lambda: F.conv2d(*args))
    if name in ("patchify", "pointwise") and found > bound:
        bound = 1.1 * ratio(product(args), lambda: F.conv2d(*args))
    print(f"\nbf16 {which} {name}: {found:.2f} of native, bound {bound:.2f}")
    assert found <= bound


@pytest.mark.parametrize("which", LAYERS)
@torch.no_grad()
def test_rows_first_in_fp16(which):
    """A CPU without fp16 arithmetic needs seconds for a native fp16 convolution, and a tenth for rows first.

    If oneDNN computes in fp16 (AVX512-FP16), native is fast, and rows first must be as fast.
    """
    quick = torch.ops.mkldnn._is_mkldnn_fp16_supported()
    name = {"16x16/16": "patchify", "1x1": "pointwise"}.get(which, "im2row")
    args, bound = layer(which, torch.float16), 1.2 if quick else 0.1
    samples = 9 if quick else 1
    found = ratio(lambda: CONV[name](*args), lambda: F.conv2d(*args), samples)
    print(f"\nfp16 {which} {name}: {found:.3f} of native, bound {bound} (fp16 arithmetic: {quick})")
    assert found <= bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@torch.no_grad()
def test_rows_by_a_mask(dtype):
    torch.manual_seed(0)
    base, mask = torch.randn(913, WIDTH).to(dtype), torch.ones(913, 1, dtype=torch.bool)
    mask[:5] = mask[-5:] = False
    source = torch.randn(903, WIDTH).to(dtype)
    function = candidates("masked_scatter_")["cumsum_where"]
    found = ratio(lambda: function(base, mask, source), lambda: base.masked_scatter_(mask, source), 31)
    print(f"\n{dtype} cumsum_where, 913 x {WIDTH}, in place: {found:.2f} of native, bound 1.2")
    assert found <= 1.2


@torch.no_grad()
def test_placing_a_page():
    torch.manual_seed(0)
    embeds, mask = torch.randn(1, 913, WIDTH), torch.zeros(1, 913, dtype=torch.bool)
    mask[:, 1:904] = True
    source = torch.randn(903, WIDTH)
    place = candidates("place_images")
    found = ratio(
        lambda: place["cumsum_where"](embeds, mask, source),
        lambda: place["reference"](embeds, mask, source),
        31,
    )
    print(f"\ncumsum_where, a page in its prompt: {found:.2f} of the reference, bound 1.2")
    assert found <= 1.2
