"""`python -m deskocr_kit.doctor`: the command `deskocr doctor` for a Python without typer."""

from __future__ import annotations

import argparse
import sys

from .main import run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m deskocr_kit.doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the report with all facts as JSON")
    parser.add_argument(
        "--from", dest="source", metavar="DIR", help="diagnose files captured elsewhere: a folder or a bundle"
    )
    parser.add_argument(
        "--bundle", metavar="FILE", help="also write the examined files into a zip, without secrets"
    )
    parser.add_argument("--model", metavar="DIR", help="folder with weights to check")
    parser.add_argument("--quick", action="store_true", help="skip the probes that import torch")
    parser.add_argument("--patience", type=float, default=1.0, help="multiplies every time limit")
    given = parser.parse_args()
    sys.exit(run(given.json, given.source, given.bundle, given.model, given.quick, given.patience))
