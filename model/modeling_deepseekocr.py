"""DeepSeek-OCR: the class that users of the original know. Loads, saves, generates and reads pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from . import loading, plans
from .config import DeepseekOCRConfig
from .generation import generate
from .inference import infer
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
            dtype: of the parameters; None keeps the files' own. `torch_dtype` is the original's name for it.
            device: where the parameters go, each tensor as it is read.
            plan: {slot name: function}, see slots.py; "auto" takes what was proved fastest on this device, a
                path that plan file (both need deskocr_kit, see plans.py); None takes the defaults, see fast/.

        Raises:
            CheckpointError: absent, incomplete, damaged or unfitting weights; the message names the first
                few.
        """
        model = loading.load(Path(folder), dtype or torch_dtype, torch.device(device), cls)
        model.use_plan(plans.resolve(plan, model))
        return model.eval().requires_grad_(False)

    @classmethod
    def skeleton(cls, config: DeepseekOCRConfig) -> DeepseekOCRForCausalLM:
        """The model on the meta device: shapes without memory."""
        return loading.skeleton(config, cls)

    @classmethod
    def random(
        cls,
        config: DeepseekOCRConfig,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        seed: int = 0,
    ) -> DeepseekOCRForCausalLM:
        """Seeded weights: matrices 1/sqrt(fan in), norms 1, biases 0, tables 0.02. For tests and training."""
        model = cls.skeleton(config)
        loading.materialise(model, dtype, torch.device(device))
        generator = torch.Generator(device="cpu").manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                initialise(name, parameter, generator)
        return model.eval()

    def save_pretrained(self, folder: str | Path, shard_bytes: int = 5_000_000_000) -> None:
        """Write config.json and safetensors under the official names; loading them again is bit-equal."""
        loading.save(self.config, self, Path(folder), shard_bytes)

    def generate(self, *args, **kwargs) -> Tensor:
        """Greedy decoding: prompt and new ids (b, n + new). See generation.generate for the arguments."""
        return generate(self, *args, **kwargs)

    def infer(self, tokenizer, *args, **kwargs) -> str:
        """Read one page. See inference.infer for the arguments; always returns the text."""
        return infer(self, tokenizer, *args, **kwargs)


def initialise(name: str, parameter: Tensor, generator: torch.Generator) -> None:
    """Fill one parameter in place, drawn on the CPU so that a seed means the same on every device."""
    if name.endswith("bias"):
        parameter.zero_()
    elif "norm" in name or name.endswith(("neck.1.weight", "neck.3.weight")):
        parameter.fill_(1.0)
    else:
        tables = ("embed", "rel_pos", "newline", "seperator")
        table = any(word in name for word in tables) and "patch_embed" not in name
        fan_in = parameter[0].numel() if parameter.dim() != 3 else parameter.shape[-1]
        std = 0.02 if table else fan_in**-0.5
        for piece in (
            parameter if parameter.dim() == 3 else [parameter]
        ):  # one expert at a time: no big fp32 copy
            drawn = torch.empty(piece.shape, dtype=torch.float32).normal_(0.0, std, generator=generator)
            piece.copy_(drawn)
