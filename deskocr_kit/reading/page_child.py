"""In a child process: decode images and render PDF pages, one on each request (see page_source.py).

The decoders are C libraries that cannot be interrupted, and files of strangers make some of them work for
minutes or fill the memory. Here this costs one page. This module imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Protocol

from PIL import Image

from model.images import MAX_SIDE, ImageError, load_image, open_image, to_rgb
from model.limited import child_bytes, limit_memory, requests, send_answer
from model.untrusted import open_regular

SECONDS = 30.0  # per page, and per opening of a file
MEMORY = 2 << 30  # bytes
MAX_FRAMES = 2000  # of one TIFF or GIF
BAND = 8 << 20  # bytes that are sent at a time
PAGED = ("TIFF", "GIF")  # their frames are pages; of other formats (MPO, APNG, icons) only the first is read
DAMAGED = 64 << 20  # bytes of a broken PDF that are searched for the reason


class Source(Protocol):
    """An open file. count: its pages, None if that is only known at the end. chained: see PageSource."""

    count: int | None
    chained: bool

    def page(self, index: int, dpi: float) -> Image.Image | None:
        """Page `index`, from 0; None behind the last. Raises ImageError."""


class PDF:
    """The pages of a PDF."""

    chained = False

    def __init__(self, path: str, name: str, password: str | None):
        try:
            import pypdfium2
        except ImportError as error:
            raise ImageError(
                f"{name}: PDFs need the package pypdfium2; run: pip install pypdfium2"
            ) from error
        self.name, self.errors = name, (pypdfium2.PdfiumError, ValueError, OSError, MemoryError)
        self.pdf = _open_pdf(pypdfium2, path, name, password)
        self.count: int | None = len(self.pdf)
        if self.count == 0:
            raise ImageError(f"{name}: the PDF has 0 pages; export it again")

    def page(self, index: int, dpi: float) -> Image.Image | None:
        if index >= (self.count or 0):
            return None
        try:
            picture, notes = _render(self.pdf, index, dpi)
            page = to_rgb(picture, self.name, keep=False)
        except self.errors as error:
            why = f"page {index + 1} of {self.count} cannot be rendered ({error or type(error).__name__})"
            raise ImageError(f"{self.name}: {why}; export the PDF again") from error
        page.info["notes"] += notes
        return page


class Single:
    """A file whose first frame is the only page."""

    count: int | None = 1
    chained = False

    def __init__(self, path: str, name: str):
        self.path, self.name = path, name

    def page(self, index: int, dpi: float) -> Image.Image | None:
        return load_image(self.path, name=self.name) if index == 0 else None


class Frames:
    """The frames of a TIFF or GIF, in one pass: to reach one of an animation, all before it are decoded."""

    count: int | None = None

    def __init__(self, path: str, name: str):
        self.path, self.name = path, name
        self._open()
        self.chained = self.image.format == "GIF"

    def _open(self) -> None:
        self.image = open_image(self.path, self.name)
        self.frame = -1  # the last one that was looked at
        self.pages = 0  # full pages among them

    def page(self, index: int, dpi: float) -> Image.Image | None:
        if index < self.pages:
            self.image.close()
            self._open()
        while self.pages <= index:
            if not self._next():
                return None
        try:
            return to_rgb(self.image, self.name)
        except ImageError:
            if self.image.format == "TIFF":  # libtiff leaves an image that it could not decode in disorder
                self._again()
            raise

    def _next(self) -> bool:
        """Go to the next frame; False behind the last. Raises ImageError if it cannot be found."""
        if self.frame + 1 == MAX_FRAMES:
            raise EndOfFile(
                f"{self.name}: the pages after the first {MAX_FRAMES:,} were left out; split the file"
            )
        try:
            if self.frame >= 0:  # the first is there already, and may be read though the list is damaged
                self.image.seek(self.frame + 1)
        except EOFError:
            return False
        except Exception as error:
            after = "the first" if self.pages == 1 else f"page {self.pages}"
            why = f"pages after {after} cannot be found ({error})"
            raise EndOfFile(f"{self.name}: {why}; save the file again") from error
        self.frame += 1
        self.pages += _is_full_page(self.image)
        return True

    def _again(self) -> None:
        """Open the file again at the same frame."""
        self.image.close()
        self.image = open_image(self.path, self.name)
        try:
            self.image.seek(self.frame)
        except Exception as error:
            raise EndOfFile(
                f"{self.name}: pages after page {self.pages} cannot be found ({error})"
            ) from error


class EndOfFile(ImageError):
    """No further page of this file can be read."""


def _is_full_page(image: Any) -> bool:
    """False for a TIFF frame that is a smaller copy (bit 0) or a mask (bit 2) of another: tag 254."""
    if image.format != "TIFF":
        return True
    try:
        return not int(image.tag_v2.get(254, 0)) & 0b101
    except Exception:  # damaged: keep it, so that reading it reports the error
        return True


def _open_pdf(pypdfium2: Any, path: str, name: str, password: str | None) -> Any:
    try:
        pdf = pypdfium2.PdfDocument(path, password=password)
    except (pypdfium2.PdfiumError, OSError, ValueError) as error:
        # PDFium's reason may be from an earlier failure (it sets none without pages): check the content.
        with open_regular(path) as file:
            reason, content = str(error).lower(), file.read(DAMAGED)
        if re.search(rb"/Count\s+0\b", content) and not re.search(rb"/Type\s*/Page\b", content):
            raise ImageError(f"{name}: the PDF has 0 pages; export it again") from error
        if "password" in reason and b"/Encrypt" in content:
            what = "the password is wrong" if password else "the PDF is encrypted"
            raise ImageError(
                f"{name}: {what}; give its password (--password), or save it without one"
            ) from error
        if "security" in reason and b"/Encrypt" in content:
            raise ImageError(
                f"{name}: the PDF's encryption is not supported; save it without encryption"
            ) from error
        raise ImageError(f"{name}: broken PDF; download or export it again") from error
    try:
        pdf.init_forms()  # without it, the content of form fields is not drawn
    except pypdfium2.PdfiumError:
        return pdf  # with a damaged form only its fields are lost, not the pages
    return pdf


def _render(pdf: Any, index: int, dpi: float) -> tuple[Image.Image, list[str]]:
    """(PIL image, notes) of one page; a poster is rendered at a lower resolution to save memory."""
    page = pdf[index]
    try:
        width, height = page.get_size()  # points, 72 to the inch
        if width <= 0 or height <= 0:
            raise ValueError("the page has no area")
        scale, notes = dpi / 72, []
        pixels = Image.MAX_IMAGE_PIXELS or float("inf")
        fits = min((pixels / (width * height)) ** 0.5, MAX_SIDE / max(width, height))
        if fits < scale:
            scale = fits * 0.99  # both sides are rounded up
            size = f"{width / 72:.0f}x{height / 72:.0f} inch"
            notes = [f"the page is {size}: rendered at {scale * 72:.0f} dpi"]
        return page.render(scale=scale).to_pil(), notes
    finally:
        page.close()


def open_source(request: dict) -> Source:
    """The file of a request. Raises ImageError."""
    path, name = request["path"], request["name"]
    if request["pdf"]:
        return PDF(path, name, request["password"])
    with open_image(path, name) as image:
        paged = image.format in PAGED
    return Frames(path, name) if paged else Single(path, name)


def bands(page: Image.Image) -> Iterator[bytes]:
    """The RGB pixels of a page, row by row, some megabytes at a time."""
    rows = max(1, BAND // (3 * page.width))
    for top in range(0, page.height, rows):
        yield page.crop((0, top, page.width, min(top + rows, page.height))).tobytes()


def serve() -> None:
    """Answer requests: {"open": …} opens a file, {"page": index, "dpi": …} sends a page of it."""
    source: Source | None = None
    for request, answers in requests(SECONDS + 5):
        Image.MAX_IMAGE_PIXELS = request["max_pixels"]
        page = None
        try:
            if "open" in request:
                source = None  # closes the last one
                source = open_source(request)
                answer: dict[str, Any] = {"count": source.count, "chained": source.chained}
            else:
                assert source is not None
                page = source.page(request["page"], request["dpi"])
                answer = {"end": True} if page is None else {"size": page.size, "notes": page.info["notes"]}
        except EndOfFile as error:
            answer = {"error": str(error), "last": True}
        except ImageError as error:
            answer = {"error": str(error)}
        except MemoryError:
            answer = {
                "error": f"{request['name']}: needs more than {MEMORY >> 30} GB of memory; scale it down"
            }
        except Exception as error:  # a decoder's own: the page fails, the file goes on
            detail = " ".join(str(error).split()) or type(error).__name__
            answer = {"error": f"{request['name']}: cannot be read ({detail}); save it again"}
        send_answer(answers, answer, bands(page) if page is not None else ())
        del page


if __name__ == "__main__":
    limit_memory(child_bytes())
    serve()
