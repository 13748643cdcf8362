"""Digests of the code that proofs, plans and records are valid for."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

from model import fast, slots

HERE = Path(__file__).parent


@functools.cache
def code_digest() -> str:
    """A digest, 12 hex digits, of the code of the substitutes and the references, and of nothing else.

    The syntax tree is hashed, so comments, docstrings, line breaks and moved files change nothing.
    """
    folders = (HERE / "substitutes", Path(fast.__file__).parent)
    files = [path for folder in folders for path in sorted(folder.glob("*.py"))] + [Path(slots.__file__)]
    return source_digest(path.read_text(encoding="utf-8") for path in files)


@functools.cache
def kernel_digest() -> str:
    """The same of operators/kernels/*.py."""
    return source_digest(path.read_text(encoding="utf-8") for path in sorted((HERE / "kernels").glob("*.py")))


def source_digest(sources: Iterable[str]) -> str:
    """A digest, 12 hex digits, of Python sources in order: of their syntax trees without docstrings.

    An import counts with the imported names, not with the module that they come from.
    """
    digest = hashlib.sha256()
    for source in sources:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                del node.body[0]
            if isinstance(node, ast.ImportFrom):
                node.module, node.level = None, 0
        digest.update(plain(tree).encode() + b"\0")
    return digest.hexdigest()[:12]


DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def plain(node) -> str:
    """A syntax tree as text, the same on every version of Python: `ast.dump` and the fields differ."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({','.join(f'{name}={plain(value)}' for name, value in fields)})"
    return f"[{','.join(map(plain, node))}]" if isinstance(node, list) else repr(node)
