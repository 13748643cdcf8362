"""Greedy decoding with a static KV cache: prefill once, then one token at a time for the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from .decoder import KVCache
from .health import explain_nonfinite
from .modeling_deepseekocr import DeepseekOCRForCausalLM, Page, padding
from .ngram import NgramGuard

FROM_CONFIG = object()


def prefill(
    model: DeepseekOCRForCausalLM, embeds: Tensor, positions: Tensor, mask: Tensor | None, cache: KVCache
) -> Tensor:
    """The whole prompt in one pass: fills the cache, returns the logits of the last position (b, vocab)."""
    return model.decode_embeds(embeds, positions, mask, mask is None, cache, last=1)[:, -1]


def decode(
    model: DeepseekOCRForCausalLM, token: Tensor, positions: Tensor, mask: Tensor | None, cache: KVCache
) -> Tensor:
    """One more token per sample: token and positions (b, 1), mask (b, 1, 1, filled + 1) or None -> (b,
    vocab).
    """
    return model.decode_embeds(model.model.embed_tokens(token), positions, mask, False, cache, last=1)[:, -1]


def pick(logits: Tensor, banned: Sequence[Iterable[int]]) -> tuple[list[int], bool]:
    """Greedy choice per row among the tokens that are not banned; False if a row is NaN or Inf. One host
    sync.
    """
    for row, tokens in enumerate(banned):
        if tokens:
            logits[row, torch.tensor(sorted(tokens), device=logits.device)] = -torch.inf
    value, token = logits.max(dim=-1)
    packed = torch.stack((token, torch.isfinite(value).to(token.dtype))).tolist()
    return packed[0], all(packed[1])


@torch.no_grad()
def generate(
    model: DeepseekOCRForCausalLM,
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
        on_tokens: called after each step with the new token of every sample, for streaming.

    Returns:
        (b, n + new) int64 on the CPU: the prompt as given, then the new tokens, the end token included.

    Raises:
        NonFiniteError: logits are NaN or Inf; names the first layer.
        ValueError: see `forward`; also for an empty prompt or max_new_tokens < 1.
    """
    b, n = input_ids.shape
    if n == 0 or max_new_tokens < 1:
        raise ValueError(f"nothing to do: prompt of {n} tokens, max_new_tokens {max_new_tokens}")
    if eos_token_id is FROM_CONFIG:
        eos_token_id = model.config.eos_token_id
    ends = (
        set()
        if eos_token_id is None
        else {eos_token_id}
        if isinstance(eos_token_id, int)
        else set(eos_token_id)
    )
    never = frozenset(suppress_tokens)
    guards = [NgramGuard(no_repeat_ngram_size, ngram_window, ngram_whitelist) for _ in range(b)]
    if no_repeat_ngram_size:
        for guard, row in zip(guards, input_ids.tolist(), strict=True):
            guard.extend(row)

    device = model.device
    embeds = model.embed(input_ids, images, images_seq_mask, images_spatial_crop)
    mask, positions = padding(attention_mask, input_ids.shape, device)
    length = n + max_new_tokens
    cache = KVCache(model.config.decoder, b, length, embeds.dtype, device)
    visible = None
    if mask is not None:
        visible = torch.ones(b, 1, 1, length, dtype=torch.bool, device=device)
        visible[:, 0, 0, :n] = attention_mask.to(device).bool()
    logits = prefill(model, embeds, positions, mask, cache)
    position = positions[:, -1:]

    new: list[list[int]] = []
    done = [False] * b
    while True:
        early = never | ends if len(new) < min_new_tokens else never
        banned = [guard.banned() | early for guard in guards]
        tokens, sound = pick(logits, banned)
        if not sound:
            so_far = torch.cat((input_ids.cpu(), torch.tensor(new, dtype=torch.long).view(-1, b).T), dim=1)
            raise explain(model, so_far, images, images_seq_mask, images_spatial_crop, attention_mask)
        tokens = [pad_token_id if ended else token for token, ended in zip(tokens, done, strict=True)]
        new.append(tokens)
        if on_tokens is not None:
            on_tokens(tokens)
        done = [ended or token in ends for token, ended in zip(tokens, done, strict=True)]
        if all(done) or len(new) == max_new_tokens:
            return torch.cat((input_ids.cpu(), torch.tensor(new).T), dim=1)
        for guard, token in zip(guards, tokens, strict=True):
            guard.append(token)
        position = position + 1
        seen = None if visible is None else visible[..., : cache.filled + 1]
        logits = decode(model, torch.tensor(tokens, device=device)[:, None], position, seen, cache)


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
