"""How kernels are started and counted, and what is said where they cannot run."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from deskocr_kit.device.counting import counted
from deskocr_kit.operators.kernels import elementwise, launch, norms
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
    assert dict(one.types)["half"] == "i32" and dict(one.constants)["BLOCK"] == 64 and one.grid == (1,)


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


def test_without_triton_kernels_are_counted_and_not_listed():
    hide = "import sys; sys.modules['triton'] = None\n"
    reason = ask(
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name.startswith('triton') else find(name, *a)\n"
        f"{hide}{SHOW}"
    )
    assert reason == "Triton is not installed; run: pip install triton (Linux only)"
    counts = ask(
        f"{hide}import torch\nfrom deskocr_kit.operators.kernels import elementwise, launch\n"
        "seen = []\nlaunch.LISTENERS.append(seen.append)\n"
        "elementwise.swiglu(torch.empty(3, 40, device='meta'))\nprint(len(seen))\n"
        "try:\n    elementwise.swiglu(torch.zeros(3, 40))\nexcept RuntimeError as error:\n    print(error)"
    )
    assert counts.splitlines()[0] == "1" and "pip install triton" in counts.splitlines()[1]
