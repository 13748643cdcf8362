"""Small files that cost a decoder minutes or gigabytes, or that block whoever opens them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

from PIL import Image


def pdf(*objects: bytes) -> bytes:
    """A PDF of these objects; the first is the catalogue."""
    data, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj%bendobj\n" % (number, content)
    start = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return data + b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, start)


def stream(content: bytes, head: bytes = b"") -> bytes:
    packed = zlib.compress(content, 9)
    return b"<<%b/Filter/FlateDecode/Length %d>>stream\n%b\nendstream " % (head, len(packed), packed)


def nested_forms(levels: int = 12, times: int = 10) -> bytes:
    """A PDF of two pages: the first draws a form that draws a form `times` times, `levels` deep."""
    forms = []
    for level in range(levels):
        inner = b"/F Do " * times if level + 1 < levels else b"0 0 1 1 re f "
        head = b"/Type/XObject/Subtype/Form/BBox[0 0 200 100]/Resources<<"
        head += b"/XObject<</F %d 0 R>>" % (level + 7) if level + 1 < levels else b""
        forms.append(stream(inner, head + b">>"))
    return pdf(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R 4 0 R]/Count 2>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Contents 5 0 R/Resources<</XObject<</F 6 0 R>>>>>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]>>",
        stream(b"/F Do"),
        *forms,
    )


def many_operators(count: int) -> bytes:
    """A PDF of two pages; the first fills `count` curves."""
    work = b"0 0 m 9 99 199 9 0 99 c 199 0 9 99 150 9 c b* " * count
    return pdf(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R 4 0 R]/Count 2>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 2000 1000]/Contents 5 0 R>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]>>",
        stream(work),
    )


def animation(frames: int, side: int = 64) -> bytes:
    """A GIF whose frames differ."""
    pictures = [Image.new("RGB", (side, side), (i % 256, i // 256, 7)) for i in range(frames)]
    file = io.BytesIO()
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:])
    return file.getvalue()


def empty_scans(width: int, height: int, scans: int) -> bytes:
    """A grey progressive JPEG of `scans` scans in which nothing changes, each over the whole page."""
    blocks = ((width + 7) // 8) * ((height + 7) // 8)
    head = b"\xff\xd8"
    head += b"\xff\xdb\x00\x43\x00" + bytes([1]) * 64
    head += b"\xff\xc2" + struct.pack(">HBHHBBBB", 11, 8, height, width, 1, 1, 0x11, 0)
    head += b"\xff\xc4" + struct.pack(">HB", 2 + 17 + 1, 0x00) + bytes([1] + [0] * 15) + b"\x00"
    # One AC code of one bit: 0xE0, a run of 2^14 blocks or more without coefficients.
    head += b"\xff\xc4" + struct.pack(">HB", 2 + 17 + 1, 0x10) + bytes([1] + [0] * 15) + b"\xe0"
    first = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0x00, 0, 0, 0x00) + bytes((blocks + 7) // 8)
    runs = -(-blocks // (1 << 14))  # each: the code 0 and 14 bits of zero
    scan = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0x00, 1, 63, 0x00) + bytes((15 * runs + 7) // 8)
    return head + first + scan * scans + b"\xff\xd9"


def fifo(path: Path) -> Path:
    """A named pipe without a writer: whoever opens it for reading waits for ever."""
    import os

    os.mkfifo(path)
    return path
