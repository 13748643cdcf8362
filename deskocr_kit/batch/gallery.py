"""index.html: every page as a picture with its boxes beside its text, failures first, with a search field.

The file is self-contained: it loads nothing from a network. The pictures of the first EMBEDDED pages are in
it; those of later pages are loaded from the folders beside it.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from model.boxes import parse_boxes
from model.files import write_atomically
from model.images import ImageError, load_image

from .manifest import Manifest

FILE = "index.html"
EMBEDDED = 200  # pages: some 10 MB
SHOWN = 5000  # pages; browsers become slow above
SIDE = 900  # pixels of an embedded picture


@dataclass(frozen=True)
class Entry:
    """A page of the gallery. doubt: why a reader should compare its text with the page; "" if no reason."""

    line: dict
    picture: str  # a data URL, a path below the output folder, or ""

    @property
    def text(self) -> str:
        """The text without the numbers of its boxes, which the picture shows."""
        text = self.line["text"]
        for ref in reversed(parse_boxes(text)):
            text = text[: ref.span[0]] + ref.label + text[ref.span[1] :]
        return text

    @property
    def doubt(self) -> str:
        faults = [name for name in ("truncated", "loop") if self.line.get(name)]
        return "; ".join([*faults, *self.line.get("warnings", ())])


def write_gallery(
    out: Path,
    lines: Iterable[dict],
    counts: Mapping[str, int],
    *,
    title: str = "Pages",
    note: str = "",
    embedded: int = EMBEDDED,
) -> Path:
    """Write index.html to `out`; returns its path.

    Args:
        out: the folder that holds the folders of the pages.
        lines: records of pages.jsonl, failures first; a record may have the true text as "truth".
        counts: {state: number of pages}; the first SHOWN lines are shown.
        note: a sentence under the title.
        embedded: how many pages have their picture in the file.

    Raises:
        OSError: the file cannot be written.
    """
    missing = max(0, counts.get("failed", 0) + counts.get("done", 0) - SHOWN)
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        Path(__file__).with_suffix(".html.j2").read_text(encoding="utf-8")
    )
    text = template.render(
        entries=_entries(out, islice(lines, SHOWN), embedded),
        counts=counts,
        title=title,
        note=note,
        missing=missing,
        policy=_POLICY,
    )
    path = out / FILE
    write_atomically(path, text.encode("utf-8", "replace"))
    return path


def lines_of(manifest: Manifest) -> Iterator[dict]:
    """The records of pages.jsonl, failures first."""
    return (json.loads(line) for _, line in chain(manifest.records("failed"), manifest.records("done")))


# A text from a page that slipped through as HTML could still not run or load anything.
_POLICY = Markup(
    "default-src 'none'; img-src 'self' data: file:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)


def _entries(out: Path, lines: Iterator[dict], embedded: int) -> Iterator[Entry]:
    for i, line in enumerate(lines):
        picture = ""
        if line["state"] == "done":
            path = out / line["folder"] / "result_with_boxes.jpg"
            picture = _data_url(path) if i < embedded else f"{quote(line['folder'])}/{path.name}"
        yield Entry(line, picture)


def _data_url(path: Path) -> str:
    """A smaller copy of a picture as a data URL; "" if there is none."""
    try:
        image = load_image(path)
    except ImageError:
        return ""
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
