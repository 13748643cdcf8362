"""Remove what identifies a person or a machine from the files of a bundle, and check that it is gone.

Logs keep known words, numbers and versions only, as in the bundle of doctor. In results that this kit wrote,
names, folders and secrets of this process go, then what the patterns find (patterns.py). What is left of an
absolute path is its last part; folders that are the same on every machine (CANN's, the system's) stay.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import socket
import sys
from functools import cache, lru_cache
from pathlib import Path

from ..doctor import words
from .patterns import COMMON, PRIVATE_NAME, scrub

SYSTEM = r"(?:usr|dev|proc|sys|etc|lib|lib64|bin)/"
_PART = r"[\w.+@%=~-]+"
PATHS = (
    re.compile(rf"(?<![\w/.:<>~-])(?:~|/(?!{SYSTEM}){_PART})(?:/{_PART})*/({_PART})"),
    re.compile(rf"\b[A-Za-z]:\\(?:{_PART}\\)*({_PART})"),
)
HOST = re.compile(r"(\b[a-z][a-z0-9+.-]{0,30}://(?:<credentials>@)?)([\w.-]+)", re.I)
PUBLIC = (
    "arxiv.org", "gitcode.com", "gitee.com", "github.com", "hiascend.com", "huggingface.co", "modelscope.cn",
    "pypi.org", "python.org", "pytorch.org",
)  # fmt: skip
SHORTEST = 6  # characters of a secret value; a shorter one would remove ordinary words


@cache
def private_words() -> tuple[str, ...]:
    """Texts of this process that must not be in a bundle, longest first.

    User and host names, folders (home, working folder, Python, kit), values of variables with private names.
    """
    names = [socket.gethostname(), *(os.environ.get(each, "") for each in ("USER", "LOGNAME", "HOSTNAME"))]
    with contextlib.suppress(OSError, KeyError, ImportError):  # no entry in the password file
        names.append(getpass.getuser())
    folders = [str(Path.home()), os.getcwd(), sys.prefix, str(Path(__file__).parents[2])]
    secrets = [value for name, value in os.environ.items() if PRIVATE_NAME.search(name)]
    found = {name for name in names if len(name) > 2 and name.lower() not in COMMON}
    found |= {folder for folder in folders if len(folder) > 5 and folder.count(os.sep) > 1}
    found |= {value for value in secrets if len(value) >= SHORTEST}
    return tuple(sorted(found, key=len, reverse=True))


@lru_cache(100_000)  # the same few texts stand in thousands of rows
def clean(text: str) -> str:
    """A text without private data. Figures, versions and names of operators stay."""
    for pattern in PATHS:
        text = pattern.sub(r"<path>/\1", text)
    for word in private_words():
        text = _bounded(word).sub("<removed>", text)
    return HOST.sub(_host, scrub(text))


def _host(found: re.Match) -> str:
    """An address with its host only if that is a public site: others may be inside a company."""
    host = found[2].lower()
    public = any(host == site or host.endswith(f".{site}") for site in PUBLIC)
    return found[0] if public else f"{found[1]}<host>"


def clean_json(value):
    """The same for every text in a JSON value, keys included; numbers are kept."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {
            clean(str(key)): "<removed>" if "serial" in str(key).lower() else clean_json(each)
            for key, each in value.items()
        }
    return [clean_json(each) for each in value] if isinstance(value, list) else value


def cleaned(name: str, content: str) -> str:
    """The content of a file for the bundle: JSON by value, logs in known words, the rest as text."""
    if name.startswith("logs/"):
        return "".join(f"{words.clean(clean(line))}\n" for line in content.splitlines())
    if name.endswith((".json", ".ipynb")):
        return json.dumps(clean_json(json.loads(content)), indent=1, ensure_ascii=False) + "\n"
    return clean(content)


def found_in(text: str) -> list[str]:
    """The private words that are still in a text, shortened; a bundle with one of them is not written."""
    return [f"{word[:3]}…" for word in private_words() if _bounded(word).search(text)]


@cache
def _bounded(word: str) -> re.Pattern:
    """The word where it stands alone: a host called "a1" is not part of "sha1"."""
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])")
