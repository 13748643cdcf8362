"""24 models that users port: text, speech, CRNNs here; OCR and vision-language models in guest_vision.py.

All are tiny and random. The classes are those of transformers 5.23; version 4 lacks many of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
import transformers as t
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 120, "max_position_embeddings": 256, "eos_token_id": None,
    "pad_token_id": 0, "bos_token_id": 1,
}  # fmt: skip
IMAGE = 110  # the id of an image placeholder


@dataclass(frozen=True)
class Model:
    """make: builds it; inputs: those of one forward (dict, tuple or BatchFeature); generates: has a text."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], object]
    generates: bool = True
    needs: str = ""  # a class that only newer versions of transformers 5 have

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()

    def given(self):
        torch.manual_seed(1)
        return self.inputs()

    @property
    def here(self) -> bool:
        """Whether this transformers has it, under these names of its config."""
        return int(t.__version__.partition(".")[0]) >= 5 and (not self.needs or hasattr(t, self.needs))


def prompt(*ids: int) -> dict[str, torch.Tensor]:
    """The inputs of a text model: one sample."""
    given = torch.tensor([ids])
    return {"input_ids": given, "attention_mask": torch.ones_like(given)}


def padded() -> dict[str, torch.Tensor]:
    """Two samples, the first with padding on the left, as decoders want it."""
    ids = torch.tensor([[0, 0, 7, 11], [4, 3, 7, 2]])
    return {"input_ids": ids, "attention_mask": torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])}


# ---------------------------------------------------------------------- text
def qwen2() -> nn.Module:
    return t.Qwen2ForCausalLM(t.Qwen2Config(**TEXT, attn_implementation="eager"))


def deepseek_v2() -> nn.Module:
    own = {**TEXT, "num_key_value_heads": 4}
    return t.DeepseekV2ForCausalLM(
        t.DeepseekV2Config(
            **own, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=2, moe_intermediate_size=24,
            first_k_dense_replace=1, kv_lora_rank=16, q_lora_rank=None, qk_rope_head_dim=8, v_head_dim=8,
            qk_nope_head_dim=8,
        )
    )  # fmt: skip


# ---------------------------------------------------------------------- speech
def whisper() -> nn.Module:
    return t.WhisperForConditionalGeneration(
        t.WhisperConfig(
            d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=48, num_mel_bins=8,
            max_source_positions=20, max_target_positions=40, decoder_layers=2, decoder_attention_heads=2,
            decoder_ffn_dim=48, vocab_size=120, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
        )
    )  # fmt: skip


def wav2vec2() -> nn.Module:
    return t.Wav2Vec2ForCTC(
        t.Wav2Vec2Config(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=40,
            conv_dim=(16, 16), conv_stride=(4, 2), conv_kernel=(8, 3), num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=2, num_feat_extract_layers=2, feat_extract_norm="layer",
        )
    )  # fmt: skip


# ---------------------------------------------------------------------- recurrent, by hand
class Crnn(nn.Module):
    """Convolutions, a recurrent layer over the columns, and a classifier for CTC; lines of several lengths.

    A plain nn.Module: no `.device`, no `.dtype`, positional inputs, a tuple as output.
    """

    def __init__(self, recurrent: type[nn.Module]):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, (8, 1)),
        )  # fmt: skip
        self.recurrent = recurrent(16, 12, num_layers=2, bidirectional=True, batch_first=True)
        self.classes = nn.Linear(24, 40)

    def forward(self, pixels: torch.Tensor, widths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """pixels (b, 1, 16, w), widths (b,) -> (log-probabilities (b, w / 2, 40), lengths (b,))."""
        columns = self.features(pixels)[:, :, 0].transpose(1, 2)
        packed = pack_padded_sequence(columns, widths.cpu() // 2, batch_first=True, enforce_sorted=False)
        out, lengths = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
        return F.log_softmax(self.classes(out), -1), lengths


def lines() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(3, 1, 16, 24), torch.tensor([24, 12, 18])


class CellReader(nn.Module):
    """One character per step of a GRU cell, with attention over the columns of a picture.

    As the readers of tables do. Its Conv1d only holds a weight, and its output is a dict.
    """

    def __init__(self):
        super().__init__()
        self.stem, self.conv1d = nn.Conv2d(1, 8, (16, 2), (16, 2)), nn.Conv1d(8, 8, 3, groups=8)
        self.cell, self.key, self.classes = nn.GRUCell(8, 16), nn.Linear(16, 8), nn.Linear(16, 40)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        columns = F.conv1d(self.stem(pixels)[:, :, 0], self.conv1d.weight, padding=1, groups=8)
        state = columns.new_zeros(len(pixels), 16)
        steps = []
        for _ in range(4):
            share = torch.einsum("bd,bdw->bw", self.key(state), columns).softmax(-1)
            state = self.cell(torch.einsum("bw,bdw->bd", share, columns), state)
            steps.append(self.classes(state))
        return {"scores": torch.stack(steps, 1)}


def models() -> dict[str, Model]:
    """{name: model}, 24 of them."""
    from . import guest_vision  # it imports IMAGE and the others from here

    return {
        "Qwen2, eager, left padding": Model(qwen2, padded),
        "DeepSeek-V2 (experts)": Model(deepseek_v2, lambda: prompt(3, 7, 11, 5), needs="DeepseekV2Config"),
        "Whisper": Model(
            whisper,
            lambda: t.BatchFeature(
                {"input_features": torch.randn(1, 8, 40), "decoder_input_ids": torch.tensor([[1, 5, 9]])}
            ),
        ),
        "Wav2Vec2 (CTC)": Model(wav2vec2, lambda: (torch.randn(1, 400),), generates=False),
        "CRNN, packed LSTM": Model(lambda: Crnn(nn.LSTM), lines, generates=False),
        "CRNN, packed GRU": Model(lambda: Crnn(nn.GRU), lines, generates=False),
        "reader with a GRU cell": Model(CellReader, lambda: torch.randn(2, 1, 16, 24), generates=False),
        **guest_vision.models(),
    }
