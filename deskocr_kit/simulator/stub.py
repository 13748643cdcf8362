"""A stand-in for the package `torch_npu`, for code that imports it before it uses `torch.npu`.

It contains the device module and the fused operators that ports call most often (fused_operators.py). With it
transformers and accelerate report an NPU. `torch_npu.simulated` is True, to tell it from the real package.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types

import torch

from .fused_operators import OPERATORS


def install() -> types.ModuleType:
    """Put the stand-in into sys.modules. Raises RuntimeError if a torch_npu is already imported."""
    if sys.modules.get("torch_npu") is not None:
        raise RuntimeError("torch_npu is already imported in this process")
    npu = torch.npu  # type: ignore[attr-defined]  # backend.py's module
    module = types.ModuleType("torch_npu", __doc__)
    module.__spec__ = importlib.machinery.ModuleSpec("torch_npu", None, is_package=True)
    module.__path__ = []
    vars(module).update(
        {function.__name__: function for function in OPERATORS},
        __version__=torch.__version__.split("+")[0] + "+simulated",
        npu=npu,
        simulated=True,
        npu_format_cast=lambda tensor, acl_format: tensor,
    )
    sys.modules["torch_npu"], sys.modules["torch_npu.npu"] = module, npu
    return module
