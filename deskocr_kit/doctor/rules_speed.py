"""Rules for variables and settings that affect speed, and for the matmul on the device."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..ascend import errors, versions
from ..ascend.versions import key
from .case import Case
from .report import Row

# fp16 rounds to 2**-11 = 0.0005 of the largest entry; ten times that allows any order of additions.
MATMUL_BUDGET = 5e-3


def rules(case: Case) -> Iterator[Row]:
    if case.hardware or case.package("torch-npu"):
        yield from _variables(case)
    if case.hardware:
        yield from _task_queue(case)
        yield from _convolution(case)
    if case.live:
        yield from _torch(case)
        yield from _matmul(case)


def _variables(case: Case) -> Iterator[Row]:
    if "env.txt" not in case.capture:
        yield Row(
            "Settings", "environment", "SKIP", f"env.txt: {case.capture.notes.get('env.txt', 'not captured')}"
        )
        return
    env, chips = case.facts["env"], case.facts["npus"]
    bad = list(_visible(env.get("ASCEND_RT_VISIBLE_DEVICES"), len(chips)))
    if env.get("ASCEND_LAUNCH_BLOCKING", "0") not in ("", "0"):
        bad.append(
            (
                "WARN",
                "ASCEND_LAUNCH_BLOCKING",
                "every launch waits for the device; use it only for debugging",
                "unset ASCEND_LAUNCH_BLOCKING",
            )
        )
    if env.get("ASCEND_GLOBAL_LOG_LEVEL") in ("0", "1"):
        bad.append(
            (
                "WARN",
                "ASCEND_GLOBAL_LOG_LEVEL",
                "debug and info logs slow down every launch",
                "export ASCEND_GLOBAL_LOG_LEVEL=3",
            )
        )
    if env.get("ASCEND_SLOG_PRINT_TO_STDOUT") == "1":
        bad.append(
            (
                "WARN",
                "ASCEND_SLOG_PRINT_TO_STDOUT",
                "CANN prints its logs to the screen",
                "unset ASCEND_SLOG_PRINT_TO_STDOUT",
            )
        )
    if env.get("TORCH_DEVICE_BACKEND_AUTOLOAD") == "0" and case.hardware:
        why = "torch does not load torch_npu itself (this kit does; other programs need `import torch_npu`)"
        bad.append(("WARN", "TORCH_DEVICE_BACKEND_AUTOLOAD", why, "unset TORCH_DEVICE_BACKEND_AUTOLOAD"))
    if env.get("TORCH_NPU_FALLBACK_CPU_DISABLE") == "1":
        why = "operators without an NPU kernel raise instead of running on the CPU"
        bad.append(("OK", "TORCH_NPU_FALLBACK_CPU_DISABLE", why, ""))
    for status, name, why, remedy in bad:
        yield Row("Settings", name, status, f"={env[name][:80]}: {why}", remedy)
    shown = {name for _, name, _, _ in bad} | {"LD_LIBRARY_PATH", "PYTHONPATH"}
    rest = [f"{name}={value}" for name, value in env.items() if name not in shown and len(value) < 80]
    rest = [each for each in rest if not each.endswith("=<set>")]
    yield Row("Settings", "environment", "OK", " ".join(rest) or "no relevant variable is set")


def _visible(value: str | None, chips: int) -> Iterator[tuple[str, str, str, str]]:
    if value is None:
        return
    name = "ASCEND_RT_VISIBLE_DEVICES"
    fields = [field.strip() for field in value.split(",") if field.strip()]
    if not fields:
        yield "WARN", name, "empty, which hides all cards", f"unset {name}"
    elif not all(field.isdecimal() and len(field) < 6 for field in fields):
        yield "FAIL", name, "not a list of numbers", f"export {name}=0"
    elif chips and max(map(int, fields)) >= chips:
        why = f"only {chips} card(s) are visible, numbered from 0"
        yield "FAIL", name, why, f"export {name}={','.join(map(str, range(min(chips, len(fields)))))}"


def _task_queue(case: Case) -> Iterator[Row]:
    value = case.facts["env"].get("TASK_QUEUE_ENABLE")
    if case.notebook:
        seen = "IPython or Jupyter: the import of torch_npu forces it to 0, whatever its value"
        yield Row(
            "Settings", "TASK_QUEUE_ENABLE", "WARN", seen, "Measure speed in a subprocess: deskocr bench"
        )
    elif value == "0":
        seen = "=0: launches are not queued; the host waits for each"
        yield Row("Settings", "TASK_QUEUE_ENABLE", "WARN", seen, "export TASK_QUEUE_ENABLE=1")
    elif "env.txt" in case.capture:
        note = "; 2 does not work during graph capture" if value == "2" else ""
        yield Row(
            "Settings",
            "TASK_QUEUE_ENABLE",
            "OK",
            f"={value[:80]}{note}" if value else "not set; the default is 1, queued launches",
        )


def _convolution(case: Case) -> Iterator[Row]:
    """The default route of Conv2d, which jit_compile and internal formats determine."""
    torch_npu = case.package("torch-npu")
    row = versions.set_of(torch_npu) if torch_npu else None
    if not torch_npu:
        return
    generations = {chip["generation"] for chip in case.facts["npus"]} - {None}
    lines = "torch.npu.set_compile_mode(jit_compile=False); torch.npu.config.allow_internal_format = False"
    old = row is None or key(row["branch"]) < key(versions.tables()["internal_format_off_since_branch"])
    if row is not None and not old:
        seen = f"torch-npu {torch_npu}: internal formats are off by default, Conv2d takes the modern route"
        yield Row("Settings", "convolution", "OK", seen)
    elif generations and generations <= {"A3"}:
        yield Row("Settings", "convolution", "OK", "on a 910C internal formats are off by default")
    else:
        seen = (
            f"torch-npu {torch_npu}: by default Conv2d takes the legacy route (internal formats), which "
            "compiles for every new shape. This kit disables both at its start"
        )
        yield Row(
            "Settings",
            "convolution",
            "OK",
            seen,
            f"In your own scripts, directly after `import torch_npu`: {lines}",
        )


def _torch(case: Case) -> Iterator[Row]:
    probe = case.probes.get("torch")
    if probe is None or case.package("torch") is None:
        return
    if probe.state == "ok":
        found = probe.result()
        accelerators = [name for name in ("npu", "cuda", "mps") if found.get(name)] or ["cpu"]
        seen = f"{found.get('torch')} imports in {probe.seconds:.1f} s; sees {', '.join(accelerators)}"
        yield Row("Device", "import torch", "OK", seen)
        if case.nodes and not found.get("npu"):
            remedy = (
                "torch sees no card without torch-npu or with a broken CANN: fix the FAIL rows above first."
            )
            yield Row(
                "Device",
                "torch.npu",
                "FAIL",
                "there is a card, but torch.npu.is_available() is False",
                remedy,
            )
    else:
        yield _broken_torch(case)
    other = case.probes.get("transformers")
    if other is not None and other.state != "ok":
        known = errors.explain(other.stderr)
        remedy = known[0].remedy if known else "pip install --force-reinstall transformers"
        if case.package("torch-npu") and not case.hardware:
            remedy = "pip uninstall torch-npu   (no NPU here, and transformers fails on its libraries)"
        yield Row("Device", "import transformers", "FAIL", other.how, remedy)


def _broken_torch(case: Case) -> Row:
    probe, alone = case.probes["torch"], case.probes.get("torch without torch-npu")
    known = errors.explain(probe.stderr)
    if case.package("torch-npu") and alone is not None and alone.state == "ok":
        cause = known[0].cause if known else probe.how
        seen = f"fails only because torch-npu is installed and cannot be loaded: {probe.how}\n{cause}"
        remedy = "export TORCH_DEVICE_BACKEND_AUTOLOAD=0   (torch then imports, without the NPU)"
        if case.hardware or case.homes:
            remedy = f"{known[0].remedy if known else 'Repair CANN.'} Until then: {remedy}"
        else:
            remedy = f"pip uninstall torch-npu   (no CANN here; transformers fails on it too), or {remedy}"
        return Row("Device", "import torch", "FAIL", seen, remedy)
    remedy = known[0].remedy if known else "pip install --force-reinstall torch"
    return Row("Device", "import torch", "FAIL", probe.how, remedy)


def _matmul(case: Case) -> Iterator[Row]:
    probe = case.probes.get("matmul")
    if probe is None:
        found = case.probes["torch"].result() if "torch" in case.probes else {}
        if "cpu_error" in found:
            right = found["cpu_error"] == 0  # small integers: exact in fp32
            yield Row(
                "Device",
                "matmul (cpu)",
                "OK" if right else "FAIL",
                f"error {found['cpu_error']} against fp64",
            )
        return
    found = probe.result()
    name = f"matmul ({found.get('device', 'device')})"
    if probe.state != "ok" or "relative_error" not in found:
        known = errors.explain(probe.stderr)
        remedy = (
            known[0].remedy
            if known
            else "Run again with ASCEND_LAUNCH_BLOCKING=1 and read the logs in ~/ascend/log/debug/plog."
        )
        cause = f"\n{known[0].cause}" if known else ""
        yield Row("Device", name, "FAIL", f"{probe.how}{cause}", remedy)
        return
    error = found["relative_error"]
    chip = found.get("get_device_name") or ""
    seen = f"{chip} fp16 against fp32 on the CPU: relative error {error:.1e}".strip()
    if found.get("device") == "npu":
        jit, formats = found.get("jit_compile_default"), found.get("internal_format_default")
        seen += f" (defaults: jit_compile={jit}, allow_internal_format={formats})"
    if error <= MATMUL_BUDGET:
        yield Row("Device", name, "OK", seen)
    else:
        yield Row(
            "Device",
            name,
            "FAIL",
            f"{seen}, more than {MATMUL_BUDGET}",
            "The device computes wrong values: check driver and CANN, then run `deskocr prove`.",
        )


def in_notebook() -> bool:
    """Whether this process runs under IPython. (torch_npu checks `sys.ps1`.)"""
    import sys

    return hasattr(sys, "ps1") or "ipykernel" in sys.modules or bool(os.environ.get("JPY_PARENT_PID"))
