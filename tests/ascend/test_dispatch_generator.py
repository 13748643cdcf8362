"""The generator of dispatch tables without a wheel: its rule, its format, and the table for this torch."""

from __future__ import annotations

import pytest

from deskocr_kit.ascend import dispatch
from deskocr_kit.simulator import dispatch_generator
from deskocr_kit.simulator.dispatch_generator import KEYS, to_text, verdict


@pytest.mark.parametrize("version", dispatch.wheel_versions())
def test_the_stored_tables_have_its_rule_and_its_format(version):
    rows = list(dispatch.dispatch_table(version).values())
    assert all(verdict(row) == row["verdict"] for row in rows)
    assert to_text(rows) == (dispatch.FOLDER / f"torch_npu_{version}.tsv").read_text(encoding="utf-8")


def test_the_table_of_this_process():
    rows = {row["op"]: row for row in dispatch_generator.rows()}
    assert list(rows) == sorted(rows) and all(set(row) == {"op", *KEYS, "verdict"} for row in rows.values())
    assert rows["aten::mm"]["CPU"] == "1" and rows["aten::einsum"]["CompositeImplicit"] == "1"


def test_writing_and_checking(tmp_path, monkeypatch, capsys):
    stored = dispatch.dispatch_table("2.13.0")
    monkeypatch.setattr(dispatch_generator, "wheel_version", lambda: "2.13.0")
    monkeypatch.setattr(dispatch_generator, "rows", lambda: list(stored.values()))
    assert dispatch_generator.main([str(tmp_path)]) == 0 and dispatch_generator.main(["--check"]) == 0
    written = (tmp_path / "torch_npu_2.13.0.tsv").read_text(encoding="utf-8")
    assert written == (dispatch.FOLDER / "torch_npu_2.13.0.tsv").read_text(encoding="utf-8")
    capsys.readouterr()
    monkeypatch.setattr(dispatch_generator, "rows", lambda: list(stored.values())[1:])
    assert dispatch_generator.main(["--check"]) == 1 and "- aten::__and__.Scalar" in capsys.readouterr().out
    monkeypatch.setattr(dispatch_generator, "wheel_version", lambda: "2.9.0")
    assert (
        dispatch_generator.main(["--check"]) == 1 and "no table of torch_npu 2.9.0" in capsys.readouterr().err
    )
    assert dispatch_generator.main([]) == 2
