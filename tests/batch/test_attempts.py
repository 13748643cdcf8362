"""What happens to pages that fail, loop or do not fit, with a device that fails on demand."""

from __future__ import annotations

from typing import ClassVar

import pytest

from deskocr_kit.batch.attempts import BatchSize, Item, read_group, stronger
from deskocr_kit.batch.faults import Fault, fault_of
from deskocr_kit.reading.pages import Page
from tests.helpers.stub_reader import CUT_OFF, GOOD, LOOPS, reading


class FakeDevice:
    settings: ClassVar = {"no_repeat_ngram_size": 0, "ngram_window": None}

    def __init__(self, fails):
        self.fails, self.calls = fails, []

    def read(self, items, guard=None):
        numbers = [item.page.number for item in items]
        self.calls.append(numbers if guard is None else (numbers, guard["no_repeat_ngram_size"]))
        if fault := self.fails(numbers, guard):
            raise Fault(*fault)
        return [reading(KINDS.get(item.page.number, GOOD), item.page.number, bool(guard)) for item in items]


KINDS = {70: LOOPS, 80: CUT_OFF}


def go(numbers, fails=lambda numbers, guard: None, size=8):
    device, limit = FakeDevice(fails), BatchSize(size)
    items = [Item("k", Page("f", number), "") for number in numbers]
    outcomes = {item.page.number: outcome for item, outcome in read_group(device, items, limit)}
    assert sorted(outcomes) == sorted(numbers), "pages in = pages out"
    return device.calls, outcomes, {item.page.number: item.tries for item in items}, limit.size


def test_a_page_that_fails_in_a_group_is_read_alone_then_set_aside():
    calls, outcomes, tries, _ = go([1, 2, 3], lambda n, g: ("reading", "unlucky") if 2 in n else None)
    assert calls == [[1, 2, 3], [1], [2], [3]]
    assert isinstance(outcomes[2], Fault) and outcomes[1].text == "page 1"
    assert [each["outcome"] for each in tries[2]] == ["reading", "reading"]
    assert [each["outcome"] for each in tries[3]] == ["reading", "done"]


def test_a_page_that_fails_alone_once_gets_a_second_chance():
    failures = iter([True, False])
    calls, outcomes, _, _ = go([1], lambda n, g: ("worker", "died") if next(failures) else None)
    assert calls == [[1], [1]] and outcomes[1].text == "page 1"
    calls, outcomes, _, _ = go([1], lambda n, g: ("worker", "died"))
    assert calls == [[1], [1]] and outcomes[1].kind == "worker"


def test_out_of_memory_halves_the_batch_and_no_later_one_is_larger():
    full = lambda n, g: ("memory", "full") if len(n) > 2 else None  # noqa: E731
    calls, _, _, size = go(range(8), full)
    assert calls == [[*range(8)], [0, 1, 2, 3], [0, 1], [2, 3], [4, 5], [6, 7]] and size == 2
    calls, outcomes, tries, size = go([1, 2], lambda n, g: ("memory", "full") if 2 in n else None)
    assert calls == [[1, 2], [1], [2]] and outcomes[2].kind == "memory" and size == 1
    assert len(tries[2]) == 2


@pytest.mark.parametrize("number, fault", [(70, "loop"), (80, "truncated")])
def test_a_loop_and_a_cut_off_text_are_read_once_more_with_a_stronger_guard(number, fault):
    calls, outcomes, tries, _ = go([1, number, 2])
    assert calls == [[1, number, 2], ([number], 20)]
    assert outcomes[number].text == f"page {number}" and not outcomes[number].truncated
    assert [each["outcome"] for each in tries[number]] == [fault, "done"]
    assert tries[number][1]["guard"] == {"no_repeat_ngram_size": 20, "ngram_window": None}
    assert len(tries[1]) == 1


def test_a_failed_second_attempt_keeps_the_first_text():
    _, outcomes, tries, _ = go([70], lambda n, g: ("reading", "no") if g else None)
    assert outcomes[70].text.startswith("seven") and [t["outcome"] for t in tries[70]] == ["loop", "reading"]


def test_the_second_guard_is_stronger_than_any_first():
    assert stronger({"no_repeat_ngram_size": 35})["no_repeat_ngram_size"] == 17
    assert stronger({"no_repeat_ngram_size": 5, "ngram_window": 90}) == {
        "no_repeat_ngram_size": 4, "ngram_window": None,
    }  # fmt: skip


def test_errors_have_classes():
    assert fault_of(RuntimeError("NPU out of memory. Tried to allocate 2.00 GiB")).kind == "memory"
    assert fault_of(MemoryError()).kind == "memory"
    assert fault_of(FloatingPointError("NaN")).kind == "reading"
    poisoned = "The Inner error is reported. ERR00100 PTA call acl api failed, error code is 507035"
    assert fault_of(RuntimeError(poisoned)).kind == "device"
    assert "\n" not in str(fault_of(RuntimeError(poisoned))), "one line, with the explanation"
    assert fault_of(RuntimeError("a plain error")).kind == "reading"
