"""Models with random weights that are drawn on the device: ours, and transformers' one of the same sizes."""

from __future__ import annotations

import torch

from deskocr_kit.baselines.transformers_model import peer_classes, peer_config
from model import DeepseekOCRConfig, DeepseekOCRForCausalLM
from model.loading import materialise
from model.modeling_deepseekocr import initialise


def our_model(config: DeepseekOCRConfig, dtype: torch.dtype, device: torch.device) -> DeepseekOCRForCausalLM:
    """`DeepseekOCRForCausalLM.random` without the way over the host: billions of numbers take it a minute."""
    model = DeepseekOCRForCausalLM.skeleton(config)
    materialise(model, dtype, device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad(), torch.device(device):
        for name, parameter in model.named_parameters():
            initialise(name, parameter, generator)
    return model.eval().requires_grad_(False)


def their_model(config: DeepseekOCRConfig, dtype: torch.dtype, device: torch.device, attention: str):
    """transformers' model with weights of its own. Speed does not depend on their values.

    It is made on the device, so that its tables of positions exist there too.

    Raises:
        ImportError: no transformers 5.
    """
    kind = peer_classes(config)[1]
    with torch.device(device):
        model = kind._from_config(peer_config(config), dtype=dtype, attn_implementation=attention)
    model.generation_config.eos_token_id = None
    return model.to(device).eval().requires_grad_(False)
