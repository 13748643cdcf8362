"""The dependency rules of docs/architecture.md, and the public names."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections import defaultdict

import pytest

import deskocr_kit
from deskocr_kit import course
from tests.helpers.fresh_process import python
from tests.helpers.imports import ROOT, imports, modules, unit

pytestmark = pytest.mark.quick
KNOWN = modules()
IMPORTS = imports(KNOWN)

BASE = {"ascend", "device", "display", "model", "opcount", "simulator"}
FIVE = BASE | {"operators", "reading"}
#: {package: the packages that it may import}.
MAY_IMPORT = {
    "model": set(),
    "ascend": set(),
    "display": set(),
    "opcount": {"ascend"},
    "simulator": {"ascend", "opcount"},
    "device": {"ascend", "opcount", "simulator"},
    "reading": BASE,
    "batch": BASE | {"reading"},
    "doctor": {"ascend", "display", "model", "reading"},
    "operators": BASE | {"reading"},
    "synthetic_pages": {"model"},
    "nano_training": {"model", "synthetic_pages"},
    "baselines": FIVE,
    "compare": FIVE,
    "operator_census": FIVE,
    "kernel_evidence": FIVE | {"operator_census"},
    "porting": FIVE | {"compare"},
    "quantise": FIVE,
    "evaluation": FIVE | {"synthetic_pages"},
    "benchmark": FIVE
    | {"baselines", "doctor", "evaluation", "kernel_evidence", "operator_census", "synthetic_pages"},
    "prediction": FIVE | {"baselines", "benchmark", "operator_census"},
    "traces": FIVE | {"operator_census"},
}
EVERYTHING = {unit(name) for name in KNOWN} - {"__main__", "cli", "commands", "deskocr_kit"}
ANYTHING_BELOW = {"claims", "course", "evidence"}  # only the commands import these, and evidence uses claims
STARTS = {"__main__", "cli", "commands", "deskocr_kit"}  # these may import everything
#: Imports inside functions outside commands/, with the reason.
INSIDE_FUNCTIONS = {
    ("deskocr_kit.device.selection", "deskocr_kit.simulator"): "it imports torch, which may be broken",
    ("deskocr_kit.reading.reader", "deskocr_kit.quantise.apply"): "weights of 8 and 4 bits are optional",
}


def test_there_is_no_import_cycle():
    graph = defaultdict(set)
    for each in IMPORTS:
        graph[each.module].add(each.target)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the modules of the cycle


def test_each_package_imports_only_what_its_rule_allows():
    above = EVERYTHING - ANYTHING_BELOW
    allowed = MAY_IMPORT | dict.fromkeys(ANYTHING_BELOW, above) | {"evidence": above | {"claims"}}
    wrong = [
        f"{each.module} imports {each.target}"
        for each in IMPORTS
        if (a := unit(each.module)) != (b := unit(each.target))
        and a not in STARTS
        and b not in allowed[a]
        and (each.module, each.target) not in INSIDE_FUNCTIONS
    ]
    assert wrong == []


def test_doctor_reads_no_more_of_reading_than_where_the_weights_are():
    used = {each.target for each in IMPORTS if unit(each.module) == "doctor"}
    assert {name for name in used if unit(name) == "reading"} == {"deskocr_kit.reading.checkpoints"}


def test_doctor_reads_no_more_of_the_model_than_what_needs_no_torch():
    used = {each.target for each in IMPORTS if unit(each.module) == "doctor" and unit(each.target) == "model"}
    code = f"import sys, importlib; [importlib.import_module(n) for n in {sorted(used)}]"
    assert used
    subprocess.run(
        [sys.executable, "-c", code + "; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"],
        check=True, timeout=60, cwd=ROOT,
    )  # fmt: skip


def test_ascend_uses_the_standard_library_only():
    for name, path in KNOWN.items():
        if unit(name) == "ascend":
            nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
            named = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
            named |= {n.module for n in nodes if isinstance(n, ast.ImportFrom) and not n.level}
            assert {each.split(".")[0] for each in named} <= sys.stdlib_module_names, name


def test_a_package_only_re_exports_in_its_init():
    for name, path in KNOWN.items():
        if path.name == "__init__.py" and name not in ("deskocr_kit", "model"):  # these two load lazily
            body = ast.parse(path.read_text("utf-8")).body
            rest = [n for n in body[1:] if not isinstance(n, ast.ImportFrom)]
            assert all(isinstance(n, ast.Assign) and n.targets[0].id == "__all__" for n in rest), name


def test_imports_inside_functions_are_few_and_listed():
    inside = {(e.module, e.target) for e in IMPORTS if e.inside and unit(e.module) not in STARTS}
    assert inside == set(INSIDE_FUNCTIONS), "list it with its reason, or move it to the top of the file"
    assert len(inside) <= 20


def test_the_top_level_stays_small():
    entries = [p for p in (ROOT / "deskocr_kit").iterdir() if not p.name.startswith("__")]
    assert len([p for p in entries if p.suffix == ".py" or p.is_dir()]) <= 26


def test_no_public_name_is_hidden_by_a_module_of_the_same_name():
    here = {path.stem for path in (ROOT / "deskocr_kit").iterdir()}
    assert not here & set(deskocr_kit.__all__)
    code = (
        "import importlib, sys, types, deskocr_kit\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "for name in deskocr_kit.__all__:\n"
        "    assert not isinstance(getattr(deskocr_kit, name), types.ModuleType), name"
    )
    names = [name for name in KNOWN if name.startswith("deskocr_kit.") and not name.endswith("__main__")]
    done = python(code, *names)
    assert done.returncode == 0, done.stderr


def test_the_documentation_lists_the_public_names():
    from docs import api

    assert (ROOT / "docs" / "api.md").read_text("utf-8") == api.page(), "run `python -m docs.api`"
    for name in deskocr_kit.__all__:
        assert getattr(deskocr_kit, name).__doc__ or not callable(getattr(deskocr_kit, name)), name
    assert all(hasattr(course, name) for name in course.__all__)


def test_the_picture_is_of_this_code():
    from docs import architecture

    assert architecture.stored() == architecture.layers(), "run `python -m docs.architecture`"


def test_importing_the_kit_is_quick_and_needs_no_torch():
    code = "import sys, deskocr_kit; print(deskocr_kit.__version__); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)
