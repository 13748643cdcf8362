"""Reports from one bench.json: text, report.md and report.html.

This module measures nothing, and the same input gives the same report. The text of a model is data: the
template escapes it, and it is never part of a file name.
"""

from __future__ import annotations

from pathlib import Path

from ..display.markdown import harmless
from ..display.table import markdown_table, text_table
from . import report_figures
from .report_tables import Table, comparison, published, stamp, tables

TEMPLATE = Path(__file__).with_name("report.html.j2")
SIMULATED = (
    "SIMULATED NPU: the operators were counted while the host's CPU computed them. "
    "No time and no value in this report comes from an NPU."
)

GRAPH = (
    "The decode step was recorded as a graph at the second token of every page, and replayed for the others. "
    "Recording it is part of the decode time. The work of a token is that of the step without a graph: "
    "the device does the same, and the host starts it with one call."
)


def report_heading(result: dict) -> str:
    """One line with the checkpoint, the device, the dtype, and whether the device is simulated."""
    if "stamp" not in result:
        return "benchmark stopped before the first page"
    stamp = result["stamp"]
    device = stamp["device"]
    kind = f"simulated NPU, profile {device['profile']}" if result["simulated"] else device["device"]
    processor = stamp["machine"]["processor"]
    where = kind if device["device"] != "cpu" else f"CPU ({processor}, {stamp['threads']} thread(s))"
    if device["device"] not in ("cpu",) and not result["simulated"]:
        where = f"{device['name']} ({device['device']})"
    checkpoint = stamp["checkpoint"]
    kind = checkpoint.get("weights", "plain")  # absent before --weights existed
    rounded = "" if kind == "plain" else f", {kind} weights"
    if "engine" in result:
        return f"{checkpoint['name']}, served by {device['name']}"
    graph = ", decoding by a graph" if result.get("method", {}).get("graph") else ""
    return f"{checkpoint['name']} on {where}, {checkpoint['dtype']}{rounded}{graph}"


def warnings(result: dict) -> list[str]:
    """The warnings at the top of the report: simulated, partial, nano, changed files, a shared processor."""
    found = [SIMULATED] if result.get("simulated") else []
    if not result["complete"]:
        stopped = result["stopped"] or "not finished"
        found.append(f"PARTIAL: {stopped}; the report contains only what was measured until then.")
    if "stamp" not in result:
        return found
    found += result.get("engine", {}).get("warnings", [])
    if result["stamp"]["checkpoint"]["name"] == "nano":
        found.append(
            "nano is a teaching checkpoint of 5 M parameters: no figure in this report applies to the "
            "official weights of DeepSeek-OCR. Its pages (512 x 512 pixels) cannot contain 500 characters or "
            'more, so the categories "between" and "long" are empty.'
        )
    if result["stamp"]["kit"]["changed"]:
        found.append("The files of the kit differed from the commit that is named below.")
    if result.get("method", {}).get("graph"):
        found.append(GRAPH)
    whole = result.get("summary", {}).get("all", {})
    if result["stamp"]["device"]["device"] == "cpu" and (whole.get("cpu_share") or 1) < 0.9:
        found.append(
            f"Other programs used the processor: this process had it for {whole['cpu_share']:.0%} of the "
            "time, so wall-clock times are longer than on an idle machine. The counts are not affected."
        )
    return found


# ---------------------------------------------------------------------- text
def plain(table: Table) -> str:
    title, head, rows = table
    return "\n".join([title, text_table(head, rows, indent="  "), ""])


def text(result: dict) -> str:
    return "\n".join([report_heading(result), *warnings(result), "", *map(plain, tables(result))])


def comparison_text(name: str, old: dict, new: dict) -> str:
    return plain(comparison(name, old, new))


def original_text() -> str:
    table, note = published()
    return f"{plain(table)}{note}\n"


def markdown_section(table: Table) -> list[str]:
    title, head, rows = table
    return [f"## {title}", "", *markdown_table(head, rows), ""]


def markdown(result: dict, figures: dict[str, str], more: list[Table], note: str) -> str:
    """figures: {file name: caption}. The names in `result` may be anything; the captions are ours."""
    lines = [f"# {report_heading(result)}", ""]
    lines += [f"> **{line}**\n" for line in warnings(result)]
    if "stamp" in result:
        lines += [f"Made by `{result['stamp']['command']}`, then `deskocr report`. Do not edit.", ""]
        lines += [
            f"Success: {result['method']['success_means']}. "
            f"Normalisation of the text for CER: {result['method']['normalisation']}.",
            "",
        ]
    above = harmless("\n".join(lines))
    drawn = [f"![{caption}]({name})\n\n{caption}\n" for name, caption in figures.items()]
    lines = []
    for table in (*tables(result), *more):
        lines += markdown_section(table)
    lines += [note, ""] if note else []
    lines += markdown_section(("How to repeat it", ["", ""], stamp(result)))
    return "\n".join([above, *drawn, harmless("\n".join(lines))])


def html(result: dict, figures: dict[str, tuple[str, str]], more: list[Table], note: str) -> str:
    """One HTML file that loads nothing from elsewhere. figures: {name: (svg, caption)}."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    texts = [page for page in result["pages"] if "text" in page]
    return template.render(
        heading=report_heading(result), warnings=warnings(result), result=result,
        tables=[*tables(result), *more], note=note, figures=figures, stamp=stamp(result), texts=texts,
    )  # fmt: skip


def save(result: dict, folder: Path, earlier=(), with_original: bool = False) -> list[Path]:
    """Write report.md, report.html and the figures (SVG); return the paths of the two reports."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = report_figures.figures(result)
    more = [comparison(name, old, result) for name, old in earlier]
    note = ""
    if with_original:
        table, note = published()
        more.append(table)
    for name, (svg, _) in drawn.items():
        (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    paths = [folder / "report.md", folder / "report.html"]
    captions = {f"{name}.svg": caption for name, (_, caption) in drawn.items()}
    paths[0].write_text(markdown(result, captions, more, note), encoding="utf-8")
    paths[1].write_text(html(result, drawn, more, note), encoding="utf-8")
    return paths
