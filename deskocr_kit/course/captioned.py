"""Every picture of the notebooks becomes a PNG here, with its caption printed below it.

JupyterLab shows the PNG of an output and not its text, so a caption beside the PNG would be seen by nobody.
"""

from __future__ import annotations

import io
from typing import Any

from ..display.images import png
from ..display.palette import INK
from ..synthetic_pages.render import font

SIZE, MARGIN = 13, 8  # pixels: height of the letters; space around the caption
NARROWEST = 480  # pixels: a narrower picture gets white space at the right, so that its caption is no column


def captioned(picture: Any, caption: str, alt: str = "", dpi: int = 100) -> tuple[bytes, dict]:
    """What `_repr_png_` returns: a PNG, and the alternative text of the picture.

    Args:
        picture: a PIL image or a matplotlib Figure.
        caption: printed below the picture, in as many lines as it needs.
        alt: the alternative text; "" is the caption.
        dpi: resolution of a Figure.
    """
    from PIL import Image, ImageDraw

    image = _drawn(picture, dpi) if hasattr(picture, "savefig") else picture
    face, width = font("DejaVuSans", SIZE), max(image.width, NARROWEST)
    lines = _wrapped(caption, face, width - 2 * MARGIN)
    step = SIZE + 4
    mode = "L" if image.mode in ("1", "L") else "RGB"
    sheet = Image.new(mode, (width, image.height + 2 * MARGIN + step * len(lines)), "white")
    sheet.paste(image, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        pen.text((MARGIN, image.height + MARGIN + step * number), line, font=face, fill=INK)
    return png(sheet), {"alt": alt or caption}


def _drawn(figure: Any, dpi: int):
    """A matplotlib Figure as an RGB image on white."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    with Image.open(buffer) as image:
        return image.convert("RGB")


def _wrapped(text: str, face: Any, width: int) -> list[str]:
    """The lines of a text in at most `width` pixels. A word that is wider has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and face.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
