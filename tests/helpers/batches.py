"""Run a batch with the stub reader in this process, and compare what runs leave behind."""

from __future__ import annotations

import json
from pathlib import Path

from deskocr_kit.batch.devices import LocalDevice
from deskocr_kit.batch.run import Plan, run
from deskocr_kit.batch.sources import sources
from deskocr_kit.reading.options import PageOptions
from tests.helpers.stub_reader import load

MEASURED = ("seconds", "tries", "attempts", "cached")  # what two equal runs do not share


def stub_batch(given, out, *, progress=None, devices=None, **plan):
    """The summary of a run with the stub reader."""
    options = PageOptions()
    files = sources([str(each) for each in given]) if given else []
    return run(files, Path(out), devices or [LocalDevice(load(), options)], options, Plan(**plan), progress)


def lines(out) -> list[dict]:
    """The records of pages.jsonl."""
    return [json.loads(line) for line in (Path(out) / "pages.jsonl").read_text("utf-8").splitlines()]


def essence(out) -> list[dict]:
    """The records without what is measured: equal for a run that was interrupted and one that was not."""
    return [{name: line[name] for name in line if name not in MEASURED} for line in lines(out)]


def check_lines(out) -> list[dict]:
    """The records, after checking that each is whole: one per page, a text or an error."""
    found = lines(out)
    assert len({(line["file"], line["page"]) for line in found}) == len(found), "exactly one line per page"
    for line in found:
        assert line["schema"] == 1 and line["kit"] and line["page"] >= 1
        assert line["state"] in ("done", "failed")
        assert ("text" in line, "error" in line) == (
            (True, False) if line["state"] == "done" else (False, True)
        )
        assert {"tokens", "seconds", "attempts"} <= line.keys()
    return found
