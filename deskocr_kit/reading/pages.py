"""Read pages from images, PDFs, multi-frame TIFF and GIF files, one page at a time.

A PDF page is rendered at 144 dpi, as in the PDF script of the official model. Pages are generated one by one,
so a file of a thousand pages needs the memory of one page. A child process decodes them (page_source.py): a
page that takes more than 30 s or 2 GB fails, and the next one follows.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from model.images import ImageError, existing_file
from model.untrusted import is_regular, open_regular

from ..display.images import png
from .page_source import PageSource

DPI = 144
_IMAGES = re.compile(r"\.(png|jpe?g|jfif|webp|bmp|tiff?|gif|p[pgbn]m|jp2|avif)", re.IGNORECASE)


@dataclass(frozen=True)
class Page:
    """One page. image: upright RGB PIL image; or None, and `error` is the reason (see collect_errors)."""

    file: str
    number: int  # 1 = first
    image: Any = None
    error: ValueError | None = None

    def __repr__(self) -> str:
        what = f"{self.image.width} x {self.image.height}" if self.image is not None else f"{self.error}"
        return f"page {self.number} of {os.path.basename(self.file)}: {what}"

    def _repr_png_(self) -> tuple[bytes, dict] | None:
        return None if self.image is None else (png(self.image), {"alt": repr(self)})

    @property
    def notes(self) -> list[str]:
        """Notes for the user about how the page was loaded."""
        return self.image.info.get("notes", []) if self.image is not None else []


def iter_pages(
    source,
    *,
    dpi: float = DPI,
    password: str | None = None,
    collect_errors: bool = False,
    skip: Collection[int] = (),
) -> Iterator[Page]:
    """Every page of one file: (file, number, image).

    source: path of an image or a PDF (the content decides, not the name). dpi: resolution of PDF pages.
    A page that cannot be read raises `model.images.ImageError` (a ValueError).
    skip: numbers of pages to leave out; they are not rendered.
    With collect_errors a page that cannot be read is yielded with `error` set, and the next page follows.
    """
    file = str(source)
    try:
        for number, page in _pages(file, is_pdf(source), dpi, password, skip):
            if not isinstance(page, ImageError):
                yield Page(file, number, page)
            elif collect_errors:
                yield Page(file, number, error=page)
            else:
                raise page
    except ImageError as error:  # the file as a whole cannot be read
        if not collect_errors:
            raise
        yield Page(file, 1, error=error)


def is_pdf(path) -> bool:
    """Whether the first kilobyte holds the PDF mark (viewers accept some other bytes before it)."""
    try:
        with open_regular(path) as file:
            return b"%PDF-" in file.read(1024)
    except (OSError, ValueError):
        return False  # the image reader reports what is wrong with the path


def count_pages(files: Iterable[str | os.PathLike], password: str | None = None) -> int:
    """The expected number of pages, as far as it is cheap to know.

    PDFs are opened. Any other file counts as one (frames of a TIFF or GIF are found when it is read), and so
    does a file that cannot be opened.
    """
    total, seen = 0, set()
    for file in map(str, files):
        pages, again = 1, os.path.abspath(file) in seen  # named twice: read once
        seen.add(os.path.abspath(file))
        if is_pdf(file) and not again:
            with contextlib.suppress(ImageError):  # reading it reports why
                pages = PageSource(file, True, DPI, password).count or 1
        total += pages
    return total


def expand_inputs(inputs: Iterable[str | os.PathLike]) -> list[Path]:
    """The files, with each folder replaced by its pages (known suffixes, none hidden), p2 before p10."""
    files: list[Path] = []
    for given in map(Path, inputs):
        if given.is_dir():
            inside = [p for p in given.iterdir() if _known(p.suffix) and not p.name.startswith(".")]
            files += sorted((p for p in inside if is_regular(p)), key=_natural)
        else:
            files.append(given)
    return files


def _known(suffix: str) -> bool:
    return suffix.lower() == ".pdf" or _IMAGES.fullmatch(suffix) is not None


def _natural(path: Path) -> list:
    pieces = [piece for piece in re.split(r"(\d+)", path.name) if piece]
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in pieces]


def _pages(
    file: str, pdf: bool, dpi: float, password: str | None, skip: Collection[int]
) -> Iterator[tuple[int, Image.Image | ImageError]]:
    """(number, page) of the pages that are not skipped; an ImageError for one that fails."""
    if not 10 <= dpi <= 1200:
        raise ValueError(f"dpi={dpi}: must be between 10 and 1200 (default: {DPI})")
    existing_file(Path(file), file)
    source = PageSource(file, pdf, dpi, password)
    for number in range(1, source.most + 1):
        if number in skip:
            continue
        try:
            page = _render(source, number - 1)
        except ImageError as error:
            yield number, error
            if source.last:
                return
            continue
        if page is None:
            return
        yield number, page


def _render(source: PageSource, index: int) -> Image.Image | None:
    """Page `index` of a file, counted from 0; None behind the last one."""
    return source.page(index)
