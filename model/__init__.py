"""DeepSeek-OCR in plain torch, weight-compatible with the official checkpoint."""

from .config import DeepseekOCRConfig
from .modeling_deepseekocr import DeepseekOCRForCausalLM

__all__ = ["DeepseekOCRConfig", "DeepseekOCRForCausalLM"]
