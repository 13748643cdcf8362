"""The report of one accepted bundle: reports/<device>-<checkpoint>/."""

from __future__ import annotations

import json
from pathlib import Path

from model.files import write_atomically, write_json
from model.untrusted import UntrustedFile, read_json_object

from ..benchmark import report as bench_report
from ..claims.measured import decided
from ..display.printable import printable
from ..display.table import markdown_table
from ..kernel_evidence.on_device import LEVELS, proved_record
from .check import Bundle

PAGE, RECORD = "evidence.md", "evidence.json"
#: Files of a bundle that are copied as they are. Texts of others are not: a report is made by this code only.
COPIED = (
    "bench.json",
    "operators.json",
    "plan.json",
    "kernels.json",
    "trace.json",
    "claims.json",
    "weights.json",
)
SHOWN = 12


def summary_of(bundle: Bundle, remarks: list[str]) -> dict:
    """The entry of a bundle in the ledger: what it is of, its figures and outcomes."""
    manifest, bench, trace = bundle.manifest, bundle.json("bench.json"), bundle.json("trace.json")
    claims = bundle.json("claims.json") or {"claims": []}
    keys = ("id", "outcome", "evidence", "device")
    return {
        "folder": bundle.folder,
        "device": manifest["device"]["name"],
        "kind": manifest["label"],
        "checkpoint": manifest["checkpoint"]["name"],
        "parameters": manifest["checkpoint"]["parameters"],
        "created": manifest["created"],
        "commit": manifest["kit"]["commit"],
        "versions": {**manifest["versions"], "cann": manifest["device"].get("cann")},
        "sha256": bundle.sha256,
        "steps": {name: step["status"] for name, step in manifest["steps"].items()},
        "figures": {**_bench_figures(bench), **_trace_figures(trace)},
        "kernels": ran[0] if (ran := kernels_of(bundle)) else None,
        "claims": [{key: row[key] for key in keys} for row in claims["claims"] if decided(row)],
        "remarks": remarks,
    }


def kernels_of(bundle: Bundle) -> tuple[str, dict] | None:
    """(level, record) of the kernels of this version that the device compiled and ran, if it did."""
    level = LEVELS.get(bundle.manifest["label"])
    record = proved_record(bundle.json("operators.json") or {}) if level else None
    return (level, record) if level and record else None


def _bench_figures(bench: dict | None) -> dict:
    if bench is None:
        return {}
    every, token = bench["summary"]["all"], bench["counts"]["phases"]["token"]
    p50 = lambda name: (every.get(name) or {}).get("p50")  # noqa: E731
    return {
        "ttft_s": p50("ttft"),
        "tpot_s": p50("tpot"),
        "seconds_per_page": p50("seconds_per_page"),
        "launches_per_token": token["launches"],
        "syncs_per_token": token["syncs"],
        "bandwidth_share": bench["limits"].get("bandwidth_share"),
        "cer": (every.get("cer") or {}).get("value"),
    }


def _trace_figures(trace: dict | None) -> dict:
    if trace is None:
        return {}
    return {
        "profile_kernels": trace["kernels"],
        "profile_device_us": trace["device_us"],
        "profile_idle_us": trace["idle_us"],
        "ai_cpu_kernels": trace["ai_cpu"]["count"],
    }


def render(bundle: Bundle, summary: dict, reports: Path) -> tuple[Path, list[str]]:
    """Write the report; returns its folder and remarks about files that were left as they are.

    A file that is there and was not written by an earlier bundle stays: it is somebody's measurement.
    """
    folder = reports / bundle.folder
    ours = _written_before(folder)
    wanted: dict[str, bytes] = {name: bundle.files[name] for name in COPIED if name in bundle.files}
    kept = [name for name in wanted if (folder / name).exists() and name not in ours]
    written = [name for name in wanted if name not in kept]
    for name in written:
        write_atomically(folder / name, wanted[name])
    if "bench.json" in written and (not (folder / "report.md").exists() or "report.md" in ours):
        made = bench_report.save(bundle.json("bench.json"), folder)
        written += [path.name for path in made]
    elif "bench.json" in kept and "bench.json" in bundle.files:
        write_atomically(folder / "evidence_bench.json", bundle.files["bench.json"])
        written.append("evidence_bench.json")
    write_atomically(folder / PAGE, page(bundle, summary).encode("utf-8"))
    write_json(
        folder / RECORD, {"manifest": bundle.manifest, "bundle_sha256": bundle.sha256, "written": written}
    )
    return folder, [f"{folder.name}/{name} was there before and was kept" for name in kept]


def _written_before(folder: Path) -> set[str]:
    try:
        return set(read_json_object(folder / RECORD)["written"])
    except (OSError, UntrustedFile, KeyError, TypeError):
        return set()


def page(bundle: Bundle, summary: dict) -> str:
    """The Markdown of evidence.md."""
    manifest = bundle.manifest
    versions = ", ".join(f"{name} {text}" for name, text in summary["versions"].items() if text)
    lines = [
        f"# Evidence from {_plain(summary['device'])}, {_plain(summary['checkpoint'])}",
        "",
        f"Collected by `deskocr evidence` on {_plain(manifest['created'])}, checked and rendered by "
        "`deskocr evidence add`; do not edit.",
        "",
        f"Software: {_plain(versions)}. Commit of the kit: {_plain(str(summary['commit']))}. "
        f"SHA-256 of the bundle: `{bundle.sha256}`.",
        "",
    ]
    if summary["kind"] == "cpu":
        lines += ["This device is a CPU: no figure here is that of an NPU.", ""]
    lines += ["## Figures", "", *_table(("figure", "value"), _figures(summary["figures"]))]
    steps = [
        [name, step["status"], f"{step['seconds']:.0f} s", step["reason"]]
        for name, step in manifest["steps"].items()
    ]
    lines += ["## Steps", "", *_table(("step", "status", "time", "reason"), steps)]
    lines += _trace(bundle.json("trace.json")) + _kernels(bundle.json("kernels.json"))
    outcomes = [[row["outcome"], row["id"], row["evidence"]] for row in summary["claims"]]
    if outcomes:
        lines += ["## Claims decided on this device", "", *_table(("outcome", "claim", "evidence"), outcomes)]
    notebooks = bundle.json("notebooks.json") or {}
    if notebooks:
        lines += [
            "## Notebooks",
            "",
            *_table(("notebook", "outcome"), [[k, str(v)] for k, v in notebooks.items()]),
        ]
    if summary["remarks"]:
        lines += ["## Remarks", "", *(f"* {_plain(remark)}" for remark in summary["remarks"]), ""]
    return "\n".join(lines)


#: {figure of the ledger: (words, unit, factor)}.
LABELS = {
    "ttft_s": ("time to the first token, p50", "ms", 1e3),
    "tpot_s": ("time per further token, p50", "ms", 1e3),
    "seconds_per_page": ("time per page, p50", "s", 1),
    "launches_per_token": ("launches per decoded token", "", 1),
    "syncs_per_token": ("host waits per decoded token", "", 1),
    "bandwidth_share": ("share of the bandwidth limit reached", "%", 100),
    "cer": ("character error rate of the drawn pages", "%", 100),
    "profile_kernels": ("kernels in the profile of one page", "", 1),
    "profile_device_us": ("their time, overlaps counted twice", "ms", 1e-3),
    "profile_idle_us": ("idle time in that profile", "ms", 1e-3),
    "ai_cpu_kernels": ("kernels on the AI CPU", "", 1),
}


def _figures(figures: dict) -> list[list[str]]:
    rows = []
    for name, (words, unit, factor) in LABELS.items():
        if (value := figures.get(name)) is not None:
            rows.append([words, f"{value * factor:.4g} {unit}".strip()])
    return rows


def _trace(trace: dict | None) -> list[str]:
    if trace is None:
        return []
    rows = [
        [row["type"], row.get("core", ""), str(row["count"]), "" if row["us"] is None else f"{row['us']:.1f}"]
        for row in trace["by_type"][:SHOWN]
    ]
    return ["## Profile of one page", "", *_table(("type", "core", "count", "us"), rows)]


def _kernels(kernels: dict | None) -> list[str]:
    if kernels is None:
        return []
    rows = [
        [row["operator"], str(row["calls"]), row["installed"], row["published"]]
        for row in kernels["operators"]
        if row["installed"] == "none" or row["published"] not in ("kernel", "transfer", "composite")
    ]
    head = ("operator", "calls", "installed here", f"published torch_npu {kernels['published_wheel']}")
    return ["## Operators without a kernel, or with a slow one", "", *_table(head, rows)] if rows else []


def _table(head: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    return [*markdown_table(head, [[_plain(str(cell)) for cell in row] for row in rows]), ""]


def _plain(text: str) -> str:
    """Text of a stranger inside Markdown: one line, no HTML, no links."""
    text = printable(text.replace("\n", " "), 500)
    for sign, instead in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("[", "\\["),
        ("]", "\\]"),
        ("`", "'"),
    ):
        text = text.replace(sign, instead)
    return text


def stored_ledger(reports: Path) -> list[dict]:
    """The entries of reports/evidence.json, or none. Raises ValueError for a file of another form."""
    file = reports / RECORD
    try:
        return list(read_json_object(file)["bundles"])
    except FileNotFoundError:
        return []
    except (OSError, UntrustedFile, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: not the ledger of evidence ({error})") from None
