"""Capture the texts of seven files, from this machine, a folder or a bundle.

The live machine is captured in the same form, so that `--from` and the live report share every rule.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from model.untrusted import UntrustedFile, open_regular, shown

from .captured_lists import misunderstood

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
LIMIT = 1_000_000  # bytes read of one file; real ones have a few thousand
BUNDLE = 64_000_000  # bytes of a zip; a real one has some thousand
ENTRIES = 1000  # of a zip


@dataclass
class Capture:
    """Captured texts.

    files: name -> text. notes: name -> why it is missing. live: whether this machine itself is examined.
    unread: name -> why a file that is there says nothing (not understood, empty, too long, not a file).
    """

    source: str
    files: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
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
    path, name = Path(source), shown(source)
    if not path.exists():
        raise FileNotFoundError(
            f"{name}: no such folder or bundle. --from needs one that contains {', '.join(FILES)}"
        )
    capture = Capture(source=name)
    if path.is_dir():
        for file in FILES:
            _read_file(capture, file, path / file)
    else:
        _read_bundle(capture, path)
    if not capture.files and not capture.unread:
        raise ValueError(
            f"{name}: contains none of {', '.join(FILES)}. Capture them with `deskocr doctor --bundle FILE`."
        )
    _note_what_says_nothing(capture)
    return capture


def _read_file(capture: Capture, name: str, path: Path) -> bool:
    """Read one file. Without it, there is a note with the reason."""
    try:
        with open_regular(path) as stream:
            _take(capture, name, stream)
        return True
    except FileNotFoundError:
        capture.notes.setdefault(name, "not captured")
    except UntrustedFile as error:  # a folder, a FIFO, a device
        capture.notes[name] = capture.unread[name] = str(error).removeprefix(f"{shown(path)}: ")
    except OSError as error:  # no permission (mode 440)
        capture.notes[name] = f"not readable ({error.strerror})"
    return False


def _take(capture: Capture, name: str, stream: IO[bytes]) -> None:
    content = stream.read(LIMIT + 1)
    capture.files[name] = decode(content[:LIMIT])
    if len(content) > LIMIT:
        capture.unread[name] = f"only its first {LIMIT:,} bytes are read"


#: What zipfile raises for a damaged or odd archive, beyond BadZipFile.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    OSError,
)


def _read_bundle(capture: Capture, path: Path) -> None:
    with open_regular(path, BUNDLE) as file:
        try:
            with zipfile.ZipFile(file) as bundle:
                entries = [info for info in bundle.infolist()[:ENTRIES] if not info.is_dir()]
                inside = {Path(info.filename).name: info for info in entries}
                for name in FILES:
                    if name in inside:
                        with bundle.open(inside[name]) as stream:
                            _take(capture, name, stream)
                    else:
                        capture.notes[name] = "not captured"
        except _ZIP_ERRORS as error:
            raise ValueError(
                f"{shown(path)}: neither a folder nor a bundle (zip) written by `deskocr doctor --bundle`"
            ) from error


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
    r"no such file or directory|command not found|not recognized|: not found$|executable file not found"
    r"|没有那个文件或目录|未找到命令",
    re.I,
)


def _note_what_says_nothing(capture: Capture) -> None:
    """Move what is no finding from `files` to `notes`: a shell's error, and what is not understood."""
    for name in list(capture.files):
        lines = [line.strip() for line in capture.files[name].splitlines() if line.strip()]
        spoken = [line for line in lines if not line.startswith("$ ")]
        by_npu_smi = spoken and spoken[0].startswith("npu-smi: error while loading")
        if len(spoken) == 1 and _NOT_THERE.search(spoken[0][:1000]) and not by_npu_smi:
            capture.notes[name] = shown(spoken[0])
            del capture.files[name]
        elif reason := misunderstood(name, capture.files[name]):
            first = f": {shown(spoken[0], 80)!r}" if spoken else ""
            capture.notes[name] = capture.unread[name] = f"{reason}{first}"
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
            if _read_file(capture, name, Path(candidate)):
                capture.paths[name] = candidate
                capture.notes.pop(name, None)
                break
    capture.files["env.txt"] = "".join(f"{k}={v}\n" for k, v in sorted(os.environ.items()) if "\n" not in v)
    capture.files["pip-list.txt"] = pip_list()
    _note_what_says_nothing(capture)
    return capture
