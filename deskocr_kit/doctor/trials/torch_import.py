"""Import torch, multiply on the CPU, and list the available devices. Prints one JSON object."""

from __future__ import annotations

import importlib.util
import json


def main() -> None:
    found: dict[str, object] = {"torch_npu_installed": importlib.util.find_spec("torch_npu") is not None}
    import torch  # may load torch_npu, crash or hang: that is what is tried

    found["torch"] = torch.__version__
    a = torch.arange(4096, dtype=torch.float32).reshape(64, 64).remainder(7) - 3
    found["cpu_error"] = float(((a @ a).double() - a.double() @ a.double()).abs().max())
    found["cuda"] = bool(torch.cuda.is_available())
    found["mps"] = bool(getattr(torch.backends, "mps", None) and torch.backends.mps.is_available())
    npu = getattr(torch, "npu", None)
    found["npu"] = bool(npu and npu.is_available())
    found["cann"] = getattr(torch.version, "cann", None)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
