"""deskocr_kit.device on the CPU of this machine, and with torch-npu in the states that users have."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from deskocr_kit.device import (
    AUTOLOAD,
    DeviceError,
    Event,
    Timer,
    default_dtype,
    describe_device,
    device_memory,
    explain,
    free_cache,
    is_out_of_memory,
    is_simulated,
    pick_device,
    reset_peak,
    seed_everything,
    selection,
    synchronize,
)
from tests.helpers.fresh_process import python
from tests.helpers.paths import ROOT

CPU = torch.device("cpu")
PLAIN = {k: v for k, v in os.environ.items() if k not in (AUTOLOAD, "DESKOCR_DEVICE")}


# ---------------------------------------------------------------------- choosing
def test_pick_by_name():
    assert pick_device("cpu") == pick_device("CPU") == pick_device(CPU) == CPU


def test_auto_takes_the_best_that_there_is(monkeypatch):
    monkeypatch.delenv("DESKOCR_DEVICE", raising=False)
    for kinds, expected in [({"cpu"}, "cpu"), ({"cpu", "mps"}, "mps")]:
        monkeypatch.setattr(selection, "device_count", lambda kind, kinds=kinds: int(kind in kinds))
        assert pick_device("auto").type == expected
    monkeypatch.setenv("DESKOCR_DEVICE", "cpu")
    assert pick_device("auto") == pick_device(None) == CPU


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tpu", "unknown device 'tpu': use auto, npu, cuda, mps, cpu"),
        ("cpu:x", "unknown device"),
        ("cpu:3", r"this process sees 1 device\(s\) of kind cpu; the highest index is 0"),
        ("npu-sim:nope", "no profile 'nope': use one of all, as-believed, as-published"),
    ],
)
def test_what_cannot_be_picked(name, text):
    with pytest.raises(DeviceError, match=text):
        pick_device(name)


@pytest.mark.skipif(
    torch.cuda.is_available() or hasattr(torch, "npu"), reason="is about machines without a card"
)
@pytest.mark.parametrize(
    ("name", "text"), [("npu", "torch-npu is not installed.*npu-sim"), ("cuda", "no CUDA")]
)
def test_no_card(name, text, monkeypatch):
    # Another test of this process may have installed the simulated NPU, which cannot be undone.
    monkeypatch.delattr(torch, "npu", raising=False)
    monkeypatch.delitem(sys.modules, "torch_npu", raising=False)
    with pytest.raises(DeviceError, match=text):
        pick_device(name)


def test_defaults_and_description():
    assert default_dtype(CPU) is torch.float32
    told = describe_device(CPU)
    assert told["device"] == "cpu" and told["simulated"] is False and told["torch"] == torch.__version__
    assert not is_simulated("cpu")


# ---------------------------------------------------------------------- time, randomness, memory
def test_timer_and_events():
    with Timer(CPU) as timer:
        begin = Event(CPU).record()
        time.sleep(0.02)
        end = Event(CPU).record()
    assert 0.02 <= begin.seconds_to(end) <= timer.seconds < 2
    synchronize(CPU)


def test_seed():
    import random

    import numpy

    seed_everything(5)
    first = (random.random(), numpy.random.rand(), torch.rand(1).item())
    seed_everything(5)
    assert first == (random.random(), numpy.random.rand(), torch.rand(1).item())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the CPU's figures come from /proc")
def test_memory_of_the_host():
    free_cache(CPU)
    before = device_memory(CPU)
    x = torch.ones(50_000_000)
    during = device_memory(CPU)
    assert during.allocated - before.allocated > 150_000_000 and during.peak >= during.allocated
    assert before.total == during.total > during.peak
    del x
    free_cache(CPU)
    if reset_peak(CPU):
        assert device_memory(CPU).peak < during.peak - 150_000_000


NPU_FULL = (
    "NPU out of memory. Tried to allocate 2.00 GiB (NPU 0; 60.97 GiB total capacity; 57.31 GiB already "
    "allocated; 57.31 GiB current active; 1.02 GiB free; 58.20 GiB reserved in total by PyTorch)"
)


def caused_by(error: Exception) -> Exception:
    outer = RuntimeError("page 3 failed")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError(NPU_FULL), True),  # torch_npu up to its 7.3 builds
        (torch.OutOfMemoryError(NPU_FULL), True),  # from 26.0 on
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB"), True),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"),
            True,
        ),
        (RuntimeError("NPU function error: aclrtMalloc, error code is 207001"), True),
        (RuntimeError("EL0004: Failed to allocate memory."), True),
        (MemoryError(), True),
        (caused_by(RuntimeError(NPU_FULL)), True),
        (RuntimeError("NPU out of memory. Tried to allocate more than 1EB memory."), False),  # absurd size
        (RuntimeError("call aclnnAdd failed, error code is 561103"), False),
        (RuntimeError("error code is 2070010"), False),
        (RuntimeError("rtMalloc failed, runtime result = 207001"), True),
        (RuntimeError("[Error]: error code:207018, malloc"), True),
        (RuntimeError("the page has 207001 words"), False),
        (ValueError("out of memory, says the caption of a page"), False),
    ],
)
def test_out_of_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_an_exception_in_words():
    assert "Remedy" in explain(RuntimeError(NPU_FULL)) or len(explain(RuntimeError(NPU_FULL))) > 200


# ---------------------------------------------------------------------- torch-npu in other states: own
# processes
def run(code: str, *paths: Path, **variables: str) -> subprocess.CompletedProcess:
    """With the imports: what torch finds when it is imported is part of the state."""
    environment = {k: v for k, v in os.environ.items() if k not in (AUTOLOAD, "DESKOCR_DEVICE")}
    environment |= {
        "PYTHONPATH": os.pathsep.join(map(str, (*paths, ROOT))),
        "PYTHONWARNINGS": "always::UserWarning",
    }
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


@pytest.fixture
def wheel_without_cann(tmp_path) -> Path:
    """A package that behaves like the published torch-npu wheels without CANN."""
    (tmp_path / "torch_npu").mkdir()
    (tmp_path / "torch_npu" / "__init__.py").write_text(
        "raise ImportError('libhccl.so: cannot open shared object file: No such file or directory')\n"
    )
    info = tmp_path / "torch_npu-2.6.0.post5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch-npu\nVersion: 2.6.0.post5\n")
    (info / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
    return tmp_path


def test_the_fault_is_real(wheel_without_cann):
    done = run("import torch", wheel_without_cann)
    assert done.returncode == 1 and "Failed to load the backend extension: torch_npu" in done.stderr


def test_without_cann_the_cpu_stays_usable(wheel_without_cann):
    done = run(
        """
        from deskocr_kit import device
        print(device.pick_device("cpu"), device.pick_device("auto"))
        from transformers import PreTrainedModel
        from transformers.utils import is_torch_npu_available
        print(is_torch_npu_available())
        """,
        wheel_without_cann,
    )
    assert done.stdout.split() == ["cpu", "cpu", "False"], done.stderr
    assert AUTOLOAD in done.stderr and "set_env.sh" in done.stderr and "without the NPU" in done.stderr


def test_without_cann_asking_for_the_npu_is_explained(wheel_without_cann):
    done = run("from deskocr_kit import device; device.pick_device('npu')", wheel_without_cann)
    last = done.stderr.strip().splitlines()[-1]
    assert "DeviceError: torch-npu is installed, but CANN cannot be loaded" in last
    assert all(
        word in last for word in ("set_env.sh", "pip uninstall torch-npu", "TORCH_DEVICE_BACKEND_AUTOLOAD=0")
    )


def test_without_cann_the_simulator_works(wheel_without_cann):
    done = run(
        """
        from deskocr_kit import device
        npu = device.pick_device("npu-sim")
        import torch
        print(torch.ones(3, device=npu).sum().item(), device.is_simulated(npu),
        device.describe_device(npu)["profile"])
        """,
        wheel_without_cann,
    )
    assert done.stdout.split() == ["3.0", "True", "as-published"], done.stderr


@pytest.mark.parametrize("how", ["as torch_npu", "as another backend"])
def test_the_simulator_does_not_start_beside_a_real_device(how):
    done = python(
        f"""
        import sys, types, torch
        if {how == "as torch_npu"}:
            sys.modules["torch_npu"] = types.ModuleType("torch_npu")
        else:
            torch.utils.rename_privateuse1_backend("fpga_card")
        from deskocr_kit import device, simulator
        for start in (simulator.install, lambda: device.pick_device("npu-sim")):
            try:
                start()
            except RuntimeError as error:
                print(type(error).__name__, "already active" in str(error), device.AUTOLOAD in str(error))
        print(simulator.installed(), hasattr(torch, "npu"))
        """,
        env=PLAIN,
    )
    assert done.stdout.splitlines() == ["RealNpuPresent True True", "DeviceError True True", "False False"], (
        done.stderr
    )


def test_an_npu_is_set_up_and_says_so():
    """The simulated device in place of a real one, to test what is switched off on it."""
    done = python(
        """
        from deskocr_kit import device, simulator
        import torch
        simulator.install()
        torch.npu.simulated = False
        torch.npu.config.allow_internal_format = True
        torch.npu.set_compile_mode = lambda jit_compile: print("jit_compile", jit_compile)
        torch.npu.set_device = lambda card: print("set", card)
        print(device.pick_device("npu"), device.pick_device("npu:0"), torch.npu.config.allow_internal_format)
        print(device.default_dtype("npu:0"))
        """,
        env=PLAIN,
    )
    told = done.stdout.splitlines()  # the card is chosen before other code can start another one
    assert told[:3] == ["set npu:0", "jit_compile False", "set npu:0"], done.stderr
    assert told[3:] == ["npu:0 npu:0 False", "torch.float16"], done.stderr
    assert done.stderr.count("jit_compile off, allow_internal_format off") == 1


def test_profiles_by_name_and_figures_of_the_simulated_device():
    done = python(
        """
        from deskocr_kit import device
        npu = device.pick_device("npu-sim:as-believed")
        import torch
        device.reset_peak(npu)
        x = torch.zeros(1000, device=npu)
        begin = device.Event(npu).record()
        with device.Timer(npu) as timer:
            y = x + 1
        held = device.device_memory(npu)
        print(held.allocated, held.peak, held.total >> 30)
        print(begin.seconds_to(device.Event(npu).record()) > 0, timer.seconds > 0)
        told = device.describe_device(npu)
        print(told["profile"], told["simulated"], "simulated" in told["name"], device.pick_device("auto"))
        """,
        env=PLAIN,
    )
    expected = ["8000 8000 64", "True True", "as-believed True True npu:0"]
    assert done.stdout.splitlines() == expected, done.stderr
    assert "no time measured on it is an NPU time" in done.stderr


def test_works_without_torch():
    done = run(
        """
        import sys
        sys.modules["torch"] = None
        from deskocr_kit import device
        try:
            device.pick_device("cpu")
        except device.DeviceError as error:
            print("`import torch` fails" in str(error))
        """
    )
    assert done.stdout.split() == ["True"], done.stderr
