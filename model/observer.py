"""Follow a reading while it runs, for example to time its phases."""

from __future__ import annotations

from collections.abc import Sequence


class Observer:
    """Base class of observers: override what you need. The methods here do nothing.

    Pass an instance as `observer` to `generate`, `read_page`, `read_pages` or `infer`. The host makes the
    calls; the device may still be computing. An observer that measures time has to synchronise first.
    """

    def phase(self, name: str) -> None:
        """A phase has ended, in this order: "preprocess", "vision", "prefill", "decode".

        "preprocess" (page to tensors) is reported by the functions that read pages, not by `generate`.
        "vision" includes the embedding of the text and the placing of the image vectors.
        """

    def token(self, tokens: Sequence[int]) -> None:
        """The next token of every sample has reached the host."""

    def logprobs(self, logprobs: Sequence[float]) -> None:
        """The log-probabilities of the tokens that the next call of `token` reports.

        Natural logarithms of softmax probabilities, before the n-gram guard; see generation.generate.
        """
