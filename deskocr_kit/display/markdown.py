"""Text that quotes files or models, made harmless for a Markdown report."""

from __future__ import annotations

import re

_HTML = re.compile(r"<(?=[a-zA-Z/!?])")
_LINK = re.compile(r"(!\[|\][(:])")
_FENCE = re.compile(r"`{3,}")


def harmless(text: str) -> str:
    """The text with character references for what a viewer would take for HTML, a link or a picture."""
    text = _HTML.sub("&lt;", text)
    return _LINK.sub(lambda found: "".join(f"&#{ord(c)};" if c in "!(:" else c for c in found[0]), text)


def fenced(text: str) -> str:
    """The text as a block of code. The fence is longer than any in the text."""
    longest = max((len(found[0]) for found in _FENCE.finditer(text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}\n{text}\n{fence}"
