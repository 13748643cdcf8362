"""A tiny model of transformers, and its generate()."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM


def make(dtype=torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=256,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=1,
    )
    return LlamaForCausalLM(config).eval().to(dtype)


def generate(model, **options) -> torch.Tensor:
    torch.manual_seed(7)
    ids = torch.randint(2, 256, (2, 9))
    torch.manual_seed(1)
    ids = ids.to(model.device)
    with torch.no_grad():
        return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, **options).cpu()
