"""DeepSeek-OCR under the original's class name: load, save, generate, read pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast, overload

import torch
from torch import Tensor

from . import loading, plans
from .config import DeepseekOCRConfig
from .generation import generate
from .infer import infer
from .network import Network


class DeepseekOCRForCausalLM(Network):
    """The whole model. Build it with `from_pretrained`, or with `random` for tests."""

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
        plan: Mapping[str, Callable] | str | Path | None = None,
        *,
        torch_dtype: torch.dtype | None = None,
    ) -> DeepseekOCRForCausalLM:
        """Load a folder in the official layout (config.json, *.safetensors, maybe an index).

        Args:
            folder: the checkpoint; nothing is downloaded.
            dtype: of the parameters; None keeps that of the files. `torch_dtype` is the original's name.
            device: where the parameters go; each tensor is moved as it is read.
            plan: {slot name: function}, see slots.py. "auto": the implementations that were proved fastest on
                this device; a path: that plan file (both need deskocr_kit, see plans.py). None: the defaults,
                see fast/.

        Raises:
            CheckpointError: the weights are missing, incomplete, damaged or do not fit; names the first few.
        """
        loaded = loading.load(Path(folder), dtype or torch_dtype, torch.device(device), cls)
        model = cast(DeepseekOCRForCausalLM, loaded)
        model.use_plan(plans.resolve(plan, model))
        return model.eval().requires_grad_(False)

    @classmethod
    def skeleton(cls, config: DeepseekOCRConfig) -> DeepseekOCRForCausalLM:
        """The model on the meta device: shapes without memory."""
        return cast(DeepseekOCRForCausalLM, loading.skeleton(config, cls))

    @classmethod
    def random(
        cls,
        config: DeepseekOCRConfig,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        seed: int = 0,
    ) -> DeepseekOCRForCausalLM:
        """A model with seeded random weights, for tests and training.

        Standard deviations: matrices 1/sqrt(fan in), tables 0.02. Norms are 1, biases 0.
        """
        model = cls.skeleton(config)
        loading.materialise(model, dtype, torch.device(device))
        generator = torch.Generator(device="cpu").manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                initialise(name, parameter, generator)
        return model.eval()

    def save_pretrained(self, folder: str | Path, shard_bytes: int = 5_000_000_000) -> None:
        """Write config.json and safetensors under the official names. Loading them restores the same bits."""
        loading.save(self.config, self, Path(folder), shard_bytes)

    @overload
    def generate(self, *args, return_logprobs: Literal[True], **kwargs) -> tuple[Tensor, Tensor]: ...

    @overload
    def generate(self, *args, return_logprobs: Literal[False] = ..., **kwargs) -> Tensor: ...

    def generate(self, *args, **kwargs) -> Any:
        """Greedy decoding: prompt and new ids (b, n + new). See generation.generate for the arguments."""
        return generate(self, *args, **kwargs)

    def infer(self, tokenizer, *args, **kwargs) -> str:
        """Read one page and return the text. See inference.infer for the arguments."""
        return infer(self, tokenizer, *args, **kwargs)


def initialise(name: str, parameter: Tensor, generator: torch.Generator) -> None:
    """Fill one parameter in place. Drawn on the CPU, so that a seed gives the same values on every device."""
    if name.endswith("bias"):
        parameter.zero_()
    elif "norm" in name or name.endswith(("neck.1.weight", "neck.3.weight")):
        parameter.fill_(1.0)
    else:
        tables = ("embed", "rel_pos", "newline", "seperator", "query_")
        table = any(word in name for word in tables) and "patch_embed" not in name
        fan_in = parameter[0].numel() if parameter.dim() != 3 else parameter.shape[-1]
        std = 0.02 if table else fan_in**-0.5
        # One expert at a time, to avoid a large fp32 copy.
        for piece in parameter if parameter.dim() == 3 else [parameter]:
            drawn = torch.empty(piece.shape, dtype=torch.float32).normal_(0.0, std, generator=generator)
            piece.copy_(drawn)
