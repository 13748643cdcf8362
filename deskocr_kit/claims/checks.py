"""The checks of the claims ledger: each runs code and returns the outcome for its claim."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from model import DeepseekOCRConfig, loading
from model.official import DEEPSEEK_OCR

from ..ascend.dispatch import dispatch_table, judge, wheel_versions
from ..device.tolerances import relative_error
from .claim import FAILS, HOLDS, Outcome
from .reading_checks import cann_84, fallback_cost, fp16, load_time, one_page, speed, success
from .setting import Setting

VERSIONS = Path(__file__).resolve().parents[1] / "ascend" / "data" / "ascend_versions.json"
# in, out, kernel, stride, padding, side: the five convolutions that run, at 640 px, an eighth as wide
SHAPES = [
    (3, 96, 16, 16, 0, 640),
    (96, 32, 1, 1, 0, 40),
    (32, 32, 3, 1, 1, 40),
    (32, 64, 3, 2, 1, 40),
    (64, 128, 3, 2, 1, 20),
]
EQUAL = 1e-4  # relative, fp32: sums in another order; HF32 on an NPU would give 1e-3
EQUAL_FP16 = 2e-3  # relative to fp32: inputs and result rounded to 11 bits


def kernels(operator: str) -> dict[str, bool]:
    """{torch_npu version: whether its dispatcher has an NPU kernel}."""
    return {v: dispatch_table(v)[operator]["PrivateUse1"] == "1" for v in wheel_versions()}


def _missing(operator: str, call: tuple, try_it: Callable[[torch.device], float], here: Setting) -> Outcome:
    """Outcome of the claim that the NPU lacks an operator: by a run on an NPU, else by the published wheels.

    call: (shape, dtype) of the arguments, for the wheel's verdict.
    """
    if not here.npu:
        found = kernels(operator)
        meta = tuple(torch.empty(shape, dtype=dtype, device="meta") for shape, dtype in call)
        stated = [
            f"torch_npu {v}: a kernel{_why(judge(operator, 'launch', meta, version=v))}"
            if has
            else f"torch_npu {v}: none"
            for v, has in found.items()
        ]
        return Outcome(
            FAILS if all(found.values()) else HOLDS, f"{operator} as published: {'; '.join(stated)}"
        )
    one = torch.eye(4, device=here.device)
    assert torch.equal((one @ one).cpu(), torch.eye(4)), "the device does not multiply matrices"  # a control
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            error = try_it(here.device)
    except (RuntimeError, NotImplementedError) as problem:
        return Outcome(HOLDS, f"{type(problem).__name__}: {str(problem).splitlines()[0]}", here.name)
    registered = torch._C._dispatch_has_kernel_for_dispatch_key(operator, "PrivateUse1")
    if not registered or any("fall back to run on the CPU" in str(w.message) for w in warned):
        return Outcome(HOLDS, "runs on the host CPU: the device has no kernel", here.name)
    word = FAILS if error < EQUAL_FP16 else HOLDS
    wrong = "" if word == FAILS else ", which is wrong"
    return Outcome(word, f"runs on the device in fp16, relative error {error:.1e}{wrong}", here.name)


def _why(verdict) -> str:
    return f" ({verdict}: {verdict.why})" if verdict.why else ""


def convolutions(seed: int = 0):
    """(x, weight, bias, stride, padding, result of conv2d) for each of SHAPES."""
    g = torch.Generator().manual_seed(seed)
    for c, o, k, s, p, side in SHAPES:
        x = torch.randn(1, c, side, side, generator=g)
        w = torch.randn(o, c, k, k, generator=g) / (c * k * k) ** 0.5
        yield x, w, None, s, p, F.conv2d(x, w, None, s, p)


def conv2d_missing(facts: dict, here: Setting) -> Outcome:
    def try_it(device):
        return max(
            relative_error(F.conv2d(x.half().to(device), w.half().to(device), b, s, p), y)
            for x, w, b, s, p, y in convolutions()
        )

    side, (width, patch) = DEEPSEEK_OCR.modes["base"][0], map(DEEPSEEK_OCR.sam.get, ("width", "patch_size"))
    call = (((1, 3, side, side), torch.float16), ((width, 3, patch, patch), torch.float16))
    return _missing("aten::convolution", call, try_it, here)


def unfold_einsum(x, w, stride, padding, printed: bool):
    """im2col and matmul. printed: pass the arguments of unfold by position, as on the page."""
    k = w.shape[-2:]
    columns = F.unfold(x, k, padding, stride) if printed else F.unfold(x, k, padding=padding, stride=stride)
    side = (x.shape[-1] + 2 * padding - k[0]) // stride + 1
    return torch.einsum("oi,bil->bol", w.flatten(1), columns).view(len(x), len(w), side, side)


def _substitute(here: Setting, printed: bool) -> Outcome:
    results = []
    for x, w, _, s, p, y in convolutions():
        name = f"{w.shape[-1]}x{w.shape[-1]} stride {s} padding {p}"
        try:
            error = relative_error(unfold_einsum(x.to(here.device), w.to(here.device), s, p, printed), y)
        except RuntimeError as problem:
            results.append((False, f"{name}: {str(problem).splitlines()[0][:90]}"))
        else:
            results.append((error < EQUAL, f"{name}: relative error {error:.0e}"))
    word = HOLDS if all(right for right, _ in results) else FAILS
    return Outcome(word, "; ".join(text for _, text in results), here.name)


def conv2d_substitute(facts: dict, here: Setting) -> Outcome:
    return _substitute(here, printed=False)


def unfold_as_printed(facts: dict, here: Setting) -> Outcome:
    return _substitute(here, printed=True)


def six_convolutions(facts: dict, here: Setting) -> Outcome:
    run = {e.call.module for e in one_page().select(operator="convolution")}
    stored = {n for n, shape in official_shapes().items() if len(shape) == 4 and "pos_embed" not in n}
    idle = [n for n in sorted(stored) if not any(module and module in n for module in run)]
    word = HOLDS if len(run) == facts["figure"] else FAILS
    evidence = f"{len(run)} layers run; the checkpoint has {len(stored)}; a page never uses "
    return Outcome(word, evidence + (", ".join(idle) or "none of them"))


def masked_scatter_missing(facts: dict, here: Setting) -> Outcome:
    def try_it(device):
        x, mask, source = torch.zeros(120, 64), torch.zeros(120, 1, dtype=torch.bool), torch.randn(111, 64)
        mask[4:115] = True
        y = x.clone().masked_scatter_(mask, source)
        x, mask, source = x.half().to(device), mask.to(device), source.half().to(device)
        return relative_error(x.masked_scatter_(mask, source), y)

    width = DEEPSEEK_OCR.language["hidden_size"]
    call = (((913, width), torch.float16), ((913, 1), torch.bool), ((903, width), torch.float16))
    return _missing("aten::masked_scatter_", call, try_it, here)


def masked_scatter_patched(facts: dict, here: Setting) -> Outcome:
    def patched(self, mask, source):
        there = self.to("cpu", copy=True)  # like .cpu() on a card; on the CPU itself .cpu() makes no copy
        return there.masked_scatter_(mask.cpu(), source.cpu().to(self.dtype)).to(self.device)

    embeds = torch.zeros(2, 6, 4, device=here.device)
    mask = torch.tensor([[False], [True], [True], [False], [False], [False]], device=here.device)
    patched(embeds[0], mask, torch.ones(2, 4, device=here.device))
    changed = int((embeds != 0).any(-1).sum())
    word = HOLDS if changed == int(mask.sum()) else FAILS
    return Outcome(word, f"{changed} of {int(mask.sum())} rows of the base changed", here.name)


def version_pair(facts: dict, here: Setting) -> Outcome:
    sets = json.loads(VERSIONS.read_text())["torch_npu_sets"]
    fits = next((s["cann"] for s in sets if facts["torch_npu"] in s["torch_npu"]), None)
    same_line = facts["torch_npu"].partition(".post")[0]
    right = [v for s in sets if s["cann"] == facts["cann"] for v in s["torch_npu"] if v.startswith(same_line)]
    evidence = f"{facts['torch_npu']} is built for CANN {fits}; for {facts['cann']} it is {', '.join(right)}"
    return Outcome(HOLDS if fits == facts["cann"] else FAILS, evidence)


def official_shapes() -> dict[str, list[int]]:
    return loading.official_shapes(DeepseekOCRConfig())


def ten_billion(facts: dict, here: Setting) -> Outcome:
    total = sum(math.prod(s) for s in official_shapes().values())
    word = HOLDS if abs(total / facts["figure"] - 1) < 0.05 else FAILS
    return Outcome(word, f"{total:,} parameters")


def weight_size(facts: dict, here: Setting) -> Outcome:
    total = 2 * sum(math.prod(s) for s in official_shapes().values())
    word = HOLDS if min(abs(total / unit / facts["figure"] - 1) for unit in (1e9, 2**30)) < 0.02 else FAILS
    return Outcome(word, f"{total:,} bytes: {total / 1e9:.2f} GB, {total / 2**30:.2f} GiB")


def architecture(facts: dict, here: Setting) -> Outcome:
    parts = {"SAM": "model.sam_model.", "CLIP": "model.vision_model.", "decoder": "model.layers."}
    sizes = {
        name: sum(math.prod(s) for n, s in official_shapes().items() if n.startswith(prefix))
        for name, prefix in parts.items()
    }
    listed = ", ".join(f"{name} {size / 1e6:.0f} M" for name, size in sizes.items())
    return Outcome(FAILS if sizes["CLIP"] else HOLDS, f"{listed}: there is a CLIP encoder between the two")


CHECKS: dict[str, Callable[[dict, Setting], Outcome]] = {
    "conv2d-missing": conv2d_missing,
    "conv2d-substitute": conv2d_substitute,
    "unfold-as-printed": unfold_as_printed,
    "six-convolutions": six_convolutions,
    "masked-scatter-missing": masked_scatter_missing,
    "masked-scatter-patched": masked_scatter_patched,
    "fallback-cost": fallback_cost,
    "cann-8.4": cann_84,
    "version-pair": version_pair,
    "ten-billion": ten_billion,
    "weight-size": weight_size,
    "architecture": architecture,
    "fp16": fp16,
    "load-time": load_time,
    "speed": speed,
    "success": success,
}
