"""How pages are read: the options of the command line, of `Reader` and of a batch's memory, defined once.

    options = ReadingOptions(model="nano", weights="int8", prompt="ocr")
    reader = Reader.load(options)
    reader.read(image, options=options)

A new option is a new field of LoadOptions or PageOptions, with its help text. The commands take it
(commands/options.py), `Reader.load` and `Reader.read` receive it, and `read_batch` reads a page again where
it differs. No torch here: the help of a command works where torch is broken.
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

#: For the `key` of an option: a batch stores what the Reader made of it (`batch.settings_of`), such as the
#: dtype that "auto" became. Any other option that changes what is read keeps the default key.
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
) -> Any:
    """A field of Options: its default, its help text, and what it may be.

    choices: names, compared without regard to case; empty allows everything. unset: what None stands for.
    key: the name under which `fingerprint` holds the value; empty, the default, is the name of the field.
    BY_THE_READER keeps the field out.
    """
    about = {"help": help, "choices": tuple(choices), "minimum": minimum, "unset": unset, "key": key}
    return field(default=default, metadata=about)


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
                if each.name != "device":  # its index or profile would be lost
                    object.__setattr__(self, each.name, word)
            if minimum is not None and value is not None and value < minimum:
                raise ValueError(f"{each.name} is {value}; the smallest is {minimum}")

    @staticmethod
    def _word(name: str, value: str) -> str:
        """What is compared with the choices: npu:1 is one of npu."""
        return (value.partition(":")[0] if name == "device" else value).strip().lower()

    def only(self, kind: type[Kind]) -> Kind:
        """The part of these options that `kind` has, as a `kind`."""
        return kind(**{each.name: getattr(self, each.name) for each in fields(kind)})

    def fingerprint(self) -> dict[str, Any]:
        """{key: value} of the options that change what is read and differ from their default.

        A default is left out, so that results stored before an option existed still fit. Options that a
        loaded Reader states more exactly (the dtype that "auto" became) have no key: `batch.settings_of`
        takes them from the Reader.
        """
        return {
            each.metadata.get("key") or each.name: getattr(self, each.name)
            for each in fields(self)
            if each.metadata.get("key") is not None and getattr(self, each.name) != each.default
        }

    def to_json(self) -> str:
        """One line of JSON; `from_json` makes the same options of it."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls: type[Kind], text: str) -> Kind:
        """Raises ValueError for text that is no JSON, TypeError for an unknown field."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class LoadOptions(Options):
    """What is decided once, when a checkpoint is loaded."""

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
    # No key: a plan exchanges operators that were proved equal but for rounding, as a batch size does.
    plan: str | None = option(
        None, '"auto": what `deskocr prove` chose here; or a plan.json.', unset="none", key=BY_THE_READER
    )
    # The key "weights" is taken: there a batch stores which checkpoint was read.
    weights: str = option(
        "plain", f"{', '.join(WEIGHTS)}: see deskocr quantise.", choices=WEIGHTS, key="weights_kind"
    )


@dataclass(frozen=True)
class PageOptions(Options):
    """What may differ from page to page."""

    prompt: str = option("free", f"{', '.join(PROMPTS)}, or your own text.", key=BY_THE_READER)
    mode: str | None = option(
        None, f"{', '.join(MODES)}.", choices=MODES, unset="the checkpoint's own", key=BY_THE_READER
    )
    target: str | None = option(None, 'What the prompt "locate" looks for.', key=BY_THE_READER)
    max_tokens: int | None = option(
        None, "At most so many new tokens per page.", minimum=1, key=BY_THE_READER
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        resolve_prompt(self.prompt, self.target)  # raises ValueError for a prompt that cannot be meant


@dataclass(frozen=True)
class ReadingOptions(PageOptions, LoadOptions):
    """Everything that the commands `ocr`, `batch` and `shell` take."""
