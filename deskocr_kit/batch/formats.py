"""Further forms of the results, made from the folders of the pages when a run ends: see FORMATS.

The text of a page comes from a picture that anyone can make. In HTML it is escaped, in CSV it cannot become a
formula, and no name in it becomes a path.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from model.files import write_atomically, write_json
from model.tables import tables

from .manifest import Manifest
from .records import as_line, stored_in, write_lines

DOCUMENTS, DOLMA, OMNIDOCBENCH = "documents", "dolma.jsonl", "omnidocbench"
RESERVED = (DOCUMENTS, DOLMA, OMNIDOCBENCH)
_FIGURE = re.compile(r"^!\[\]\(images/(\d{1,6})\.jpg\)$", re.MULTILINE)
_TABLE = re.compile(r"<table\b.*?(?:</table>|\Z)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Document:
    """The pages of one file. base: its unique name; lines: the records of pages.jsonl."""

    base: str
    file: str
    lines: list[dict]

    @property
    def done(self) -> list[dict]:
        return [line for line in self.lines if line["state"] == "done"]


def documents(manifest: Manifest) -> Iterator[Document]:
    """The files in order, each with its pages; one file is in memory at a time."""
    for base, rows in groupby(manifest.records(), key=lambda row: row[0]):
        lines = [json.loads(line) for _, line in rows]
        yield Document(base, lines[0]["file"], lines)


def write_formats(out: Path, manifest: Manifest, formats: Sequence[str]) -> None:
    """Write every format of `formats`, names in FORMATS. Raises OSError if `out` cannot be written."""
    for name in formats:
        FORMATS[name](out, manifest)


def _markdown(out: Path, manifest: Manifest) -> None:
    for document in documents(manifest):
        parts = []
        for line in document.lines:
            if len(document.lines) > 1 or line["state"] == "failed":
                parts.append(_heading(line))
            if line["state"] == "done":
                parts.append(_page_markdown(out, line, up="../"))
        _write(out / DOCUMENTS / f"{document.base}.md", "\n\n".join(parts) + "\n")


def _heading(line: dict) -> str:
    """A comment that says where a page begins, or why it is missing."""
    text = f"page {line['page']}"
    if line["state"] == "failed":
        text += f" failed: {line['error']}"
    return f"<!-- {text.replace('-->', '- ->').replace('--!>', '- -!>')} -->"


def _page_markdown(out: Path, line: dict, up: str) -> str:
    """The markdown of a page; its figures are linked to where they are."""
    stored = stored_in(out / line["folder"]) or {"markdown": line["text"]}
    folder = quote(line["folder"])
    return _FIGURE.sub(rf"![]({up}{folder}/images/\1.jpg)", str(stored.get("markdown", line["text"]))).strip()


def _json(out: Path, manifest: Manifest) -> None:
    for document in documents(manifest):
        pages = []
        for line in document.lines:
            stored = (stored_in(out / line["folder"]) if line["state"] == "done" else None) or {}
            more = {name: stored[name] for name in ("markdown", "boxes", "tables") if name in stored}
            pages.append(line | more)
        write_json(out / DOCUMENTS / f"{document.base}.json", {"file": document.file, "pages": pages})


def _html(out: Path, manifest: Manifest) -> None:
    for document in documents(manifest):
        title = escape(Path(document.file).name)
        body = [f"<h1>{title}</h1>"]
        for line in document.lines:
            body.append(f'<section id="page-{line["page"]}"><h2>Page {line["page"]}</h2>')
            if line["state"] == "failed":
                body.append(f'<p class="failed">Not read: {escape(line["error"])}</p>')
            else:
                body.append(to_html(_page_markdown(out, line, up="../")))
            body.append("</section>")
        _write(out / DOCUMENTS / f"{document.base}.html", _PAGE.format(title=title, body="\n".join(body)))


_PAGE = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'">
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse }} td {{ border: 1px solid #999; padding: .2em .5em }}
img {{ max-width: 100% }} .failed {{ color: #b3261e }} p {{ white-space: pre-wrap }}
</style></head><body>
{body}
</body></html>
"""  # noqa: E501  # one policy, one line


def to_html(markdown: str) -> str:
    """The markdown of a page as HTML: headings, paragraphs, our figures and tables. All else is text."""
    parts, at = [], 0
    for match in _TABLE.finditer(markdown):
        parts.append(_blocks(markdown[at : match.start()]))
        parts += [_table(table) for table in tables(match.group())]
        at = match.end()
    return "\n".join([*parts, _blocks(markdown[at:])])


def _table(table: list[list[str]]) -> str:
    rows = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table)
    return f"<table>{''.join(rows)}</table>"


def _blocks(text: str) -> str:
    parts = []
    for block in re.split(r"\n\s*\n", text):
        if found := tables(block):
            parts += [_table(table) for table in found]
            continue
        for line in re.split(r"(^#{1,6} .*$|^!\[\]\([^()\s]*/images/\d+\.jpg\)$)", block.strip(), flags=re.M):
            if heading := re.fullmatch(r"(#{1,6}) (.*)", line):
                level = min(6, len(heading[1]) + 2)
                parts.append(f"<h{level}>{escape(heading[2])}</h{level}>")
            elif figure := re.fullmatch(r"!\[\]\((\.\./[^()\s]*/images/\d+\.jpg)\)", line):
                parts.append(f'<img src="{escape(figure[1])}" alt="figure">')
            elif line.strip():
                parts.append(f"<p>{escape(line.strip())}</p>")
    return "\n".join(parts)


def _csv(out: Path, manifest: Manifest) -> None:
    """Every table, as documents/<document>-p<page>-t<table>.csv."""
    for document in documents(manifest):
        for line in document.done:
            for path in sorted((out / line["folder"] / "tables").glob("*.csv")):
                target = out / DOCUMENTS / f"{document.base}-p{line['page']}-t{int(path.stem) + 1}.csv"
                write_atomically(target, path.read_bytes())


def _dolma(out: Path, manifest: Manifest) -> None:
    write_lines(out / DOLMA, (as_line(_dolma_line(each)) for each in documents(manifest) if each.done))


def _dolma_line(document: Document) -> dict:
    """One document in the format of Dolma: the text, and which characters are of which page."""
    text, spans = "", []
    for line in document.done:
        start = len(text)
        text += line["text"] + "\n"
        spans.append([start, len(text), line["page"]])
    today = time.strftime("%Y-%m-%d")
    return {
        "id": hashlib.sha1(text.encode("utf-8", "replace")).hexdigest(),
        "text": text,
        "source": "deskocr",
        "added": today,
        "created": today,
        "metadata": {
            "Source-File": document.file,
            "pdf-total-pages": len(document.lines),
            "total-output-tokens": sum(line["tokens"] for line in document.done),
            "failed-pages": [line["page"] for line in document.lines if line["state"] == "failed"],
        },
        "attributes": {"pdf_page_numbers": spans},
    }


def _omnidocbench(out: Path, manifest: Manifest) -> None:
    """One .md per picture, under the picture's name, as its evaluation expects; an empty one if it failed."""
    for document in documents(manifest):
        for line in document.lines:
            number = "" if line["page"] == 1 else f"-p{line['page']}"
            text = _page_markdown(out, line, up="../") if line["state"] == "done" else ""
            _write(out / OMNIDOCBENCH / f"{document.base}{number}.md", text + "\n")


#: {name: writer}. The first one is written unless others are chosen.
FORMATS: dict[str, Callable[[Path, Manifest], None]] = {
    "md": _markdown,
    "json": _json,
    "html": _html,
    "csv": _csv,
    "dolma": _dolma,
    "omnidocbench": _omnidocbench,
}


def _write(path: Path, text: str) -> None:
    write_atomically(path, text.encode("utf-8", "replace"))
