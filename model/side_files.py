"""The small JSON files beside the weights that decide how a page is read: generation_config, confidence.

A missing file is {}, and null is the same as no value. A file that is damaged, or that states something that
reading cannot use, is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .config_keys import brief, is_integer, is_number
from .modes import MODES
from .untrusted import UntrustedFile, read_json_object, shown
from .weight_files import CheckpointError, absent

GENERATION, CONFIDENCE = "generation_config.json", "confidence.json"
Test = tuple[Callable[[Any], bool], str]


def whole(low: int, high: int) -> Test:
    return lambda v: is_integer(v) and low <= v <= high, f"a whole number from {low} to {high}"


def between(low: float, high: float) -> Test:
    return lambda v: is_number(v) and low <= v <= high, f"a number from {low:g} to {high:g}"


def names(value) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


#: {key: (test, what is expected)}. Other keys are not read.
GENERATION_KEYS: dict[str, Test] = {
    "mode": (lambda v: isinstance(v, str) and v.strip().lower() in MODES, f"one of {', '.join(MODES)}"),
    "max_new_tokens": whole(1, 1 << 17),
    "no_repeat_ngram_size": whole(0, 1 << 20),
    "ngram_window": whole(1, 1 << 20),
}
CONFIDENCE_KEYS: dict[str, Test] = {
    "threshold": between(0, 1e6),
    "prompt": (lambda v: isinstance(v, str), "text"),
    "domain": (lambda v: isinstance(v, dict), "an object"),
}
DOMAIN_KEYS: dict[str, Test] = {
    "modes": (lambda v: names(v) and bool(v), "a list of modes"),
    "reduction": between(0, 1e6),
    "enlargement": between(0, 1e6),
    "paper": between(0, 255),
    "angle": between(0, 360),
}


def generation_settings(folder: str | Path) -> dict:
    """The keys of generation_config.json that have a value. Raises CheckpointError."""
    path = Path(folder) / GENERATION
    content = checked(path, read(path), GENERATION_KEYS)
    return {name: value for name, value in content.items() if value is not None}


def architectures(folder: str | Path) -> list[str] | None:
    """`architectures` of config.json, or None. It decides defaults; loading.read_config examines the file."""
    found = read(Path(folder) / "config.json").get("architectures")
    found = [found] if isinstance(found, str) else found
    return found if names(found) else None


def confidence_limits(folder: str | Path) -> dict:
    """confidence.json of a checkpoint, see deskocr_kit/reading/doubt.py. Raises CheckpointError."""
    path = Path(folder) / CONFIDENCE
    content = checked(path, read(path), CONFIDENCE_KEYS)
    domain = checked(path, content.get("domain") or {}, DOMAIN_KEYS)
    if ("reduction" in domain) != ("enlargement" in domain):
        raise CheckpointError(f"{shown(path)}: domain has one of reduction and enlargement, and needs both.")
    return content


def read(path: Path) -> dict:
    """The object in a JSON file; {} if there is no such file. Raises CheckpointError."""
    try:
        return read_json_object(path)
    except FileNotFoundError:
        if absent(path) == "no such file":
            return {}
        raise CheckpointError(f"{shown(path)}: {absent(path)}. Copy the file itself, or delete it.") from None
    except OSError as error:
        raise CheckpointError(f"{shown(path)}: cannot be read ({error.strerror}).") from None
    except UntrustedFile as error:
        raise CheckpointError(f"{error}. Copy it again, or delete it.") from None


def checked(path: Path, content: Mapping, keys: Mapping[str, Test]) -> dict:
    """The content, if each listed key is absent, null or passes its test. Raises CheckpointError."""
    for name, (accepts, expected) in keys.items():
        value = content.get(name)
        if value is not None and not accepts(value):
            raise CheckpointError(
                f"{shown(path)}: {name} is {brief(value)}, expected {expected}. Correct or delete it."
            )
    return dict(content)
