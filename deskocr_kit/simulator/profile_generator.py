"""Make the `as-published` profiles from the dispatch tables of the published torch_npu wheels.

    python -m deskocr_kit.simulator.profile_generator            write the profiles
    python -m deskocr_kit.simulator.profile_generator --check    exit status 0: up to date, 1: not

dispatch_generator.py makes the tables (`data/dispatch/*.tsv`) from the dispatchers of the wheels. They list
the dispatch keys with a kernel for every ATen operator. An operator with neither a kernel for PrivateUse1 nor
a composite one runs on the host, with a warning. The rules by dtype come from CANN's operator sources
(release 8.5.0, 910B) and cover the operators of this model.
"""

from __future__ import annotations

import csv
import json
import sys

import torch

from ..ascend.profiles import FOLDER

TABLES = FOLDER.parent / "dispatch"
#: profile name -> (wheel, class of its out-of-memory error)
WHEELS = {"as-published": ("2.13.0", "torch"), "as-published-2.6.0": ("2.6.0.post5", "runtime")}

_FLOATS = ("float32", "float16", "bfloat16")

RULES = [
    {
        "operators": ["aten::masked_scatter_"],
        "when": {
            "mask_broadcasts": True,
            "dtypes_other_than": [*_FLOATS, "uint8", "int8", "int16", "int32", "int64"],
        },
        "then": "ai-cpu",
        "why": "the AI Core kernel needs a bool mask of the full shape",
        "source": "hicann/ops-nn v8.5.0, index/masked_scatter/op_api/masked_scatter.cpp",
    },
    {
        "operators": ["aten::cumsum", "aten::cumsum_", "aten::cumsum.out"],
        "when": {"dtypes_other_than": [*_FLOATS, "int32"]},
        "then": "ai-cpu",
        "why": "no AI Core kernel for int64: use int32",
        "source": "hicann/ops-math v8.5.0, cumsum op_api",
    },
    {
        "operators": ["aten::argsort.*"],
        "when": {"dtypes_other_than": ["float32", "float16", "bfloat16"]},
        "then": "ai-cpu",
        "why": "no AI Core kernel for integers: sort float keys",
        "source": "hicann/ops-nn v8.5.0, sort op_api; the warning is CANN's",
        "warning": "kernel [ArgSort] can not support dtype int32 or int64 on AiCore, Now this kernel is "
        "running on AiCpu.If you are more concerned about high-performance execution,please cast dtype to "
        "float32.",
    },
    {
        "operators": ["aten::sort.*"],
        "when": {"dtypes_other_than": ["float32", "float16", "bfloat16"]},
        "then": "ai-cpu",
        "why": "no AI Core kernel for integers: sort float keys",
        "source": "hicann/ops-nn v8.5.0, sort op_api",
    },
    {
        "operators": ["aten::scatter.*", "aten::scatter_.*", "aten::scatter_add.*", "aten::scatter_add_.*"],
        "when": {"dtypes_other_than": ["float32", "float16", "bfloat16", "int32", "int8", "uint8"]},
        "then": "ai-cpu",
        "why": "no AI Core kernel for int64",
        "source": "hicann/ops-nn v8.5.0, scatter_elements op_api",
    },
    {
        "operators": ["aten::nonzero"],
        "when": {"dtypes_other_than": ["bool", "float16", "bfloat16", "float32", "int8", "uint8"]},
        "then": "ai-cpu",
        "why": "cast integer masks to bool",
        "source": "hicann/ops-math v8.5.0, nonzero op_api",
    },
    {
        "operators": ["aten::bincount"],
        "then": "ai-cpu",
        "why": "AI CPU only on 910B: use one_hot().sum(0) or a comparison matrix",
        "source": "hicann/ops-math v8.5.0, bincount op_api",
    },
]


def read_table(wheel: str) -> dict[str, dict]:
    """Rows of a dispatch table by operator name."""
    with open(TABLES / f"torch_npu_{wheel}.tsv", newline="", encoding="utf-8") as file:
        return {row["op"]: row for row in csv.DictReader(file, delimiter="\t")}


def fallbacks(table: dict[str, dict]) -> list[str]:
    """Operators that this wheel runs on the host."""
    return sorted(name for name, row in table.items() if row["verdict"].startswith("no NPU kernel"))


def through_out(table: dict[str, dict], host: list[str]) -> dict[str, str]:
    """{operator: its out= variant}, if PyTorch computes the operator by a variant that runs on the host."""
    on_host, found = set(host), {}
    for name, row in table.items():
        if row["PrivateUse1"] == "0" and row["CompositeExplicitNonFunctional"] == "1" and row["CPU"] == "1":
            target = _out_form(name)
            if target in on_host:
                found[name] = target
    return dict(sorted(found.items()))


def _out_form(name: str) -> str | None:
    packet_name, _, overload = name.removeprefix("aten::").partition(".")
    packet = getattr(torch.ops.aten, packet_name, None)
    target = getattr(torch.ops.aten, packet_name.rstrip("_"), None)
    if packet is None or target is None or (overload or "default") not in packet.overloads():
        return None
    wanted = [(a.name, str(a.type)) for a in getattr(packet, overload or "default")._schema.arguments]
    for candidate in target.overloads():
        arguments = getattr(target, candidate)._schema.arguments
        plain = [(a.name, str(a.type)) for a in arguments if not a.is_out]
        if len(plain) < len(arguments) and plain == wanted:
            return f"aten::{packet_name.rstrip('_')}.{candidate}"
    return None


def build(name: str) -> dict:
    """The profile `name` as plain data."""
    wheel, out_of_memory = WHEELS[name]
    table = read_table(wheel)
    host = fallbacks(table)
    via = through_out(table, host)
    return {
        "name": name,
        "description": f"The operators of the published torch_npu {wheel}: an NPU kernel, or the host's with "
        "a warning; and rules for calls that CANN runs on the AI CPU. Made by "
        "deskocr_kit.simulator.profile_generator, do not edit.",
        "source": f"dispatcher of the torch_npu {wheel} wheel (data/dispatch); no device was at hand",
        "device": {"name": "Ascend910B3", "count": 1, "memory_gib": 64, "out_of_memory": out_of_memory},
        "half": "round",
        "missing": "cpu-fallback",
        "block": sorted({*host, *via}),
        "via": via,
        "rules": RULES,
    }


def main(arguments: list[str]) -> int:
    stale = []
    for name in WHEELS:
        path = FOLDER / f"{name}.json"
        text = json.dumps(build(name), indent=1, ensure_ascii=False) + "\n"
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.name}")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
    if stale:
        print("not up to date:", ", ".join(stale))
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
