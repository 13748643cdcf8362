"""What is measured: the official size, or a tiny model with which tests run the same code on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from deskocr_kit.baselines.transformers_model import peer_inputs
from deskocr_kit.benchmark.limits import active_bytes
from deskocr_kit.course.tiny_family import tiny_config, tiny_page
from deskocr_kit.device import default_dtype, graphs
from deskocr_kit.kernel_evidence.forms import plan as every_kernel
from deskocr_kit.operator_census.ocr_model import page_inputs
from deskocr_kit.operators.kernels.launch import why_not
from deskocr_kit.operators.prove.proof import config_of
from deskocr_kit.operators.substitutes.registry import candidate
from model import DeepseekOCRConfig
from model.fast import DEFAULTS
from model.slots import Slots

from .models import our_model, their_model
from .speed import Form, Request

DECODING = ("decode_layer", "choose", "rms_norm")  # the slots whose kernels serve a decoded token
BATCH = 16
TINY = "tiny, for tests: no figure says anything about the official size"


@dataclass
class Subject:
    """The sizes of one run. new, slow_new: tokens to time, for our model and for transformers' one."""

    device: torch.device
    label: str
    config: DeepseekOCRConfig
    dtype: torch.dtype
    hard: DeepseekOCRConfig  # the sizes from which hard probes are made
    new: int
    slow_new: int
    rounds: int
    copied: int  # bytes of the copy whose bandwidth is measured
    page: dict = field(repr=False, default_factory=dict)

    @cached_property
    def model(self):
        return our_model(self.config, self.dtype, self.device)

    @cached_property
    def active_bytes(self) -> int:
        """Bytes of weights that a decoded token of batch 1 reads."""
        return active_bytes(self.model)

    def inputs(self, batch: int) -> dict:
        """Batch 1: a page with its tiles. A larger batch: texts as long as the prompt of that page."""
        if batch == 1:
            return self.page
        length = self.page["input_ids"].shape[1]
        generator = torch.Generator().manual_seed(batch)
        ids = torch.randint(3, self.config.decoder.vocab - 16, (batch, length), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    # ------------------------------------------------------------------ the forms of decoding
    def forms(self, batch: int) -> list[Form]:
        """The forms in the order of their importance; but a recording that fails may harm what follows."""
        kernels, plain, slow = self.kernels, dict, self.slow_new
        forms = [
            Form("kernels", lambda: self.ours(batch, kernels()), self.new),
            Form("transformers, eager", lambda: self.theirs(batch, "eager", "eager"), slow, True),
            Form("plain", lambda: self.ours(batch, plain()), self.new),
            Form("kernels with a graph", lambda: self.ours(batch, kernels(), graph=True), self.new),
            Form("plain with a graph", lambda: self.ours(batch, plain(), graph=True), self.new),
            Form("kernels in every slot", lambda: self.ours(batch, kernels(every=True)), self.new),
            Form(
                "transformers, fastest", lambda: self.theirs(batch, "sdpa", "grouped_mm"), self.slow_new, True
            ),
        ]
        if batch * self.config.decoder.experts_per_token > self.config.decoder.experts:
            # With more pairs than experts the plain `moe` waits for the device, which a recording must not.
            forms = [form for form in forms if form.name != "plain with a graph"]
        return forms

    def kernels(self, every: bool = False) -> dict[str, Callable]:
        """The plan with kernels. Raises NotImplementedError where kernels cannot run."""
        if reason := why_not(self.device):
            raise NotImplementedError(reason)
        return every_kernel() if every else {slot: candidate(slot, "triton") for slot in DECODING}

    def ours(self, batch: int, plan: dict[str, Callable], graph: bool = False) -> Request:
        inputs, record = dict(self.inputs(batch)), self.recorder() if graph else None
        if "images" in inputs:  # the pixels lie on the device, as those of transformers do
            inputs["images"] = [tuple(part.to(self.device) for part in page) for page in inputs["images"]]

        def request(new: int) -> Tensor:
            self.model.use_plan({**vars(Slots()), **DEFAULTS, **plan})
            return self.model.generate(
                **inputs, max_new_tokens=new, eos_token_id=None, record=record, look_every=16
            )

        return request

    def recorder(self) -> Callable:
        """The recorder of CUDA graphs; on a CPU a stand-in that repeats the step over the same memory."""
        return (lambda step: step) if self.device.type == "cpu" else graphs(self.device)

    def theirs(self, batch: int, attention: str, experts: str) -> Request:
        peer = their_model(self.config, self.dtype, self.device, attention)
        peer.set_experts_implementation(experts)
        inputs = self.inputs(batch)
        asked = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        if "images" in inputs:
            asked = peer_inputs(inputs, rows=self.config.clip is not None)
        pixels = {n: v.to(self.device, self.dtype) for n, v in asked.items() if n.startswith("pixel")}
        asked = {name: _moved(value, self.device) for name, value in asked.items()} | pixels
        return lambda new: peer.generate(**asked, max_new_tokens=new, do_sample=False, pad_token_id=2)


def official(device: torch.device) -> Subject:
    """DeepSeek-OCR at its official size: a page of 2x3 tiles, 913 tokens with its prompt."""
    config = DeepseekOCRConfig()
    page = page_inputs(config, "gundam", (2, 3))
    generator = torch.Generator().manual_seed(0)
    page["images"] = [tuple(torch.randn(part.shape, generator=generator) for part in page["images"][0])]
    page["attention_mask"] = torch.ones_like(page["input_ids"])
    label = "official size, random weights"
    dtype = default_dtype(device)
    return Subject(device, label, config, dtype, config_of("nano"), 128, 24, 3, 4 << 30, page)


def tiny(device: torch.device) -> Subject:
    """A model of 32 channels."""
    config = tiny_config("deepseek-ocr")
    return Subject(device, TINY, config, torch.float32, config, 2, 2, 1, 1 << 20, tiny_page(config, (1, 1)))


def _moved(value, device: torch.device):
    return value.to(device) if torch.is_tensor(value) else value
