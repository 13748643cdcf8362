"""Patterns of private data in texts that this kit's commands wrote: credentials, mails, folders.

No list of secrets is complete, so these patterns are only one of the layers of privacy.py. What a machine's
own programs print goes through doctor's list of known words instead.
"""

from __future__ import annotations

import re

_NAMES = (
    r"(?:token|secret|passw(?:or)?d|passphrase|pwd|api[_-]?key|access[_-]?key(?:[_-]?id)?|private[_-]?key|auth"
    r"|credentials?|bearer|cookie)"
)
_VALUE = r"(?:\"[^\"\n]{0,200}\"|'[^'\n]{0,200}'|[^\s\"',;&]{1,200})"
#: Every repetition has a limit, so that no text takes more than linear time.
SCRUBS = (
    # user:password@ in an address, also without a scheme; then the query of an address
    (re.compile(r"(?<![a-z])([a-z][a-z0-9+.-]{0,30}://)[^/\s@]{0,300}@", re.I), r"\1<credentials>@"),
    (re.compile(r"(?<![\w/.+-])[\w.+-]{1,100}:[^\s:/@]{1,200}@(?=[\w.-])"), "<credentials>@"),
    (re.compile(r"\b((?:https?|git|ssh)[^\s?]{0,300})\?[^\s\"']{1,500}", re.I), r"\1?<query>"),
    # name=value, name: value, "name is value" and --name value, with a private name
    (
        re.compile(
            rf"({_NAMES}[\w-]{{0,40}}[\"']?\s{{0,9}}(?:[=:](?!=)\s{{0,9}}|\sis\s{{1,9}})"
            rf"(?:(?:bearer|basic|token)\s{{1,9}})?)(?!<){_VALUE}",
            re.I,
        ),
        r"\1<removed>",
    ),
    (
        re.compile(rf"(--?{_NAMES}[\w-]{{0,40}}\s{{1,9}}|\bbearer\s{{1,9}})(?!<){_VALUE}", re.I),
        r"\1<removed>",
    ),
    # formats of well-known tokens: Hugging Face, GitHub, GitLab, PyPI, npm, Slack, AWS, Google, JWT
    (
        re.compile(
            r"\b(?:hf_[A-Za-z0-9]{8,200}|gh[pousr]_\w{8,200}|github_pat_\w{8,200}|glpat-[\w-]{8,200}"
            r"|sk[-_][\w-]{8,200}|pypi-[\w-]{8,300}|npm_\w{8,200}|dapi[0-9a-f]{8,64}|xox[a-z]-[\w-]{8,200}"
            r"|(?:AKIA|ASIA)[A-Z0-9]{12,64}|AIza[\w-]{20,100}"
            r"|eyJ[\w-]{8,500}\.[\w-]{8,500}\.[\w-]{0,500})"
        ),
        "<token>",
    ),
    (re.compile(r"-----BEGIN [^-\n]{0,40}KEY-----[^-]{0,8000}(?:-----END [^-\n]{0,40}KEY-----)?"), "<key>"),
    (re.compile(r"((?:/home|/Users|/data/home|[A-Z]:\\Users)[/\\])[^/\\\s:;\"'|<]{1,200}"), r"\1<user>"),
    (re.compile(r"(serial number\s{0,20}:\s{0,20})\S[^\n]{0,200}", re.I), r"\1<removed>"),
    (re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,6}"), "<mail>"),
    (re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", re.I), "<mac>"),
)
#: Names of users and hosts that are the same on many machines, and ordinary words.
COMMON = frozenset("root user admin npu test ascend python python3 torch localhost ubuntu conda".split())
#: Names of variables whose values are secrets.
PRIVATE_NAME = re.compile(
    r"token|secret|passw|passphrase|pwd|api_?key|access_?key|private_?key|credential|cookie|auth", re.I
)


def scrub(text: str) -> str:
    """A text without what the patterns find."""
    for pattern, replacement in SCRUBS:
        text = pattern.sub(replacement, text)
    return text
