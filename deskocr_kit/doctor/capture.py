"""Capture the texts of seven files, from this machine, a folder or a bundle.

The live machine is captured in the same form, so that `--from` and the live report share every rule.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

FILES = (
    "npu-smi.txt",
    "ascend_toolkit_install.info",
    "version.cfg",
    "driver_version.info",
    "firmware_version.info",
    "env.txt",
    "pip-list.txt",
)
ASCEND = "/usr/local/Ascend"
LIMIT = 4_000_000  # bytes read of one file; real ones have a few thousand


@dataclass
class Capture:
    """Captured texts.

    files: name -> text. notes: name -> why it is missing. live: whether this machine itself is examined.
    """

    source: str
    files: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)  # path of each text
    live: bool = False

    def __contains__(self, name: str) -> bool:
        return name in self.files


def decode(raw: bytes) -> str:
    """Text of a captured file: UTF-8, or UTF-16 (`>` on Windows). Invalid bytes are replaced."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", errors="replace")
    # UTF-16 without a byte order mark: every second byte is 0.
    for byte, coding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(raw) > 8 and raw[byte::2].count(0) > 0.9 * (len(raw) // 2) and 0 not in raw[1 - byte :: 2]:
            return raw.decode(coding, errors="replace")
    return raw.decode("utf-8-sig", errors="replace")


def read(source: str | Path) -> Capture:
    """Read a folder or a `--bundle` zip.

    Raises:
        FileNotFoundError: no such path; the message has the remedy.
        ValueError: the path is neither a folder nor a bundle, or contains none of the seven files.
    """
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such folder or bundle. --from needs one that contains {', '.join(FILES)}"
        )
    capture = Capture(source=str(path))
    if path.is_dir():
        for name in FILES:
            file = path / name
            try:
                with open(file, "rb") as stream:
                    capture.files[name] = decode(stream.read(LIMIT))
            except FileNotFoundError:
                capture.notes[name] = "not captured"
            except OSError as error:  # no permission (mode 440), or a folder with that name
                capture.notes[name] = f"not readable ({error.strerror})"
    else:
        try:
            with zipfile.ZipFile(path) as bundle:
                inside = {Path(info.filename).name: info for info in bundle.infolist() if not info.is_dir()}
                for name in FILES:
                    if name in inside:
                        with bundle.open(inside[name]) as stream:
                            capture.files[name] = decode(stream.read(LIMIT))
                    else:
                        capture.notes[name] = "not captured"
        except zipfile.BadZipFile as error:
            raise ValueError(
                f"{path}: neither a folder nor a bundle (zip) written by `deskocr doctor --bundle`"
            ) from error
    if not capture.files:
        raise ValueError(
            f"{path}: contains none of {', '.join(FILES)}. Capture them with `deskocr doctor --bundle FILE`."
        )
    _note_refusals(capture)
    return capture


def cann_homes(environ: dict[str, str] | None = None) -> list[str]:
    """Existing folders that may contain CANN. Those named by the environment come first."""
    environ = dict(os.environ) if environ is None else environ
    home = environ.get("HOME", "")
    candidates = [environ.get("ASCEND_HOME_PATH"), environ.get("ASCEND_TOOLKIT_HOME")]
    for root in (ASCEND, *([f"{home}/Ascend"] if home else [])):
        candidates += [f"{root}/cann", f"{root}/ascend-toolkit/latest", f"{root}/latest"]
        try:
            candidates += sorted((str(p) for p in Path(root).glob("cann-*")), reverse=True)
        except OSError:
            continue
    found: list[str] = []
    for candidate in candidates:
        if (
            candidate
            and os.path.isdir(candidate)
            and os.path.realpath(candidate) not in map(os.path.realpath, found)
        ):
            found.append(candidate)
    return found


#: Message of a shell or `cat` that a file or program does not exist.
_NOT_THERE = re.compile(
    r"no such file or directory|command not found|not recognized|: not found\s*$|executable file not found"
    r"|没有那个文件或目录|未找到命令",
    re.I,
)


def _note_refusals(capture: Capture) -> None:
    """Move files that contain only a shell's error message from `files` to `notes`, with that message."""
    for name in list(capture.files):
        lines = [line.strip() for line in capture.files[name].splitlines() if line.strip()]
        spoken = [line for line in lines if not line.startswith("$ ")]
        by_npu_smi = spoken and spoken[0].startswith("npu-smi: error while loading")
        if len(spoken) == 1 and _NOT_THERE.search(spoken[0]) and not by_npu_smi:
            capture.notes[name] = spoken[0][:200]
            del capture.files[name]


def _version_files(homes: list[str]) -> dict[str, list[str]]:
    toolkit, cfg = [], []
    for home in homes:
        base = Path(home)
        toolkit += [str(p) for p in sorted(base.glob("*-linux/ascend_toolkit_install.info"))]
        toolkit += [f"{home}/ascend_toolkit_install.info"]
        toolkit += [str(p) for p in sorted(base.glob("share/info/*/version.info"))]
        toolkit += [f"{home}/toolkit/version.info", f"{home}/compiler/version.info"]
        cfg += [f"{home}/version.cfg"]
    return {
        "ascend_toolkit_install.info": toolkit,
        "version.cfg": cfg,
        "driver_version.info": [f"{ASCEND}/driver/version.info"],
        "firmware_version.info": [f"{ASCEND}/firmware/version.info"],
    }


def pip_list() -> str:
    """`pip list --format=freeze` without pip: name==version of every installed distribution."""
    from importlib import metadata

    lines = set()
    for dist in metadata.distributions():
        name = dist.metadata["Name"] if dist.metadata else None
        if name:
            lines.add(f"{name}=={dist.version}")
    return "\n".join(sorted(lines, key=str.lower)) + "\n"


def live(npu_smi: tuple[str | None, str]) -> Capture:
    """Capture this machine. `npu_smi` is (text or None, why not), from a probe with a time limit."""
    capture = Capture(source="this machine", live=True)
    text, why = npu_smi
    if text is None:
        capture.notes["npu-smi.txt"] = why
    else:
        capture.files["npu-smi.txt"] = text
    for name, candidates in _version_files(cann_homes()).items():
        capture.notes[name] = "not found"
        for candidate in candidates:
            try:
                with open(candidate, "rb") as stream:
                    capture.files[name] = decode(stream.read(LIMIT))
            except FileNotFoundError:
                continue
            except OSError as error:
                capture.notes[name] = f"{candidate}: not readable ({error.strerror})"
                continue
            capture.paths[name] = candidate
            capture.notes.pop(name, None)
            break
    capture.files["env.txt"] = "".join(f"{k}={v}\n" for k, v in sorted(os.environ.items()) if "\n" not in v)
    capture.files["pip-list.txt"] = pip_list()
    return capture


_ENV_LINE = re.compile(
    r"\s*(?:(?:export|declare\s+-\w+|typeset\s+-\w+|set)\s+(?P<alone>[A-Za-z_]\w*)\s*$"
    r"|(?:export\s+|declare\s+-\w+\s+|typeset\s+-\w+\s+|set\s+)?(?P<name>[A-Za-z_][\w.()%]*)=(?P<value>.*)$)"
)


def parse_env(text: str) -> dict[str, str]:
    """Parse the output of `env`, `env -0`, `export -p` or `declare -x`.

    A line without `=` continues the value before it.
    """
    out: dict[str, str] = {}
    last = None
    for line in text.replace("\r", "").replace("\0", "\n").splitlines():
        match = _ENV_LINE.match(line)
        if match and match["value"] is None:  # `export NAME`, without a value
            last = None
        elif match:
            last, value = match["name"], match["value"].strip()
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                quote, value = value[0], value[1:-1]
                value = re.sub(r'\\(["$`\\])', r"\1", value) if quote == '"' else value.replace("'\\''", "'")
            out[last] = value
        elif last and line.strip() and not line.lstrip().startswith("#"):
            out[last] += "\n" + line
    return out


_PIP_LINES = (
    r"([A-Za-z0-9][\w.-]*)\s*===?\s*([\w.+!-]+)",
    r"([A-Za-z0-9][\w.-]*)=(\d[\w.+!-]*)(?:=\S*)?$",  # conda's export
    r"([A-Za-z0-9][\w.-]*)\s+\((\d[\w.+!-]*)[,)]",  # pip before 10
    r"([A-Za-z0-9][\w.-]*)\s*@\s*\S*[-_](\d+\.\d[\w.+]*?)(?=-(?:cp|py)\d|\.whl|\.tar|\.zip)",
    r"([A-Za-z0-9][\w.-]*)\s+v?(\d[\w.+!-]*)(\s|$)",  # list
)


def parse_pip(text: str) -> dict[str, str]:
    """Parse the output of `pip list [--format=json]`, `pip freeze` or `conda list`.

    Returns {normalised name: version}.
    """
    text = text.strip()
    if found := re.search(r"^\[\s*(?=[{\]])", text, re.M):  # notices of pip may precede and follow it
        try:
            rows, _ = json.JSONDecoder().raw_decode(text, found.start())
            return {normal(d["name"]): str(d.get("version", "")) for d in rows}
        except (ValueError, TypeError, KeyError):
            # a truncated list: keep its complete entries
            pairs = re.findall(r'"name":\s*"([^"]+)",\s*"version":\s*"([^"]+)"', text)
            return {normal(name): version for name, version in pairs}
    out: dict[str, str] = {}
    for line in text.splitlines():
        line = line.strip()
        found = next((match for form in _PIP_LINES if (match := re.match(form, line))), None)
        if found:
            out[normal(found.group(1))] = found.group(2)
    return out


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
