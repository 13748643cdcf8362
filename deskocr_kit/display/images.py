"""Images as bytes, for notebooks and reports."""

from __future__ import annotations

import io


def png(image) -> bytes:
    """A PIL image as PNG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
