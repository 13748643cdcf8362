"""Memory in use per simulated device.

Every simulated allocation has an `Allocation`, an attribute of the tensor's storage that is deleted with it.
The figures are therefore exact: everything that PyTorch still references, without allocator cache and
alignment.
"""

from __future__ import annotations

import torch

GIB = 1 << 30


class Ledger:
    """Bytes in use on one device: `now`, its highest value `peak`, and `limit`, a `fraction` of `total`."""

    __slots__ = ("fraction", "index", "limit", "now", "out_of_memory", "peak", "total")

    def __init__(self, index: int):
        self.index = index
        self.now = self.peak = 0
        self.out_of_memory: type[Exception] = torch.OutOfMemoryError
        self.set_limit(64 * GIB, 1.0)

    def set_limit(self, total: int, fraction: float) -> None:
        self.total, self.fraction, self.limit = total, fraction, int(total * fraction)

    def refuse(self, nbytes: int) -> None:
        """Raise the error of torch_npu for a full card.

        Builds up to the 7.3 line raise a plain RuntimeError, builds from 26.0 on torch.OutOfMemoryError; the
        profile selects one. The message is the same for both.
        """
        wanted, total, now, free = (
            f"{n / GIB:.2f} GiB" for n in (nbytes, self.total, self.now, self.limit - self.now)
        )
        raise self.out_of_memory(
            f"NPU out of memory. Tried to allocate {wanted} (NPU {self.index}; {total} total capacity; "
            f"{now} already allocated; {now} current active; {free} free; {now} reserved in total by "
            "PyTorch) If reserved memory is >> allocated memory try setting max_split_size_mb to avoid "
            "fragmentation."
        )


ledgers: list[Ledger] = [Ledger(0)]


def resize(count: int, total_bytes: int, out_of_memory: type[Exception]) -> None:
    """Set the number of devices and their memory; the figures of existing devices are kept."""
    while len(ledgers) < count:
        ledgers.append(Ledger(len(ledgers)))
    for ledger in ledgers:
        ledger.set_limit(total_bytes, ledger.fraction)
        ledger.out_of_memory = out_of_memory


class Allocation:
    """One simulated allocation, in the ledger from its creation until its storage is freed."""

    __slots__ = ("ledger", "nbytes")

    def __init__(self, index: int, nbytes: int):
        ledger = ledgers[index]
        now = ledger.now + nbytes
        if now > ledger.limit:
            self.ledger, self.nbytes = ledger, 0  # nothing to subtract in __del__
            ledger.refuse(nbytes)
        if now > ledger.peak:
            ledger.peak = now
        ledger.now = now
        self.ledger, self.nbytes = ledger, nbytes

    def __del__(self):
        self.ledger.now -= self.nbytes
