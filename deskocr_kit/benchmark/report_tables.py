"""The tables of a report, each as (title, head, rows of text)."""

from __future__ import annotations

from pathlib import Path

from .compare import compare_benchmarks, original
from .summary import CATEGORIES, PHASES

COUNTED = {
    "launches": "operators started",
    "syncs": "host waits",
    "h2d_bytes": "bytes, host to device",
    "d2h_bytes": "bytes, device to host",
    "fallbacks": "operators on the host's CPU",
    "ai_cpu": "operators on the card's AI CPU",
}


# ---------------------------------------------------------------------- formats
def ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.3g}" if seconds < 0.1 else f"{seconds * 1e3:,.0f}"


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:.3g}"


def rate(part: dict | None) -> str:
    """The text of a share, for example "3 of 16 (7-43 %)"."""
    if part is None:
        return ""
    low, high = (100 * x for x in part["interval_95"])
    return f"{part['count']} of {part['of']} ({low:.0f}-{high:.0f} %)"


def within(part: dict | None) -> str:
    return (
        ""
        if part is None
        else f"{part['value']:.3f} ({part['interval_95'][0]:.3f}-{part['interval_95'][1]:.3f})"
    )


# ---------------------------------------------------------------------- tables
Table = tuple[str, list[str], list[list[str]]]


def tables(result: dict) -> list[Table]:
    made = [accuracy(result)]
    if "counts" in result:
        made.insert(0, counts(result))
    if result.get("summary", {}).get("all", {}).get("runs"):
        made += [latency(result), phases(result)]
    optional = (throughput, memory, limits, kernels, operators, peer)
    return made + [table for each in optional if (table := each(result))]


def counts(result: dict) -> Table:
    phases, page = result["counts"]["phases"], result["counts"].get("page")
    parts = {f"per {name}" if name == "token" else name: part for name, part in phases.items()}
    if page:  # files of an earlier version have none
        parts[f"page of {page['new_tokens']} tokens"] = page
    rows = [
        [f"{key} ({what})", *(number(part[key]) for part in parts.values())] for key, what in COUNTED.items()
    ]
    return "Work of the device", ["", *parts], rows


def accuracy(result: dict) -> Table:
    head = ["pages", "", "CER (95 %)", "NED (95 %)", "success (95 %)", "loops", "truncated"]
    head += ["vision tokens", "new tokens"]
    rows = [
        [
            name,
            f"{row['pages']}, {CATEGORIES.get(name, 'all lengths')}",
            within(row["cer"]),
            within(row["ned"]),
            rate(row["success"]),
            rate(row["loops"]),
            rate(row["truncated"]),
            number(row["vision_tokens"]["mean"]) if row["vision_tokens"] else "",
            number(row["new_tokens"]["mean"]),
        ]
        for name, row in result.get("summary", {}).items()
    ]
    return "Accuracy by length", head, rows


def latency(result: dict) -> Table:
    def three(part):
        return " / ".join(ms(part[key]) for key in ("mean", "p50", "p99")) if part else ""

    head = ["pages", "runs", "TTFT ms", "TPOT ms", "ITL ms", "page ms", "characters/s", "tokens/s"]
    rows = [
        [
            name,
            str(row["runs"]),
            *(three(row[key]) for key in ("ttft", "tpot", "itl", "seconds_per_page")),
            number(row["characters_per_second"]),
            number(row["tokens_per_second"]),
        ]
        for name, row in result["summary"].items()
    ]
    return "Latency: mean / p50 / p99", head, rows


def phases(result: dict) -> Table:
    parts, load = result["summary"]["all"]["phases"], result["load"]["seconds"]
    rows = [["load (once)", ms(load), ""]]
    known = [name for name in PHASES if parts[name] is not None]  # an engine does not tell all
    if len(known) < len(PHASES):
        rows = [[name, ms(parts[name]["mean"]), ""] for name in known]
        return "Parts of a page that the client sees", ["part", "mean ms", ""], rows
    total = sum(parts[name]["mean"] for name in PHASES)
    rows += [[name, ms(parts[name]["mean"]), f"{parts[name]['mean'] / total:.1%}"] for name in PHASES]
    return "Phases of a page", ["phase", "mean ms", "share of the page"], rows


def throughput(result: dict) -> Table | None:
    found = result.get("throughput")
    if not found:
        return None
    rows = [
        ["requests at a time", number(found["concurrency"])],
        ["pages", number(found["pages"])],
        ["pages/s", number(found["pages_per_second"])],
        ["tokens/s", number(found["tokens_per_second"])],
    ]
    return "Throughput of the engine", ["what", "figure"], rows


def memory(result: dict) -> Table | None:
    if "memory" not in result:
        return None
    load, used = result["load"], result["memory"]
    rows = [["weights", number(load["weight_bytes"]), "1"]]
    for name, value in (
        ("peak while loading", load["peak_growth_bytes"]),
        ("peak while reading", used["peak_growth_bytes"]),
    ):
        if value is not None:
            rows.append([name, number(value), f"{value / load['weight_bytes']:.2f}"])
    return "Memory in addition to that in use before loading", ["", "bytes", "ratio to the weights"], rows


def limits(result: dict) -> Table | None:
    if "limits" not in result:
        return None
    found = result["limits"]
    rows = [["weights read per decoded token", f"{found['active_bytes_per_token']:,} bytes"]]
    if "read_bytes_per_second" in found:
        rows += [
            ["read bandwidth, measured in this run", f"{found['read_bytes_per_second'] / 1e9:.1f} GB/s"],
            ["matrix product, measured in this run", f"{found['flop_per_second'] / 1e9:,.0f} GFLOP/s"],
        ]
    if "bandwidth_share" in found:
        rows.append(["share of the bandwidth limit reached", f"{found['bandwidth_share']:.1%}"])
        if found["active_bytes_per_token"] < 64e6:
            rows.append(["remark", "these weights may fit in a cache; bandwidth is then not the limit"])
    return "Limits", ["what", "figure"], rows


def kernels(result: dict) -> Table | None:
    """The kernels of the plan, with their levels of evidence at the time of the run."""
    found = result.get("kernels")
    if not found:
        return None
    if "unavailable" in found:
        return "Kernels in this run", [""], [[found["unavailable"]]]
    return "Kernels in this run, and what is known about each", found["head"], found["rows"]


def operators(result: dict) -> Table | None:
    found = result.get("counts", {}).get("operators_per_token")
    if not found:
        return None
    waits = result["counts"]["syncs_per_token"]
    rows = [[name, number(n), "launches"] for name, n in found.items()]
    rows += [[where, number(n), "host waits"] for where, n in waits.items()]
    return "One decoded token, operator by operator", ["operator or line", "per token", "kind"], rows


def peer(result: dict) -> Table | None:
    found = result.get("peer")
    if not found:
        return None
    if "unavailable" in found:
        return "Comparison with transformers", [""], [[found["unavailable"]]]
    rows = [
        [
            name.upper() if name != "e2e" else "end to end",
            *(ms(part[side]["p50"]) if part[side] else "" for side in ("ours", "peer")),
            ratio(part),
            part["verdict"],
        ]
        for name, part in found["figures"].items()
    ]
    alike = found["tokens_alike"]
    rows.append(["equal tokens", f"{alike['count']} of {alike['of']}", "", "", ""])
    title = f"Comparison with {found['name']} (experts: {found['experts']}), in turns, same weights and pages"
    return title, ["p50", "ours ms", "theirs ms", "ours / theirs (95 %)", "ours is"], rows


def ratio(part: dict) -> str:
    if part["ratio"] is None:
        return ""
    return f"{part['ratio']:.2f} ({part['interval_95'][0]:.2f}-{part['interval_95'][1]:.2f})"


def comparison(name: str, old: dict, new: dict) -> Table:
    found = compare_benchmarks(old, new)
    rows = [[key, ratio(part), part["verdict"]] for key, part in found["times"].items()]
    if found["why_not"]:
        rows.append(["times", "", f"not comparable: {'; '.join(found['why_not'])}"])
    rows += [
        [f"{key} per {phase}", f"{number(before)} -> {number(after)}", word]
        for phase, parts in found["counts"].items()
        for key, (before, after, word) in parts.items()
        if before or after
    ]
    if found["differs"]:
        rows.append(["differs", ", ".join(found["differs"]), ""])
    return f"Comparison with {Path(name).name}", ["", "new / old (95 %), or old -> new", "verdict"], rows


def published() -> tuple[Table, str]:
    """The figures of the original project, and the line that must follow them."""
    found = original()
    rows = [[each["what"], each["value"], each["remark"]] for each in found["figures"]]
    note = (
        f"{found['device']}. Source: {found['source']}. The device and the checkpoint differ from "
        "those above, so no ratio is stated."
    )
    return (f"Published by {found['name']}", ["what", "figure", "remark"], rows), note


def stamp(result: dict) -> list[list[str]]:
    """The environment and the method as rows of [name, value]."""
    rows = []

    def walk(prefix, value):
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix} {key}".strip(), inner)
        else:
            rows.append([prefix, "" if value is None else str(value)])

    walk("", {key: result[key] for key in ("stamp", "method") if key in result})
    return rows
