"""Every kernel as it runs here against the reference of its slot in fp64, on the same device."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch

from deskocr_kit.device import free_cache, synchronize
from deskocr_kit.device.dtypes import dtype_name
from deskocr_kit.device.tolerances import relative_error
from deskocr_kit.operators.kernels.candidates import CANDIDATES
from deskocr_kit.operators.kernels.launch import KERNEL, interpreted, listening
from deskocr_kit.operators.prove.probe import Probe
from deskocr_kit.operators.prove.probes import Sizes, probes
from deskocr_kit.operators.prove.runner import budgets, cast
from deskocr_kit.operators.substitutes.registry import candidates

from .budget import Deadline

DTYPES = (torch.bfloat16, torch.float16, torch.float32)  # the first is the one that decoding uses


def plan_of_checks(official, small) -> list[tuple[Probe, torch.dtype, str]]:
    """(probe, dtype, size) in the order in which they run: official sizes first, then hard shapes.

    official and small: configs of a model; None leaves that part out.
    """
    real = [p for p in probes(Sizes.of(official)) if p.real] if official is not None else []
    hard = [p for p in probes(Sizes.of(small)) if not p.real and not p.raises] if small is not None else []
    sets = (("official", real), ("hard", hard))
    return [(p, d, name) for name, every in sets for d in DTYPES for p in every if p.slot in CANDIDATES]


def check_kernels(
    checks: Iterable[tuple[Probe, torch.dtype, str]], device: torch.device, deadline: Deadline
) -> list[dict]:
    """One row per slot, size and dtype with the worst error, then one that says how many calls ran.

    A call that the kernel leaves to the reference is not counted. Stops when the time is over.
    """
    worst: dict[tuple, dict] = {}
    checks, done = list(checks), 0
    for probe, dtype, size in checks:
        if deadline.left() <= 0:
            break
        done += 1
        found = check(probe, dtype, device)
        if found is None:
            continue
        key = (probe.slot, size, dtype_name(dtype))
        row = worst.setdefault(
            key,
            {"slot": key[0], "size": size, "dtype": key[2], "calls": 0, "holds": True, "error": 0.0}
            | {"budget": found["budget"], "why": "", "kernels": [], "seconds": 0.0},
        )
        row["calls"] += 1
        row["seconds"] += found["seconds"]
        row["kernels"] = sorted({*row["kernels"], *found["kernels"]})
        row["error"] = max(row["error"], found["error"])
        if found["why"]:
            row["holds"], row["why"] = False, f"{probe.name}: {found['why']}"
    return [*worst.values(), {"calls tried": done, "of": len(checks)}]


def check(probe: Probe, dtype: torch.dtype, device: torch.device) -> dict | None:
    """One call: its error, its budget, the kernels that it started. None if it started none.

    `seconds` are those of the first call; where kernels are compiled, that is mostly the compiler.
    """
    generator = torch.Generator().manual_seed(0)
    args = tuple(
        each.to(device) if torch.is_tensor(each) and i not in probe.host else each
        for i, each in enumerate(cast(each, dtype) for each in probe.make(generator))
    )
    call = probe.call or (lambda function, *given, **more: function(*given, **more))
    found = candidates(probe.slot)
    started: list[str] = []
    with torch.no_grad(), listening(lambda launch: started.append(launch.name)):
        expected = call(found["reference"], *(_wide(each, probe) for each in args), **probe.kwargs)
        begin, why, error = time.perf_counter(), "", 0.0
        try:
            ours = call(found[KERNEL], *args, **probe.kwargs)
            synchronize(device)
            error = relative_error(ours, expected)
        except NotImplementedError:
            return None
        except Exception as problem:
            why = f"{type(problem).__name__}: {str(problem).strip()[:200]}"
        seconds = time.perf_counter() - begin
    free_cache(device)
    if not started and not why:
        return None
    budget = budgets()[probe.slot][dtype_name(dtype)]
    if interpreted() and dtype == torch.bfloat16:
        budget *= 2  # Triton's interpreter cuts bf16 off instead of rounding it
    if not why and not error <= budget:
        why = f"relative error {error:.1e}, budget {budget:g}"
    return {"error": error, "budget": budget, "why": why, "kernels": started, "seconds": seconds}


def _wide(value, probe: Probe):
    """A copy in fp64, which no device shortens as it may fp32. The choice of a token stays in fp32."""
    if not torch.is_tensor(value):
        return value
    dtype = torch.float32 if probe.slot == "choose" else torch.float64
    return value.to(dtype, copy=True) if value.is_floating_point() else value.clone()
