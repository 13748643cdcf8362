"""The command line: python -m deskocr_kit.evaluation [--confidence]"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from model.files import write_json

from ..reading.reader import Reader
from . import evaluate as error_rates
from .confidence import evaluate_confidence, store
from .evaluate import DAMAGED, MAKES, evaluate, evaluate_boxes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=error_rates.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nano")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument(
        "--make",
        choices=[*MAKES, *DAMAGED, "samples", "boxes"],
        action="append",
        help="may be repeated; default: all without damage",
    )
    parser.add_argument("--pages", type=int, help="of each make, default 200; with --confidence 500 in all")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument(
        "--confidence", action="store_true",
        help="measure whether low confidence tells wrong pages, with --pages pages and half as many for the "
        "threshold, and write confidence.json beside the weights",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="write the records here as JSON")
    args = parser.parse_args()
    reader = Reader.load(args.model, args.device, args.dtype)
    if args.confidence:
        record = evaluate_confidence(reader, args.pages or 500, args.seed)
        store(reader, record)
        print(json.dumps(record, indent=1, ensure_ascii=False))
        return
    count = args.pages or 200
    records = []
    for make in args.make or [*MAKES, "samples", "boxes"]:
        if make == "boxes":
            records.append(evaluate_boxes(reader, count, args.seed))
        else:
            records.append(evaluate(reader, make, count, args.seed))
        print({key: value for key, value in records[-1].items() if key != "worst"}, flush=True)
    if args.out:
        write_json(args.out, records)
