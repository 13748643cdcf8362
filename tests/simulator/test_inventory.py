"""The operators of the full-size network, listed without computing them."""

from __future__ import annotations

import torch

from deskocr_kit import simulator
from deskocr_kit.simulator.inventory import Inventory, dry_run
from model import DeepseekOCRConfig, DeepseekOCRForCausalLM
from model.official import DEEPSEEK_OCR

CONVOLUTIONS = {  # the five of DeepSeek-OCR's SAM encoder at 1024 px: weights (out, in, height, width)
    (768, 3, 16, 16),
    (256, 768, 1, 1),
    (256, 256, 3, 3),
    (512, 256, 3, 3),
    (1024, 512, 3, 3),
}


def test_full_size_vision_towers_without_memory():
    before = torch.npu.memory_allocated()
    with dry_run("npu:0", torch.float16) as inventory:
        model = DeepseekOCRForCausalLM(DeepseekOCRConfig())
        inventory.clear()
        seen = model.model.encode_views(torch.empty(1, 3, 1024, 1024))
    assert (
        seen.shape == (1, 256, DEEPSEEK_OCR.language["hidden_size"])
        and seen.dtype is torch.float16
        and seen.device == torch.device("npu:0")
    )
    assert sum(p.numel() for p in model.parameters()) > 3e9 and torch.npu.memory_allocated() <= before
    rows = inventory.rows(simulator.load("as-believed"))
    convolutions = [row for row in rows if row["operator"] == "aten::convolution"]
    weights = {row["tensors"][1].removeprefix("float16") for row in convolutions}
    assert weights == {str(list(shape)) for shape in CONVOLUTIONS}
    assert {row["verdict"] for row in convolutions} == {"not-implemented"}
    # CLIP's layers; in half precision SAM's windows and whole maps are products and a softmax of their own.
    assert inventory.operators()["aten::scaled_dot_product_attention"] == 24
    assert torch.get_default_dtype() is torch.float32


def test_verdicts_by_dtype_on_real_tensors():
    x = torch.arange(4, device="npu")
    with Inventory() as inventory:
        x.cumsum(0)
        x.float().cumsum(0)
        x.float().mode()
    verdicts = {
        (r["operator"], r["tensors"][0]): r["verdict"] for r in inventory.rows(simulator.load("as-published"))
    }
    assert verdicts["aten::cumsum", "int64[4]"].startswith("ai-cpu: ")
    assert (
        verdicts["aten::cumsum", "float32[4]"] == "kernel"
        and verdicts["aten::mode", "float32[4]"] == "cpu-fallback"
    )
    assert all(row["verdict"] is None for row in inventory.rows())
