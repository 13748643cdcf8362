"""Greedy decoding with a static KV cache: prefill once, then one token at a time for the whole batch.

Choosing the token, the n-gram guard, the end and the NaN test stay on the device; the host looks
now and then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from .decoder import KVCache
from .fast.recorded import Recorded
from .fast.step import Step, possible
from .network import Network, Page, padding
from .ngram import DeviceGuard, by_token
from .nonfinite import explain_nonfinite

FROM_CONFIG = object()
LOOK_EVERY = 16  # tokens: at most 15 are decoded for nothing, and 1/16 of a wait is paid per token


def prefill(model: Network, embeds: Tensor, positions: Tensor, mask: Tensor | None, cache: KVCache) -> Tensor:
    """The whole prompt in one pass: fills the cache, returns the logits of the last position (b, vocab)."""
    return model.decode_embeds(embeds, positions, mask, mask is None, cache, last=1)[:, -1]


def decode(model: Network, token: Tensor, positions: Tensor, mask: Tensor | None, cache: KVCache) -> Tensor:
    """One more token per sample: token and positions (b, 1), mask (b, 1, 1, filled + 1) or None -> (b,
    vocab). Through the modules, hooks and all; `generate` takes fast.step where it may.
    """
    return model.decode_embeds(model.model.embed_tokens(token), positions, mask, False, cache, last=1)[:, -1]


class GreedyState:
    """The tokens so far and the rules for the next one (end, n-gram guard, NaN test), all on the device.

    `tokens` (b, length) int64 holds the prompt and then the chosen tokens. `best` (b, length) holds the
    logits of the chosen tokens; they are finite as long as all logits are. `sync` reads both: the only place
    where the host waits.
    """

    def __init__(
        self, input_ids: Tensor, new: int, vocab: int, device, ends, early: int, pad: int, never, guard: tuple
    ):
        b, self.at = input_ids.shape
        self.synced, self.may_end = self.at, self.at + early
        self.tokens = torch.full((b, self.at + new), pad, dtype=torch.long, device=device)
        self.tokens[:, : self.at] = input_ids.to(device)
        self.best = None
        self.finished = torch.zeros(b, 1, dtype=torch.bool, device=device)
        self.ends = torch.tensor(sorted(ends), dtype=torch.long).to(device)[None] if ends else None
        self.never, self.pad = by_token(vocab, False, never, True, device) if never else None, pad
        self.too_early = by_token(vocab, False, {*never, *ends}, True, device) if early else None
        self.guard = DeviceGuard(self.tokens, self.at, *guard, vocab)

    def pick(self, logits: Tensor) -> Tensor:
        """Greedy choice from logits (b, vocab) -> (b, 1); samples that have ended get the padding."""
        if self.best is None:
            self.best = logits.new_zeros(self.tokens.shape)
        logits = self.guard.apply(logits)
        forbidden = self.too_early if self.at < self.may_end else self.never
        if forbidden is not None:
            logits = logits.masked_fill(forbidden, -torch.inf)
        token = self.tokens[:, self.at : self.at + 1]
        torch.max(logits, dim=-1, keepdim=True, out=(self.best[:, self.at : self.at + 1], token))
        if self.ends is not None:
            token.masked_fill_(self.finished, self.pad)
            self.finished |= (token == self.ends).any(1, keepdim=True)
        self.at += 1
        self.guard.append()
        return token

    def sync(self) -> list[list[int]]:
        """Wait. For each step since the last call: the token of every sample, then 1 if it was finite."""
        since = slice(self.synced, self.at)
        self.synced = self.at
        finite = torch.isfinite(self.best[:, since]).all(0, keepdim=True)
        return torch.cat((self.tokens[:, since], finite)).T.tolist()


@contextlib.contextmanager
def one_row_products(model: Network, rows: int) -> Iterator[None]:
    """How a CPU shall multiply one bf16 row with a matrix: by torch's own loop, which reads the matrix about
    twice as fast as oneDNN's general product (20 to 10 GB/s where it was measured, one thread of a Zen 4).
    Nothing changes for more rows, other dtypes and other devices.
    """
    if rows != 1 or model.device.type != "cpu" or model.dtype != torch.bfloat16:
        yield
        return
    # torch.backends.mkldnn.flags would set TF32 too and warn, its property fails where flags are frozen.
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


@torch.no_grad()
def generate(
    model: Network,
    input_ids: Tensor,
    images: Sequence[Page] | None = None,
    images_seq_mask: Tensor | None = None,
    images_spatial_crop: Tensor | None = None,
    attention_mask: Tensor | None = None,
    *,
    max_new_tokens: int = 8192,
    min_new_tokens: int = 0,
    eos_token_id: int | Sequence[int] | None = FROM_CONFIG,
    pad_token_id: int = 2,
    no_repeat_ngram_size: int = 0,
    ngram_window: int | None = None,
    ngram_whitelist: Iterable[int] = (),
    suppress_tokens: Iterable[int] = (),
    on_tokens: Callable[[list[int]], object] | None = None,
    look_every: int | None = None,
    record: Callable | None = None,
) -> Tensor:
    """Greedy decoding.

    Args:
        input_ids, images, images_seq_mask, images_spatial_crop, attention_mask: as in the model's `forward`.
        max_new_tokens: at most so many; the KV cache is allocated for prompt + max_new_tokens.
        min_new_tokens: the end is not allowed before.
        eos_token_id: ends a sample; from config.json if not given, None never ends.
        pad_token_id: fills the samples of a batch that ended earlier.
        no_repeat_ngram_size, ngram_window, ngram_whitelist: see ngram.NgramGuard; 0 is off.
        suppress_tokens: never chosen.
        on_tokens: called for each step with the new token of every sample, for streaming.
        look_every: the host waits for the device once in so many tokens; the result is the same for any. None
            takes 1 where tokens are streamed or the device is the CPU (waiting costs nothing there), else 16.
        record: how to record the decode step and replay it, see fast/recorded.py; None (usually right) runs
            it operator by operator. deskocr_kit.device.graphs gives one for CUDA and NPU graphs.

    Returns:
        (b, n + new) int64 on the CPU: the prompt as given, then the new tokens, the end token included.

    Raises:
        NonFiniteError: logits are NaN or Inf; names the first layer.
        ValueError: see `forward`; also for an empty prompt or max_new_tokens < 1, and for `record` where a
            module was exchanged (quantised) or is listened to.
    """
    b, n = input_ids.shape
    if n == 0 or max_new_tokens < 1:
        raise ValueError(f"nothing to do: prompt of {n} tokens, max_new_tokens {max_new_tokens}")
    if look_every is not None and look_every < 1:
        raise ValueError(f"look_every must be 1 or more, got {look_every}")
    if eos_token_id is FROM_CONFIG:
        eos_token_id = model.config.eos_token_id
    ends = (
        set()
        if eos_token_id is None
        else {eos_token_id}
        if isinstance(eos_token_id, int)
        else set(eos_token_id)
    )
    device = model.device
    state = GreedyState(
        input_ids, max_new_tokens, model.config.decoder.vocab, device, ends, min_new_tokens, pad_token_id,
        frozenset(suppress_tokens), (no_repeat_ngram_size, ngram_window, tuple(ngram_whitelist)),
    )  # fmt: skip
    if look_every is None:
        look_every = 1 if on_tokens is not None or device.type == "cpu" else LOOK_EVERY

    # The ids are on the device already, so of a page only its pixels, its mask and its ids go up, once.
    embeds = model.embed(state.tokens[:, :n], images, images_seq_mask, images_spatial_crop)
    mask, positions = padding(attention_mask, input_ids.shape, device)
    length = n + max_new_tokens
    cache = KVCache(model.config.decoder, b, length, embeds.dtype, device)
    visible = None
    if mask is not None:
        visible = torch.ones(b, 1, 1, length, dtype=torch.bool, device=device)
        visible[:, 0, 0, :n] = attention_mask.bool().to(device)
    logits = prefill(model, embeds, positions, mask, cache)
    position = None if mask is None else positions[:, -1:]
    step_on = None
    if record is not None:
        if not possible(model):
            raise ValueError("record: a module was exchanged or has hooks, and a recording would go past it")
        seen = torch.ones(b, 1, 1, length, dtype=torch.bool, device=device) if visible is None else visible
        step_on = Recorded(model, cache, b, seen, positions[:, -1:] + 1, record)
    elif possible(model):
        step_on = Step(model, cache, b)

    new: list[list[int]] = []
    done = [False] * b
    with one_row_products(model, b):
        for step in range(max_new_tokens):
            token = state.pick(logits.to(model.dtype))
            if (step + 1) % look_every == 0 or step + 1 == max_new_tokens:
                for *tokens, sound in state.sync():
                    if not sound:
                        said = torch.tensor(new, dtype=torch.long).view(-1, b).T
                        so_far = torch.cat((input_ids.cpu(), said), dim=1)
                        raise explain(
                            model, so_far, images, images_seq_mask, images_spatial_crop, attention_mask
                        )
                    new.append(tokens)
                    if on_tokens is not None:
                        on_tokens(tokens)
                    done = [ended or token in ends for token, ended in zip(tokens, done, strict=True)]
                    if all(done):
                        break  # what was decoded past the end is not looked at
                if all(done):
                    break
            if step + 1 < max_new_tokens:
                position = None if position is None else position + 1
                seen = None if visible is None else visible[..., : cache.filled + 1]
                if step_on is not None:
                    logits = step_on(token, position, seen)
                else:
                    at = token.new_full((b, 1), cache.filled) if position is None else position
                    logits = decode(model, token, at, seen, cache)
    return torch.cat((input_ids.cpu(), torch.tensor(new).T), dim=1)


def explain(model, input_ids, images, images_seq_mask, images_spatial_crop, attention_mask) -> Exception:
    """Repeat the pass that went wrong, without a cache, and name the layer."""
    extra = input_ids.shape[1]
    if images_seq_mask is not None:
        extra -= images_seq_mask.shape[1]
        images_seq_mask = torch.nn.functional.pad(images_seq_mask, (0, extra))
    if attention_mask is not None:
        attention_mask = torch.nn.functional.pad(
            attention_mask, (0, input_ids.shape[1] - attention_mask.shape[1]), value=1
        )

    def again():
        model(input_ids, images, images_seq_mask, images_spatial_crop, attention_mask, logits_to_keep=1)

    return explain_nonfinite(model, again, model.dtype)
