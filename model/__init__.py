"""DeepSeek-OCR in plain torch, weight-compatible with the official checkpoint."""

from . import loading, tables
from .config import DeepseekOCRConfig
from .fast import references
from .loading import official_shapes
from .modeling_deepseekocr import DeepseekOCRForCausalLM
from .ngram import NgramGuard
from .nonfinite import NonFiniteError
from .processing import MODES, PROMPTS, build_inputs, count_image_tokens, load_image, tile_grid
from .results import crops, to_csv, to_markdown

__all__ = [
    "MODES", "PROMPTS", "DeepseekOCRConfig", "DeepseekOCRForCausalLM", "NgramGuard", "NonFiniteError",
    "build_inputs", "count_image_tokens", "crops", "load_image", "loading", "official_shapes", "references",
    "tables", "tile_grid", "to_csv", "to_markdown",
]  # fmt: skip
