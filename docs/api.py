"""Writes docs/api.md, the list of public names, from the docstrings: `python -m docs.api`."""

from __future__ import annotations

import inspect
from pathlib import Path

import deskocr_kit
from deskocr_kit import course, simulator

PAGE = Path(__file__).with_name("api.md")
HEAD = """# Public names

`python -m docs.api` makes this page from the docstrings: do not edit it.
All other names may change without notice.

"""


def row(module, name: str) -> str:
    """One line of the table: the name, where it is defined, the first sentence of its docstring."""
    value = getattr(module, name)
    home = getattr(value, "__module__", module.__name__) or module.__name__
    text = inspect.getdoc(value) if callable(value) else "Data: see its module."
    first = " ".join((text or "").split("\n\n")[0].split())
    return f"| `{name}` | `{home}` | {first.replace('|', chr(92) + '|')} |"


def page() -> str:
    """The whole of docs/api.md."""
    parts = [HEAD]
    for module in (deskocr_kit, simulator, course):
        rows = "\n".join(row(module, name) for name in sorted(module.__all__))
        parts.append(f"## `{module.__name__}`\n\n| name | defined in | what |\n|---|---|---|\n{rows}\n\n")
    return "".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
