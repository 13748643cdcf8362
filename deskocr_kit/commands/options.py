"""The options that commands share, as parameters for typer. They are defined in reading/options.py."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from dataclasses import Field, fields
from typing import Annotated, Any, get_type_hints

import typer

from model.modes import MODES
from model.official import CHECKPOINTS

from ..reading.options import Options

MODE_HELP = f"{', '.join(MODES)}."
SIZE_HELP = (
    f"official (the size of DeepSeek-OCR, without weights), official:NAME ({', '.join(CHECKPOINTS)}), nano, "
    "a folder."
)
GRID_HELP = f"Tiles across x down, for {', '.join(name for name, mode in MODES.items() if mode.crop_mode)}."


def takes(
    kind: type[Options], *, only: Collection[str] = (), without: Collection[str] = (), **defaults: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the fields of `kind` as options, instead of its single parameter `options`.

        @takes(ReadingOptions, without=["prompt"], model="nano")
        def demo(options: ReadingOptions, out: Path = Path("out")) -> None: ...

    only, without: names of fields that become options; the rest keep their default. defaults: other defaults
    for this command. A value that `kind` refuses is a usage error (exit status 2).
    """
    chosen = [each for each in fields(kind) if (not only or each.name in only) and each.name not in without]
    shared = parameters_of(kind, chosen, defaults)

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters: list[inspect.Parameter] = []
        # Not get_type_hints: Python 3.10 makes Optional[Annotated[…]] of a default None; typer misreads it.
        for each in inspect.signature(command, eval_str=True).parameters.values():
            own = each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            parameters += shared if each.name == "options" else [own]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            asked = {each.name: given.pop(each.name) for each in chosen}
            try:
                options = kind(**asked)
            except ValueError as error:
                raise typer.BadParameter(str(error)) from error
            command(options=options, **given)

        # typer reads both: the signature for the defaults, the annotations for the types.
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def parameters_of(
    kind: type[Options], chosen: list[Field], defaults: dict[str, Any]
) -> list[inspect.Parameter]:
    """One keyword parameter for each of the chosen fields, annotated for typer."""
    types = get_type_hints(kind)
    return [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults.get(each.name, each.default),
            annotation=Annotated[types[each.name], as_typer(each, defaults.get(each.name, each.default))],
        )
        for each in chosen
    ]


def as_typer(each: Field, default: Any) -> Any:
    """A field as an option of typer: its name with dashes, its help and its smallest value."""
    name, about = "--" + each.name.replace("_", "-"), each.metadata
    unset = f" Default: {about['unset']}." if default is None and about["unset"] else ""
    # A list of processes shows the words of a command, but not its environment.
    variable = f"DESKOCR_{each.name.upper()}" if about["secret"] else None
    return typer.Option(name, help=about["help"] + unset, min=about["minimum"], envvar=variable)


def two_numbers(grid: str) -> tuple[int, int]:
    """ "2x3" -> (2, 3). Raises typer.BadParameter."""
    try:
        across, down = (int(n) for n in grid.lower().split("x"))
    except ValueError:
        raise typer.BadParameter(f"--grid {grid}: expected two numbers, such as 2x3") from None
    if across < 1 or down < 1:
        raise typer.BadParameter(f"--grid {grid}: expected at least one tile in each direction")
    return across, down
