"""`deskocr doctor`: what is this machine, is it healthy, what must be typed to mend it?

    capture.py   seven texts: from this machine, a folder, or a bundle
    npu_smi.py, npu_smi_pages.py, versions.py    parsers of these texts
    facts.py     texts -> facts
    probes.py    live trials, each in a process of its own with a time limit
    trials/      the programs of these processes
    rules_*.py   facts and trials -> rows
    report.py    rows -> text, JSON, HTML
    bundle.py    the same seven texts without secrets, to send to somebody

Starts with the standard library alone: a broken torch, or no torch at all, is what it is for.
"""

from .examination import examine, examine_files
from .report import Report, Row

__all__ = ["Report", "Row", "examine", "examine_files"]
