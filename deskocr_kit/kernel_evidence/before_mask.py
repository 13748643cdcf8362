"""Loads and stores that Huawei's compiler makes before it applies their mask.

Where a mask is a limit (`index < n`), the front end reads or writes the part of the block within it. It
applies any other mask to numbers that it has read already: the whole block, or each address in turn. A store
with such a mask writes back the numbers that it left out. So the kernel must be allowed to read each of these
addresses, and no other program may write to those that it stores to.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

#: The transfers of a whole block, or of one number, between global memory and a buffer.
_WHOLE = re.compile(
    r"^\s*(?:memref\.copy %reinterpret_cast\w*,|%\w+ = memref\.load %reinterpret_cast).* loc\((#loc\d+)\)$"
)
_PLACE = re.compile(r'^(#loc\d+) = loc\("(.+)":(\d+):\d+\)$')


def before_mask(text: str) -> list[str]:
    """The masked loads and stores of a lowered kernel with locations that are made before their mask.

    Each is its expression in the kernel's source, as `ast.unparse` writes it.
    """
    lines = text.splitlines()
    places = {m[1]: (m[2], int(m[3])) for line in lines if (m := _PLACE.match(line))}
    made = {places[m[1]] for line in lines if (m := _WHOLE.match(line)) and m[1] in places}
    found = (accesses(file).get(number) for file, number in sorted(made))
    return sorted({each for each in found if each})


@functools.cache
def accesses(file: str) -> dict[int, str]:
    """{line: the `tl.load` or `tl.store` with a mask that begins there} of a source file."""
    calls = (
        each for each in ast.walk(ast.parse(Path(file).read_text("utf-8"))) if isinstance(each, ast.Call)
    )
    return {
        each.lineno: ast.unparse(each)
        for each in calls
        if isinstance(each.func, ast.Attribute)
        and each.func.attr in ("load", "store")
        and any(word.arg == "mask" for word in each.keywords)
    }
