"""The sizes of a network, read from a config.json in the official layout.

`architectures` names the model of the family (official.py), and that gives the default of every other key.

The official file omits what the original hard-codes (patch, window, neck, eps, …). Here each of these has a
key too, with the official value as default (see official.py), so that a tiny checkpoint can state its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import AutoConfig, PretrainedConfig

from .official import CHECKPOINTS, DEEPSEEK_OCR, UNLIMITED_OCR, Checkpoint, by_architecture

SAM_KEY = "sam_vit_b"
WINDOW_KEYS = ("sliding_window", "sliding_window_size")

# Written to config.json for readers that expect them; the network has no other variant.
LANGUAGE_FIXED = {
    "use_mla": False,
    "topk_method": "greedy",
    "n_group": 1,
    "topk_group": 1,
    "lm_head": True,
    "rm_head": False,
    "kv_lora_rank": None,
    "q_lora_rank": None,
    "qk_nope_head_dim": 0,
    "qk_rope_head_dim": 0,
    "v_head_dim": 0,
}


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


@dataclass(frozen=True)
class QueryConfig:
    """The encoder of DeepSeek-OCR-2: Qwen2 blocks over the SAM map and learned queries.

    `queries`: how many there are for a tile and for a larger view; a view takes the first set that has at
    least as many queries as its map has places, or the last.
    """

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


class DeepseekOCRConfig(PretrainedConfig):
    """The official config.json. The network reads the parts `.sam`, `.encoder` and `.decoder`.

    `.checkpoint` is what is official for this model. Without arguments: DeepSeek-OCR at its official size;
    `DeepseekOCRConfig.official("unlimited-ocr")` is another model of the family.

    The official file states the language sizes twice. The original reads the top-level copy, so it takes
    precedence here.

    Raises:
        ValueError: the parts do not fit each other, or need a variant that this network does not have.
    """

    model_type = "deepseek_vl_v2"

    def __init__(self, vision_config=None, projector_config=None, language_config=None, **kwargs):
        # Set before the parts are built, because they depend on it.
        kwargs["architectures"] = kwargs.get("architectures") or [DEEPSEEK_OCR.architecture]
        self.architectures = kwargs["architectures"]
        official = self.checkpoint
        given = dict(language_config or {})
        language = {
            key: kwargs.pop(key, given.get(key, default))
            for key, default in {**official.language, **LANGUAGE_FIXED}.items()
        }
        vision = dict(vision_config or {})
        width = vision.get("width") or {}
        self.vision_config = {
            **{"image_size": 1024, "mlp_ratio": 3.7362, "model_name": "deeplip_b_l", "model_type": "vision"},
            **vision,
            "width": {
                official.encoder_key: {**official.encoder, **width.get(official.encoder_key, {})},
                SAM_KEY: {**official.sam, **width.get(SAM_KEY, {})},
            },
        }
        self.image_token_id = kwargs.pop("image_token_id", official.image_token_id)
        if official.sliding_window is not None:
            stated = [source.pop(key, None) for source in (kwargs, given) for key in WINDOW_KEYS]
            self.sliding_window = next((n for n in stated if n is not None), official.sliding_window)
        for key, value in language.items():
            setattr(self, key, value)
        self.language_config = {**given, **language}
        self.projector_config = {
            **{"model_type": "mlp_projector", "projector_type": "linear"},
            "input_dim": self.feature_width,
            "n_embed": self.hidden_size,
            **(projector_config or {}),
        }
        kwargs.setdefault("tie_word_embeddings", False)
        kwargs.pop("model_type", None)
        ends = {"bos_token_id": self.bos_token_id, "eos_token_id": self.eos_token_id}
        super().__init__(**ends, **kwargs)
        self.validate_parts()

    @classmethod
    def official(cls, name: str) -> DeepseekOCRConfig:
        """The official size of a model of the family, by its name in CHECKPOINTS. Raises KeyError."""
        return cls(architectures=[CHECKPOINTS[name].architecture])

    def to_dict(self) -> dict:
        return {**super().to_dict(), "model_type": self.checkpoint.model_type}

    @property
    def checkpoint(self) -> Checkpoint:
        """What is official for this model."""
        return by_architecture(self.architectures)

    @property
    def sam(self) -> SamConfig:
        c = self.vision_config["width"][SAM_KEY]
        return SamConfig(
            width=c["width"],
            layers=c["layers"],
            heads=c["heads"],
            global_blocks=tuple(c["global_attn_indexes"]),
            downsample_channels=tuple(c["downsample_channels"]),
            hidden=int(c["width"] * c["mlp_ratio"]),
            eps=c["layer_norm_eps"],
            patch=c["patch_size"],
            window=c["window_size"],
            neck=c["neck_channels"],
            grid=self.vision_config["image_size"] // c["patch_size"],
        )

    @property
    def encoder(self) -> ClipConfig | QueryConfig:
        """The encoder behind SAM."""
        official = self.checkpoint
        c = self.vision_config["width"][official.encoder_key]
        if official.queries:
            return QueryConfig(
                width=c["dim"],
                layers=c["layers"],
                heads=c["heads"],
                kv_heads=c["kv_heads"],
                hidden=c["intermediate_size"],
                eps=c["rms_norm_eps"],
                rope_theta=float(c["rope_theta"]),
                queries=official.queries,
            )
        return ClipConfig(
            width=c["width"],
            layers=c["layers"],
            heads=c["heads"],
            hidden=c["intermediate_size"],
            eps=c["layer_norm_eps"],
            patch=c["patch_size"],
            grid=c["image_size"] // c["patch_size"],
        )

    @property
    def clip(self) -> ClipConfig | None:
        """The encoder behind SAM if it is CLIP."""
        return self.encoder if isinstance(self.encoder, ClipConfig) else None

    @property
    def feature_width(self) -> int:
        """Width of the features before the projector: CLIP and SAM side by side, or the queries alone."""
        encoder = self.encoder
        return encoder.width + (self.sam.downsample_channels[-1] if isinstance(encoder, ClipConfig) else 0)

    @property
    def decoder(self) -> DecoderConfig:
        return DecoderConfig(
            width=self.hidden_size,
            layers=self.num_hidden_layers,
            heads=self.num_attention_heads,
            dense_hidden=self.intermediate_size,
            expert_hidden=self.moe_intermediate_size,
            experts=self.n_routed_experts,
            shared_experts=self.n_shared_experts,
            experts_per_token=self.num_experts_per_tok,
            dense_layers=self.first_k_dense_replace,
            vocab=self.vocab_size,
            max_positions=self.max_position_embeddings,
            eps=self.rms_norm_eps,
            rope_theta=float(self.rope_theta),
            renormalise=self.norm_topk_prob,
            expert_scale=self.routed_scaling_factor,
            window=self.sliding_window if self.checkpoint.sliding_window is not None else None,
        )

    def validate_parts(self) -> None:
        """Raise ValueError, naming the key, if the sizes cannot belong to one network."""
        sam, encoder, decoder = self.sam, self.encoder, self.decoder
        key, shared = self.checkpoint.encoder_key, getattr(encoder, "kv_heads", encoder.heads)
        window = decoder.window
        wrong = [
            (
                sam.width % sam.heads,
                f"sam_vit_b.width {sam.width} is not a multiple of its heads {sam.heads}",
            ),
            (
                encoder.width % encoder.heads,
                f"{key}.width {encoder.width} is not a multiple of its heads {encoder.heads}",
            ),
            (encoder.heads % shared, f"{key}.heads {encoder.heads} is not a multiple of kv_heads {shared}"),
            (
                window is not None and (not isinstance(window, int) or window < 1),
                f"sliding_window must be an integer of at least 1, got {window!r}",
            ),
            (
                decoder.width % decoder.heads,
                f"hidden_size {decoder.width} is not a multiple of num_attention_heads",
            ),
            (
                sam.downsample_channels[-1] != encoder.width,
                "the second encoder reads the SAM map: downsample_channels[-1] "
                f"{sam.downsample_channels[-1]} must equal the width of {key}, {encoder.width}",
            ),
            (
                self.projector_config["input_dim"] != self.feature_width,
                f"projector_config.input_dim must be {self.feature_width}, the width of the features",
            ),
            (
                self.projector_config["n_embed"] != decoder.width,
                "projector_config.n_embed must equal hidden_size",
            ),
            (
                self.projector_config["projector_type"] != "linear",
                "only projector_type 'linear' is supported",
            ),
            (self.use_mla, "use_mla must be false: this network has plain multi-head attention"),
            (self.topk_method != "greedy", "only topk_method 'greedy' is supported"),
            (
                self.num_key_value_heads != self.num_attention_heads,
                "num_key_value_heads must equal num_attention_heads: no grouped-query attention here",
            ),
            (
                decoder.experts_per_token > decoder.experts,
                f"num_experts_per_tok {decoder.experts_per_token} exceeds n_routed_experts {decoder.experts}",
            ),
        ]
        for bad, message in wrong:
            if bad:
                raise ValueError(f"config.json: {message}")


# AutoTokenizer and AutoConfig read config.json and warn about a model_type that is not registered.
AutoConfig.register(DeepseekOCRConfig.model_type, DeepseekOCRConfig, exist_ok=True)


class UnlimitedOCRConfig(DeepseekOCRConfig):
    """The same config under the `model_type` of Unlimited-OCR, for AutoConfig."""

    model_type = UNLIMITED_OCR.model_type


AutoConfig.register(UnlimitedOCRConfig.model_type, UnlimitedOCRConfig, exist_ok=True)
