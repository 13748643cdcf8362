"""Tensor parallel: every rank has a part of every layer, and the ranks compute each token together.

Weights are sliced by hand, as gpt-fast does; split.py says how. All ranks run the same calls with the same
arguments. Each rank gathers all logits and chooses the token by the code of a single process, so the n-gram
guard, the confidence, the end and the lowest id of a tie are the same, and the same on all ranks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from .. import loading, plans
from ..config import DeepseekOCRConfig
from ..decode_layer import decode_layer
from ..decoder import Attention, DenseMLP, MoE
from ..fast.step import Step
from ..generation import LOOK_EVERY
from ..modeling_deepseekocr import DeepseekOCRForCausalLM
from ..nonfinite import NonFiniteError
from .group import Group
from .split import ATTENTION, DENSE, EXPERTS, VOCABULARY, Split

ONLY_HERE = ("on_tokens", "observer")  # arguments of `generate` that follow it on rank 0


class ShardedEmbedding(nn.Module):
    """Some rows of the embedding: a token of another rank gives zeros here, and the sum gives its row."""

    def __init__(self, weight: Tensor, group: Group):
        super().__init__()
        self.weight, self.group = weight, group

    def forward(self, ids: Tensor) -> Tensor:
        rows = len(self.weight)
        local = ids - self.group.rank * rows
        outside = (local < 0) | (local >= rows)
        found = F.embedding(local.masked_fill(outside, 0), self.weight)
        return self.group.sum(found.masked_fill(outside[..., None], 0))


class ShardedHead(nn.Module):
    """Some rows of the output matrix: every rank computes the logits of its words and gets those of all."""

    def __init__(self, weight: Tensor, group: Group):
        super().__init__()
        self.weight, self.group = weight, group

    def forward(self, x: Tensor) -> Tensor:
        return self.group.gather(F.linear(x, self.weight))


class ShardedStep(Step):
    """The decode step of one rank.

    Where a part is split, only rank 0 adds the residual, so the sum of all ranks holds it once. An
    implementation of a whole layer (the slot `decode_layer`) is not used: it has no place for the sums.
    """

    whole_layers = False

    def __init__(self, model: TensorParallel, cache, batch: int):
        super().__init__(model, cache, batch)
        self.group, self.split = model.group, model.split

    def once(self, x: Tensor) -> Tensor:
        return x if self.group.rank == 0 else torch.zeros_like(x)

    def attend(self, i: int, module: Attention, x: Tensor, y: Tensor, rope, mask: Tensor | None) -> Tensor:
        if not self.split.divides(ATTENTION):
            return super().attend(i, module, x, y, rope, mask)
        return self.group.sum(super().attend(i, module, self.once(x), y, rope, mask))

    def mlp(
        self, module: DenseMLP | MoE, x: Tensor, y: Tensor, gate: Tensor | None, prepared: Callable | None
    ) -> Tensor:
        if not self.split.divides(DENSE if gate is None else EXPERTS):
            return super().mlp(module, x, y, gate, prepared)
        return self.group.sum(super().mlp(module, self.once(x), y, gate, prepared))


class TensorParallel(DeepseekOCRForCausalLM):
    """One rank's part of the model. `load` fills it.

    `leading`: rank 0 passes the arguments of `generate` on to the other ranks, which are in `follow`.
    `idle`: the other ranks wait for the next call. `broken`: an error has left the ranks at different places.
    """

    step = ShardedStep

    def __init__(self, config: DeepseekOCRConfig, group: Group):
        super().__init__(config)
        self.group, self.split, self.leading = group, Split.of(config, group.size), False
        self.idle, self.broken = True, False
        self.decoder_config = self.split.decoder()
        for name, parameter in list(self.named_parameters()):
            if self.split.cut(name) is not None:
                owner, _, last = name.rpartition(".")
                local = torch.empty(self.split.local_shape(name), device=parameter.device)
                setattr(self.get_submodule(owner), last, nn.Parameter(local))
        layer: Any
        for layer in self.model.layers:
            layer.self_attn.heads = self.decoder_config.heads
            if self.split.divides(ATTENTION):
                layer.sum_attention = group.sum
            if self.split.divides(EXPERTS if isinstance(layer.mlp, MoE) else DENSE):
                layer.sum_mlp = group.sum
        if self.split.divides(VOCABULARY):
            body: Any = self.model
            body.embed_tokens = ShardedEmbedding(body.embed_tokens.weight, group)
            self.lm_head: Any = ShardedHead(self.lm_head.weight, group)

    def encode_views(self, pixels: Tensor) -> Tensor:
        """Every rank encodes its share of the views and gets the features of all.

        Every rank has the whole tower (0.8 GB at the official size in half precision). Its work divides by
        views: one gather per page, where a tower in slices would need two sums per layer.
        """
        if self.group.size == 1:
            return super().encode_views(pixels)
        each = -(-len(pixels) // self.group.size)
        mine = torch.arange(each, device=pixels.device) + self.group.rank * each
        features = super().encode_views(pixels[mine.clamp(max=len(pixels) - 1)])
        return self.group.gather(features, dim=0)[: len(pixels)]

    def generate(self, *args, look_every: int | None = None, record: Callable | None = None, **given) -> Any:
        """As in one process. All ranks must agree when to look for the end, so the default of `look_every`
        does not depend on `on_tokens` and `observer` unless this rank leads.

        Raises ValueError for `record`: a recording would have to contain the sums.
        """
        if record is not None:
            raise ValueError("record: the decode step of a tensor-parallel model is not recorded")
        if look_every is None:
            follows = self.leading and any(given.get(name) is not None for name in ONLY_HERE)
            look_every = 1 if follows or self.device.type == "cpu" else LOOK_EVERY
        self.idle = False
        try:
            if self.leading:
                shared = {name: value for name, value in given.items() if name not in ONLY_HERE}
                self.group.tell((args, {**shared, "look_every": look_every}))
            made = super().generate(*args, look_every=look_every, **given)
        except (ValueError, NonFiniteError):  # from the arguments or the logits: on all ranks
            self.idle = True
            raise
        except BaseException:
            self.broken = True
            raise
        self.idle = True
        return made

    def follow(self) -> None:
        """The work of every rank but 0: repeat each `generate` of rank 0, until `stop`."""
        while (job := self.group.tell()) is not None:
            args, given = job
            with contextlib.suppress(ValueError, NonFiniteError):  # rank 0 raises the same and reports it
                self.generate(*args, **given)

    def unused(self) -> list[str]:
        """Implementations of the plan that are not used, one line each."""
        if self.slots.decode_layer is decode_layer:
            return []
        return [
            "decode_layer of the plan is not used: it spans a layer and has no place for the sums of ranks"
        ]

    def stop(self) -> None:
        """End `follow` on the other ranks, if they are there."""
        if self.idle:
            self.group.tell(None)


def load(
    folder: str | Path,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    plan: Mapping[str, Callable] | str | Path | None = None,
    *,
    group: Group,
) -> TensorParallel:
    """This rank's part of a checkpoint; reads only its share of each tensor.

    The arguments are those of `from_pretrained`, and the group of all ranks.

    Raises:
        CheckpointError: as `from_pretrained`.
        ValueError: nothing of the decoder divides by the number of ranks.
    """
    folder = Path(folder)
    regions = Split.of(loading.read_config(folder), group.size).regions(group.rank)
    loaded = loading.load(
        folder, dtype, torch.device(device), lambda config: TensorParallel(config, group), regions.get
    )
    model = cast(TensorParallel, loaded)
    model.use_plan(plans.resolve(plan, model))
    return model.eval().requires_grad_(False)


def local_rank() -> int:
    """The card of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")))
