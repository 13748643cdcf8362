"""Is a folder of weights complete? The checks of `deskocr weights check`, which are those of loading.

Each check calls what loading calls and reports instead of raising: a folder that passes can be read with, and
a folder that fails gives the same message in both places. Reads headers and small files, never the weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from . import config_check
from .config import DeepseekOCRConfig
from .inference import defaults
from .loading import check_dtypes, check_tensors, read_config, tensors_of
from .official import DEEPSEEK_OCR
from .side_files import confidence_limits
from .tokenizer import FILE, try_tokenizer
from .untrusted import read_json_object, shown
from .weight_files import CheckpointError, Entry, left_overs

# Where the hubs' own clients store the parts of an unfinished download: huggingface_hub
# (_local_folder.py) and modelscope (hub/constants.py).
DOWNLOADS = (".cache/huggingface/download", "._____temp")
LOOKED_AT = 1000  # entries of a folder of downloads
LIST = "model/README.md lists the files that belong here and how to get them."


@dataclass(frozen=True)
class Finding:
    """One check. `status`: OK, WARN or FAIL; `seen` and `remedy` may have several lines."""

    name: str
    status: str
    seen: str
    remedy: str = ""


@dataclass
class Examination:
    """What was found in a folder. `usable`: reading a page would work."""

    folder: Path
    findings: list[Finding] = field(default_factory=list)
    config: Any = None  # DeepseekOCRConfig
    entries: dict[str, Entry] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        return all(each.status != "FAIL" for each in self.findings)

    @property
    def files(self) -> list[Path]:
        """The weight files that hold the tensors, sorted."""
        return sorted({entry.path for entry in self.entries.values()})

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.size for entry in self.entries.values())

    @property
    def dtypes(self) -> list[str]:
        return sorted({entry.dtype for entry in self.entries.values()})

    @property
    def official(self) -> bool:
        """Whether this is a network of the official size."""
        if self.config is None:
            return False
        return sizes(self.config) == sizes(DeepseekOCRConfig.official(self.config.checkpoint.name))


def examine(folder: str | Path) -> Examination:
    """Examine a folder of weights. Never raises for what is in it; the first fault ends the examination."""
    made = Examination(Path(folder))
    for name, check in CHECKS.items():
        try:
            made.findings.append(Finding(name, *check(made)))
        except CheckpointError as error:
            made.findings.append(Finding(name, "FAIL", str(error), unfinished(made.folder)))
        except Exception as error:  # not foreseen, and still an answer
            why = f"{type(error).__name__}: {shown(str(error))}"
            made.findings.append(
                Finding(name, "FAIL", f"{shown(made.folder)}: cannot be examined ({why})", LIST)
            )
        if not made.usable:
            break
    return made


Result = tuple[str, str, str]  # status, seen, remedy


def config(made: Examination) -> Result:
    made.config = read_config(made.folder)
    if ignored := config_check.unknown(read_json_object(made.folder / "config.json")):
        listed = ", ".join(ignored[:8]) + (", …" if len(ignored) > 8 else "")
        seen = f"{describe(made.config)}; not used, because this kit does not know them: {listed}"
        return "WARN", seen, "If one of these keys changes the network, the texts will be wrong."
    return "OK", describe(made.config), ""


def files(made: Examination) -> Result:
    made.entries = tensors_of(made.folder)
    names = [path.name for path in made.files]
    listed = "; ".join(f"{shown(name)} {(made.folder / name).stat().st_size:,} bytes" for name in names[:20])
    seen = listed + (f"; and {len(names) - 20} more" if len(names) > 20 else "")
    if others := list(left_overs(made.folder, set(names))):
        return "WARN", "; ".join([seen, *others[:8]]), "Loading ignores them."
    return "OK", seen, ""


def tensors(made: Examination) -> Result:
    check_tensors(made.config, made.entries, made.folder)
    return "OK", f"all {len(made.entries)} names and shapes match config.json; {made.bytes:,} bytes", ""


def dtype(made: Examination) -> Result:
    check_dtypes(made.entries, made.folder)
    listed = ", ".join(made.dtypes)
    if len(made.dtypes) > 1:
        return "WARN", listed, "Loading uses that of the first tensor; give --dtype."
    return "OK", listed, ""


def network(made: Examination) -> Result:
    """Which model of the family, and whether in its official size."""
    official = made.config.checkpoint
    if not made.official:
        name = "" if official is DEEPSEEK_OCR else f" as {official.title}"
        return "OK", f"the same architecture{name}, not in the official size", ""
    if made.bytes != official.bytes:
        seen = f"{official.title}, stored in another dtype: the official file has {official.bytes:,} bytes"
        return "OK", seen, ""
    seen = f"{official.title} at its official size: {official.tensors} tensors, {official.bytes:,} bytes"
    return "OK", seen, ""


def tokenizer(made: Examination) -> Result:
    found = try_tokenizer(made.folder, made.config)
    seen = f"{FILE} gives text back, {found.tokens:,} tokens; <image> is {made.config.image_token_id}"
    if found.remarks:
        return "WARN", "; ".join([seen, *found.remarks]), "Nothing to do: this kit reads tokenizer.json only."
    return "OK", seen, ""


def settings(made: Examination) -> Result:
    how = defaults(made.folder)
    limits = confidence_limits(made.folder)
    known = "with" if limits.get("threshold") is not None else "without"
    seen = f"mode {how['mode']}, at most {how['max_new_tokens']} tokens, {known} a threshold of confidence"
    return "OK", seen, ""


#: {name of the row: check}. A check returns what it saw, or raises the CheckpointError that loading raises.
CHECKS: dict[str, Callable[[Examination], Result]] = {
    "config": config,
    "files": files,
    "tensors": tensors,
    "dtype": dtype,
    "network": network,
    "tokenizer": tokenizer,
    "settings": settings,
}


def sizes(config) -> tuple:
    return config.sam, config.encoder, config.decoder, config.image_token_id


def describe(config) -> str:
    c = config.decoder
    return (
        f"{c.layers} layers of width {c.width}, {c.experts} experts, {c.experts_per_token} active, "
        f"vocabulary {c.vocab}; SAM {config.sam.layers} x {config.sam.width}, "
        f"{config.encoder.title} {config.encoder.layers} x {config.encoder.width}"
    )


def unfinished(folder: Path) -> str:
    """The remedy for an incomplete folder: resume a download, if a hub's client left one."""
    for start in (folder, *(folder / name for name in DOWNLOADS)):
        below = start != folder
        parts = (name for _, _, files in islice(os.walk(start), LOOKED_AT if below else 1) for name in files)
        whole = start.name == DOWNLOADS[1]  # modelscope's parts have their final names
        if any(whole or name.endswith((".part", ".incomplete")) for name in islice(parts, 10 * LOOKED_AT)):
            return "A download here is unfinished: run the same download command again to resume it."
    return LIST
