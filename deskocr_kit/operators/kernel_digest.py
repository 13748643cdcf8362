"""The digest of the kernels' code, which evidence is valid for."""

from __future__ import annotations

from pathlib import Path

from .kernels import launch
from .plan import source_digest

FOLDER = Path(launch.__file__).parent


def kernel_digest() -> str:
    """Hash of the syntax trees of operators/kernels/*.py: comments and docstrings do not change it."""
    return source_digest(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.py")))
