"""The pages of a file, decoded in a child process with limits on time and memory (see page_child.py)."""

from __future__ import annotations

import atexit
import itertools
import os
import threading
from collections.abc import Callable

from PIL import Image

from model.images import MAX_SIDE, ImageError
from model.limited import Child, ChildEnded, LimitExceeded
from model.untrusted import shown

from .page_child import BAND, MAX_FRAMES, MEMORY, SECONDS

_LOCK = threading.Lock()  # the child answers one request at a time
_NUMBERS = itertools.count()
_child: Child | None = None
_open: int | None = None  # the number of the PageSource whose file the child has open
_process = 0  # this process: a child of our own is not shared with forks


class PageSource:
    """One file. Many may be used in turn; the child opens the file of another one again.

    most: pages that it can have. count: the pages that it has; None if that is known at the end only.

    Raises ImageError if the file as a whole cannot be read.
    """

    def __init__(self, file: str, pdf: bool, dpi: float, password: str | None = None):
        self.file, self.dpi, self.number = file, dpi, next(_NUMBERS)
        path = os.path.abspath(file)  # the child has its own working directory
        self.request = {"path": path, "name": file, "pdf": pdf, "password": password}
        self.last = False  # a page failed, and no further one can be found
        self.opening = True
        self.chained = False  # to reach a page, all before it must be decoded again
        self.count: int | None = self._ask(self._opened, "it")
        self.most = self.count or MAX_FRAMES + 1  # reading the last of these tells that there are more

    def page(self, index: int) -> Image.Image | None:
        """Page `index`, counted from 0; None behind the last one. Raises ImageError."""
        of = f" of {self.count}" if self.count else ""
        return self._ask(lambda: self._page(index), f"page {index + 1}{of}")

    def _opened(self) -> int | None:
        global _open
        _open = None
        answer = self._send({"open": True}, lambda answer, read: answer)
        _open, self.chained = self.number, answer["chained"]
        return answer["count"]

    def _page(self, index: int) -> Image.Image | None:
        _running()
        if _open != self.number:  # another file is open there, or the child was started again
            self._opened()
        self.opening = False
        return self._send({"page": index, "dpi": self.dpi}, _receive)

    def _send(self, request: dict, take: Callable):
        def checked(answer: dict, read: Callable[[int], bytes]):
            self.last = answer.get("last", False)
            return answer if "error" in answer else take(answer, read)

        answer = _running().ask(
            {**self.request, **request, "max_pixels": Image.MAX_IMAGE_PIXELS}, SECONDS, checked
        )
        if isinstance(answer, dict) and "error" in answer:
            raise ImageError(answer["error"])
        return answer

    def _ask(self, act: Callable, what: str):
        """`act()`, with an ImageError for a broken limit."""
        do = (
            "export the PDF again, or print it to images" if self.request["pdf"] else "save it again, smaller"
        )
        with _LOCK:
            self.opening = True
            try:
                return act()
            except ImageError:
                self.last = self.last or self.opening
                raise
            except LimitExceeded:
                why = f"{what} takes more than {SECONDS:g} s to read; {do}"
            except ChildEnded:
                why = f"{what} needs more than {MEMORY >> 30} GB of memory, or breaks the decoder; {do}"
            except MemoryError:
                why = f"{what} does not fit into memory; {do}"
        self.last = self.chained or self.opening
        raise ImageError(f"{shown(self.file)}: {why}")


def _receive(answer: dict, read: Callable[[int], bytes]) -> Image.Image | None:
    if "end" in answer:
        return None
    width, height = answer["size"]
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ImageError(f"an image of {width}x{height} pixels")
    rows = max(1, BAND // (3 * width))
    if rows >= height:
        page = Image.frombytes("RGB", (width, height), read(3 * width * height))
    else:
        page = Image.new("RGB", (width, height))
        for top in range(0, height, rows):
            part = (width, min(rows, height - top))
            page.paste(Image.frombytes("RGB", part, read(3 * part[0] * part[1])), (0, top))
    page.info = {"notes": answer["notes"]}
    return page


def _running() -> Child:
    """The child, started again if it ended."""
    global _child, _open, _process
    if _child is None or _process != os.getpid() or not _child.running:
        if _child is None:
            atexit.register(close)
        _child, _open, _process = Child(f"{__package__}.page_child", MEMORY), None, os.getpid()
    return _child


def close() -> None:
    """End the child. The next page starts another one."""
    global _child
    if _child is not None and _process == os.getpid():
        _child.close()
        _child = None
