"""The counts are exact: the work of one line of code, no more and no less."""

from __future__ import annotations

import html
import inspect
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from deskocr_kit import simulator

NPU = torch.device("npu:0")


@pytest.fixture
def x():
    return torch.arange(6.0, device=NPU)


def summary(r, *names):
    return tuple(getattr(r, name) for name in names)


def test_nothing_is_counted_outside_a_recording(x):
    with simulator.record() as r:
        pass
    x.sum().item()
    assert r.rows() == [] and r.launches == r.syncs == r.peak_bytes - torch.npu.memory_allocated() == 0


def test_launches_and_views(x):
    with simulator.record() as r:
        y = x.view(2, 3).t()[1:]  # 4 views: view, as_strided for t, select-like slice …
        y + 1
        y.mul_(2)
    assert r.launches == 2 and r.by_operator() == {"aten::add.Tensor": 1, "aten::mul_.Tensor": 1}
    assert r.views == 3 and set(r.by_operator("view")) == {"aten::view", "aten::as_strided"}
    assert r.syncs == r.h2d_copies == r.d2h_copies == 0


def test_allocation_is_no_launch_but_filling_is(x):
    with simulator.record() as r:
        torch.empty(3, device=NPU)
        torch.empty_like(x)
    assert r.launches == 0
    with simulator.record() as r:
        torch.zeros(3, device=NPU)
    assert r.launches == 1


SYNCS = {
    "item": (lambda x: x.sum().item(), 1),
    "float": (lambda x: float(x[0]), 1),
    "bool": (lambda x: bool((x > 3).any()), 1),
    "if": (lambda x: 1 if x.sum() > 3 else 0, 1),
    "tolist": (lambda x: x.tolist(), 1),
    "cpu": (lambda x: x.cpu(), 1),
    "to_cpu": (lambda x: x.to("cpu"), 1),
    "copy_into_cpu": (lambda x: torch.empty(6).copy_(x), 1),
    "nonzero": (lambda x: x.nonzero(), 1),
    "bool_mask": (lambda x: x[x > 2], 1),
    "bool_mask_write": (lambda x: x.index_put_((x > 2,), torch.tensor(0.0, device=NPU)), 1),
    "masked_select": (lambda x: x.masked_select(x > 2), 1),
    "unique": (lambda x: x.unique(), 1),
    "equal": (lambda x: torch.equal(x, x), 1),
    "repeat_interleave": (lambda x: x.repeat_interleave(x.long()), 1),
    "one_hot_without_size": (lambda x: F.one_hot(x.long()), 1),
    "synchronize": (lambda x: torch.npu.synchronize(), 1),
    "one_hot_with_size": (lambda x: F.one_hot(x.long(), 6), 0),
    "where": (lambda x: torch.where(x > 2, x, 0.0), 0),
    "masked_scatter": (lambda x: x.masked_scatter(x > 2, x), 0),
    "index": (lambda x: x[torch.tensor([1, 2], device=NPU)], 0),
    "upload": (lambda x: torch.ones(3).to(NPU), 0),
    "asynchronous_download": (lambda x: x.to("cpu", non_blocking=True), 0),
}


@pytest.mark.parametrize(("run", "expected"), SYNCS.values(), ids=SYNCS)
def test_syncs(x, run, expected):
    with simulator.record() as r:
        run(x)
    assert r.syncs == expected, r


def test_copies_and_bytes(x):
    pinned = torch.empty(6).pin_memory()
    with simulator.record() as r:
        torch.tensor([1, 2], device=NPU)  # 16 bytes to the device
        torch.ones(5, dtype=torch.float16).to(NPU)  # 10 bytes to the device
        x[torch.tensor([0])]  # an index from the host: 8 bytes to the device
        x.cpu()  # 24 bytes to the host
        x[:2].cpu()  # 8 bytes to the host
        x[0].item()  # 4 bytes to the host
        pinned.copy_(x, non_blocking=True)  # 24 bytes to the host, no wait
    assert summary(r, "h2d_copies", "h2d_bytes") == (3, 34)
    assert summary(r, "d2h_copies", "d2h_bytes") == (4, 60)
    assert r.syncs == 3


def test_a_copy_on_the_device_is_a_launch(x):
    with simulator.record() as r:
        x.to(torch.float16)
        x.clone()
        torch.empty(6, device=NPU).copy_(x)
    assert r.launches == 3 and r.h2d_copies == r.d2h_copies == 0


def test_sites_name_the_line_of_the_caller(x):
    def inner():
        return F.softmax(x, 0).sum().item()

    with simulator.record() as r:
        inner()
    line = inspect.getsourcelines(inner)[1] + 1
    assert r.by_site("sync") == {f"{Path(__file__)}:{line}": 1}
    assert r.by_site("launch") == {f"{Path(__file__)}:{line}": 2}
    with simulator.record(sites=False) as r:
        inner()
    assert r.syncs == 1 and r.by_site("sync") == {"": 1}


def test_peak_bytes_of_a_recording():
    torch.empty(1_000_000, device=NPU)  # an earlier, higher peak must not appear
    held = torch.empty(1000, device=NPU)
    base = torch.npu.memory_allocated()
    with simulator.record() as outer:
        a = torch.empty(5000, device=NPU)
        with simulator.record() as inner:
            b = torch.empty(100, device=NPU)
        del a, b
    assert outer.peak_bytes == base + 20_400 and inner.peak_bytes == base + 20_400
    with simulator.record() as r:
        held.add_(1)
    assert r.peak_bytes == base and torch.npu.max_memory_allocated() >= 4_000_000


def test_recordings_nest(x):
    with simulator.record() as outer:
        x + 1
        with simulator.record() as inner:
            x + 1
    assert (outer.launches, inner.launches) == (2, 1)


def test_a_recording_ends_with_an_error(x):
    with pytest.raises(ZeroDivisionError), simulator.record() as r:
        x.sum().item()
        raise ZeroDivisionError
    assert r.syncs == 1 and not simulator.counters.active


def test_display(x):
    with simulator.record() as r:
        x.sum().item()
    text, page = repr(r), r._repr_html_()
    assert "syncs        1" in text and "test_counters.py" in text and "not times" in text
    assert (
        "<td>syncs</td><td style='text-align:right'>1</td>" in page
        and "test_counters.py" in html.unescape(page)
    )
    assert r.summary()["d2h_bytes"] == 4 and {row["kind"] for row in r.rows()} == {"launch", "sync", "d2h"}
    with pytest.raises(ValueError, match="unknown kind 'syncs'"):
        r.by_site("syncs")
