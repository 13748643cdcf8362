"""A log as `explain` searches it: without colours, frames and prefixes, its lines joined again.

Every step is linear in the length of the text, whatever it contains.
"""

from __future__ import annotations

import html
import re

LIMIT = 600_000  # characters searched; of a longer log, its ends and the lines between that resemble faults
LINE = 2000  # characters of one line of a long log; a longer one is read in pieces

# A terminal's control sequences: colours (CSI), titles and links (OSC and kin, ended by BEL or ESC \), and
# others. Without its end, only the beginning of a sequence is removed: the text after it may be the error.
_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]"
    r"|[\]PX^_](?:[^\x07\x1b\x9c\n]{0,2000}(?:\x07|\x1b\\|\x9c))?"
    r"|[ -/]{0,4}[0-~])?"
)
_BLANKS = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())
_FRAME = _BLANKS + "│┃|"  # borders of a rich traceback
_QUOTE = _FRAME + ">"  # in mail
_PREFIX = re.compile(
    r"""(?: \(\w[^()]{0,80}?pid=\d{1,10}[^()]{0,80}\) | \[(?:rank|default)?\d{1,6}\]:
        | \[\d{1,6},\d{1,6}\]<std\w{1,8}>:
        | [\w.-]{1,64}\[\d{1,10}\]
        | \[?\d{4}[-/]\d\d[-/]\d\d[ T-]\d\d:\d\d:\d\d[\w.,:+]{0,20}\]?
        | \[?\b(?:DEBUG|INFO|WARN(?:ING)?|ERROR|CRITICAL)\b\]?[:\s]
        | std(?:out|err)\ F )\s{0,200}""",
    re.X,
)
# Words of relevant lines, in lower case. Plain words, because a regular expression takes ten times as long.
_FAULT = (
    "err", "fail", "except", "fault", "abort", "denied", "invalid", "illegal", "support", "undefined symbol",
    "out of memory", "timeout", "time out", "times out", "cannot", "could not", "insufficient", "busy",
    "permission", "depends on", "please", "no module", "caution", "warn", "507", "561", "not implemented",
    "does not has", "force stop", "out of bounds", "out of range",
)  # fmt: skip
_PUNCTUATION = str.maketrans("：（），；！？。【】“”‘’\xa0", ":(),;!?.[]\"\"'' ", "\u200b")
# Python converts the digits of an entity to an integer, and refuses more than 4,300 of them.
_LONG_ENTITY = re.compile(r"&#[xX]?[0-9a-fA-F]{8,};?")


def without_escapes(text: str) -> str:
    """The text without the control sequences of a terminal. What follows an unfinished one stays."""
    return _ESCAPE.sub("", text) if "\x1b" in text else text


def one_line(text: str) -> str:
    """The text with every run of blanks and line breaks as one blank."""
    return " ".join(text.split())


def _shared_start(lines: list[str]) -> str:
    first, last = min(lines), max(lines)  # a prefix of these two is a prefix of all
    size = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:size]


def condensed(text: str) -> str:
    """Shorten a long log to LIMIT characters.

    Keeps both ends, a quarter of LIMIT each, and from the middle the lines that resemble faults, each with
    the two lines after it. Of lines that differ only in figures, the first is kept.
    """
    end = LIMIT // 4
    kept, seen, room, follow = [], set(), LIMIT - 2 * end, 0
    for match in re.finditer(rf"[^\n]{{1,{LINE}}}", text[end:-end]):
        line = match.group()
        lower = line.lower()
        if any(word in lower for word in _FAULT):
            shape = hash(re.sub(r"[\d.]+", "0", line))
            follow = 0 if shape in seen else 3
            seen.add(shape)
        if follow and room > 0:
            follow -= 1
            room -= len(line) + 1
            kept.append(line)
        elif room <= 0:
            break
    return "\n".join([text[:end], *kept, text[-end:]])


def _without_prefix(line: str) -> str:
    position = 0
    while (match := _PREFIX.match(line, position)) and match.end() > position:
        position = match.end()
    return line[position:].strip()


def plain_lines(text: str) -> list[str]:
    """The lines of a log without colours, frames and prefixes. Of a long log, see `condensed`."""
    if len(text) > LIMIT:
        text = condensed(text)
    text = without_escapes(text).replace("\\n", "\n").replace("\\'", "'").replace('\\"', '"')
    text = html.unescape(_LONG_ENTITY.sub("\N{REPLACEMENT CHARACTER}", text))  # from a web page
    text = text.translate(_PUNCTUATION)  # retyped by a chat program
    lines = [line.lstrip(_QUOTE).rstrip(_FRAME) for line in text.splitlines()]
    lines = [line for line in lines if line]
    shared = _shared_start(lines) if len(lines) > 1 else ""
    # The end of a log prefix; a shared start of words ends otherwise.
    cut = len(shared) if shared.rstrip()[-1:] in tuple("]:|>)") else 0
    return [_without_prefix(line[cut:]) for line in lines]


def readings(lines: list[str]) -> tuple[str, str]:
    """The lines joined (a) by a blank, (b) by nothing, for lines that were broken in the middle of words."""
    return one_line(" ".join(lines)), one_line("".join(lines))
