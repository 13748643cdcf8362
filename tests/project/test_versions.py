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


TESTED = (ROOT / "requirements-tested.txt").read_text()
LOCKED = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+) \\$", TESTED, re.M))


def plain(name: str) -> str:
    return re.sub(r"[._-]+", "-", name).lower()


def test_every_locked_version_has_hashes():
    """One line per package, then only hashes: `pip install --require-hashes` takes nothing else."""
    lines = [line for line in TESTED.splitlines() if not line.startswith("#")]
    assert len(LOCKED) > 100
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==\S+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
    for package in re.split(r"\n(?=[A-Za-z0-9])", "\n".join(lines)):
        assert "--hash=sha256:" in package, package


def test_the_locked_versions_are_those_of_constraints_txt():
    """torch is the build for the CPU: its local version says so. playwright and ray are of other extras.

    A pin may be a range, as triton's: the newest of it is locked.
    """
    locked = {plain(name): version.partition("+")[0] for name, version in LOCKED.items()}
    pinned = dict(re.split(r"==|>=.*<=", pin.split(" ;")[0]) for pin in PINNED)
    wrong = {name: version for name, version in pinned.items() if locked.get(plain(name)) != version}
    assert wrong == {name: pinned[name] for name in ("playwright", "ray")}, "run `make lock`"


def test_every_dependency_is_locked():
    blocks = re.findall(r"^(?:dependencies|dev) = \[\n(.*?)^\]", PROJECT, re.M | re.S)
    needed = {plain(name) for block in blocks for name in re.findall(r'"([\w-]+)', block)} - {"deskocr-kit"}
    assert needed and needed <= {plain(name) for name in LOCKED}, "run `make lock`"


def test_the_environment_of_the_tests_is_the_locked_one():
    """Where the versions of constraints.txt are installed, everything else is as locked, too."""
    import importlib.metadata as metadata
    import sys

    here = {plain(each.metadata["Name"]): each.version for each in metadata.distributions()}
    if sys.version_info[:2] != (3, 11) or here["torch"] != LOCKED["torch"]:
        pytest.skip("another row of the versions in README.md")
    different = {n: (here[plain(n)], v) for n, v in LOCKED.items() if here.get(plain(n), v) != v}
    assert different == {}, "run `make lock`"


def test_uv_and_conda_install_what_make_installs():
    """The extras of all three ways; `kernels` has a marker, so that it is empty where there is no Triton."""
    makefile, conda = (ROOT / "Makefile").read_text(), (ROOT / "environment.yml").read_text()
    assert "$(if $(LINUX),dev$(COMMA)kernels,dev)" in makefile
    assert re.findall(r"^      - -e \.\[(.*)\]$", conda, re.M) == ["dev,kernels"]
    assert re.findall(r'^dev = \["deskocr-kit\[(.*)\]"\]', PROJECT, re.M) == ["dev,kernels"]
    assert re.search(r"^kernels = \[\"triton; sys_platform == 'linux'\"\]$", PROJECT, re.M)
