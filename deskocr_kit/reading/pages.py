"""Read pages from images, PDFs, multi-frame TIFF and GIF files, one page at a time.

A PDF page is rendered at 144 dpi, as in the PDF script of the official model. Pages are generated one by one,
so a file of a thousand pages needs the memory of one page.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.images import MAX_SIDE, ImageError, load_image, open_image, to_rgb

from ..display.images import png

DPI = 144
_IMAGES = re.compile(r"\.(png|jpe?g|jfif|webp|bmp|tiff?|gif|p[pgbn]m|jp2|avif)", re.IGNORECASE)
_PAGED = ("TIFF", "GIF")  # their frames are pages; of other formats (MPO, APNG, icons) only the first is read
_PDFIUM = threading.Lock()  # only one thread at a time may call PDFium


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
    reader = _pdf_pages(file, dpi, password, skip) if is_pdf(source) else _image_pages(file, skip)
    try:
        for number, page in enumerate(reader, 1):
            if page is None:
                continue
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
        with open(path, "rb") as file:
            return b"%PDF-" in file.read(1024)
    except (OSError, ValueError):
        return False  # the image reader reports what is wrong with the path


def count_pages(files: Iterable[str | os.PathLike]) -> int:
    """The expected number of pages, as far as it is cheap to know.

    PDFs are opened. Any other file counts as one (frames of a TIFF or GIF are found when it is read), and so
    does a file that cannot be opened.
    """
    total, seen = 0, set()
    for file in map(str, files):
        pages, again = 1, os.path.abspath(file) in seen  # named twice: read once
        seen.add(os.path.abspath(file))
        if is_pdf(file) and not again:
            try:
                import pypdfium2

                with _PDFIUM, _open_pdf(pypdfium2, file, None) as pdf:
                    pages = max(1, len(pdf))
            except (ImportError, ImageError, OSError):
                pass  # reading it reports why
        total += pages
    return total


def expand_inputs(inputs: Iterable[str | os.PathLike]) -> list[Path]:
    """The files, with each folder replaced by its pages (known suffixes, none hidden), p2 before p10."""
    files: list[Path] = []
    for given in map(Path, inputs):
        if given.is_dir():
            inside = [p for p in given.iterdir() if _known(p.suffix) and not p.name.startswith(".")]
            files += sorted((p for p in inside if p.is_file()), key=_natural)
        else:
            files.append(given)
    return files


def _known(suffix: str) -> bool:
    return suffix.lower() == ".pdf" or _IMAGES.fullmatch(suffix) is not None


def _natural(path: Path) -> list:
    pieces = [piece for piece in re.split(r"(\d+)", path.name) if piece]
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p.lower()) for p in pieces]


def _image_pages(file: str, skip: Collection[int] = ()):
    """Pages of an image file, None for one to skip; an ImageError for a frame that fails, so that
    the next ones are still read.
    """
    broken = None
    with open_image(file) as image:
        try:
            frames = getattr(image, "n_frames", 1) if image.format in _PAGED else 1
        except Exception as error:  # the list of frames is damaged; the first frame may still be good
            frames, broken = 1, error
        numbers = [n for n in range(frames) if frames == 1 or _is_full_page(image, n)]
    for place, number in enumerate(numbers, 1):
        if place in skip:
            yield None
            continue
        try:
            page = load_image(file, frame=number)
        except ImageError as error:
            yield error
            continue
        if frames > 1:  # each frame is a page here, so the note "frame 2 of 3 was read" is useless
            page.info["notes"] = [note for note in page.info["notes"] if not note.startswith("frame ")]
        yield page
    if broken is not None:
        yield ImageError(f"{file}: pages after the first cannot be found ({broken}); save the file again")


def _is_full_page(image, frame: int) -> bool:
    """False for a TIFF frame that is a smaller copy (bit 0) or a mask (bit 2) of another: tag 254."""
    if image.format != "TIFF":
        return True
    try:
        image.seek(frame)
        return not int(image.tag_v2.get(254, 0)) & 0b101
    except Exception:  # damaged: keep it, so that reading it reports the error
        return True


def _pdf_pages(file: str, dpi: float, password: str | None, skip: Collection[int] = ()):
    """Pages of a PDF, rendered one by one, None for one to skip, an ImageError for one that fails."""
    try:
        import pypdfium2
    except ImportError as error:
        raise ImageError(f"{file}: PDFs need the package pypdfium2; run: pip install pypdfium2") from error
    if not 10 <= dpi <= 1200:
        raise ValueError(f"dpi={dpi}: must be between 10 and 1200 (default: {DPI})")
    with _PDFIUM:
        pdf = _open_pdf(pypdfium2, file, password)
    try:
        with _PDFIUM:
            count = len(pdf)
        if count == 0:
            raise ImageError(f"{file}: the PDF has 0 pages; export it again")
        for index in range(count):
            if index + 1 in skip:
                yield None
                continue
            try:
                with _PDFIUM:
                    picture, notes = _render(pdf, index, dpi)
                page = to_rgb(picture, file)
            except (pypdfium2.PdfiumError, ValueError, OSError, MemoryError) as error:
                why = f"page {index + 1} of {count} cannot be rendered ({error})"
                yield ImageError(f"{file}: {why}; export the PDF again")
                continue
            page.info["notes"] += notes
            yield page
    finally:
        with _PDFIUM:
            pdf.close()


def _open_pdf(pypdfium2, file: str, password: str | None):
    try:
        pdf = pypdfium2.PdfDocument(file, password=password)
    except (pypdfium2.PdfiumError, OSError, ValueError) as error:
        # PDFium's reason may be from an earlier failure (it sets none without pages): check the content.
        reason, content = str(error).lower(), Path(file).read_bytes()
        if re.search(rb"/Count\s+0\b", content) and not re.search(rb"/Type\s*/Page\b", content):
            raise ImageError(f"{file}: the PDF has 0 pages; export it again") from error
        if "password" in reason and b"/Encrypt" in content:
            what = "the password is wrong" if password else "the PDF is encrypted"
            raise ImageError(f"{file}: {what}; give its password, or save it without one") from error
        if "security" in reason and b"/Encrypt" in content:
            raise ImageError(
                f"{file}: the PDF's encryption is not supported; save it without encryption"
            ) from error
        raise ImageError(f"{file}: broken PDF; download or export it again") from error
    try:
        pdf.init_forms()  # without it, the content of form fields is not drawn
    except pypdfium2.PdfiumError:
        return pdf  # with a damaged form only its fields are lost, not the pages
    return pdf


def _render(pdf, index: int, dpi: float):
    """(PIL image, notes) of one page; a poster is rendered at a lower resolution to save memory."""
    from PIL import Image

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
