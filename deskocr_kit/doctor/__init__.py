"""`deskocr doctor`: diagnose this machine and print the commands that repair it.

    capture.py   seven texts: from this machine, a folder, or a bundle
    npu_smi.py, npu_smi_pages.py, captured_lists.py, ascend/versions.py    parsers of these texts
    facts.py     texts -> facts
    probes.py    live probes, each in its own process with a time limit
    trials/      the programs of these processes
    rules_*.py   facts and results of the probes -> rows
    report.py    rows -> text, JSON, HTML
    bundle.py    the same seven texts without secrets, to attach to a report
    variables.py, words.py    what may be in a report, and what may leave in a bundle

Needs only the standard library, because it diagnoses a broken or missing torch.
"""

from .examination import examine, examine_files
from .report import Report, Row

__all__ = ["Report", "Row", "examine", "examine_files"]
