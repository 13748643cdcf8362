"""One page as the bytes of many image formats, intact and damaged."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

from tests.helpers.recipes import synth_image

PAGE = Image.fromarray(synth_image(320, 240, 1))


def encoded(format, image=PAGE, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of_size(width, height):
    """A PNG that declares this size and has one byte of data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(b"\0")) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def flipped(data, start, count=40):
    """The data with `count` bytes inverted, from `start` on."""
    return data[:start] + bytes(255 - b for b in data[start : start + count]) + data[start + count :]


def rgb(image):
    return np.asarray(image).astype(int)


PNG, JPEG, TIFF, WEBP = encoded("PNG"), encoded("JPEG"), encoded("TIFF"), encoded("WEBP", lossless=True)
BMP, GIF = encoded("BMP"), encoded("GIF")
