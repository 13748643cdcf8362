"""The imports among the project's own files, read from the source: nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.paths import ROOT


@dataclass(frozen=True)
class Import:
    """`module` imports `target`, both as dotted names; `inside` is the function that does it, or ""."""

    module: str
    target: str
    inside: str


def modules() -> dict[str, Path]:
    """{dotted name: file} of every module in model/ and deskocr_kit/."""
    paths = [path for top in ("model", "deskocr_kit") for path in sorted((ROOT / top).rglob("*.py"))]
    parts = {path: path.relative_to(ROOT).with_suffix("").parts for path in paths}
    return {".".join(p[:-1] if p[-1] == "__init__" else p): path for path, p in parts.items()}


def imports(known: dict[str, Path]) -> list[Import]:
    """Every import between modules of the project, except those only for type checkers."""
    return [each for name, path in known.items() for each in _of_file(name, path, known)]


def unit(module: str) -> str:
    """The package of a module: "reading" for deskocr_kit.reading.pages, "model" for model.config."""
    parts = module.split(".")
    return parts[1] if parts[0] == "deskocr_kit" and len(parts) > 1 else parts[0]


def _of_file(module: str, path: Path, known: dict[str, Path]) -> Iterator[Import]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]

    def walk(node: ast.AST, inside: str) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.ImportFrom):
                base = _absolute(child, package)
                found = [_target(base, alias.name, known) for alias in child.names]
            else:
                found = (
                    [a.name for a in child.names if a.name in known] if isinstance(child, ast.Import) else []
                )
            yield from (Import(module, target, inside) for target in found if target and target != module)
            function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef))
            yield from walk(child, child.name if function else inside)

    return walk(ast.parse(path.read_text("utf-8")), "")


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parents = package.split(".")
    return ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])])


def _target(base: str, name: str, known: dict[str, Path]) -> str | None:
    return next((each for each in (f"{base}.{name}", base) if each in known), None)
