"""The choice of the next token and the rules for it (end, n-gram guard, forbidden tokens), on the device."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .choose import Rules, choose
from .network import Network
from .ngram import DeviceGuard, NgramGuard, by_token
from .official import DEEPSEEK_OCR

FROM_CONFIG: Any = object()
SOFTMAX_ELEMENTS = 1 << 24  # logits per softmax at a look: 64 MB in fp32
INTEGERS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}
# The bits of the exponent. If all are set, the number is NaN or Inf.
EXPONENTS = {torch.float32: 0x7F800000, torch.float16: 0x7C00, torch.bfloat16: 0x7F80}


@dataclass(frozen=True)
class GreedyOptions:
    """What may be generated.

    Args:
        max_new_tokens: upper limit; the KV cache is allocated for prompt + max_new_tokens, or for prompt +
            window if the model has a sliding window.
        min_new_tokens: the end token is not chosen earlier.
        eos_token_id: ends a sample. By default the one in config.json; None: no token ends it.
        pad_token_id: fills the samples of a batch that end earlier than others.
        no_repeat_ngram_size, ngram_window, ngram_whitelist: see ngram.NgramGuard; size 0 is off.
        suppress_tokens: never chosen.
    """

    max_new_tokens: int = DEEPSEEK_OCR.max_new_tokens
    min_new_tokens: int = 0
    eos_token_id: int | Sequence[int] | None = FROM_CONFIG
    pad_token_id: int = DEEPSEEK_OCR.pad_token_id
    no_repeat_ngram_size: int = 0
    ngram_window: int | None = None
    ngram_whitelist: Iterable[int] = ()
    suppress_tokens: Iterable[int] = ()

    def ends(self, default: int) -> set[int]:
        """The tokens that end a sample."""
        ids = default if self.eos_token_id is FROM_CONFIG else self.eos_token_id
        return set() if ids is None else {ids} if isinstance(ids, int) else set(ids)


class GreedyState:
    """The tokens so far and the rules for the next one (end, n-gram guard), all on the device.

    `tokens` (b, length) int64 holds the prompt and then the chosen tokens. `best` (b, length) holds the
    logits of the chosen tokens; they are finite as long as all logits are. `raw` holds the logits (b, vocab)
    of the steps since the last look, before the rules: their softmax waits for the look, where one operator
    computes it for all of these steps. `sync` reads all of it: the only place where the host waits.
    """

    def __init__(self, model: Network, input_ids: Tensor, options: GreedyOptions):
        b, self.at = input_ids.shape
        device, vocab, self.dtype = model.device, model.config.decoder.vocab, model.dtype
        self.synced, self.may_end = self.at, self.at + options.min_new_tokens
        self.pad, self.ends = options.pad_token_id, options.ends(model.config.eos_token_id)
        never = frozenset(options.suppress_tokens)
        self.tokens = torch.full(
            (b, self.at + options.max_new_tokens), self.pad, dtype=torch.long, device=device
        )
        self.tokens[:, : self.at] = input_ids.to(device)
        self.best: Tensor | None = None
        self.raw: list[Tensor] = []
        self.finished = torch.zeros(b, 1, dtype=torch.bool, device=device)
        self.end_ids = (
            torch.tensor(sorted(self.ends), dtype=torch.long).to(device)[None] if self.ends else None
        )
        self.never = by_token(vocab, False, never, True, device) if never else None
        self.too_early = None
        if options.min_new_tokens:
            self.too_early = by_token(vocab, False, {*never, *self.ends}, True, device)
        self.whole = model.slots.choose if model.slots.choose is not choose else None
        if self.whole is not None:
            self.start_whole(model, options, never)
            return
        self.guard = DeviceGuard(
            self.tokens, self.at, options.no_repeat_ngram_size, options.ngram_window,
            tuple(options.ngram_whitelist), vocab,
        )  # fmt: skip

    def start_whole(self, model: Network, options: GreedyOptions, never: frozenset[int]) -> None:
        """Prepare for an implementation in the slot `choose`, which keeps no state of its own."""
        size, self.window = options.no_repeat_ngram_size, options.ngram_window
        NgramGuard(size, self.window)  # raises ValueError for invalid arguments
        free = frozenset(options.ngram_whitelist)
        vocab, device = model.config.decoder.vocab, self.tokens.device
        self.logprob = torch.zeros(self.tokens.shape, dtype=torch.float32, device=device)
        self.rules = Rules(
            size=0 if size == 1 and self.window is not None else size,
            free=by_token(vocab, False, free, True, device) if free and size else None,
            forbidden=self.never,
            ends=None if self.end_ids is None else self.end_ids[0],
            pad=self.pad,
        )

    def pick_whole(self, logits: Tensor) -> Tensor:
        """`pick` by the slot `choose`."""
        assert self.whole is not None and self.best is not None
        first = 0 if self.window is None else max(0, self.at - self.window)
        early = self.at < self.may_end
        rules = replace(self.rules, forbidden=self.too_early) if early else self.rules
        self.whole(logits, self.tokens, self.at, first, self.best, self.logprob, self.finished, rules)
        self.at += 1
        return self.tokens[:, self.at - 1 : self.at]

    def pick(self, logits: Tensor) -> Tensor:
        """Greedy choice from logits (b, vocab) -> (b, 1); samples that have ended get the padding."""
        logits = logits.to(self.dtype)
        if self.best is None:
            self.best = logits.new_zeros(self.tokens.shape)
        if self.whole is not None:
            return self.pick_whole(logits)
        self.raw.append(logits)
        logits = self.guard.apply(logits)
        forbidden = self.too_early if self.at < self.may_end else self.never
        if forbidden is not None:
            logits = logits.masked_fill(forbidden, -torch.inf)
        token = self.tokens[:, self.at : self.at + 1]
        torch.max(logits, dim=-1, keepdim=True, out=(self.best[:, self.at : self.at + 1], token))
        if self.end_ids is not None:
            token.masked_fill_(self.finished, self.pad)
            self.finished |= (token == self.end_ids).any(1, keepdim=True)
        self.at += 1
        self.guard.append()
        return token

    def sync(self) -> Iterator[tuple[list[int], list[float], bool]]:
        """Wait. For each step since the last call: tokens, their log-probabilities, whether all is finite.

        Everything comes in one transfer. The floats travel as the integers with the same bits.
        """
        since = slice(self.synced, self.at)
        self.synced = self.at
        assert self.best is not None, "pick comes before sync"
        tokens, best, b = self.tokens[:, since], self.best[:, since], len(self.tokens)
        logprobs = self.logprobs(tokens) if self.whole is None else self.logprob[:, since]
        rows = torch.cat((tokens, best.view(INTEGERS[self.dtype]), logprobs.view(torch.int32))).T.tolist()
        infinite = EXPONENTS[self.dtype]
        for row in rows:
            finite = all(bits & infinite != infinite for bits in row[b : 2 * b])
            yield row[:b], list(struct.unpack(f"={b}f", struct.pack(f"={b}i", *row[2 * b :]))), finite

    def logprobs(self, tokens: Tensor) -> Tensor:
        """(b, k) fp32: log-probabilities of the tokens (b, k) of the k steps in `raw`; empties `raw`."""
        steps = max(1, SOFTMAX_ELEMENTS // self.raw[0].numel())
        parts = []
        for i in range(0, len(self.raw), steps):
            part = self.raw[i : i + steps]
            logits = torch.stack(part, 1) if len(part) > 1 else part[0][:, None]
            scores = F.log_softmax(logits, -1, dtype=torch.float32)
            parts.append(scores.gather(2, tokens[:, i : i + steps, None])[..., 0])
        self.raw = []
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]
