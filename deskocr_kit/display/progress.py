"""Progress bars on stderr; none if stderr is not a terminal."""

from __future__ import annotations

import sys

from .printable import printable


def bar(total: int, unit: str, hidden: bool = False):
    """A tqdm bar with `write` (stderr) and `print` (stdout) that keep the bar intact.

    `write` makes its text printable, because messages quote files; the text for `print` must be so already.
    """
    from tqdm import tqdm

    class Bar(tqdm):
        def write(self, text, file=None, end="\n", nolock=False):
            super().write(printable(text), file=file or sys.stderr, end=end, nolock=nolock)

        def print(self, text: str) -> None:
            super().write(text, file=sys.stdout)

    return Bar(total=total, unit=unit, file=sys.stderr, disable=True if hidden else None, leave=False)
