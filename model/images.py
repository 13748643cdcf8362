"""Open an image safely: the result is an RGB page or an `ImageError`.

The network needs an upright 8-bit RGB page. The original calls `Image.open`, `exif_transpose` and
`convert("RGB")`; this module gives the same pixels. In addition, every failure is an `ImageError` that states
the file, the problem and the remedy.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .untrusted import open_regular

# Pixels; the longest side of a JPEG, and result_with_boxes.jpg is one. The first pass of a resize keeps one
# side, so a longer strip would take gigabytes, and no mode could show its text.
MAX_SIDE = 65_500
ORIENTATION = 0x0112  # the tag of EXIF
BAND = 4_000_000  # pixels that are converted at a time where each takes 8 bytes and more

# (first bytes, what it is, remedy) of files that are often given instead of an image.
_NOT_IMAGES = (
    (b"%PDF-", "it is a PDF", "render its pages first (the `deskocr` command does)"),
    (b"version https://git-lfs", "it is a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    (b"<svg", "it is an SVG drawing", "export it as PNG"),
    (b"<?xml", "it is an XML or SVG file", "export it as PNG"),
    (b"<!doctype html", "it is an HTML page (a failed download?)", "download the picture again"),
    (b"<html", "it is an HTML page (a failed download?)", "download the picture again"),
    (b"{", "it is JSON text (a failed download?)", "download the picture again"),
    (b"PK\x03\x04", "it is a ZIP archive or an Office document", "unpack it, or print it to PDF"),
    (b"\x1f\x8b", "it is gzip-compressed", "unpack it"),
)
_PROGRAMS = ("EPS", "WMF")  # Pillow starts Ghostscript for the former, and the system draws the latter
_IMAGES = (
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"RIFF", "WebP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)


class ImageError(ValueError):
    """A page that cannot be read. One line: the file, the problem, the remedy."""


def load_image(source, *, frame: int = 0, name: str | None = None) -> Image.Image:
    """Open `source` as an upright 8-bit RGB image, fully decoded.

    Alpha is dropped, not composited, as in the original: a transparent pixel gets its stored colour. The
    `.info["notes"]` of the result lists remarks for the reader (more frames, alpha dropped, 16 bits reduced).

    Args:
        source: path, bytes, binary file object, or PIL image.
        frame: index of the frame in a file with several.
        name: of the source in messages; by default its path.

    Raises:
        ImageError: (a ValueError) `source` is not a readable image.
    """
    name = name or _name(source)
    if isinstance(source, Image.Image):
        return to_rgb(source, name)
    with open_image(source, name) as image:
        if frame:
            _seek(image, frame, name)
        page = to_rgb(image, name)  # before counting the frames, which fails if their list is damaged
        try:
            with _quiet():
                frames = getattr(image, "n_frames", 1)
        except Exception as error:
            page.info["notes"].append(f"frame {frame + 1} was read, the others cannot be counted ({error})")
            return page
        # An MPO of a camera is one photo followed by previews, so its further frames need no remark.
        if frames > 1 and image.format != "MPO":
            page.info["notes"].append(f"frame {frame + 1} of {frames} was read")
        return page


def _seek(image: Image.Image, frame: int, name: str) -> None:
    try:
        image.seek(frame)
    except EOFError as error:
        raise ImageError(
            f"{name}: there is no frame {frame} (counted from 0); ask for an earlier one"
        ) from error
    except Exception as error:
        raise _broken(name, error) from error


def open_image(source, name: str | None = None) -> Image.Image:
    """`Image.open` that raises ImageError. Pixels are not decoded yet. name: as for `load_image`."""
    name = name or _name(source)
    if isinstance(source, (str, os.PathLike)):
        source = existing_file(Path(source), name)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        if len(source) == 0:
            raise ImageError(f"{name}: empty (0 bytes); check the source of the bytes")
        source = io.BytesIO(bytes(source))
    elif not hasattr(source, "read"):
        raise ImageError(
            f"cannot read a page from {type(source).__name__}; give a path, bytes, a file or a PIL image"
        )
    try:
        with _quiet():
            image = Image.open(source)
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not a readable image: {_what_it_is(source)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{name}: too many pixels ({str(error).split(',')[0]}); scale it down, "
            "or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file"
        ) from error
    except Exception as error:  # for bad headers decoders raise SyntaxError, struct.error, KeyError, …
        raise _broken(name, error) from error
    if image.format in _PROGRAMS:
        image.close()
        raise ImageError(f"{name}: {image.format} is a program that draws, and is not run; export it as PNG")
    _check_size(image, name)
    return image


def to_rgb(image: Image.Image, name: str = "image", *, keep: bool = True) -> Image.Image:
    """Convert a PIL image of any mode to an upright RGB copy with `.info` {"notes": [...]}.

    keep: the result shares no memory with `image`. False saves the copy of an image that is not used again.

    Raises ImageError.
    """
    _check_size(image, name)
    notes: list[str] = []
    page = image
    try:
        with _quiet():
            image.load()
    except Exception as error:
        raise _broken(name, error) from error
    try:
        with _quiet():
            if image.getexif().get(ORIENTATION, 1) != 1:  # exif_transpose copies in any case
                page = ImageOps.exif_transpose(image)
    except MemoryError as error:
        raise _broken(name, error) from error
    except Exception as error:  # unreadable EXIF is no reason to reject the page; the original agrees
        notes.append(f"EXIF data unreadable ({type(error).__name__}), orientation ignored")
    try:
        page = _reduce_depth(page, notes)
        if page.mode in ("RGBa", "La"):  # premultiplied alpha cannot be converted to RGB directly
            page = page.convert({"RGBa": "RGBA", "La": "LA"}[page.mode])
        if page.mode in ("RGBA", "LA", "PA") and np.asarray(page.getchannel("A")).min() < 255:
            notes.append("transparency dropped: such pixels show the colour stored under them")
        if page.mode != "RGB":
            page = page.convert("RGB")
        elif page is image and keep:
            page = page.copy()
    except MemoryError as error:
        raise _broken(name, error) from error
    except Exception as error:
        raise ImageError(
            f"{name}: colour mode {image.mode} cannot be converted ({error}); save it as 8-bit RGB"
        ) from error
    page.info = {"notes": notes}
    return page


def _quiet() -> warnings.catch_warnings:
    """Pillow's warnings about a file are not printed. Those that are set to be errors are still raised."""
    return warnings.catch_warnings(record=True)


def _reduce_depth(image: Image.Image, notes: list[str]) -> Image.Image:
    """Convert grey images with more than 8 bits to "L"; others are unchanged.

    Pillow's convert("RGB") clips: every 16-bit value above 255 becomes white, which erases the page. This
    function scales by the smallest usual depth (8, 12, 16 bits) that holds the brightest pixel.
    """
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    width, height = image.size
    rows = max(1, BAND // width)
    bands = [(0, top, width, min(top + rows, height)) for top in range(0, height, rows)]

    def values(box: tuple[int, int, int, int]) -> np.ndarray:
        part = image if len(bands) == 1 else image.crop(box)
        return np.nan_to_num(np.asarray(part, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)

    extremes = [(float(band.min()), float(band.max())) for band in map(values, bands)]
    low, high = min(least for least, _ in extremes), max(most for _, most in extremes)
    start = 0.0
    if image.mode == "F" and low >= 0 and high <= 1:
        scale, said = 255.0, "0..1 floats"
    elif low < 0 or high > 65535:
        start, scale, said = low, 255.0 / max(high - low, 1e-30), f"values {low:g}..{high:g}"
    else:
        top = next(t for t in (255, 4095, 65535) if high <= t)
        scale, said = 255.0 / top, f"{top.bit_length()}-bit gray"
    notes.append(f"{said} scaled to 8 bits")
    page = Image.new("L", image.size)
    for box in bands:
        scaled = np.clip(np.rint((values(box) - start) * scale), 0, 255).astype(np.uint8)
        page.paste(Image.fromarray(scaled), box[:2])
    return page


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name}: the image has no pixels ({width}x{height}); create it again")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{name}: {width}x{height} is longer than {MAX_SIDE} pixels; cut it into pages")


def _name(source) -> str:
    if isinstance(source, (str, os.PathLike)):
        return str(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"<{len(source)} bytes>"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "<PIL image>")
    return str(getattr(source, "name", "") or f"<{type(source).__name__}>")


def existing_file(path: Path, name: str) -> Path:
    """The path of a regular file with content that can be opened. Raises ImageError. name: in messages."""
    try:
        if path.is_dir():
            raise ImageError(f"{name}: is a folder, not an image; give the files in it")
        if not path.exists():
            hint = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
            raise ImageError(f"{name}: no such file{hint}; check the path")
        if not path.is_file():
            raise ImageError(f"{name}: not a regular file; give an image file")
        if path.stat().st_size == 0:
            raise ImageError(f"{name}: empty file (0 bytes); copy or download it again")
        with open_regular(path):
            return path
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # no permission, name too long, NUL in the name
        raise ImageError(f"{name}: cannot be opened ({error}); check the path and its permissions") from error


def _what_it_is(source) -> str:
    """A guess what a file that is not an image is, with the remedy."""
    head = b""
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                head = file.read(256)
        else:
            source.seek(0)
            head = source.read(256)
    except Exception:  # only the hint is lost; the caller raises the error
        head = b""
    if not head:
        return "no data; check its source"
    start = head.lstrip().lower()
    for magic, what, do in _NOT_IMAGES:
        if start.startswith(magic.lower()):
            return f"{what}; {do}"
    if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif"):
        return "HEIC/AVIF, which this Pillow cannot decode; convert it to PNG or JPEG"
    for magic, what in _IMAGES:
        if head.startswith(magic):
            return f"a {what} with a damaged header; copy or download it again"
    if not head.strip(b"\x00"):
        return "it begins with zero bytes (an unfinished download?); copy it again"
    return f"unknown format (it begins with {head[:8]!r}); convert it to PNG or JPEG"


def _broken(name: str, error: Exception) -> ImageError:
    if isinstance(error, MemoryError):
        return ImageError(f"{name}: not enough memory to decode it; scale it down")
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return ImageError(f"{name}: too many pixels ({error}); scale it down")
    detail = " ".join(str(error).split()) or type(error).__name__
    kind = "truncated" if "truncated" in detail.lower() or isinstance(error, EOFError) else "damaged"
    return ImageError(f"{name}: {kind} image ({detail}); copy or download it again")
