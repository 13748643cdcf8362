"""The sizes of the parts of a network: SAM, the encoder behind it, the decoder. No torch here.

config.py reads them from a config.json. ENCODERS lists the encoders that may stand behind SAM.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .official import Checkpoint


@dataclass(frozen=True)
class SamConfig:
    """The SAM ViT-B image encoder. `grid` is the side of the stored position table, in patches."""

    width: int
    layers: int
    heads: int
    global_blocks: tuple[int, ...]
    downsample_channels: tuple[int, int]
    hidden: int
    eps: float
    patch: int
    window: int
    neck: int
    grid: int

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True)
class ClipConfig:
    """The CLIP-L encoder. `grid` is the side of the position table; `patch` only sizes an unused weight."""

    title: ClassVar[str] = "CLIP"

    width: int
    layers: int
    heads: int
    hidden: int
    eps: float
    patch: int
    grid: int

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def feature_width(self) -> int:
        """CLIP and SAM side by side."""
        return 2 * self.width

    @property
    def sizes(self) -> str:
        """What its operators depend on, for the fingerprint of a plan."""
        return f"clip {self.width}x{self.heads}"

    @classmethod
    def read(cls, c: Mapping[str, Any], official: Checkpoint) -> ClipConfig:
        return cls(
            width=c["width"],
            layers=c["layers"],
            heads=c["heads"],
            hidden=c["intermediate_size"],
            eps=c["layer_norm_eps"],
            patch=c["patch_size"],
            grid=c["image_size"] // c["patch_size"],
        )


@dataclass(frozen=True)
class QueryConfig:
    """The encoder of DeepSeek-OCR-2: Qwen2 blocks over the SAM map and learned queries.

    `queries`: how many there are for a tile and for a larger view; a view takes the first set that has at
    least as many queries as its map has places, or the last.
    """

    title: ClassVar[str] = "query encoder"

    width: int
    layers: int
    heads: int
    kv_heads: int
    hidden: int
    eps: float
    rope_theta: float
    queries: tuple[int, ...]

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def feature_width(self) -> int:
        return self.width

    @property
    def sizes(self) -> str:
        """What its operators depend on, for the fingerprint of a plan."""
        return f"queries {self.width}x{self.heads}/{self.kv_heads}x{self.hidden}"

    @classmethod
    def read(cls, c: Mapping[str, Any], official: Checkpoint) -> QueryConfig:
        return cls(
            width=c["dim"],
            layers=c["layers"],
            heads=c["heads"],
            kv_heads=c["kv_heads"],
            hidden=c["intermediate_size"],
            eps=c["rms_norm_eps"],
            rope_theta=float(c["rope_theta"]),
            queries=official.queries,
        )


#: {key in vision_config.width: the sizes of that encoder}. vision.TOWERS has the modules.
ENCODERS: dict[str, Any] = {"clip-l-14-224": ClipConfig, "qwen2-0-5b": QueryConfig}


@dataclass(frozen=True)
class DecoderConfig:
    """The DeepSeek-V2 decoder: plain attention, mixture of experts after the first `dense_layers`.

    `window`: how many generated tokens a generated token sees, itself included; None: all. The prompt is
    always visible.
    """

    width: int
    layers: int
    heads: int
    dense_hidden: int
    expert_hidden: int
    experts: int
    shared_experts: int
    experts_per_token: int
    dense_layers: int
    vocab: int
    max_positions: int
    eps: float
    rope_theta: float
    renormalise: bool
    expert_scale: float
    window: int | None = None

    @property
    def head_dim(self) -> int:
        return self.width // self.heads
