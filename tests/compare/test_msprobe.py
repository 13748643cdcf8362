"""Dumps in the format of msProbe: written, read, compared; and dumps of strangers."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from deskocr_kit.compare.msprobe import (
    DumpError,
    compare_dumps,
    compare_with_dump,
    figures,
    read_dump,
    statistics,
    write_dump,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2))

    def forward(self, x, scale=None):
        return self.second(self.first(x) * (1 if scale is None else scale))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def dumps(net, tmp_path):
    x = torch.randn(5, 4)
    write_dump(net, (x,), tmp_path / "cpu")
    with torch.no_grad():
        net.second[1].weight[1] *= 1.5
    write_dump(net, (x,), tmp_path / "npu")
    return tmp_path


def test_the_layout_is_that_of_msprobe(dumps):
    stored = json.loads((dumps / "cpu" / "dump.json").read_text())
    assert (stored["task"], stored["level"], stored["framework"]) == ("tensor", "mix", "pytorch")
    entry = stored["data"]["Module.first.Linear.forward.0"]
    assert set(entry) == {"input_args", "input_kwargs", "output"}
    tensor = entry["input_args"][0]
    assert (
        tensor["type"] == "torch.Tensor" and tensor["shape"] == [5, 4] and tensor["dtype"] == "torch.float32"
    )
    assert tensor["data_name"] == "Module.first.Linear.forward.0.input.0.pt"
    assert (dumps / "cpu" / "dump_tensor_data" / tensor["data_name"]).is_file()
    assert str(dumps) not in (dumps / "cpu" / "dump.json").read_text()


def test_the_first_difference_is_where_it_was_planted(dumps):
    rows = compare_dumps(dumps / "npu", dumps / "cpu")
    away = [row.name for row in rows if row.largest]
    assert away == ["Module.second.Sequential.forward.0.output.0"]
    assert all(row.cosine == pytest.approx(1) for row in rows if row.name not in away)


def test_a_run_here_is_compared_with_a_dump_from_elsewhere(net, tmp_path):
    x = torch.randn(5, 4)
    write_dump(net, (x,), tmp_path / "there")
    rows = compare_with_dump(net, (x,), tmp_path / "there", tmp_path / "here")
    assert len(rows) == 4 and all(row.largest == 0 and not row.problem for row in rows)


def test_the_figures_by_hand():
    row = figures("x", torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 4.0, 0.0]))
    assert row.largest == 2 and row.euclid == 2 and row.largest_relative == 0.5
    assert row.cosine == pytest.approx(9 / (5**0.5 * 17**0.5)) and row.within == pytest.approx((2 / 3, 2 / 3))
    zero = figures("x", torch.tensor([1.0]), torch.tensor([0.0]))
    assert zero.largest_relative == pytest.approx(1 / torch.finfo(torch.float32).eps)


def test_statistics_of_every_kind_of_tensor():
    assert statistics(torch.tensor([3.0, -4.0]))["Norm"] == 5
    assert statistics(torch.tensor([1, 3]))["Mean"] == 2
    assert statistics(torch.zeros(0))["Max"] is None
    assert statistics(torch.tensor([True, False]))["Max"] is True


def test_unequal_shapes_dtypes_and_missing_tensors_are_said(dumps):
    file = dumps / "npu" / "dump_tensor_data" / "Module.first.Linear.forward.0.output.0.pt"
    torch.save(torch.zeros(5, 3, dtype=torch.float16), file)
    problems = {row.name: row.problem for row in compare_dumps(dumps / "npu", dumps / "cpu")}
    assert "dtype torch.float16" in problems["Module.first.Linear.forward.0.output.0"]
    torch.save(torch.zeros(2), file)
    problems = {row.name: row.problem for row in compare_dumps(dumps / "npu", dumps / "cpu")}
    assert "shape (2,)" in problems["Module.first.Linear.forward.0.output.0"]


def test_a_dump_with_statistics_only_is_read(dumps):
    for side in ("cpu", "npu"):
        path = dumps / side / "dump.json"
        stored = json.loads(path.read_text())
        stored["task"] = "statistics"
        for entry in stored["data"].values():
            for tensor in (*entry["input_args"], *entry["output"]):
                tensor.pop("data_name", None)
        path.write_text(json.dumps(stored))
    problems = [row.problem for row in compare_dumps(dumps / "npu", dumps / "cpu")]
    assert problems[0] == "statistics only: equal" and "Mean" in problems[-1]


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of the file ran')",)


def test_a_dump_of_a_stranger_runs_no_code_and_leads_nowhere(dumps):
    name = "Module.first.Linear.forward.0.output.0"
    torch.save(Evil(), dumps / "npu" / "dump_tensor_data" / f"{name}.pt")
    with pytest.raises(DumpError, match="not a tensor"):
        compare_dumps(dumps / "npu", dumps / "cpu")
    path = dumps / "npu" / "dump.json"
    stored = json.loads(path.read_text())
    for bad in ("../../secret.pt", "/etc/passwd", "a/b.pt", "x.txt"):
        stored["data"]["Module.first.Linear.forward.0"]["output"][0]["data_name"] = bad
        path.write_text(json.dumps(stored))
        with pytest.raises(DumpError, match="not the name of a file here"):
            compare_dumps(dumps / "npu", dumps / "cpu")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"data": 3}', '{"data": {"a": {"output": []}}}'])
def test_a_file_that_is_no_dump_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "dump.json").write_text(content)
    with pytest.raises(DumpError) as refused:
        read_dump(tmp_path)
    assert "\n" not in str(refused.value)


def test_no_dump_at_all(tmp_path):
    with pytest.raises(DumpError):
        read_dump(tmp_path)
