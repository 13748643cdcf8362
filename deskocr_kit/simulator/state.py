"""Settings that kernels read on every call. Only `simulator.use` changes them."""

from __future__ import annotations

round_half = True  # fp16 computed in fp32, rounded per operator
device_count = 1
current = 0  # index of the current device


def checked_index(index: int | None) -> int:
    """`index`, or the current device if None. Raises RuntimeError if the device does not exist."""
    if index is None:
        return current
    if not 0 <= index < device_count:
        visible = f"npu:0 … npu:{device_count - 1}" if device_count > 1 else "npu:0 only"
        raise RuntimeError(
            f"NPU function error: aclrtSetDevice({index}), error code is 107001 [Error]: Invalid device ID. "
            f"(simulated: this process has {visible})"
        )
    return index
