"""Which operators a model asks a device for, at full size, without computing anything.

    with dry_run("npu:0", torch.float16) as inventory:   # FakeTensor: shapes, dtypes and devices, no memory
        model = Model(full_size_config)                  # built in place: `.to()` and `.half()` do not work
        on fakes inventory.clear()
        model(torch.empty(1, 3, 1024, 1024))
    for row in inventory.rows(load("as-published")):
        print(row["operator"], row["calls"], row["verdict"])

Everything that reads a value back (`.item()`, a loop over `.tolist()`) cannot be run dry; PyTorch raises
DataDependentOutputException there and names the operator.
"""

from __future__ import annotations

import collections
import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ..ascend.profiles import Profile


class Inventory(TorchDispatchMode):
    """Counts every operator call, by operator and by the shapes and dtypes of its tensors. Also works on real
    tensors."""

    def __init__(self):
        super().__init__()
        self.calls: collections.Counter = collections.Counter()  # (operator, signature) -> calls
        self._example: dict = {}  # (operator, signature) -> arguments, to ask a profile's rules

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name + (
            f".{function._overloadname}" if function._overloadname != "default" else ""
        )
        if name.startswith("aten::"):
            key = (name, tuple(_signature(args)))
            self.calls[key] += 1
            if key not in self._example:
                self._example[key] = tuple(_hollow(a) for a in args)
        return function(*args, **(kwargs or {}))

    def clear(self) -> None:
        """Forget what was counted so far, such as the building of the model."""
        self.calls.clear()
        self._example.clear()

    def operators(self) -> collections.Counter:
        """Calls by operator."""
        result: collections.Counter = collections.Counter()
        for (name, _), n in self.calls.items():
            result[name] += n
        return result

    def rows(self, profile: Profile | None = None) -> list[dict]:
        """{operator, tensors, calls, verdict}, most calls first.

        The verdict is "kernel", a kind of failure or "ai-cpu", with the rule's reason; None without a
        profile.
        """
        return [
            {
                "operator": name,
                "tensors": list(signature),
                "calls": n,
                "verdict": self._verdict(name, signature, profile),
            }
            for (name, signature), n in self.calls.most_common()
        ]

    def _verdict(self, name: str, signature: tuple, profile: Profile | None) -> str | None:
        if profile is None:
            return None
        for rule in profile.rules_of(name):
            if rule.applies(self._example[name, signature]):
                return f"{rule.then}: {rule.why}" if rule.why else rule.then
        return profile.kind_of(name) or "kernel"


def _signature(values):
    for value in values:
        if isinstance(value, torch.Tensor):
            yield f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        elif isinstance(value, (list, tuple)):
            yield from _signature(value)


def _hollow(value):
    """Shape and dtype of a tensor, to keep; the tensor itself would be memory."""
    if isinstance(value, torch.Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    return value


@contextlib.contextmanager
def dry_run(device: str | torch.device = "npu:0", dtype: torch.dtype = torch.float32):
    """Inside, tensors are fake, and new ones are on `device` with `dtype`; yields the Inventory.

    The device must exist: install the simulated NPU first.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    inventory, before = Inventory(), torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with FakeTensorMode(), torch.device(device), inventory, torch.no_grad():
            yield inventory
    finally:
        torch.set_default_dtype(before)
