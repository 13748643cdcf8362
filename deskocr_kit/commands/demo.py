"""`deskocr demo`: read the sample pages that ship with nano and compare with the true text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..reading.options import ReadingOptions
from .options import takes
from .terminal import check_folder, note


@takes(ReadingOptions, without=("prompt", "target", "password"), model="nano")
def demo(
    options: ReadingOptions,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for text, boxes and pictures.")] = Path(
        "out"
    ),
) -> None:
    """Read the sample pages; print text, true text and character error rate."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from model.results import write_results

    from ..batch.gallery import write_gallery
    from ..display.progress import bar
    from ..reading.doubt import one_line
    from ..reading.page_record import page_record
    from ..reading.pages import iter_pages
    from ..reading.reader import Reader
    from ..reading.sample_pages import sample_pages
    from ..reading.text_distance import cer, edits

    check_folder(out)
    reader = Reader.load(options)
    samples = sample_pages()
    table = Table(
        "page",
        "read",
        "truth",
        "CER",
        "confidence",
        title=f"{reader.name} on {reader.model.device}",
        show_lines=True,
    )
    wrong, length, boxes, lines = 0, 0, replace(options, prompt="ocr"), []
    with bar(total=len(samples), unit="page") as progress:
        for path, truth in samples:
            page = next(iter(iter_pages(path)))
            reading = reader.read(page.image, options=replace(options, prompt="free"))
            boxed = reader.read(page.image, options=boxes)
            folder = out / path.stem
            record = page_record(page, boxed, reader, boxes)
            if warnings := reader.doubts(page.image, reading, options=replace(options, prompt="free")):
                progress.write(one_line(page.file, page.number, warnings))
            both = {"free_text": reading.text, "truth": truth}
            write_results(folder, page.image, boxed.text, extra=record | both, scores=boxed.scores)
            (folder / "text.txt").write_text(reading.text + "\n", encoding="utf-8")
            lines.append(gallery_line(path, reading, warnings, truth))
            distance, characters = edits(reading.text, truth)
            wrong, length = wrong + distance, length + characters
            table.add_row(
                path.name,
                Text(reading.text),
                Text(truth.strip()),
                f"{cer(reading.text, truth):.3f}",
                "" if reading.confidence is None else f"{reading.confidence:.2f}",
            )
            progress.update()
    Console().print(table)
    print(f"CER over all pages: {wrong / max(1, length):.4f} ({wrong} edits in {length} characters)")
    gallery = write_gallery(
        out, lines, {"done": len(lines)}, title=f"The sample pages, as {reader.name} reads them"
    )
    first = out / samples[0][0].stem
    print(
        f"results in {out}/: per page text.txt, and result.json with the boxes\n"
        f"boxes drawn on the page: {first}/result_with_boxes.jpg"
    )
    if reader.name == "nano":
        note(NANO)
    print(f"all pages beside their texts, in a browser: {gallery}")


NANO = """
nano is for testing and teaching only. It reads printed Latin text, up to 7 lines on a page
of 512 x 512 pixels. It does not read tables, figures, handwriting, dense pages or
other scripts: see model/nano/README.md.
The official weights are made for documents of all kinds. They have 6.7 GB and belong into this folder:
  hf download deepseek-ai/DeepSeek-OCR --exclude "*.py" --local-dir model/deepseek-ocr
  deskocr weights check deepseek-ocr      # complete? model/README.md has more ways to get them
"""


def gallery_line(path: Path, reading, warnings: list[str], truth: str) -> dict:
    """The record of a sample page for the gallery, as in the pages.jsonl of a batch."""
    return {
        "file": path.name,
        "page": 1,
        "state": "done",
        "text": reading.text,
        "tokens": len(reading.ids),
        "seconds": round(reading.seconds, 3),
        "truncated": reading.truncated,
        "confidence": reading.confidence,
        "warnings": warnings,
        "attempts": 1,
        "folder": path.stem,
        "truth": truth.strip(),
    }
