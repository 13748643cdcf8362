"""DeepSeek-OCR in plain torch, weight-compatible with the official checkpoint."""

from model import loading, tables
from model.config import DeepseekOCRConfig
from model.fast import references
from model.health import NonFiniteError
from model.loading import official_shapes
from model.modeling_deepseekocr import DeepseekOCRForCausalLM
from model.ngram import NgramGuard
from model.processing import MODES, PROMPTS, build_inputs, count_image_tokens, load_image, tile_grid
from model.results import crops, to_csv, to_markdown

__all__ = [
    "MODES", "PROMPTS", "DeepseekOCRConfig", "DeepseekOCRForCausalLM", "NgramGuard", "NonFiniteError",
    "build_inputs", "count_image_tokens", "crops", "load_image", "loading", "official_shapes", "references",
    "tables", "tile_grid", "to_csv", "to_markdown",
]  # fmt: skip
