"""Make the markdown of a page safe to show: no raw HTML, no links that run code, no pictures from elsewhere.

Anyone can make a page, and viewers of Markdown pass HTML through. What is disarmed is written with character
references, so that a viewer shows the same characters. Tables, line breaks and simple formatting stay markup.
"""

from __future__ import annotations

import re

from .html_tables import TAGS, tags, unescape

_OPENING = re.compile(r"<(?=[a-zA-Z/!?])")  # of a tag, a comment, a declaration or an automatic link
_ATTRIBUTES = frozenset("align valign border colspan rowspan scope nowrap width height".split())
_TAGS = TAGS - {"a", "img", "font"}
_LINK = re.compile(r"\][(:]")
_COMMAND = re.compile(r"\\(?=href|url|includegraphics)")  # viewers with TeX make links and pictures of them
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]{0,30}):")
SCHEMES = frozenset({"http", "https", "mailto"})
_TARGET = re.compile(r"[^()\[\]]{0,200}")  # what may hold a scheme; up to the next bracket, so this is linear


def safe_markdown(text: str, folder: str = "images") -> str:
    """The text with its raw HTML, dangerous links and foreign pictures as plain characters. Linear.

    - A "<" that could begin HTML becomes "&lt;", unless it begins a well-formed tag of tables or simple
      formatting without other attributes than those of cells.
    - A link to a scheme that is not in SCHEMES (javascript, data, file, …) is no link any more.
    - A picture stays only if it is `![](folder/number.jpg)`, which this package writes.
    """
    text = _without_html(text)
    ours = re.compile(rf"!\[(?!\]\({re.escape(folder)}/[0-9]{{1,6}}\.jpg\))")
    text = ours.sub("&#33;[", text)
    text = _LINK.sub(lambda found: _link(found, text), text)
    return _COMMAND.sub(r"\\ ", text) if "\\" in text else text


def _without_html(text: str) -> str:
    kept = {
        tag.start
        for tag in tags(text)
        if tag.name in _TAGS and tag.well_formed and tag.attributes.keys() <= _ATTRIBUTES
    }
    return _OPENING.sub(lambda found: "<" if found.start() in kept else "&lt;", text)


def _link(found: re.Match, text: str) -> str:
    target = _TARGET.match(text, found.end())
    scheme = scheme_of(target[0]) if target else None
    if scheme is None or scheme in SCHEMES:
        return found[0]
    return "]&#40;" if found[0] == "](" else "]&#58;"


def scheme_of(target: str) -> str | None:
    """The scheme of a link in lower case, as a browser sees it: references decoded, blanks dropped."""
    for _ in range(2):  # the text of a viewer may be decoded twice
        target = unescape(target)
    plain = "".join(c for c in target if "!" <= c <= "~" and c != "\\")
    match = _SCHEME.match(plain.lstrip("<"))
    return match[1].lower() if match else None
