"""Text from files, made safe for a terminal: no control or direction characters, no endless lines."""

from __future__ import annotations

import json
import re
from typing import Any

LINE = 2000  # characters of one line
#: Control characters but tab and newline, and what reverses or hides text. The two zero-width joiners stay:
#: Persian, Indian scripts and emoji need them.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)


def printable(text: str, line: int | None = LINE) -> str:
    """The text with unsafe characters written as `\\xNN` or `\\uNNNN`, and long lines cut.

    A line of more than `line` characters ends in "… (N more characters)"; None leaves lines as they are.
    A carriage return before a newline is dropped. Linear in the length of the text.
    """
    text = _UNSAFE.sub(_escaped, text.replace("\r\n", "\n"))
    if line is None or len(text) <= line:
        return text
    return "\n".join(_cut(each, line) for each in text.split("\n"))


def printable_json(data: Any) -> str:
    """Indented JSON of the data. Unsafe characters in its strings are written as JSON escapes.

    What JSON has no form for is written as text.
    """
    text = json.dumps(data, ensure_ascii=False, indent=1, default=str)
    return _UNSAFE.sub(lambda match: json.dumps(match[0])[1:-1], text)


def _escaped(match: re.Match) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def _cut(text: str, line: int) -> str:
    return text if len(text) <= line else f"{text[:line]}… ({len(text) - line:,} more characters)"
