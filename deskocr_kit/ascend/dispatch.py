"""How an NPU runs an operator: the dispatch table of a published torch_npu wheel, and rules by dtype.

The tables (data/dispatch) are made by dispatch_generator.py from the wheels' dispatchers. The dtype rules are
those of CANN 8.5.0 (data/profiles). Both describe published software; nothing was run on a device.
"""

from __future__ import annotations

import csv
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from .profiles import load

FOLDER = Path(__file__).with_name("data") / "dispatch"
DEFAULT = "2.13.0"
CANN = "8.5.0"

# The meaning of each verdict, worst first. Tables and figures use this order.
VERDICTS = {
    "CPU fallback": "no kernel: torch_npu copies to the host, computes there, copies back, and warns",
    "AI CPU": "runs on the few CPU cores of the card, for these dtypes or shapes",
    "slow kernel": "a kernel on a path that is known to be slow or inexact",
    "unknown": "not in the wheel's table: the operator is newer than the wheel, or not from PyTorch",
    "composite": "no kernel of its own: PyTorch decomposes it into other operators",
    "kernel": "one kernel on the AI Core",
    "view": "no work: a view of the same memory",
    "transfer": "a copy between host and card",
    "host": "on host memory: no work for the card",
}


@dataclass(frozen=True)
class Verdict:
    """A key of VERDICTS, with the reason and its source if there is one."""

    word: str
    why: str = ""
    source: str = ""

    def __str__(self) -> str:
        return self.word


def wheel_versions() -> list[str]:
    """The torch_npu versions with a table, oldest first."""
    return sorted((p.stem.removeprefix("torch_npu_") for p in FOLDER.glob("*.tsv")), key=_order)


def nearest_wheel(version: str | None) -> str:
    """The table for a version: the newest that is not newer than it, else the oldest.

    Raises:
        ValueError: `version` is not a version number.
    """
    if version is None:
        return DEFAULT
    if not re.match(r"\d+\.\d+", version):
        raise ValueError(
            f"{version!r} is not a torch_npu version such as 2.6.0.post5; tables: {wheel_versions()}"
        )
    known = wheel_versions()
    return next((v for v in reversed(known) if _order(v) <= _order(version)), known[0])


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version))


@functools.lru_cache
def dispatch_table(version: str) -> dict[str, dict]:
    """{operator: row}. Columns are dispatch keys; "1" means that the wheel has a kernel."""
    with open(FOLDER / f"torch_npu_{version}.tsv", newline="", encoding="utf-8") as file:
        return {row["op"]: row for row in csv.DictReader(file, delimiter="\t")}


@functools.lru_cache
def composites(version: str = DEFAULT) -> frozenset[str]:
    """Operators that reach the backend and are decomposed there: only their parts run."""
    keep = {"aten::lift_fresh", "aten::_unsafe_view", "aten::detach", "aten::alias"}
    return frozenset(
        name
        for name, row in dispatch_table(version).items()
        if row["PrivateUse1"] == row["CPU"] == "0" and row["CompositeExplicit"] == "1" and name not in keep
    )


@functools.lru_cache
def disputed() -> frozenset[str]:
    """Composite operators that some of the published wheels decompose, and others do not: they have a kernel
    for it, or do not know it. Their calls are recorded whole and in parts; the version decides what counts.
    """
    known = [composites(version) for version in wheel_versions()]
    return frozenset().union(*known) - frozenset.intersection(*known)


@functools.lru_cache
def kernels_for_composites() -> frozenset[str]:
    """Operators that PyTorch takes apart where a backend has no kernel, and every published wheel has one."""
    tables = [dispatch_table(version) for version in wheel_versions()]
    return frozenset(
        name
        for name, row in tables[0].items()
        if row["CompositeExplicit"] == "1"
        and all(table.get(name, {}).get("PrivateUse1") == "1" for table in tables)
    )


@functools.lru_cache
def _profile(version: str):
    return load("as-published-2.6.0" if version.startswith("2.6") else "as-published")


def _float_mask(args: tuple) -> bool:
    mask = args[3] if len(args) > 3 else None
    return mask is not None and str(getattr(mask, "dtype", "")).startswith("torch.float")


def _special(name: str, args: tuple, options: str, version: str) -> Verdict | None:
    """The verdict for a path that was traced in the published wheels, or None."""
    if name.startswith("aten::mkldnn_") or name.endswith("_for_cpu"):
        return Verdict("unknown", "only the CPU uses this path: run the census on meta for that of a device")
    if any(str(getattr(a, "dtype", "")) in ("torch.float64", "torch.complex128") for a in args):
        return Verdict("AI CPU", "64-bit floats: few AI Core kernels accept them", "torch_npu documentation")
    if name == "aten::scaled_dot_product_attention" and (_float_mask(args) or "attn_mask=float" in options):
        return Verdict(
            "slow kernel", "a float mask takes the unfused fp32 path, 12 kernels", "op trace, 2.6.0.post5"
        )
    if name == "aten::convolution" and _order(version) < _order("2.7.1.post4"):
        return Verdict(
            "slow kernel",
            "on a 910B the legacy compile path, unless jit_compile and allow_internal_format are off",
            "op-plugin 7.3.0, ConvolutionKernelNpuOpApi.cpp",
        )
    if name == "aten::gelu" and "tanh" not in options:
        return Verdict(
            "slow kernel", "computed with the tanh formula: errors up to 5e-4", "op-plugin, aclnnGelu"
        )
    return None


def judge(name: str, kind: str, args: tuple = (), options: str = "", version: str = DEFAULT) -> Verdict:
    """The verdict for one call. args: its arguments; only shape and dtype of tensors are used."""
    if kind in ("view", "alloc"):
        return Verdict("view")
    if kind == "host":
        return Verdict("host")
    if kind in ("h2d", "d2h", "read"):
        return Verdict("transfer", "the host waits" if kind != "h2d" else "")
    profile, row = _profile(version), dispatch_table(version).get(name)
    for rule in profile.rules_of(name):
        if rule.applies(args):
            return Verdict("AI CPU" if rule.then == "ai-cpu" else "CPU fallback", rule.why, rule.source)
    special = _special(name, args, options, version)
    if special is not None:
        return special
    if row is None:
        return Verdict("unknown", f"not in the table of torch_npu {version}")
    if row["verdict"] == "NPU kernel":
        return Verdict("kernel")
    via = profile.via.get(name)
    if row["verdict"].startswith("no NPU kernel") or via is not None:
        return Verdict("CPU fallback", f"through {via}" if via else "", f"dispatcher of torch_npu {version}")
    return Verdict("composite" if row["verdict"].startswith("composite") else "unknown", row["verdict"])
