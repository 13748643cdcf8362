"""The outcomes of claims that others measured on their devices, as a section of reports/claims.md.

They come from reports/evidence.json, which `deskocr evidence add` writes.
"""

from __future__ import annotations

from pathlib import Path

from model.untrusted import UntrustedFile, read_json_object

from ..display.table import markdown_table
from .claim import FAILS, HOLDS, claims

FILE = "evidence.json"
HEADING, NEXT = "## Measured", "## On a device"
MARK = {HOLDS: "✔", FAILS: "✘"}


def decided(row: dict) -> bool:
    """Whether an outcome was decided by a run on a device, and not by published software."""
    return row["outcome"] in (HOLDS, FAILS) and not row["device"].startswith("no device")


def section(folder: Path) -> list[str]:
    """The lines of the section for folder/evidence.json; none without that file or without an outcome."""
    try:
        bundles = read_json_object(folder / FILE)["bundles"]
    except (OSError, UntrustedFile, KeyError):
        return []
    text = {claim.id: claim.claim for claim in claims()}
    rows = [
        [
            f"{MARK[row['outcome']]} {row['outcome']}",
            text[row["id"]],
            f"measured on {bundle['device']}, {bundle['created'][:10]}, "
            f"[{bundle['checkpoint']}]({bundle['folder']}/evidence.md)",
            row["evidence"],
        ]
        for bundle in bundles
        for row in bundle["claims"]
        if row["id"] in text and decided(row)
    ]
    if not rows:
        return []
    about = "What evidence from devices says, see [evidence.md](evidence.md)."
    return [HEADING, "", about, "", *markdown_table(("outcome", "claim", "measured", "evidence"), rows), ""]


def with_section(page: str, folder: Path) -> str:
    """The text of claims.md with the section of today in place of an earlier one."""
    head, found, rest = page.partition(f"\n{HEADING}\n")
    if found:
        rest = rest[rest.find(f"\n{NEXT}\n") + 1 :]
    else:
        head, _, rest = page.partition(f"\n{NEXT}\n")
        rest = f"{NEXT}\n{rest}"
    return "\n".join([head.rstrip("\n"), "", *section(folder), rest])
