"""Patterns of private data in reports and logs: credentials, tokens, mail addresses, users, serial numbers.

The texts of a bundle are this kit's own reports, whose words are free. So known shapes are removed here;
`privacy.private_words` adds what this machine knows about itself. A doctor bundle has stricter rules.

Every repetition has a limit, so that no text takes more than linear time.
"""

from __future__ import annotations

import re

PRIVATE_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY|AUTH|COOKIE|SESSION|_KEY$|^KEY|PWD",
    re.I,
)
#: Names of users and hosts that identify nobody.
COMMON = frozenset("root user admin npu test ascend python python3 torch localhost ubuntu conda".split())

_NAMES = (
    r"(?:token|secret|passw(?:or)?d|passphrase|pwd|api[_-]?key|access[_-]?key(?:[_-]?id)?|private[_-]?key|auth"
    r"|credentials?|bearer|cookie)"
)
_VALUE = r"(?:\"[^\"\n]{0,200}\"|'[^'\n]{0,200}'|[^\s\"',;&]{1,200})"
SCRUBS = (
    # user:password@ in an address, also without a scheme; then the query of an address
    (re.compile(r"(?<![a-z])([a-z][a-z0-9+.-]{0,30}://)[^/\s@]{0,300}@", re.I), r"\1<credentials>@"),
    (re.compile(r"(?<![\w/.+-])[\w.+-]{1,100}:[^\s:/@]{1,200}@(?=[\w.-])"), "<credentials>@"),
    (re.compile(r"\b((?:https?|git|ssh)[^\s?]{0,300})\?[^\s\"']{1,500}", re.I), r"\1?<query>"),
    # name=value, name: value and --name value, with a private name
    (
        re.compile(
            rf"({_NAMES}[\w-]{{0,40}}[\"']?\s{{0,9}}(?:[=:](?!=)\s{{0,9}}|\sis\s{{1,9}})"
            rf"(?:(?:bearer|basic|token)\s{{1,9}})?)(?!<){_VALUE}",
            re.I,
        ),
        r"\1<removed>",
    ),
    (re.compile(rf"(--?{_NAMES}[\w-]{{0,40}}\s{{1,9}}|\bbearer\s{{1,9}})(?!<){_VALUE}", re.I), r"\1<removed>"),
    # formats of well-known tokens
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
    (
        re.compile(r"((?:/home|/Users|/data/home|[A-Z]:\\Users)[/\\])[^/\\\s:;\"'|<]{1,200}"),
        r"\1<user>",
    ),
    (re.compile(r"(serial number\s{0,20}:\s{0,20})\S[^\n]{0,200}", re.I), r"\1<removed>"),
    (re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,6}"), "<mail>"),
    (re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", re.I), "<mac>"),
)


def scrub(text: str) -> str:
    """The text with private data replaced. Versions and figures stay."""
    for pattern, replacement in SCRUBS:
        text = pattern.sub(replacement, text)
    return text
