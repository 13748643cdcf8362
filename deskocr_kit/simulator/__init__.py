"""A simulated Ascend NPU: real tensors with `device.type == "npu"`, computed by the CPU.

    from deskocr_kit import simulator
    simulator.install()                       # once, before the first npu tensor
    x = torch.ones(2, 3, device="npu")        # all of PyTorch, on "npu:0"

    with simulator.record() as r:             # counts the work of the device, with source lines
        model.generate(...)
    with simulator.using("as-believed"):      # the same process, a device with fewer operators
        model.generate(...)
    with simulator.using("as-believed", survey=True), simulator.record() as r:
        model.generate(...)                   # missing operators are computed anyway, and listed:
    r.by_operator("refused"), r.by_site("refused")

Implementation: alias.py (one memory, two devices), kernels.py (a kernel per operator), failures.py (operators
that a profile lacks). Limits: README.md. It counts; its times are host times and never those of an NPU.
"""

from ..ascend.profiles import Profile, ProfileError, available, load
from . import counters
from .counters import Recording, record
from .install import RealNpuPresent, install, installed, profile, use, using

__all__ = [
    "Profile",
    "ProfileError",
    "RealNpuPresent",
    "Recording",
    "available",
    "counters",
    "install",
    "installed",
    "load",
    "profile",
    "record",
    "use",
    "using",
]
