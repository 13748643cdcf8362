"""A 192x256x160 fp16 matmul on a device against fp32 on the CPU. Prints one JSON object.

python -m deskocr_kit.doctor.trials.matmul npu
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main(kind: str) -> None:
    import torch

    found: dict[str, object] = {"device": kind}
    if kind == "npu":
        found |= npu_defaults()
    torch.manual_seed(0)
    a, b = torch.randn(192, 256).half(), torch.randn(256, 160).half()
    want = a.float() @ b.float()
    started = time.time()
    got = (a.to(kind) @ b.to(kind)).float().cpu()
    found["seconds"] = time.time() - started
    found["relative_error"] = float((got - want).abs().max() / want.abs().max())
    module = getattr(torch, kind, None)
    for name in ("get_device_name", "device_count"):
        try:
            found[name] = getattr(module, name)()
        except Exception:
            found[name] = None
    print(json.dumps(found), flush=True)


def npu_defaults() -> dict:
    """The defaults of torch_npu. Then sets those of this kit: no compilation, no private formats."""
    import torch
    import torch_npu

    npu: Any = torch.npu  # type: ignore[attr-defined]  # torch_npu adds it
    option = getattr(torch_npu._C, "_npu_getOption", None)  # torch.npu.config can only be written
    formats = option("ALLOW_INTERNAL_FORMAT") if option else None
    is_false = getattr(npu, "is_jit_compile_false", None)
    found = {
        "internal_format_default": formats.decode() if isinstance(formats, bytes) else formats,
        "jit_compile_default": (not is_false()) if is_false else None,
    }
    npu.set_compile_mode(jit_compile=False)
    npu.config.allow_internal_format = False
    return found


if __name__ == "__main__":
    main(sys.argv[1])
