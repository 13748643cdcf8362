"""Limits on an answer: operators that it must not use, and a device that it must not wait for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ... import simulator
from ...device import SIMULATED, DeviceError, pick_device
from ...device.counting import counted


class _Watch(TorchDispatchMode):
    def __init__(self, forbidden: dict[str, str], used: list[str]):
        super().__init__()
        self.forbidden, self.used = forbidden, used

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.partition("::")[2]
        reason = self.forbidden.get(name) or self._on_device(name, args)
        text = f"it uses {name}: {reason}"
        if reason and text not in self.used:
            self.used.append(text)
        return func(*args, **(kwargs or {}))

    def _on_device(self, name: str, args) -> str | None:
        reason = self.forbidden.get(f"{name} on the device")
        tensors = [each for each in tree_leaves(args) if isinstance(each, torch.Tensor)]
        return reason if any(each.device.type != "cpu" for each in tensors) else None


@contextlib.contextmanager
def forbid(operators: dict[str, str]) -> Iterator[list[str]]:
    """Record every use of a forbidden operator ("name" or "name on the device") in the yielded list."""
    used: list[str] = []
    with _Watch(operators, used) if operators else contextlib.nullcontext():
        yield used


def npu() -> torch.device:
    """A device that makes waits visible: the simulated NPU, or the real one if there is one."""
    if simulator.installed():  # keeps the profile in use; picking the device again would change it
        return torch.device("npu", 0)
    try:
        return pick_device(SIMULATED, quiet=True)
    except (simulator.RealNpuPresent, DeviceError):
        return pick_device("npu", quiet=True)


def never_waits(function: Callable, *args):
    """Call `function` with its tensors on an NPU, and return the result on the host.

    Raises AssertionError if the host waits for the device.
    """
    where = npu()
    moved = [each.to(where) if isinstance(each, torch.Tensor) else each for each in args]
    with counted(where) as seen:
        result = function(*moved)
    if result is None or result is ...:
        return result
    if seen.syncs:
        raise AssertionError(
            f"the host waits for the device {seen.syncs} times ({seen.launches} launches)\n"
            "  these wait: .item(), .tolist(), .cpu(), nonzero(), an index by a mask, an `if` on a tensor"
        )
    return result.cpu() if isinstance(result, torch.Tensor) else result
