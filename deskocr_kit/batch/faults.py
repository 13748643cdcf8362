"""What can go wrong with a page, as a few classes that decide what happens next."""

from __future__ import annotations

from ..ascend.errors import exception_text, is_fatal
from ..device.memory_stats import is_out_of_memory
from ..device.messages import message

#: {class of a failure: what it means}. Progress, pages.jsonl and the metrics count by these names.
KINDS = {
    "file": "the file or the page cannot be opened",
    "memory": "out of memory, also alone",
    "device": "the device failed in a way that only a new process repairs",
    "worker": "the worker process ended",
    "deadline": "the page took longer than the deadline",
    "reading": "the model raised an error",
    "server": "the serving engine failed at this page",
    "answer": "the answer of the serving engine cannot be used",
    "output": "the results cannot be written",
}


class Fault(Exception):
    """A group of pages was not read. kind: one of KINDS."""

    def __init__(self, kind: str, text: str):
        super().__init__(text)
        self.kind = kind

    def __reduce__(self):  # an exception is pickled with one argument otherwise
        return Fault, (self.kind, str(self))


class CannotContinue(ValueError):
    """The run has to end; pages that are not done stay pending. The message says why, in one line."""


def fault_of(error: BaseException) -> Fault:
    """The class and the text of an exception of the model or the device."""
    return classed(*facts(error))


def facts(error: BaseException) -> tuple[bool, str, str]:
    """(out of memory, message, texts of the chain of causes) of an exception, as a worker reports them."""
    text = "not enough memory" if isinstance(error, MemoryError) else message(error).removeprefix("error: ")
    return is_out_of_memory(error), " ".join(text.split()) or type(error).__name__, exception_text(error)


def classed(memory: bool, text: str, chain: str) -> Fault:
    """The fault that such facts describe."""
    return Fault("memory" if memory else "device" if is_fatal(chain) else "reading", text)
