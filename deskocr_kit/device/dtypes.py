"""The names of dtypes, once for the command line, the plans and the reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .selection import default_dtype
from .torch_import import import_torch

if TYPE_CHECKING:
    import torch

#: {the name in this kit: torch's name}, from exact to coarse.
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_ALIASES = {"half": "float16"} | {name: name for name in DTYPES.values()}
#: Every name that `find_dtype` knows, without "auto".
DTYPE_NAMES = (*DTYPES, *_ALIASES)


def find_dtype(name: str, device: torch.device | None = None) -> torch.dtype:
    """The dtype called "fp32", "fp16", "bf16" or by torch's own name; "auto" is what suits `device`.

    Raises ValueError for another name, and for "auto" without a device.
    """
    if name == "auto" and device is not None:
        return default_dtype(device)
    known = DTYPES | _ALIASES
    if name not in known:
        auto = "auto, " if device is not None else ""
        raise ValueError(f"unknown dtype {name!r}; there are {auto}{', '.join(DTYPES)}")
    return getattr(import_torch(), known[name])


def dtype_name(dtype: torch.dtype | str) -> str:
    """torch's name without "torch.": "float16"."""
    return str(dtype).removeprefix("torch.")
