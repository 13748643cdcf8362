"""Greedy decoding with a static KV cache: prefill once, then one token at a time for the whole batch.

The choice of the token, its probability, the n-gram guard and the test for the end run on the device. The
host waits for their results only every few tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .decoder import KVCache
from .fast.recorded import Recorded
from .fast.step import possible
from .greedy import GreedyOptions, GreedyState
from .network import Network, padding
from .nonfinite import NonFiniteError, explain_nonfinite
from .observer import Observer
from .pages import Sample
from .ring import make_cache, window_mask

LOOK_EVERY = 16  # tokens: at most 15 are decoded in vain, and 1/16 of a wait is paid per token


@dataclass(frozen=True)
class Prompt:
    """The inputs of the model's `forward`."""

    input_ids: Tensor
    images: Sequence[Sample] | None = None
    images_seq_mask: Tensor | None = None
    images_spatial_crop: Tensor | Sequence | None = None
    attention_mask: Tensor | None = None


@torch.no_grad()
def generate(
    model: Network,
    input_ids: Tensor,
    images: Sequence[Sample] | None = None,
    images_seq_mask: Tensor | None = None,
    images_spatial_crop: Tensor | Sequence | None = None,
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
    n = prompt.input_ids.shape[1]
    state = GreedyState(model, prompt.input_ids, options)
    # The state has copied the ids to the device. Of an image only pixels, mask and places are copied, once.
    embeds = model.embed(
        state.tokens[:, :n], prompt.images, prompt.images_seq_mask, prompt.images_spatial_crop
    )
    observer.phase("vision")
    cache, positions, mask, visible = places(model, embeds, prompt.attention_mask, options.max_new_tokens)
    logits = prefill(model, embeds, positions, mask, cache)
    observer.phase("prefill")
    return state, logits, decode_step(model, cache, positions[:, -1:], visible, record)


def places(
    model: Network, embeds: Tensor, attention_mask: Tensor | None, new: int
) -> tuple[KVCache, Tensor, Tensor | None, Tensor | None]:
    """What a prompt (b, n, d) and `new` tokens need: cache, positions (b, n), mask (see `padding`), and for
    `decode_step` the places of the cache that are no padding, or None.
    """
    b, n, _ = embeds.shape
    mask, positions = padding(attention_mask, embeds.shape[:2], model.device)
    cache = make_cache(model.decoder_config, b, n, new, embeds.dtype, model.device)
    visible = None
    if mask is not None and attention_mask is not None:
        visible = torch.ones(b, 1, 1, cache.length, dtype=torch.bool, device=model.device)
        visible[:, 0, 0, :n] = attention_mask.bool().to(model.device)
    return cache, positions, mask, visible


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

    position: (b, 1), of the last token of the prompt. visible: (b, 1, 1, places of the cache) bool, False on
    padding; None if there is no padding.
    """
    b = len(position)
    run: Callable[..., Tensor]
    if record is not None:
        if not possible(model):
            raise ValueError("record: a module was replaced or has hooks, and a recording would bypass it")
        every = torch.ones(b, 1, 1, cache.length, dtype=torch.bool, device=model.device)
        run = Recorded(model, cache, b, every if visible is None else visible, position + 1, record)
    elif possible(model):
        run = model.step(model, cache, b)
    else:

        def run_modules(token: Tensor, position: Tensor | None, mask: Tensor | None) -> Tensor:
            first = token.new_full((b, 1), cache.filled, dtype=torch.long)
            at = first if position is None else position
            return decode(model, token, at, mask, cache)

        run = run_modules

    if visible is None:
        return lambda token: run(token, None, None)

    def step(token: Tensor) -> Tensor:
        nonlocal position
        position = position + 1
        return run(token, position, visible[..., : cache.visible()])

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
    return explain_nonfinite(model, lambda: whole_pass(model, whole, prompt.input_ids.shape[1]), model.dtype)


@torch.no_grad()
def whole_pass(model: Network, whole: Prompt, prompt: int, last: int = 1) -> Tensor:
    """The logits (b, last, vocab) of prompt and answer in one pass, with the window if there is one.

    prompt: how many of the tokens are the prompt.
    """
    if model.config.decoder.window is None:
        return model(**vars(whole), logits_to_keep=last).logits
    embeds = model.embed(whole.input_ids, whole.images, whole.images_seq_mask, whole.images_spatial_crop)
    _, positions = padding(whole.attention_mask, whole.input_ids.shape, model.device)
    attended = torch.ones_like(whole.input_ids) if whole.attention_mask is None else whole.attention_mask
    mask = window_mask(attended.bool().to(model.device), prompt, model.config.decoder.window)
    return model.decode_embeds(embeds, positions, mask, False, last=last)
