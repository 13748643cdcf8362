"""Read a benchmark's pages in one or several modes, keep the predictions, and score them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean

from model.files import write_atomically, write_json
from model.images import load_image
from model.results import to_markdown

from ..device.dtypes import dtype_name
from ..display.table import text_table
from .benchmarks import BenchmarkPage, published
from .text_blocks import METRIC, collapsed, score_page

BUCKET = 100  # text tokens, as in the paper


def read_benchmark(
    reader,
    pages: Sequence[BenchmarkPage],
    modes: Iterable[str | None],
    out: str | Path,
    kind: str,
    prompt: str = "free",
    max_tokens: int | None = None,
    progress: Callable = lambda pages: pages,
    keep: bool = False,
) -> dict:
    """Read every page in every mode; write OUT/<mode>/<picture>.md, write and return OUT/evaluation.json.

    Args:
        reader: a reading.reader.Reader.
        modes: names of modes; None: the checkpoint's own.
        kind: "omnidocbench" or "fox", which decides what is put beside the result.
        keep: take predictions that are already in OUT instead of reading the page again.

    A page that cannot be read counts as an empty prediction, and the record names it.
    """
    out = Path(out)
    record: dict = {
        "benchmark": kind,
        "metric": METRIC,
        "checkpoint": reader.name,
        "device": str(reader.model.device),
        "dtype": dtype_name(reader.model.dtype),
        "prompt": prompt,
        "pages": len(pages),
        "modes": {},
        "published": published()[kind]["source"],
    }
    for mode in modes:
        name = mode or reader.settings.get("mode") or "default"
        rows = [_row(reader, page, mode, out / name, prompt, max_tokens, keep) for page in progress(pages)]
        record["modes"][name] = _omnidocbench(rows, name) if kind == "omnidocbench" else _fox(rows, name)
        record["modes"][name]["failed"] = [row["error"] for row in rows if row["error"]]
        record["modes"][name]["truncated"] = sum(row["truncated"] for row in rows)
    write_json(out / "evaluation.json", record)
    return record


def _row(reader, page: BenchmarkPage, mode, folder: Path, prompt, max_tokens, keep: bool) -> dict:
    file = folder / f"{page.picture.stem}.md"
    error, truncated, vision = "", False, None
    if keep and file.is_file():
        text = file.read_text(encoding="utf-8", errors="replace")
    else:
        text = ""
        try:
            reading = reader.read(load_image(page.picture), prompt, mode=mode, max_new_tokens=max_tokens)
            text, truncated, vision = to_markdown(reading.text), reading.truncated, reading.image_tokens
        except (ValueError, OSError) as problem:
            error = f"{page.picture.name}: {problem}"
        write_atomically(file, text.encode("utf-8", "replace"))
    truth = " ".join(page.truth)
    return {
        "score": score_page(text, page.truth),
        "language": page.language,
        "text_tokens": len(reader.tokenizer.encode(collapsed(truth), add_special_tokens=False)),
        "vision_tokens": vision,
        "error": error,
        "truncated": truncated,
    }


def _summary(rows: list[dict]) -> dict:
    blocks = [ned for row in rows for ned in row["score"].blocks]
    return {
        "pages": len(rows),
        "blocks": len(blocks),
        "ned_text_blocks": round(fmean(blocks), 5) if blocks else None,
        "ned_page": round(fmean(row["score"].page for row in rows), 5) if rows else None,
    }


def _omnidocbench(rows: list[dict], mode: str) -> dict:
    by_language = defaultdict(list)
    for row in rows:
        by_language[row["language"] or "not stated"].append(row)
    return {
        **_summary(rows),
        "by_language": {name: _summary(group) for name, group in sorted(by_language.items())},
        "paper": published()["omnidocbench"]["text"].get(mode),
    }


def _fox(rows: list[dict], mode: str) -> dict:
    """By bucket of the true text's tokens; accuracy is 1 - NED of the page."""
    buckets = defaultdict(list)
    for row in rows:
        buckets[row["text_tokens"] // BUCKET * BUCKET].append(row)
    paper = {row["low"]: row.get(mode) for row in published()["fox"]["rows"]}
    made = []
    for low, group in sorted(buckets.items()):
        seen = [row["text_tokens"] / row["vision_tokens"] for row in group if row["vision_tokens"]]
        made.append(
            {
                "low": low,
                "high": low + BUCKET,
                "pages": len(group),
                "accuracy": round(1 - fmean(row["score"].page for row in group), 5),
                "compression": round(fmean(seen), 2) if seen else None,
                "paper": paper.get(low),
            }
        )
    return {**_summary(rows), "buckets": made}


def benchmark_text(record: dict) -> str:
    """The record as text."""
    lines: list[str] = []
    head: tuple[str, ...]
    if record["benchmark"] == "omnidocbench":
        head = ("mode", "language", "pages", "blocks", "block NED", "page NED", "paper, text (other metric)")
        rows = []
        for mode, found in record["modes"].items():
            paper = found["paper"] or {}
            for language, each in (("all", found), *found["by_language"].items()):
                same = (str(ned) for name, ned in paper.items() if language.lower().startswith(name))
                beside = next(same, "-")
                counts = [str(each["pages"]), str(each["blocks"])]
                scores = [_figure(each["ned_text_blocks"]), _figure(each["ned_page"])]
                rows.append([mode, language, *counts, *scores, beside])
        lines.append(text_table(head, rows))
    else:
        head = (
            "mode",
            "text tokens",
            "pages",
            "1 - page NED",
            "compression",
            "paper: precision, compression",
        )
        rows = []
        for mode, found in record["modes"].items():
            for each in found["buckets"]:
                paper = each["paper"]
                beside = f"{paper['precision']:.1%}, {paper['compression']}" if paper else "-"
                shown = "-" if each["compression"] is None else f"{each['compression']:.1f}"
                rows.append([mode, f"{each['low']}-{each['high']}", str(each["pages"]),
                             f"{each['accuracy']:.1%}", shown, beside])  # fmt: skip
        lines.append(text_table(head, rows))
    for mode, found in record["modes"].items():
        lines += [f"{mode}: failed: {problem}" for problem in found["failed"]]
        if found["truncated"]:
            lines.append(f"{mode}: {found['truncated']} pages were cut off at the token limit")
    read = f"{record['checkpoint']} on {record['device']}, {record['dtype']}, prompt {record['prompt']}"
    return "\n".join([*lines, f"read with {read}", record["metric"], f"paper: {record['published']}"])


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
