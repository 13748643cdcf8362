"""How much memory each simulated device holds.

Every simulated allocation owns one `Allocation`; it hangs on the tensor's storage and dies with it, so the
figures are exact: what PyTorch still references, no allocator cache, no alignment.
"""

from __future__ import annotations

import torch

GIB = 1 << 30


class Ledger:
    """Bytes held by one device: `now`, the highest value `peak`, and the `limit`, a `fraction` of the "
    "`total`."""

    __slots__ = ("fraction", "index", "limit", "now", "out_of_memory", "peak", "total")

    def __init__(self, index: int):
        self.index = index
        self.now = self.peak = 0
        self.out_of_memory: type[Exception] = torch.OutOfMemoryError
        self.set_limit(64 * GIB, 1.0)

    def set_limit(self, total: int, fraction: float) -> None:
        self.total, self.fraction, self.limit = total, fraction, int(total * fraction)

    def refuse(self, nbytes: int) -> None:
        """Raise what torch_npu raises when the card is full.

        Builds up to the 7.3 line raise a plain RuntimeError, builds from 26.0 on torch.OutOfMemoryError; the
        profile says which. The text is the one of both.
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
    """Make room for `count` devices of `total_bytes` each; existing books are kept."""
    while len(ledgers) < count:
        ledgers.append(Ledger(len(ledgers)))
    for ledger in ledgers:
        ledger.set_limit(total_bytes, ledger.fraction)
        ledger.out_of_memory = out_of_memory


class Allocation:
    """One simulated allocation: entered in the ledger when made, removed when its storage is freed."""

    __slots__ = ("ledger", "nbytes")

    def __init__(self, index: int, nbytes: int):
        ledger = ledgers[index]
        now = ledger.now + nbytes
        if now > ledger.limit:
            self.ledger, self.nbytes = ledger, 0  # nothing to give back
            ledger.refuse(nbytes)
        if now > ledger.peak:
            ledger.peak = now
        ledger.now = now
        self.ledger, self.nbytes = ledger, nbytes

    def __del__(self):
        self.ledger.now -= self.nbytes
