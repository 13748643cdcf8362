"""Which operators of the network have a kernel in the installed software, against the published wheels.

python -m deskocr_kit.evidence.kernels --device npu --checkpoint deepseek-ocr --out kernels.json
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import torch

from model.files import write_json
from model.loading import read_config

from ..ascend.dispatch import nearest_wheel
from ..device import describe_device, pick_device
from ..kernel_evidence.table import evidence
from ..operator_census.ocr_model import census_ocr
from ..operators.kernels.launch import why_not
from ..reading.checkpoints import find_checkpoint

KEYS = {"npu": "PrivateUse1", "cuda": "CUDA", "cpu": "CPU"}
COMPOSITE = (
    "CompositeImplicitAutograd",
    "CompositeExplicitAutograd",
    "CompositeExplicitAutogradNonFunctional",
)


def kernels(device: str, checkpoint: str) -> dict:
    """{"device", "launches_per_token", "operators": [{operator, calls, installed, published}], "triton"}.

    installed: "kernel", "composite" (PyTorch's own parts) or "none", as the dispatcher of this process says.
    published: the verdict for the nearest published torch_npu. calls: of one page and one decoded token.
    triton: whether the kit's own kernels can run here, and the levels of evidence of each.
    """
    where = pick_device(device, quiet=True)
    told = describe_device(where)
    census = census_ocr(read_config(find_checkpoint(checkpoint)), "tiny", (1, 1), torch_npu=told["torch_npu"])
    rows = [
        {
            "operator": row["operator"],
            "calls": row["total"],
            "installed": installed(f"aten::{row['operator']}", KEYS.get(where.type, "CPU")),
            "published": row["verdict"],
        }
        for row in census.rows()
    ]
    return {
        "device": told,
        "published_wheel": nearest_wheel(told["torch_npu"]),
        "launches_per_token": census.launches("decode"),
        "operators": rows,
        "triton": {
            "here": why_not(where) or "kernels can run",
            "kernels": [{**asdict(each), "assembled": each.machine_code()} for each in evidence()],
        },
    }


def installed(name: str, key: str) -> str:
    """What the dispatcher has for an operator on a dispatch key."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    try:
        if has(name, key):
            return "kernel"
        return "composite" if any(has(name, each) for each in COMPOSITE) else "none"
    except RuntimeError:  # an operator of another torch version
        return "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--checkpoint", default="nano")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    print(f"wrote {write_json(given.out, kernels(given.device, given.checkpoint))}")


if __name__ == "__main__":
    main()
