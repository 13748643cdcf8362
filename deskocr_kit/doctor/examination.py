"""The steps of an examination: texts, facts, probes, rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import capture as _capture
from . import facts as _facts
from . import probes, rules_cann, rules_files, rules_host, rules_model, rules_npu, rules_python, rules_speed
from .case import Case
from .report import LIVE, Report, Row

_RULES = (rules_files, rules_host, rules_python, rules_cann, rules_npu, rules_speed, rules_model)
SMI_SECONDS, LIBRARY_SECONDS, TORCH_SECONDS, MATMUL_SECONDS = 15, 20, 90, 120


def _judge(case: Case) -> list[Row]:
    return [row for module in _RULES for row in module.rules(case)]


def judge(captured: _capture.Capture, facts: dict) -> list[Row]:
    """The rows for captured files."""
    return _judge(Case(captured, facts))


def examine(model: str | Path | None = None, quick: bool = False, patience: float = 1.0) -> Report:
    """Diagnose this machine.

    Args:
        model: a folder of weights to check instead of the default ones.
        quick: skip the probes that import torch.
        patience: multiplies every time limit (npu-smi 15 s, libraries 20 s, torch 90 s, matmul 120 s).
    """
    case = _live_case(quick, patience)
    case.model = Path(model) if model is not None else None
    found = case.probes["torch"].result() if "torch" in case.probes else {}
    device = next((name for name in ("npu", "cuda", "mps") if found.get(name)), "cpu" if found else None)
    alone = case.probes.get("torch without torch-npu")
    if device is None and (quick or (alone is not None and alone.state == "ok")):
        device = "cpu" if case.package("torch") else None
    return Report(_judge(case), device, LIVE, {**case.facts, "libraries": case.libraries}, case.capture)


def _live_case(quick: bool, patience: float) -> Case:
    with ThreadPoolExecutor(max_workers=3) as pool:
        smi = pool.submit(probes.npu_smi, SMI_SECONDS * patience)
        torch = None if quick else pool.submit(probes.torch_import, TORCH_SECONDS * patience)
        smi_probe = smi.result()
        answered = smi_probe.state in ("ok", "error") and (smi_probe.stdout or smi_probe.stderr)
        text = smi_probe.stdout + smi_probe.stderr if answered else None
        captured = _capture.live((text, smi_probe.how))
        case = Case(
            captured,
            _facts.collect(captured),
            homes=_capture.cann_homes(),
            notebook=rules_speed.in_notebook(),
        )
        case.probes["npu-smi"] = smi_probe
        if case.hardware or case.homes or case.package("torch-npu"):
            case.libraries = pool.submit(probes.libraries, LIBRARY_SECONDS * patience).result()
        if torch is not None:
            _torch_probes(case, torch.result(), patience)
    return case


def _torch_probes(case: Case, torch: probes.Probe, patience: float) -> None:
    """Further probes after the import of torch: is torch_npu the cause, and does the device compute?"""
    case.probes["torch"] = torch
    if case.package("torch-npu"):
        if torch.state != "ok":
            case.probes["torch without torch-npu"] = probes.torch_import(
                TORCH_SECONDS * patience, autoload=False
            )
        elif case.package("transformers"):
            case.probes["transformers"] = probes.transformers_import(TORCH_SECONDS * patience)
    found = torch.result()
    device = next((name for name in ("npu", "cuda", "mps") if found.get(name)), None)
    if device is not None:
        case.probes["matmul"] = probes.matmul(device, MATMUL_SECONDS * patience)


def examine_files(source: str | Path) -> Report:
    """Diagnose files captured on another machine: a folder, or a zip written by `--bundle`.

    Raises:
        FileNotFoundError, ValueError: nothing to read there; one line with the remedy.
    """
    captured = _capture.read(source)
    case = Case(captured, _facts.collect(captured))
    device = "npu" if case.facts["npus"] else None
    return Report(_judge(case), device, str(source), case.facts, captured)
