"""How kernels are started and counted, and what is said where they cannot run."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from deskocr_kit.device.counting import counted
from deskocr_kit.nano_training.recipe import nano_config
from deskocr_kit.operators.kernels import elementwise, launch, norms
from deskocr_kit.operators.prove.probes import Sizes, probes
from deskocr_kit.operators.prove.runner import run_probe
from deskocr_kit.operators.substitutes.registry import candidates


def test_a_launch_counts_as_one_operator():
    x, weight = torch.randn(3, 40), torch.randn(40)
    with counted(torch.device("cpu")) as counts:
        norms.rms_norm(x, weight, 1e-6)
        elementwise.swiglu(x)
    assert counts.launches == 2 and counts.syncs == 0


def test_listeners_see_types_constants_and_grid():
    seen: list[launch.Launch] = []
    with launch.listening(seen.append):
        elementwise.swiglu(torch.empty(3, 40, dtype=torch.float16, device="meta"))
    (one,) = seen
    assert one.name == "swiglu_kernel" and dict(one.types)["x"] == "*fp16"
    assert dict(one.types)["half"] == "i32" and dict(one.constants)["BLOCK"] == 32 and one.grid == (3,)


def test_a_proof_names_the_kernels_that_a_candidate_started():
    (probe, *_) = (each for each in probes(Sizes.of(nano_config())) if each.slot == "swiglu" and each.real)
    rows = run_probe(probe, torch.device("cpu"), torch.float32, repeats=1)
    assert {row.candidate: row.kernels for row in rows} == {
        row.candidate: ["swiglu_kernel"] if row.candidate == "triton" else [] for row in rows
    }


def test_an_empty_grid_starts_nothing():
    assert elementwise.swiglu(torch.randn(0, 8)).shape == (0, 4)


def test_more_programs_than_an_npu_takes_are_refused():
    with pytest.raises(
        ValueError, match=r"swiglu_kernel: 70,000 programs in one launch; an NPU takes 65,535"
    ):
        launch.launch(elementwise.swiglu_kernel, (70_000,), torch.zeros(2), torch.zeros(1), 1, 1)


def test_triton_is_a_candidate_where_it_is_interpreted():
    assert launch.why_not() is None and "triton" in candidates("rms_norm")


def ask(code: str, **environment: str) -> str:
    clean = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **environment}
    done = subprocess.run([sys.executable, "-c", code], env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SHOW = "from deskocr_kit.operators.kernels.launch import why_not; print(why_not())"


def test_without_interpreter_and_device_the_remedy_is_one_line():
    if torch.cuda.is_available():
        pytest.skip("a CUDA card is present: kernels compile here")
    assert "TRITON_INTERPRET=1" in ask(SHOW)
    listed = (
        "from deskocr_kit.operators.substitutes.registry import candidates; print(list(candidates('moe')))"
    )
    assert "triton" not in ask(listed)


#: A process that sees an NPU and triton-ascend: their names only, nothing can run on it.
NPU = """
import importlib.machinery, importlib.util, types, torch
ascend, find = True, importlib.util.find_spec
def find_spec(name, *more):
    if name == "triton.backends.ascend":
        return importlib.machinery.ModuleSpec(name, None) if ascend else None
    return None if name.startswith("triton.backends.") else find(name, *more)
importlib.util.find_spec = find_spec
torch.utils.rename_privateuse1_backend("npu")
torch.npu = types.SimpleNamespace(is_available=lambda: True, device_count=lambda: 1, simulated=False)
from deskocr_kit.operators.kernels.launch import why_not
from deskocr_kit.operators.substitutes.registry import candidates
"""
LISTED = "print(why_not(), why_not(torch.device('npu')), 'triton' in candidates('moe'), sep='|')\n"


def test_triton_is_a_candidate_on_an_npu_with_its_compiler():
    """Asked with and without a device; not on the CPU beside the NPU, and not on a simulated NPU."""
    if torch.cuda.is_available():
        pytest.skip("a CUDA card is present: kernels compile here")
    with_it, cpu, cuda, simulated, without, none = ask(
        f"{NPU}{LISTED}"
        "print(why_not(torch.device('cpu')))\n"
        "print(why_not(torch.device('cuda')))\n"
        f"torch.npu.simulated = True\n{LISTED}"
        f"torch.npu.simulated = ascend = False\n{LISTED}"
        f"torch.npu.is_available = lambda: False\n{LISTED}"
    ).splitlines()
    assert with_it == "None|None|True"
    assert cpu.startswith("Triton compiles for no device here; set TRITON_INTERPRET=1")
    assert "replace triton-ascend by triton" in cuda
    assert simulated.count("the simulated NPU only interprets kernels") == 2 and simulated.endswith("False")
    assert without.count("replace it by triton-ascend") == 2 and without.endswith("False")
    assert none.startswith("Triton compiles for no device here") and none.endswith("False")


def test_the_simulated_npu_interprets_kernels():
    assert ask(NPU + "torch.npu.simulated = True\n" + LISTED, TRITON_INTERPRET="1") == "None|None|True"


def test_a_triton_that_cannot_be_imported_is_no_candidate():
    """As after triton-ascend overwrote parts of triton. The kernels can be counted all the same."""
    broken = """
import sys
class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == "triton.language":
            raise OSError("libtriton.so: undefined symbol")
sys.meta_path.insert(0, Broken())
"""
    found = ask(f"{broken}{NPU}{LISTED}from deskocr_kit.operators.kernels import candidates")
    reason = "Triton cannot be imported (OSError: libtriton.so: undefined symbol); install it again"
    assert found == f"{reason}|{reason}|False"


def test_the_variable_counts_at_the_first_import_of_triton():
    late = "import os, triton; os.environ['TRITON_INTERPRET'] = '1'\n"
    assert "TRITON_INTERPRET=1 before Python starts" in ask(late + SHOW)


def test_a_kernel_that_the_compiler_refuses_is_not_planned(monkeypatch):
    """On a device whose compiler fails, the proof says so and the plan takes another candidate."""
    from deskocr_kit.operators.prove import proof

    def refuse(*args, **constants):
        raise RuntimeError("error: failed to legalize operation 'memref.load'")

    monkeypatch.setattr(type(elementwise.swiglu_kernel), "__getitem__", lambda self, grid: refuse)
    monkeypatch.setattr(proof, "interpreted", lambda: False)  # it is planned where it passes
    report = proof.prove("cpu", ["fp32"], slots=["swiglu"], repeats=1)
    verdict, why = report.verdicts()["swiglu", "triton", "float32"]
    assert verdict == "cannot run here" and "failed to legalize" in why
    assert "triton" not in report.plan.names("float32")["swiglu"].values()


def test_without_triton_kernels_are_counted_and_not_listed():
    hide = "import sys; sys.modules['triton'] = None\n"
    reason = ask(
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name.startswith('triton') else find(name, *a)\n"
        f"{hide}{SHOW}"
    )
    assert reason == "Triton is not installed; run: pip install triton (Linux only)"
    counts = ask(
        f"{hide}import torch\nfrom deskocr_kit.operators.kernels import candidates, elementwise, launch\n"
        "seen = []\nlaunch.LISTENERS.append(seen.append)\n"
        "elementwise.swiglu(torch.empty(3, 40, device='meta'))\nprint(len(seen))\n"
        "try:\n    elementwise.swiglu(torch.zeros(3, 40))\nexcept RuntimeError as error:\n    print(error)"
    )
    assert counts.splitlines()[0] == "1" and "pip install triton" in counts.splitlines()[1]
