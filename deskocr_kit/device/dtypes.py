"""Names of dtypes in the command line, in plans and in reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .selection import default_dtype
from .torch_import import import_torch

if TYPE_CHECKING:
    import torch

#: {name in this kit: name in torch}, from the most to the least precise.
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_ALIASES = {"half": "float16"} | {name: name for name in DTYPES.values()}
#: Every name that `find_dtype` accepts, except "auto".
DTYPE_NAMES = (*DTYPES, *_ALIASES)


def find_dtype(name: str, device: torch.device | None = None) -> torch.dtype:
    """The dtype named "fp32", "fp16", "bf16" or as in torch; "auto": the default dtype of `device`.

    Raises:
        ValueError: an unknown name, or "auto" without a device.
    """
    if name == "auto" and device is not None:
        return default_dtype(device)
    known = DTYPES | _ALIASES
    if name not in known:
        auto = "auto, " if device is not None else ""
        raise ValueError(f"unknown dtype {name!r}; there are {auto}{', '.join(DTYPES)}")
    return getattr(import_torch(), known[name])


def dtype_name(dtype: torch.dtype | str) -> str:
    """The name in torch without "torch.", for example "float16"."""
    return str(dtype).removeprefix("torch.")
