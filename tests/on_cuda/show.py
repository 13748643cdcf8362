"""The result as text."""

from __future__ import annotations

from deskocr_kit.display.table import text_table

from .budget import DONE, DROPPED

# The aim at batch 1 on an H200-class card: tokens/s, and the ratio to transformers eager.
AIM_RATE, AIM_GAIN = 600, 10


def part_text(record: dict) -> str:
    """One part: a heading, its rows as a table, and why it did not run."""
    lines = [f"{record['name']}: {record['state']}, {record['seconds']:.0f} s"]
    if record["why"]:
        lines.append(f"  {record['why']}")
    for rows in _alike(record["rows"]):
        keys = sorted(rows[0], key=lambda key: key == "why")  # the longest text last
        head = [key for key in keys if any(row.get(key) not in ("", None, []) for row in rows)]
        cells = [[_cell(key, row.get(key)) for key in head] for row in rows]
        lines.append(text_table(head, cells, indent="  "))
    return "\n".join(lines)


def _alike(rows: list[dict]) -> list[list[dict]]:
    """Neighbours with the same first key share a table."""
    groups: list[list[dict]] = []
    for row in rows:
        if groups and next(iter(groups[-1][0])) == next(iter(row)) and set(groups[-1][0]) & set(row) != set():
            groups[-1].append(row)
        else:
            groups.append([row])
    for group in groups:
        keys = list(dict.fromkeys(key for row in group for key in row))
        group[0] = {key: group[0].get(key) for key in keys}
    return groups


def _cell(key: str, value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, float):
        if key in ("ttft", "tpot", "recording"):
            return f"{value * 1e3:.2f} ms"
        return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
    return str(value)


def gains(records: list[dict]) -> list[str]:
    """The ratios to transformers eager at batch 1, and whether the aim of an H200-class card is reached."""
    found = {
        row["form"]: row["tokens_per_second"]
        for record in records
        for row in record["rows"]
        if row.get("batch") == 1 and row.get("tokens_per_second")
    }
    base, best = found.get("transformers, eager"), found.get("kernels with a graph")
    lines = []
    if base and best:
        word = "reached" if best / base >= AIM_GAIN and best >= AIM_RATE else "missed"
        lines.append(
            f"batch 1: {best:,.0f} tokens/s with kernels and a graph, {best / base:.1f} times transformers "
            f"eager; aim on an H200-class card: {AIM_RATE} tokens/s and {AIM_GAIN} times: {word}"
        )
    return lines


def summary(records: list[dict]) -> str:
    """The last lines: the gain, what was dropped, what failed."""
    lines = gains(records)
    dropped = [record["name"] for record in records if record["state"] == DROPPED]
    wrong = [record["name"] for record in records if record["state"] not in (DONE, DROPPED)]
    if dropped:
        lines.append(f"dropped, because the time was over: {', '.join(dropped)}")
    lines.append(f"failed: {', '.join(wrong)}" if wrong else "nothing failed")
    return "\n".join(lines)
