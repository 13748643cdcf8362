"""Limits of the hardware, measured in the same run, and the work of the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..device import Timer
from ..operator_census.ocr_model import census_ocr

if TYPE_CHECKING:
    from torch import Tensor

ROUNDS = 5


def read_bandwidth(device, megabytes: int | None = None) -> float:
    """Read bandwidth in bytes per second: the best of ROUNDS sums over a tensor far larger than any cache."""
    import torch

    size = (megabytes or (256 if device.type == "cpu" else 2048)) << 20
    x = torch.ones(size // 4, dtype=torch.float32, device=device)
    return size / best(device, x.sum)


def matmul_rate(device, dtype) -> float:
    """FLOP per second of a square matrix product in `dtype`: the best of ROUNDS."""
    import torch

    n = 1024 if device.type == "cpu" else 8192
    if device.type == "cpu" and dtype != torch.float32:
        n = 512  # half precision is emulated on many CPUs
    x = torch.ones(n, n, dtype=dtype, device=device)
    return 2 * n**3 / best(device, lambda: x @ x)


def best(device, work) -> float:
    seconds = []
    for _ in range(ROUNDS):
        with Timer(device) as timer:
            work()
        seconds.append(timer.seconds)
    return min(seconds)


def weights_of(model) -> Iterator[tuple[str, Tensor]]:
    """Parameters, and the buffers that hold quantised weights; a plain model has no buffers."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def weight_bytes(model, prefixes: tuple[str, ...] = ("",)) -> int:
    return sum(weight.nbytes for name, weight in weights_of(model) if name.startswith(prefixes))


LANGUAGE = ("model.layers.", "model.norm", "lm_head")
VISION = ("model.sam_model", "model.vision_model", "model.qwen2_model", "model.projector")


def active_bytes(model) -> int:
    """Bytes of weights that one decoded token reads: without vision, embedding table and other experts."""
    c, total = model.config.decoder, 0
    for name, weight in weights_of(model):
        if name.startswith(LANGUAGE):
            share = c.experts_per_token / c.experts if ".experts." in name else 1
            total += round(weight.numel() * share) * weight.element_size()
    return total


def work(model, inputs: dict) -> dict:
    """Per phase the FLOP of one page, from the census, and the bytes of the weights that it reads once.

    prefill counts every expert, because its tokens together choose nearly all. The census cannot count the
    FLOP of products with quantised weights. They are those of the same network with plain weights, from a dry
    run.
    """
    quantised = any(not buffer.is_floating_point() for buffer in model.buffers())
    census = census_ocr(model.config if quantised else model, inputs=inputs)
    read = {
        "vision": weight_bytes(model, VISION),
        "prefill": weight_bytes(model, LANGUAGE),
        "decode": active_bytes(model),
    }
    return {name: {"flop": census.flops(name), "weight_bytes": read[name]} for name in read}


def measure(model, inputs: dict, timed: bool) -> dict:
    """The work, and if `timed` the limits. On a simulated device they would be those of the host."""
    found = {"work": work(model, inputs), "active_bytes_per_token": active_bytes(model)}
    if timed:
        found["read_bytes_per_second"] = read_bandwidth(model.device)
        found["flop_per_second"] = matmul_rate(model.device, model.dtype)
    return found
