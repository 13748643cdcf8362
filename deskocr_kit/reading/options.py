"""The options of the command line, of `Reader` and of stored batches, defined once.

    options = ReadingOptions(model="nano", weights="int8", prompt="ocr")
    reader = Reader.load(options)
    reader.read(image, options=options)

A new option is a new field of LoadOptions or PageOptions, with its help text. The commands accept it
(commands/options.py), `Reader.load` and `Reader.read` receive it, and `read_batch` reads a page again if
it differs. This file does not import torch, so the help of a command works if torch is broken.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from model.modes import MODES
from model.prompts import PROMPTS, resolve_prompt

from ..device.dtypes import DTYPE_NAMES, DTYPES
from ..device.selection import KINDS, SIMULATED
from .checkpoints import named

#: {kind of weights: bits per weight; None leaves the weights as they are}
WEIGHTS = {"plain": None, "int8": 8, "int4": 4}

#: A value for the `key` of an option: a batch stores the Reader's value (`fingerprint.settings_of`), such as
#: the dtype chosen for "auto". Any other option that changes the text keeps the default key.
BY_THE_READER = None

Kind = TypeVar("Kind", bound="Options")


def option(
    default: Any,
    help: str,
    *,
    choices: Iterable[str] = (),
    minimum: float | None = None,
    unset: str = "",
    key: str | None = "",
    secret: bool = False,
) -> Any:
    """A field of Options: its default, its help text, and its allowed values.

    choices: names, compared case-insensitively; empty allows every value. unset: the meaning of None.
    key: the name of the value in `fingerprint`; empty, the default, is the name of the field.
    BY_THE_READER leaves the field out. secret: the value is not shown, and not stored in any file.
    """
    about = {"help": help, "choices": tuple(choices), "minimum": minimum, "unset": unset, "key": key}
    return field(default=default, metadata=about | {"secret": secret}, repr=not secret)


def default_for(kind: type[Options], name: str, default: Any) -> Any:
    """The field `name` of `kind` with another default, for a class that inherits from it."""
    return field(default=default, metadata=next(each.metadata for each in fields(kind) if each.name == name))


@dataclass(frozen=True)
class Options:
    """Fields made with `option`. Raises ValueError for a value that the field does not allow."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value, about = getattr(self, each.name), each.metadata
            choices, minimum = about.get("choices"), about.get("minimum")
            if choices and isinstance(value, str) and value:
                word = self._word(each.name, value)
                if word not in choices:
                    name = each.name.replace("_", " ")
                    raise ValueError(f"unknown {name} {value!r}; choose one of {', '.join(choices)}")
                if each.name != "device":  # the name in choices lacks its index or profile
                    object.__setattr__(self, each.name, word)
            if minimum is not None and value is not None and value < minimum:
                raise ValueError(f"{each.name} is {value}; expected at least {minimum}")

    @staticmethod
    def _word(name: str, value: str) -> str:
        """The part of a value that is compared with the choices: npu of npu:1."""
        return (value.partition(":")[0] if name == "device" else value).strip().lower()

    def only(self, kind: type[Kind]) -> Kind:
        """The options that `kind` has, as a `kind`."""
        return kind(**{each.name: getattr(self, each.name) for each in fields(kind)})

    def fingerprint(self) -> dict[str, Any]:
        """{key: value} of the options that change the text and differ from their default.

        Defaults are left out, so that results stored before an option existed stay valid. Options for which a
        loaded Reader has a more exact value (the dtype chosen for "auto") have no key:
        `fingerprint.settings_of` takes them from the Reader.
        """
        return {
            each.metadata.get("key") or each.name: getattr(self, each.name)
            for each in fields(self)
            if each.metadata.get("key") is not None and getattr(self, each.name) != each.default
        }

    def public(self) -> dict[str, Any]:
        """The options as a dict, without those that are secret."""
        return {
            each.name: getattr(self, each.name) for each in fields(self) if not each.metadata.get("secret")
        }

    def to_json(self) -> str:
        """The options as one line of JSON, which `from_json` reads."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls: type[Kind], text: str) -> Kind:
        """Read options from JSON. Raises ValueError for invalid JSON, TypeError for an unknown field."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class LoadOptions(Options):
    """The options for loading a checkpoint."""

    model: str | None = option(
        None,
        f"{', '.join(named())}, or a folder.",
        unset="the official weights if present",
        key=BY_THE_READER,
    )
    device: str = option(
        "auto",
        f"auto, {', '.join(KINDS)}, with :index for one of several; {SIMULATED}[:profile] simulates an NPU.",
        choices=("auto", *KINDS, SIMULATED),
        key=BY_THE_READER,
    )
    dtype: str = option(
        "auto", f"auto, {', '.join(DTYPES)}.", choices=("auto", *DTYPE_NAMES), key=BY_THE_READER
    )
    # No key: a plan uses operators that were proved equal up to rounding; a batch size also changes rounding.
    plan: str | None = option(
        None, '"auto": what `deskocr prove` chose here; or a plan.json.', unset="none", key=BY_THE_READER
    )
    # The key "weights" is taken: a batch stores the digest of its checkpoint there.
    weights: str = option(
        "plain", f"{', '.join(WEIGHTS)}: see deskocr quantise.", choices=WEIGHTS, key="weights_kind"
    )
    # No key either: a graph replays the operators of the step, so the text does not depend on it.
    graph: bool = option(
        False, "Replay the decode step as a CUDA or NPU graph, see docs/kernels.md.", key=BY_THE_READER
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.graph and self.weights != "plain":
            raise ValueError(
                f"--graph and --weights {self.weights} cannot be combined: quantised layers decode through "
                "their modules, and a graph is recorded of the step without modules"
            )


@dataclass(frozen=True)
class PageOptions(Options):
    """The options that may differ from page to page."""

    prompt: str = option("free", f"{', '.join(PROMPTS)}, or your own text.", key=BY_THE_READER)
    mode: str | None = option(
        None, f"{', '.join(MODES)}.", choices=MODES, unset="the checkpoint's own", key=BY_THE_READER
    )
    target: str | None = option(None, 'What the prompt "locate" looks for.', key=BY_THE_READER)
    max_tokens: int | None = option(
        None, "Maximum number of new tokens per page.", minimum=1, key=BY_THE_READER
    )
    password: str | None = option(None, "Password of encrypted PDFs.", key=BY_THE_READER, secret=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        resolve_prompt(self.prompt, self.target)  # raises ValueError for an invalid prompt


@dataclass(frozen=True)
class ReadingOptions(PageOptions, LoadOptions):
    """All options of the commands `ocr`, `batch` and `shell`."""
