"""Open a bundle that somebody sent: structure, manifest, checksums. Its content is data of a stranger."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from model.untrusted import UntrustedFile, open_regular, parse_json, shown

from ..benchmark import spec
from .pack import KIND, LARGEST, MANIFEST
from .schema import fault

MOST_FILES, MOST_BYTES, ZIP_BYTES, LONGEST = 500, 256 << 20, 128 << 20, 120
NAME = re.compile(r"[A-Za-z0-9_][\w.+-]*(/[A-Za-z0-9_][\w.+-]*){0,3}")
LABEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,60}", re.I)
BENCH_SCHEMA = Path(spec.__file__).with_name("bench.schema.json")
MANIFEST_SCHEMA = Path(__file__).with_name("manifest.schema.json")


class BundleError(ValueError):
    """A bundle that is refused; the message is the reason, in one line."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its manifest and its files, whose checksums are right."""

    manifest: dict
    files: dict[str, bytes]
    sha256: str

    def json(self, name: str) -> Any:
        """A JSON file of the bundle; None if it has none of that name. Raises BundleError."""
        if name not in self.files:
            return None
        try:
            return parse_json(self.files[name].decode("utf-8"), name)
        except (UnicodeDecodeError, UntrustedFile) as error:
            raise BundleError(f"{name}: not JSON ({shown(str(error))})") from None

    @property
    def folder(self) -> str:
        """The name of its report's folder: <device>-<checkpoint>."""
        return f"{self.manifest['label']}-{self.manifest['checkpoint']['name']}"


def read_bundle(path: str | Path) -> Bundle:
    """Open a bundle and verify its structure, its manifest and every checksum. Raises BundleError."""
    name = shown(path)
    try:
        with open_regular(path, ZIP_BYTES) as stream:
            digest = hashlib.sha256(stream.read()).hexdigest()
            stream.seek(0)
            with zipfile.ZipFile(stream) as archive:
                files = _members(archive)
    except OSError as error:
        raise BundleError(f"{name}: {error.strerror or error}") from None
    except UntrustedFile as error:
        raise BundleError(str(error)) from None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{name}: not a zip that can be read ({shown(str(error))})") from None
    except Exception as error:  # zlib.error and lzma's have no common class
        raise BundleError(f"{name}: damaged ({shown(str(error))})") from None
    bundle = Bundle(_manifest(files), {k: v for k, v in files.items() if k != MANIFEST}, digest)
    _checksums(bundle)
    bench = bundle.json("bench.json")
    if bench is not None and (wrong := fault(bench, _stored(BENCH_SCHEMA))):
        raise BundleError(f"bench.json does not fit its schema: {shown(wrong)}")
    return bundle


def _members(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """{name: content}: plain names, no links, bounded sizes."""
    entries = archive.infolist()
    if len(entries) > MOST_FILES:
        raise BundleError(f"{len(entries)} files in the zip; at most {MOST_FILES} are expected")
    files: dict[str, bytes] = {}
    total = 0
    for entry in entries:
        if len(entry.filename) > LONGEST or not NAME.fullmatch(entry.filename):
            raise BundleError(f"the zip has a file with an unexpected name: {shown(entry.filename)}")
        if entry.filename in files:
            raise BundleError(f"{entry.filename} is in the zip twice")
        if (entry.external_attr >> 16) & 0o170000 not in (0, 0o100000):
            raise BundleError(f"{entry.filename}: not a plain file")
        if entry.flag_bits & 1:
            raise BundleError(f"{entry.filename}: encrypted")
        with archive.open(entry) as stream:
            content = stream.read(LARGEST + 1)  # the size in the header may be a lie
        total += len(content)
        if len(content) > LARGEST or total > MOST_BYTES:
            raise BundleError(f"{entry.filename}: larger than expected")
        files[entry.filename] = content
    return files


def _manifest(files: dict[str, bytes]) -> dict:
    if MANIFEST not in files:
        raise BundleError(f"no {MANIFEST}: not a bundle of `deskocr evidence`")
    try:
        found = parse_json(files[MANIFEST].decode("utf-8"), MANIFEST)
    except (UnicodeDecodeError, UntrustedFile) as error:
        raise BundleError(f"{MANIFEST}: {shown(str(error))}") from None
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise BundleError(f"{MANIFEST}: not of a bundle of `deskocr evidence`")
    if wrong := fault(found, _stored(MANIFEST_SCHEMA)):
        raise BundleError(f"{MANIFEST} does not fit its schema: {shown(wrong)}")
    for what in (found["label"], found["checkpoint"]["name"]):
        if not LABEL.fullmatch(what):
            raise BundleError(f"{MANIFEST}: {shown(what)!r} is no name for a folder")
    return found


def _checksums(bundle: Bundle) -> None:
    listed = bundle.manifest["files"]
    if missing := sorted(listed.keys() - bundle.files.keys()):
        raise BundleError(f"{missing[0]} is in the manifest and not in the zip")
    if more := sorted(bundle.files.keys() - listed.keys()):
        raise BundleError(f"{more[0]} is in the zip and not in the manifest")
    for name, content in bundle.files.items():
        if hashlib.sha256(content).hexdigest() != listed[name]["sha256"]:
            raise BundleError(f"{name} was changed: its SHA-256 is not that of the manifest")


@cache
def _stored(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))
