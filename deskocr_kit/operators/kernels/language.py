"""Triton, or a stand-in with which kernels can be counted but not run.

The launches of a model are counted on "meta" tensors, where no kernel runs. So the counts, and predictions
from them, need no Triton.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

#: Why Triton cannot be imported, or "".
PROBLEM = ""

try:
    import triton
    import triton.language as tl
except Exception as error:  # a broken installation raises more than ImportError
    PROBLEM = f"{type(error).__name__}: {error}".splitlines()[0]

    class Unavailable:
        """A kernel without a compiler."""

        def __init__(self, function: Callable):
            self.__name__, self.__doc__ = function.__name__, function.__doc__
            self.arg_names = list(inspect.signature(function).parameters)

        def __getitem__(self, grid: tuple[int, ...]) -> Callable:
            raise RuntimeError(
                f"{self.__name__} is a kernel in Triton, which cannot be imported ({PROBLEM}); "
                "run: pip install triton"
            )

    triton: Any = SimpleNamespace(jit=Unavailable, __version__=None)  # type: ignore[no-redef]
    tl: Any = SimpleNamespace(constexpr=None)  # type: ignore[no-redef]

__all__ = ["PROBLEM", "tl", "triton"]
