"""The simulated NPU together with the real torch_npu. Argument: which of them is first in this process."""

from __future__ import annotations

import json
import sys

import torch

from deskocr_kit import simulator
from deskocr_kit.device import pick_device

found = {"real is active": "torch_npu" in sys.modules}
if sys.argv[1] == "real":
    for name, action in (("install", simulator.install), ("pick", lambda: pick_device("npu-sim"))):
        try:
            action()
            found[name] = None
        except Exception as error:
            found[name] = [type(error).__name__, str(error)]
    found["installed"] = simulator.installed()
    found["copy"] = torch.arange(4).to("npu").cpu().tolist()  # the real backend still works
else:
    simulator.install()
    found["before"] = (torch.arange(4).to("npu") * 2).cpu().tolist()
    try:
        import torch_npu  # noqa: F401

        found["import torch_npu"] = None
    except ImportError as error:
        found["import torch_npu"] = str(error)
    from transformers import PreTrainedModel  # noqa: F401 (it looks for torch_npu, and would import it)

    found["after"] = (torch.arange(4).to("npu") * 3).cpu().tolist()
print(json.dumps(found))
