"""Versions that appear in several places are equal everywhere."""

from __future__ import annotations

import re

import pytest

from tests.helpers.paths import ROOT

pytestmark = pytest.mark.quick
PINNED = [
    line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")
]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text()


def test_uv_takes_the_versions_of_constraints_txt():
    (block,) = re.findall(r"^constraint-dependencies = \[.*?\n(.*?)^\]", PROJECT, re.M | re.S)
    assert re.findall(r"""^\s+(?:"(.*)"|'(.*)'),$""", block, re.M) == [
        ("", pin) if '"' in pin else (pin, "") for pin in PINNED
    ]


def test_the_workflow_runs_the_versions_of_the_readme():
    """Python, torch and transformers of each row of the table; the middle row is constraints.txt."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| (3\.\d+)\.\d+ \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", text, re.M)
    assert len(told) == 3
    rows = re.findall(r'python: "([\d.]+)"\n\s+target: [\w-]+\n\s+pins: (.*)', WORKFLOW)
    for (python, *versions), (ran, pins) in zip(told, rows, strict=True):
        assert python == ran
        found = pins.strip('"').split() or [pin.split(" ;")[0] for pin in PINNED]
        names = ("torch", "transformers", "numpy", "pillow")
        assert {f"{n}=={v}" for n, v in zip(names, versions, strict=True)} <= set(found)


def test_every_tool_of_dev_is_pinned():
    (block,) = re.findall(r"^dev = \[\n(.*?)^\]", PROJECT, re.M | re.S)
    tools = re.findall(r'"([\w-]+)', block)
    pinned = {re.split("[=<>]", pin)[0].lower() for pin in PINNED}
    assert {tool for tool in tools if tool.lower() not in pinned and f"{tool}==" not in block} == set()
