"""`deskocr doctor --bundle FILE`: the seven texts and the report in one zip, without private data.

Environment variables pass an allow-list (those that matter on an NPU, and proxies without credentials),
because no list of secret names is complete. Every text is then scrubbed of home folders, user and host
names, credentials in addresses, well-known token formats, `password=...` and serial numbers.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import tempfile
import zipfile
from pathlib import Path

from .capture import FILES, Capture, parse_env, parse_pip
from .facts import PRIVATE_NAME, VARIABLES
from .report import Report

PROXIES = re.compile(r"^(https?|all|no)_proxy$", re.I)
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
COMMON = {
    "root",
    "user",
    "admin",
    "npu",
    "test",
    "ascend",
    "python",
    "python3",
    "torch",
    "localhost",
    "ubuntu",
    "conda",
}


def _names() -> tuple[list[str], list[str]]:
    """Home folders and names (user, host) of the current user."""
    homes = [os.path.expanduser("~"), os.environ.get("HOME", ""), os.environ.get("USERPROFILE", "")]
    names = [
        os.environ.get(name, "")
        for name in ("USER", "LOGNAME", "USERNAME", "SUDO_USER", "JUPYTERHUB_USER", "HOSTNAME")
    ]
    names.append(socket.gethostname())
    try:
        names.append(getpass.getuser())
    except (OSError, KeyError, ImportError):  # no entry in the password file, as in many containers
        names.append("")
    names += [os.path.basename(home.rstrip("/\\")) for home in homes]
    keep = {name for name in names if len(name) > 2 and name.lower() not in COMMON}
    return [home for home in homes if len(home) > 1], sorted(keep, key=len, reverse=True)


def scrub(text: str, homes: list[str] | None = None, names: list[str] | None = None) -> str:
    """Remove private data from a text. Versions, figures and paths below the home folder stay.

    Args:
        homes: home folders to replace by "~"; default: those of the current user.
        names: user and host names to replace; default: those of the current user.
    """
    if homes is None or names is None:
        homes, names = _names()
    for home in sorted(set(homes), key=len, reverse=True):
        text = re.sub(re.escape(home) + r"(?![\w.-])", "~", text)
    for pattern, replacement in SCRUBS:
        text = pattern.sub(replacement, text)
    for name in names:
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", "<name>", text)
    return text


def scrub_env(text: str) -> str:
    """Variables that matter on an NPU, values scrubbed, and the number of the others without their names."""
    env = parse_env(text)
    kept = {
        name: value
        for name, value in env.items()
        if (VARIABLES.match(name) or PROXIES.match(name)) and not PRIVATE_NAME.search(name)
    }
    lines = [f"{name}={scrub(value)}" for name, value in sorted(kept.items())]
    return "\n".join([f"# {len(env) - len(kept)} other variables left out", *lines]) + "\n"


def scrub_pip(text: str) -> str:
    """Names and versions of packages, without the address or folder that a package came from."""
    return "".join(f"{name}=={version}\n" for name, version in parse_pip(text).items())


def _scrubbed(value: object) -> object:
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        hidden = {key for key in value if "serial" in str(key).lower()}
        return {key: "<removed>" if key in hidden else _scrubbed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_scrubbed(item) for item in value]
    return value


def write(file: str | Path, capture: Capture, report: Report) -> list[str]:
    """Write the bundle (a zip) atomically and return the names inside it. Raises OSError."""
    contents = {}
    for name in FILES:
        if name in capture.files:
            clean = {"env.txt": scrub_env, "pip-list.txt": scrub_pip}.get(name, scrub)
            contents[name] = clean(capture.files[name])
    contents["report.txt"] = scrub(report.text()) + "\n"
    contents["report.json"] = (
        json.dumps(_scrubbed(report.as_dict()), indent=1, ensure_ascii=False, default=str) + "\n"
    )
    target = Path(file)
    handle, temporary = tempfile.mkstemp(dir=target.parent or ".", prefix=target.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, text in contents.items():
                bundle.writestr(name, text)
        os.replace(temporary, target)  # a half-written bundle never has the requested name
    except BaseException:
        os.unlink(temporary)
        raise
    return list(contents)
