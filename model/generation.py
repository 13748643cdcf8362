"""Greedy decoding with a static KV cache: prefill once, then one token at a time for the whole batch.

The choice of the token, its probability, the n-gram guard and the test for the end run on the device. The
host waits for their results only every few tokens.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .decoder import KVCache
from .fast.recorded import Recorded
from .fast.step import Step, possible
from .network import Network, Page, padding
from .ngram import DeviceGuard, by_token
from .nonfinite import NonFiniteError, explain_nonfinite
from .observer import Observer
from .official import DEEPSEEK_OCR

FROM_CONFIG: Any = object()
LOOK_EVERY = 16  # tokens: at most 15 are decoded in vain, and 1/16 of a wait is paid per token
SOFTMAX_ELEMENTS = 1 << 24  # logits per softmax at a look: 64 MB in fp32
INTEGERS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}
# The bits of the exponent. If all are set, the number is NaN or Inf.
EXPONENTS = {torch.float32: 0x7F800000, torch.float16: 0x7C00, torch.bfloat16: 0x7F80}


@dataclass(frozen=True)
class Prompt:
    """The inputs of the model's `forward`."""

    input_ids: Tensor
    images: Sequence[Page] | None = None
    images_seq_mask: Tensor | None = None
    images_spatial_crop: Tensor | None = None
    attention_mask: Tensor | None = None


@dataclass(frozen=True)
class GreedyOptions:
    """What may be generated.

    Args:
        max_new_tokens: upper limit; the KV cache is allocated for prompt + max_new_tokens.
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


@torch.no_grad()
def generate(
    model: Network,
    input_ids: Tensor,
    images: Sequence[Page] | None = None,
    images_seq_mask: Tensor | None = None,
    images_spatial_crop: Tensor | None = None,
    attention_mask: Tensor | None = None,
    *,
    on_tokens: Callable[[list[int]], object] | None = None,
    look_every: int | None = None,
    record: Callable | None = None,
    observer: Observer | None = None,
    return_logprobs: bool = False,
    **given,
) -> Any:
    """Greedy decoding.

    Args:
        input_ids, images, images_seq_mask, images_spatial_crop, attention_mask: see the model's `forward`.
        on_tokens: called at each step with the new token of every sample, for streaming.
        look_every: the host waits for the device once per this many tokens; the result does not depend on it.
            By default 1 if on_tokens or an observer is given or the device is the CPU (where waiting costs
            nothing), else 16.
        record: how to record the decode step and replay it, see fast/recorded.py. None (usually right) runs
            it operator by operator. deskocr_kit.device.graphs returns a recorder for CUDA and NPU graphs.
        observer: follows the phases and the tokens, see observer.Observer.
        return_logprobs: return the log-probabilities of the new tokens too.
        given: the fields of `GreedyOptions`: max_new_tokens, eos_token_id, no_repeat_ngram_size, …

    Returns:
        (b, n + new) int64 on the CPU: the prompt, then the new tokens with the end token. With
        return_logprobs also (b, new) fp32 on the CPU: the logarithm of the softmax probability of each new
        token, over the whole vocabulary and before the n-gram guard and other rules forbid tokens. Values
        behind the end token of a sample are meaningless.

    Raises:
        NonFiniteError: logits are NaN or Inf; names the first layer.
        ValueError: see `forward`; an empty prompt; max_new_tokens < 1; `record` for a model with replaced
            modules (quantised) or hooks.
    """
    prompt = Prompt(input_ids, images, images_seq_mask, images_spatial_crop, attention_mask)
    options = GreedyOptions(**given)
    if input_ids.shape[1] == 0 or options.max_new_tokens < 1:
        raise ValueError(
            f"nothing to do: prompt of {input_ids.shape[1]} tokens, max_new_tokens {options.max_new_tokens}"
        )
    if look_every is None:
        follows = on_tokens is not None or observer is not None
        look_every = 1 if follows or model.device.type == "cpu" else LOOK_EVERY
    if look_every < 1:
        raise ValueError(f"look_every must be 1 or more, got {look_every}")
    observer = observer or Observer()

    state, logits, step = prepare(model, prompt, options, record, observer)
    new: list[list[int]] = []  # for each step the token of every sample
    scores: list[list[float]] = []  # and its log-probability
    try:
        with one_row_products(model, len(input_ids)):
            for tokens, logprobs in decode_loop(state, logits, step, options.max_new_tokens, look_every):
                new.append(tokens)
                scores.append(logprobs)
                observer.logprobs(logprobs)
                observer.token(tokens)
                if on_tokens is not None:
                    on_tokens(tokens)
    except NonFiniteLogits:
        raise explain_failure(model, prompt, new) from None
    ids = torch.cat((input_ids.cpu(), torch.tensor(new).T), dim=1)
    observer.phase("decode")
    return (ids, torch.tensor(scores, dtype=torch.float32).T) if return_logprobs else ids


# ---------------------------------------------------------------------- prepare: prompt to first logits
def prepare(
    model: Network, prompt: Prompt, options: GreedyOptions, record: Callable | None, observer: Observer
) -> tuple[GreedyState, Tensor, Callable[[Tensor], Tensor]]:
    """Embed the prompt and fill the cache: the state, the logits of the first token, and the decode step."""
    b, n = prompt.input_ids.shape
    length = n + options.max_new_tokens
    state = GreedyState(model, prompt.input_ids, options)
    # The state has copied the ids to the device. Of an image only pixels, mask and places are copied, once.
    embeds = model.embed(
        state.tokens[:, :n], prompt.images, prompt.images_seq_mask, prompt.images_spatial_crop
    )
    observer.phase("vision")
    mask, positions = padding(prompt.attention_mask, prompt.input_ids.shape, model.device)
    cache = KVCache(model.config.decoder, b, length, embeds.dtype, model.device)
    visible = None
    if mask is not None and prompt.attention_mask is not None:
        visible = torch.ones(b, 1, 1, length, dtype=torch.bool, device=model.device)
        visible[:, 0, 0, :n] = prompt.attention_mask.bool().to(model.device)
    logits = prefill(model, embeds, positions, mask, cache)
    observer.phase("prefill")
    return state, logits, decode_step(model, cache, positions[:, -1:], visible, record)


def prefill(model: Network, embeds: Tensor, positions: Tensor, mask: Tensor | None, cache: KVCache) -> Tensor:
    """The whole prompt in one pass: fills the cache, returns the logits of the last position (b, vocab)."""
    return model.decode_embeds(embeds, positions, mask, mask is None, cache, last=1)[:, -1]


def decode(model: Network, token: Tensor, positions: Tensor, mask: Tensor | None, cache: KVCache) -> Tensor:
    """One more token per sample through the modules and their hooks -> (b, vocab).

    token and positions (b, 1), mask (b, 1, 1, filled + 1) or None. `generate` uses fast.step where possible.
    """
    return model.decode_embeds(model.model.embed_tokens(token), positions, mask, False, cache, last=1)[:, -1]


def decode_step(
    model: Network, cache: KVCache, position: Tensor, visible: Tensor | None, record: Callable | None
) -> Callable[[Tensor], Tensor]:
    """A function token (b, 1) -> logits (b, vocab) that counts positions and mask on from call to call.

    position: (b, 1), of the last token of the prompt. visible: (b, 1, 1, length) bool, False on padding; None
    if there is no padding.
    """
    b = len(position)
    run: Callable[..., Tensor]
    if record is not None:
        if not possible(model):
            raise ValueError("record: a module was replaced or has hooks, and a recording would bypass it")
        every = torch.ones(b, 1, 1, cache.length, dtype=torch.bool, device=model.device)
        run = Recorded(model, cache, b, every if visible is None else visible, position + 1, record)
    elif possible(model):
        run = Step(model, cache, b)
    else:

        def run_modules(token: Tensor, position: Tensor | None, mask: Tensor | None) -> Tensor:
            at = token.new_full((b, 1), cache.filled) if position is None else position
            return decode(model, token, at, mask, cache)

        run = run_modules

    if visible is None:
        return lambda token: run(token, None, None)

    def step(token: Tensor) -> Tensor:
        nonlocal position
        position = position + 1
        return run(token, position, visible[..., : cache.filled + 1])

    return step


# ---------------------------------------------------------------------- loop: one token after another
class NonFiniteLogits(Exception):
    """The logits of this step are NaN or Inf."""


def decode_loop(
    state: GreedyState, logits: Tensor, step: Callable[[Tensor], Tensor], limit: int, look_every: int
) -> Iterator[tuple[list[int], list[float]]]:
    """Token and log-probability of every sample, step by step, until all samples have ended.

    Raises NonFiniteLogits.
    """
    ended = [False] * len(state.tokens)
    for count in range(1, limit + 1):
        token = state.pick(logits)
        if count % look_every == 0 or count == limit:
            for tokens, logprobs, finite in state.sync():
                if not finite:
                    raise NonFiniteLogits
                yield tokens, logprobs
                ended = [was or token in state.ends for token, was in zip(tokens, ended, strict=True)]
                if all(ended):
                    return  # tokens decoded past the end are dropped
        if count < limit:
            logits = step(token)


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
        self.guard = DeviceGuard(
            self.tokens, self.at, options.no_repeat_ngram_size, options.ngram_window,
            tuple(options.ngram_whitelist), vocab,
        )  # fmt: skip

    def pick(self, logits: Tensor) -> Tensor:
        """Greedy choice from logits (b, vocab) -> (b, 1); samples that have ended get the padding."""
        logits = logits.to(self.dtype)
        if self.best is None:
            self.best = logits.new_zeros(self.tokens.shape)
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
        logprobs = self.logprobs(tokens)
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


@contextlib.contextmanager
def one_row_products(model: Network, rows: int) -> Iterator[None]:
    """On a CPU, multiply a single bf16 row with a matrix by torch's own loop instead of oneDNN.

    The loop reads the matrix about twice as fast as oneDNN's general product (20 instead of 10 GB/s, measured
    with one thread of a Zen 4). No effect for several rows, other dtypes and other devices.
    """
    if rows != 1 or model.device.type != "cpu" or model.dtype != torch.bfloat16:
        yield
        return
    # torch.backends.mkldnn.flags would also set TF32 and warn; its property fails where flags are frozen.
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


# ---------------------------------------------------------------------- explain a failure
def explain_failure(model: Network, prompt: Prompt, new: list[list[int]]) -> NonFiniteError:
    """Repeat the pass that failed, without a cache, and name the layer."""
    chosen = torch.tensor(new, dtype=torch.long).view(-1, len(prompt.input_ids)).T
    extra = (0, chosen.shape[1])
    places, attended = prompt.images_seq_mask, prompt.attention_mask
    whole = replace(
        prompt,
        input_ids=torch.cat((prompt.input_ids.cpu(), chosen), dim=1),
        images_seq_mask=None if places is None else F.pad(places, extra),
        attention_mask=None if attended is None else F.pad(attended, extra, value=1),
    )
    return explain_nonfinite(model, lambda: model(**vars(whole), logits_to_keep=1), model.dtype)
