"""DeepSeek-OCR in plain torch, weight-compatible with the official checkpoint."""

from . import loading
from .config import DeepseekOCRConfig
from .modeling_deepseekocr import DeepseekOCRForCausalLM
from .processing import MODES, PROMPTS

__all__ = ["MODES", "PROMPTS", "DeepseekOCRConfig", "DeepseekOCRForCausalLM", "loading"]
