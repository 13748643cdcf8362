"""Patterns of private data in texts that this kit's commands wrote: credentials, mails, folders.

No list of secrets is complete, so these patterns are only one of the layers of privacy.py. What a machine's
own programs print goes through doctor's list of known words instead.
"""

from __future__ import annotations

import re

SCRUBS = (
    # user:password@ in an address, also without a scheme; then the query of an address
    (re.compile(r"([a-z][\w+.-]*://)[^/\s@]*@", re.I), r"\1<credentials>@"),
    (re.compile(r"(?<![\w/])[\w.+-]+:[^\s:/@]+@(?=[\w.-]+(:\d+)?)"), "<credentials>@"),
    (re.compile(r"((?:https?|git|ssh)\S*?)\?[^\s\"']+", re.I), r"\1?<query>"),
    # name=value and name: value with a private name
    (
        re.compile(
            r"((?:token|secret|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key(?:[_-]?id)?|private[_-]?key|auth|credentials?"
            r"|bearer|cookie)[\w-]*[\"']?\s*[=:](?!=)\s*(?:(?:bearer|basic|token)\s+)?|\bbearer\s+)[\"']?[^\s\"',;&]+",
            re.I,
        ),
        r"\1<removed>",
    ),
    # formats of well-known tokens: Hugging Face, GitHub, GitLab, OpenAI-like, PyPI, Slack, AWS, Google, JWT
    (
        re.compile(
            r"\b(hf_[A-Za-z0-9]{8,}|gh[pousr]_\w{8,}|github_pat_\w{8,}|glpat-[\w-]{8,}|sk-[\w-]{8,}|pypi-[\w-]{8,}|xox[a-z]-[\w-]{8,}"
            r"|(?:AKIA|ASIA)[A-Z0-9]{12,}|AIza[\w-]{20,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
        ),
        "<token>",
    ),
    (re.compile(r"-----BEGIN [^-]*KEY-----.*?(-----END [^-]*KEY-----|\Z)", re.S), "<key>"),
    (re.compile(r"((?:/home|/Users|/data/home|[A-Z]:\\Users)[/\\])[^/\\\s:;\"'|]+"), r"\1<user>"),
    (re.compile(r"^(.*serial number\s*:\s*).*$", re.I | re.M), r"\1<removed>"),
    (re.compile(r"[\w.+-]+@[\w-]+(\.[\w-]+)+"), "<mail>"),
    (re.compile(r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", re.I), "<mac>"),
)
#: Names of users and hosts that are the same on many machines, and ordinary words.
COMMON = frozenset("root user admin npu test ascend python python3 torch localhost ubuntu conda".split())
#: Names of variables whose values are secrets.
PRIVATE_NAME = re.compile(
    r"token|secret|passw|passphrase|api_?key|access_?key|private_?key|credential|cookie|auth", re.I
)


def scrub(text: str) -> str:
    """A text without what the patterns find."""
    for pattern, replacement in SCRUBS:
        text = pattern.sub(replacement, text)
    return text
