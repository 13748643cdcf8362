"""`deskocr evidence add`: update the reports, the claims and the README's table from an accepted bundle."""

from __future__ import annotations

import re
from pathlib import Path

from model.files import write_atomically, write_json
from model.official import DEEPSEEK_OCR

from ..claims.measured import with_section
from ..display.table import markdown_table
from ..prediction.chips import names
from ..prediction.measured import FILE, store
from ..traces.calibration import calibration
from ..traces.forms import read_table
from ..traces.kernels import TraceError
from .check import Bundle, read_bundle
from .consistency import check_bundle
from .report import PAGE, RECORD, _plain, kernels_of, render, stored_ledger, summary_of

CLAIMS = "claims.md"
READMES = ("README.md", "README.zh-CN.md")
MEASURED, CHIPS, KERNELS = "measured", FILE.name, "profile/kernel_details.csv"
#: {what a bundle shows: the beginning of its rows in the tables of the READMEs}
ROWS = {
    "npu": ("Ascend 910B with CANN", "带 CANN 的昇腾 910B"),
    "cuda": ("CUDA, MPS", "CUDA、MPS"),
    "official": ("official weights", "官方权重"),
    "compiled": ("kernels compiled for a CUDA card", "为 CUDA 卡编译的核函数"),
    "run": ("kernels run on an NPU", "在 NPU 上运行的核函数"),
}
KERNEL_RECORDS = Path("deskocr_kit") / "kernel_evidence" / "data"
ABOUT = "Evidence from devices, as accepted by `deskocr evidence add`: one entry per device and checkpoint."


def add(file: str | Path, root: Path, reports: Path | None = None) -> list[str]:
    """Check a bundle and add it; returns lines that say what was written.

    Args:
        file: the zip.
        root: the repository, where the READMEs are.
        reports: the folder of reports; default: root/reports.

    Raises:
        BundleError: the bundle is refused, with the reason; nothing is written.
        OSError, ValueError: a file of the repository cannot be read or written.
    """
    reports = reports or root / "reports"
    bundle = read_bundle(file)
    remarks = check_bundle(bundle)
    entries = stored_ledger(reports)
    summary = summary_of(bundle, remarks)
    folder, kept = render(bundle, summary, reports)
    entries = [each for each in entries if each["folder"] != bundle.folder] + [summary]
    entries.sort(key=lambda each: each["folder"])
    write_json(reports / RECORD, {"about": ABOUT, "bundles": entries})
    write_atomically(reports / PAGE, ledger_page(entries).encode("utf-8"))
    lines = [
        f"wrote {folder / PAGE}",
        f"wrote {reports / PAGE}",
        *(f"note: {each}" for each in (*remarks, *kept)),
    ]
    if (record := kernel_record(bundle, root)) is not None:
        lines.append(f"wrote {record}: what `deskocr kernels` shows")
    if (chip := calibrated(bundle, reports)) is not None:
        lines.append(f"measured launch cost or bandwidth of {chip}: {reports / CHIPS}")
    if (reports / CLAIMS).is_file():
        page = (reports / CLAIMS).read_text(encoding="utf-8")
        write_atomically(reports / CLAIMS, with_section(page, reports).encode("utf-8"))
        lines.append(f"updated {reports / CLAIMS}")
    for name in READMES:
        if (root / name).is_file():
            before = (root / name).read_text(encoding="utf-8")
            after = with_row(before, summary)
            if after != before:
                write_atomically(root / name, after.encode("utf-8"))
                lines.append(f"updated the table of {root / name}")
    return lines


def calibrated(bundle: Bundle, reports: Path) -> str | None:
    """Store what the profile measured on a known chip; returns the name of the chip, or None."""
    device = bundle.manifest["device"]["name"].lower()
    chip = next((name for name in names() if name.lower() in device), None)
    if chip is None or KERNELS not in bundle.files:
        return None
    try:
        trace = read_table(bundle.files[KERNELS].decode("utf-8", "replace"), KERNELS)
        trace.about = {"cann_version": bundle.manifest["device"].get("cann")}
        store(calibration(trace, chip), reports / CHIPS)
    except TraceError:  # too few gaps between kernels, or no shapes
        return None
    return chip


def kernel_record(bundle: Bundle, root: Path) -> Path | None:
    """Store what a card or an NPU did with the kernels of this version; returns the file, or None."""
    found = kernels_of(bundle)
    if found is None or not (root / KERNEL_RECORDS).is_dir():
        return None
    level, record = found
    return write_json(root / KERNEL_RECORDS / f"{level}.json", record)


def ledger_page(entries: list[dict]) -> str:
    """reports/evidence.md: one row per bundle."""
    rows = []
    for each in entries:
        done = [name for name, status in each["steps"].items() if status == "done"]
        figures = each["figures"]
        tpot = figures.get("tpot_s")
        measured = [f"{row['id']} {row['outcome']}" for row in each["claims"]]
        rows.append(
            [
                f"[{each['folder']}]({each['folder']}/{PAGE})",
                _plain(each["device"]),
                _plain(each["created"][:10]),
                (each["commit"] or "unknown")[:12],
                f"{len(done)} of {len(each['steps'])}",
                "-" if tpot is None else f"{tpot * 1e3:.3g} ms",
                f"{figures['launches_per_token']:g}"
                if figures.get("launches_per_token") is not None
                else "-",
                "; ".join(measured) or "-",
            ]
        )
    head = ("report", "device", "date", "commit", "steps", "TPOT, p50", "launches per token", "claims")
    lines = [
        "# Evidence",
        "",
        ABOUT + " Generated; do not edit. A row of a CPU is a rehearsal: it says nothing about an NPU.",
        "",
        *markdown_table(head, rows),
        "",
        "To add yours: `deskocr evidence --device npu --checkpoint deepseek-ocr`; send the zip in an issue.",
        "",
    ]
    return "\n".join(lines)


def with_row(readme: str, summary: dict) -> str:
    """The README with a link to this bundle in its table. A bundle of a CPU changes nothing."""
    shown = [summary["kind"], *([summary["kernels"]] if summary.get("kernels") else [])]
    if summary["parameters"] == DEEPSEEK_OCR.parameters and summary["kind"] != "cpu":
        shown.append("official")
    wanted = tuple(word for name in shown for word in ROWS.get(name, ()))
    link = f"[{_plain(summary['device'])}, {summary['created'][:10]}](reports/{summary['folder']}/{PAGE})"
    lines = readme.split("\n")
    for i, line in enumerate(lines):
        cells = re.split(r"(?<!\\)\|", line)
        if len(cells) != 5 or not line.startswith("| "):
            continue
        if cells[1].strip().startswith(wanted) and cells[2].strip() in ("not run", MEASURED):
            folder = re.escape(f"reports/{summary['folder']}/{PAGE}")
            rest = re.sub(rf"[;；] \[[^\[\]]*\]\({folder}\)", "", cells[3].rstrip())
            lines[i] = "|".join([cells[0], cells[1], f" {MEASURED} ", f"{rest}; {link} ", cells[4]])
    return "\n".join(lines)
