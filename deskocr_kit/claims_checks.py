"""The checks behind the claims ledger: each runs something and says what it means for its claim."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from model.fast import references

from . import device as devices
from .census import census_ocr, versions
from .census.verdicts import table
from .claims import FAILS, HOLDS, NEEDS, Outcome
from .metrics import cer

VERSIONS = Path(__file__).resolve().parent / "data" / "ascend_versions.json"
# in, out, kernel, stride, padding, side: the five convolutions that run, at 640 px, an eighth as wide
SHAPES = [
    (3, 96, 16, 16, 0, 640),
    (96, 32, 1, 1, 0, 40),
    (32, 32, 3, 1, 1, 40),
    (32, 64, 3, 2, 1, 40),
    (64, 128, 3, 2, 1, 20),
]
EQUAL = 1e-4  # relative, fp32: sums in another order; HF32 on an NPU would show as 1e-3


@dataclass(frozen=True)
class Setting:
    """Where the checks run. `npu` is True on a real NPU only: a simulated one decides nothing about NPUs."""

    device: torch.device
    name: str
    npu: bool
    model: str | None

    @classmethod
    def on(cls, device: str, model: str | None) -> Setting:
        where = devices.pick(device, quiet=True)
        simulated = devices.is_simulated(where)
        told = devices.describe(where)
        name = f"{told['name']} ({'simulated, ' if simulated else ''}torch {told['torch']})"
        return cls(where, name, where.type == "npu" and not simulated, model)

    @property
    def official(self) -> bool:
        """Whether the checkpoint at hand is of the official size."""
        from .checkpoints import find_checkpoint

        path = find_checkpoint(self.model or "nano") / "config.json"
        return path.exists() and json.loads(path.read_text()).get("num_hidden_layers") == 12


def relative(ours, reference) -> float:
    if ours.shape != reference.shape:
        return math.inf
    return float((ours.cpu().double() - reference.double()).norm() / reference.double().norm())


def kernels(operator: str) -> dict[str, bool]:
    """{torch_npu version: does its dispatcher hold a kernel of the NPU}."""
    return {v: table(v)[operator]["PrivateUse1"] == "1" for v in versions()}


def _missing(operator: str, try_it: Callable[[torch.device], float], here: Setting) -> Outcome:
    """«The NPU lacks this»: by a run on an NPU, else by the published wheels."""
    if here.npu:
        try:
            error = try_it(here.device)
        except (RuntimeError, NotImplementedError) as problem:
            return Outcome(HOLDS, f"{type(problem).__name__}: {str(problem).splitlines()[0]}", here.name)
        return Outcome(FAILS if error < EQUAL else HOLDS, f"runs, relative error {error:.1e}", here.name)
    found = kernels(operator)
    told = ", ".join(f"torch_npu {v}: {'a kernel' if has else 'none'}" for v, has in found.items())
    return Outcome(FAILS if all(found.values()) else HOLDS, f"{operator}: {told}")


def convolutions(seed: int = 0):
    """(x, weight, bias, stride, padding, conv2d's result) for each of SHAPES."""
    g = torch.Generator().manual_seed(seed)
    for c, o, k, s, p, side in SHAPES:
        x = torch.randn(1, c, side, side, generator=g)
        w = torch.randn(o, c, k, k, generator=g) / (c * k * k) ** 0.5
        yield x, w, None, s, p, F.conv2d(x, w, None, s, p)


def conv2d_missing(facts: dict, here: Setting) -> Outcome:
    def try_it(device):
        return max(
            relative(F.conv2d(x.to(device), w.to(device), b, s, p), y) for x, w, b, s, p, y in convolutions()
        )

    return _missing("aten::convolution", try_it, here)


def unfold_einsum(x, w, stride, padding, printed: bool):
    """im2col and matmul; `printed` passes unfold's arguments by position, as the page does."""
    k = w.shape[-2:]
    columns = F.unfold(x, k, padding, stride) if printed else F.unfold(x, k, padding=padding, stride=stride)
    side = (x.shape[-1] + 2 * padding - k[0]) // stride + 1
    return torch.einsum("oi,bil->bol", w.flatten(1), columns).view(len(x), len(w), side, side)


def _substitute(here: Setting, printed: bool) -> Outcome:
    results = []
    for x, w, _, s, p, y in convolutions():
        name = f"{w.shape[-1]}x{w.shape[-1]} stride {s} padding {p}"
        try:
            error = relative(unfold_einsum(x.to(here.device), w.to(here.device), s, p, printed), y)
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
    stored = [n for n, shape in official_shapes().items() if len(shape) == 4 and "pos_embed" not in n]
    word = HOLDS if len(run) == facts["figure"] else FAILS
    return Outcome(word, f"{len(run)} layers run; the checkpoint holds {len(stored)}")


def masked_scatter_missing(facts: dict, here: Setting) -> Outcome:
    def try_it(device):
        x, mask, source = torch.zeros(120, 64), torch.zeros(120, 1, dtype=torch.bool), torch.randn(111, 64)
        mask[4:115] = True
        y = x.clone().masked_scatter_(mask, source)
        return relative(x.to(device).masked_scatter_(mask.to(device), source.to(device)), y)

    return _missing("aten::masked_scatter_", try_it, here)


def masked_scatter_patched(facts: dict, here: Setting) -> Outcome:
    def patched(self, mask, source):
        there = self.to("cpu", copy=True)  # as .cpu() of a card; on the CPU itself it would be no copy
        return there.masked_scatter_(mask.cpu(), source.cpu().to(self.dtype)).to(self.device)

    embeds = torch.zeros(2, 6, 4, device=here.device)
    mask = torch.tensor([[False], [True], [True], [False], [False], [False]], device=here.device)
    patched(embeds[0], mask, torch.ones(2, 4, device=here.device))
    changed = int((embeds != 0).any(-1).sum())
    word = HOLDS if changed == int(mask.sum()) else FAILS
    return Outcome(word, f"{changed} of {int(mask.sum())} rows of the base changed", here.name)


def fallback_cost(facts: dict, here: Setting) -> Outcome:
    if not here.npu:
        calls = [e for e in one_page().select() if "masked_scatter" in e.call.operator]
        n = sum(e.count for e in calls)
        return Outcome(NEEDS, f"{n} call in the {one_page().launches()} launches of one page and one token")
    from .substitutes import candidates

    def seconds(function) -> float:
        reader = _reader(here)
        reader.model.use_plan({"place_images": function})
        page = _pages()[0][0]
        reader.read(page, "free")  # warm
        with devices.Timer(here.device) as timer:
            reader.read(page, "free")
        return timer.seconds

    known = candidates("place_images")
    ratio = seconds(known["cpu_fallback"]) / seconds(known["cumsum_where"])
    return Outcome(
        HOLDS if facts["low"] <= ratio <= facts["high"] else FAILS, f"ratio {ratio:.2f}", here.name
    )


def cann_84(facts: dict, here: Setting) -> Outcome:
    releases = json.loads(VERSIONS.read_text())["cann_releases"]
    found = [r for r in releases if r.startswith(facts["release"])]
    near = [r for r in releases if r.startswith(("8.3", "8.5"))]
    if found:
        return Outcome(NEEDS, f"released: {', '.join(found)}; the factor has to be measured")
    return Outcome(
        FAILS, f"no release {facts['release']} among {len(releases)}; around it: {', '.join(near)}"
    )


def version_pair(facts: dict, here: Setting) -> Outcome:
    sets = json.loads(VERSIONS.read_text())["torch_npu_sets"]
    fits = next((s["cann"] for s in sets if facts["torch_npu"] in s["torch_npu"]), None)
    same_line = facts["torch_npu"].partition(".post")[0]
    right = [v for s in sets if s["cann"] == facts["cann"] for v in s["torch_npu"] if v.startswith(same_line)]
    evidence = f"{facts['torch_npu']} is built for CANN {fits}; for {facts['cann']} it is {', '.join(right)}"
    return Outcome(HOLDS if fits == facts["cann"] else FAILS, evidence)


@functools.lru_cache
def one_page():
    """The census of one page at the official size, dry, as the original runs it: claims are about that."""
    return census_ocr(plan=references())


def official_shapes() -> dict[str, list[int]]:
    from model import DeepseekOCRConfig
    from model.loading import official_shapes

    return official_shapes(DeepseekOCRConfig())


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
    told = ", ".join(f"{name} {size / 1e6:.0f} M" for name, size in sizes.items())
    return Outcome(FAILS if sizes["CLIP"] else HOLDS, f"{told}: a CLIP encoder stands between the two")


def fp16(facts: dict, here: Setting) -> Outcome:
    from .commands.census import page_of
    from .commands.demo import sample_pages
    from .compare import headroom
    from .reader import Reader

    reader = Reader.load(here.model or "nano", "cpu", "fp32")
    inputs = page_of(reader, sample_pages()[0][0], reader.settings["mode"])
    found = headroom(reader.model, lambda: reader.model(**inputs, logits_to_keep=1))
    share = max(found.layers.values()) / 65504
    told = f"{reader.name}: the largest layer output is {share:.1%} of 65504"
    beyond = [p for p in found.needs_fp32() if p.module]
    told += f"; beyond it: {', '.join(p.operator for p in beyond)}" if beyond else ""
    word = (FAILS if share >= 1 else HOLDS) if here.official else NEEDS
    return Outcome(word, told, f"CPU, checkpoint {reader.name}")


def load_time(facts: dict, here: Setting) -> Outcome:
    if not (here.npu and here.official):
        return Outcome(NEEDS, "the official weights and an NPU")
    start = time.perf_counter()
    _reader(here)
    took = time.perf_counter() - start
    return Outcome(HOLDS if took <= facts["figure"] * 1.1 else FAILS, f"{took:.1f} s", here.name)


def speed(facts: dict, here: Setting) -> Outcome:
    if not (here.npu and here.official):
        return Outcome(NEEDS, "the official weights and an NPU")
    reader, characters, seconds = _reader(here), 0, 0.0
    for page, _ in _pages():
        reading = reader.read(page, "free")
        characters, seconds = characters + len(reading.text), seconds + reading.seconds
    rate = characters / seconds
    return Outcome(HOLDS if rate >= 0.9 * facts["figure"] else FAILS, f"{rate:.1f} characters/s", here.name)


def success(facts: dict, here: Setting) -> Outcome:
    bound = 0.05 ** (1 / facts["trials"])  # Clopper-Pearson, one-sided 95 %, no failure seen
    shown = f"{facts['trials']} of {facts['trials']} shows no more than a rate above {bound:.0%}"
    if not (here.npu and here.official):
        return Outcome(NEEDS, shown)
    reader = _reader(here)
    good = [
        not r.truncated and cer(r.text, truth.strip()) <= 0.1
        for page, truth in _pages()
        for r in [reader.read(page, "free")]
    ]
    return Outcome(
        HOLDS if all(good) else FAILS, f"{sum(good)} of {len(good)} pages read; {shown}", here.name
    )


def _reader(here: Setting):
    from .reader import Reader

    return Reader.load(here.model or "nano", str(here.device), "fp16")


def _pages() -> list[tuple]:
    from model.processing import load_image

    from .commands.demo import sample_pages

    return [(load_image(path), text) for path, text in sample_pages()]


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
