"""An example of another model for the instruments: a tiny LLaVA of transformers with random weights.

It contains a Conv2d patch embedding and masked_scatter. Nothing is downloaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration

IMAGE = 99


def build_llava() -> LlavaForConditionalGeneration:
    """Build the model from a config, with the same random weights each time."""
    # Here, because it takes a second and every notebook imports deskocr_kit.course.
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=32,
        patch_size=8, projection_dim=32,
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=100,
        num_key_value_heads=2, bos_token_id=0, eos_token_id=None, pad_token_id=1, max_position_embeddings=128,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE,
        image_token_id=IMAGE,  # type: ignore[call-arg]  # transformers 5
        vision_feature_layer=-1,
        image_seq_length=16,
    )
    return LlavaForConditionalGeneration(config).eval()


def llava_inputs() -> dict[str, torch.Tensor]:
    """One image (1, 3, 32, 32) and a prompt (1, 20) with 16 placeholders for it."""
    torch.manual_seed(1)
    ids = torch.tensor([[0, *[IMAGE] * 16, 5, 9, 23]])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(1, 3, 32, 32),
    }


def tokens(model, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """The prompt with eight greedy tokens after it (1, n + 8), on the CPU."""
    with torch.no_grad():
        return model.generate(**given, max_new_tokens=8, do_sample=False).cpu()
