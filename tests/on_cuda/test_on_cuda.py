"""The command for a CUDA card, as far as it can be tested without one: budget, checks, tables, file."""

from __future__ import annotations

import json

import pytest
import torch

from .__main__ import LIMIT, NO_CARD, main
from .budget import Deadline, Part, run_parts
from .device_checks import check_devices
from .show import part_text, summary
from .speed import Form, time_forms, time_request


class Clock:
    """A clock that a part moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now

    def part(self, name: str, needs: float, takes: float, share: float = 1.0, rows=()):
        def run(deadline: Deadline) -> list[dict]:
            self.now += takes
            return [*rows, {"left": deadline.left() + takes}]

        return Part(name, needs, run, share)


def test_what_no_longer_fits_is_dropped_from_the_end():
    clock, noted = Clock(), []
    parts = [
        clock.part("first", 10, 50, share=0.5), clock.part("second", 30, 35), clock.part("third", 30, 20),
        clock.part("short", 5, 5),
    ]  # fmt: skip
    records = run_parts(parts, Deadline(100, clock), noted.append)
    assert [each["state"] for each in records] == ["done", "done", "dropped", "done"] and noted == records
    assert records[0]["rows"] == [{"left": 50.0}], "half of the time is its share"
    assert records[2]["why"] == "15 s were left; it needs 30 s" and records[2]["rows"] == []
    assert [each["seconds"] for each in records] == [50, 35, 0, 5]
    text = summary(records)
    assert "dropped, because the time was over: third" in text and "nothing failed" in text


def test_an_exception_ends_its_part_and_no_other():
    def broken(deadline):
        raise RuntimeError("no kernel image is available\nfor execution")

    clock = Clock()
    wrong = clock.part("wrong", 0, 1, rows=[{"check": "a", "holds": False}])
    records = run_parts([Part("broken", 0, broken), wrong, clock.part("good", 0, 1)], Deadline(9, clock))
    assert [each["state"] for each in records] == ["error", "failed", "done"]
    assert "no kernel image" in records[0]["why"] and "Traceback" in records[0]["trace"]
    assert "failed: broken, wrong" in summary(records) and "NO" in part_text(records[1])


def test_times_are_differences_of_whole_requests():
    """3 s to start, 0.5 s to record and 0.25 s a token, on a clock that only requests move."""
    asked = []

    def request(tokens: int) -> None:
        asked.append(tokens)

    seconds = {1: 3.0, 9: 3.0 + 0.5 + 8 * 0.25, 29: 3.0 + 0.5 + 28 * 0.25}
    found = time_request(request, torch.device("cpu"), 20, 2, timed=lambda call, n: (call(n), seconds[n])[1])
    assert found == {"ttft": 3.0, "tpot": 0.25, "recording": 0.5, "tokens": 20}
    assert asked == [1, 9, 29] * 3, "one round first that does not count"


def test_a_form_that_cannot_run_leaves_the_others():
    def impossible():
        raise NotImplementedError("no compiler here")

    def wrong():
        raise ValueError("our fault")

    forms = [Form("none", impossible, 1), Form("bad", wrong, 1), Form("theirs", wrong, 1, theirs=True)]
    rows = time_forms(
        [*forms, Form("good", lambda: lambda n: None, 1)], torch.device("cpu"), 4, 1, Deadline(60)
    )
    assert [row.get("holds") for row in rows] == [None, False, None, None]
    assert rows[0]["why"] == "NotImplementedError: no compiler here" and "tpot" in rows[3]
    late = time_forms([Form("good", lambda: lambda n: None, 1)], torch.device("cpu"), 4, 1, Deadline(-1))
    assert late[0]["why"] == "dropped: no time was left"


def test_the_device_checks_hold_on_this_cpu():
    rows = check_devices(torch.device("cpu"))
    assert len(rows) == 7 and [row for row in rows if not row["holds"]] == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a card")
def test_without_a_card_one_line_says_so(capsys, tmp_path):
    assert main(["--out", str(tmp_path / "result.json")]) == NO_CARD == 3
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("no cuda device: ") and said.err.endswith("Nothing was measured.\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cpu"], "add --size tiny"),
        (["--seconds", str(LIMIT + 1)], f"at most {LIMIT}"),
        (["--size", "huge"], "invalid choice"),
    ],
)
def test_wrong_arguments(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and words in capsys.readouterr().err


@pytest.mark.slow  # 12 s; the parts have tests of their own
def test_the_whole_command_at_a_tiny_size_on_the_cpu(capsys, tmp_path):
    """The path of a card, with a model of 32 channels. tests/kernels does the same with kernels."""
    pytest.importorskip("transformers.models.unlimited_ocr")
    out = tmp_path / "result.json"
    main(["--size", "tiny", "--device", "cpu", "--out", str(out)])
    result, said = json.loads(out.read_text()), capsys.readouterr().out
    assert result["complete"] and result["subject"].startswith("tiny, for tests")
    assert "no figure says anything about the official size" in said
    parts = {part["name"]: part for part in result["parts"]}
    assert list(parts) == ["devices", "batch 1", "bandwidth", "kernels", "batch 16"]
    rows = {row["form"]: row for row in parts["batch 1"]["rows"]}
    for form in ("transformers, eager", "plain", "plain with a graph"):
        assert rows[form]["ttft"] > 0 and rows[form]["tokens"] >= 1, rows[form]
    timed = {form for form, row in rows.items() if row.get("tokens_per_second")}  # noise hides so few tokens
    assert {row["form"] for row in parts["bandwidth"]["rows"][1:]} == timed
    assert "plain with a graph" not in {row["form"] for row in parts["batch 16"]["rows"]}
