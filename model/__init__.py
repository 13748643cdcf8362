"""DeepSeek-OCR in plain torch, weight-compatible with the official checkpoint.

The names below are imported when they are first used, so that the files without torch (modes, prompts, files)
can be imported where torch is missing or broken.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import loading, tables
    from .config import DeepseekOCRConfig
    from .fast import references
    from .loading import official_shapes
    from .modeling_deepseekocr import DeepseekOCRForCausalLM
    from .ngram import NgramGuard
    from .nonfinite import NonFiniteError
    from .processing import MODES, PROMPTS, build_inputs, count_image_tokens, load_image, tile_grid
    from .results import crops, to_csv, to_markdown
    from .tokenizer import load_tokenizer

__all__ = [
    "MODES", "PROMPTS", "DeepseekOCRConfig", "DeepseekOCRForCausalLM", "NgramGuard", "NonFiniteError",
    "build_inputs", "count_image_tokens", "crops", "load_image", "load_tokenizer", "loading",
    "official_shapes", "references", "tables", "tile_grid", "to_csv", "to_markdown",
]  # fmt: skip

_HOME = {
    "MODES": "modes",
    "PROMPTS": "prompts",
    "DeepseekOCRConfig": "config",
    "DeepseekOCRForCausalLM": "modeling_deepseekocr",
    "NgramGuard": "ngram",
    "NonFiniteError": "nonfinite",
    "build_inputs": "processing",
    "count_image_tokens": "tiling",
    "crops": "overlay",
    "load_image": "images",
    "load_tokenizer": "tokenizer",
    "official_shapes": "loading",
    "references": "fast",
    "tile_grid": "tiling",
    "to_csv": "tables",
    "to_markdown": "results",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value  # found directly from now on
        return value
    if not name.startswith("_"):  # `import model; model.loading`: a module of this package
        try:
            return import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise  # the module is there and lacks torch, for example
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
