"""Pipeline parallel: the first layers in one process, the rest in another, several pages under way.

Stage 0 has the vision tower, the embedding and the first layers; stage 1 has the other layers and the output
matrix, and chooses the tokens. Stage 0 sends hidden states, stage 1 sends tokens back. A single page uses one
stage at a time. With several pages, each in a slot, one stage works on a page while the other works on the
next; both go through the slots in the same order, so nothing else has to be agreed:

    stage 0   page 0   page 1   token 0 -> page 0   token 1 -> page 1   ...
    stage 1            page 0   page 1              page 0              ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn as nn
from torch import Tensor

from .. import loading, plans
from ..config import DeepseekOCRConfig
from ..fast.step import Step
from ..generation import Prompt, decode_step, places
from ..greedy import GreedyOptions, GreedyState
from ..modeling_deepseekocr import DeepseekOCRForCausalLM
from ..ngram import NgramGuard
from ..nonfinite import NonFiniteError
from .group import Processes
from .split import megabytes

STAGES = 2
IN_FLIGHT = 4  # pages under way: two keep both stages busy, more hide a page that is encoded
Outcome = tuple[Tensor, Tensor] | Exception  # ids (b, n + new) and log-probabilities (b, new), or why not


@dataclass(frozen=True)
class Stages:
    """The division of a network: stage 0 has the first `first` layers. sizes: numbers per parameter."""

    first: int
    sizes: dict[str, int]

    @classmethod
    def of(cls, config: DeepseekOCRConfig) -> Stages:
        """The division in which the larger stage is smallest. Raises ValueError for a single layer."""
        layers = config.decoder.layers
        if layers < STAGES:
            raise ValueError(f"pipeline parallel: {layers} layer cannot be divided among {STAGES} stages")
        sizes = {name: p.numel() for name, p in loading.skeleton(config).named_parameters()}
        every = [cls(first, sizes) for first in range(1, layers)]
        return min(every, key=lambda each: max(each.parameters(stage) for stage in range(STAGES)))

    def owns(self, stage: int, name: str) -> bool:
        """Whether a stage holds a parameter. Both have the last norm, which the step needs."""
        if name.startswith("model.layers."):
            return (int(name.split(".")[2]) < self.first) == (stage == 0)
        return name.startswith("model.norm.") or name.startswith("lm_head.") == (stage == 1)

    def parameters(self, stage: int) -> int:
        """Numbers that a stage holds."""
        return sum(size for name, size in self.sizes.items() if self.owns(stage, name))

    def rows(self, bytes_each: int) -> list[tuple[str, str, str]]:
        """Rows of a table: stage, what it has, MB."""
        layers = 1 + max(int(name.split(".")[2]) for name in self.sizes if name.startswith("model.layers."))
        parts = (
            f"vision tower, embedding, layers 0 to {self.first - 1}",
            f"layers {self.first} to {layers - 1}, output matrix, choice of tokens",
        )
        return [
            (f"stage {stage}", part, megabytes(self.parameters(stage) * bytes_each))
            for stage, part in enumerate(parts)
        ]


class StageStep(Step):
    """The decode step of a stage: token (b, 1) to hidden state (b, d), or the latter (b, 1, d) to logits."""

    def head(self, x: Tensor, norm: Callable) -> Tensor:
        return x if self.model.stage == 0 else super().head(x, norm)


class Elsewhere(nn.Module):
    """A layer of the other stage."""


@dataclass(eq=False)
class Slot:
    """One page under way. tokens, logprobs: per step those of every sample."""

    index: int
    input_ids: Tensor
    step: Callable[[Tensor], Tensor]
    state: GreedyState | None = None  # of stage 1
    left: int = 0  # tokens that may still be generated
    ended: list[bool] = field(default_factory=list)  # per sample
    tokens: list[list[int]] = field(default_factory=list)
    logprobs: list[list[float]] = field(default_factory=list)


class PipelineParallel(DeepseekOCRForCausalLM):
    """One stage of the model. `load` fills it. Stage 0 generates; stage 1 is in `follow`.

    `idle`: stage 1 waits for the next call. `broken`: an error has left the stages at different places.
    """

    step = StageStep

    def __init__(self, config: DeepseekOCRConfig, group: Processes):
        super().__init__(config)
        if group.size != STAGES:
            raise ValueError(f"pipeline parallel: {group.size} processes for {STAGES} stages")
        self.group, self.stage, self.stages = group, group.rank, Stages.of(config)
        self.idle, self.broken = True, False
        here = [self.stages.owns(self.stage, f"model.layers.{i}.") for i in range(config.decoder.layers)]
        self.decoder_config = replace(config.decoder, layers=sum(here))
        for i, mine in enumerate(here):
            if not mine:
                self.model.layers[i] = Elsewhere()
        if self.stage == 0:
            self.lm_head = nn.Identity()  # type: ignore[assignment]
        else:
            for name in ("sam_model", self.model.tower.name, "projector", "image_newline", "view_seperator"):
                setattr(self.model, name, None)
            self.model.embed_tokens = nn.Identity()  # type: ignore[assignment]  # its input is a hidden state

    def settle(self) -> None:
        """Leave out the layers of the other stage. They were there so that the names in the files hold."""
        kept = [layer for layer in self.model.layers if not isinstance(layer, Elsewhere)]
        for i, layer in enumerate(kept):
            cast(Any, layer).self_attn.index = i
        self.model.layers = nn.ModuleList(kept)

    @property
    def device(self) -> torch.device:
        return self.model.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.norm.weight.dtype

    @property
    def last_norm(self) -> nn.Module:
        return nn.Identity() if self.stage == 0 else super().last_norm

    def head(self, x: Tensor) -> Tensor:
        return x if self.stage == 0 else super().head(x)

    # ------------------------------------------------------------------ stage 0
    def generate(
        self, *args, on_tokens: Callable | None = None, return_logprobs: bool = False, observer=None,
        record: Callable | None = None, **given,
    ) -> Any:  # fmt: skip
        """As in one process, for one prompt: `generate_many` has several under way.

        on_tokens: called at each step with the new token of every sample. observer: follows the tokens, not
        the phases.

        Raises ValueError for `record`: a recording would have to contain what the stages send.
        """
        if record is not None:
            raise ValueError("record: the decode step of a pipeline-parallel model is not recorded")
        names = ("input_ids", "images", "images_seq_mask", "images_spatial_crop", "attention_mask")
        given |= dict(zip(names, args, strict=False))

        def say(slot: Slot) -> None:
            if observer is not None:
                observer.logprobs(slot.logprobs[-1])
                observer.token(slot.tokens[-1])
            if on_tokens is not None:
                on_tokens(slot.tokens[-1])

        ((_, made),) = self.generate_many([lambda: given], 1, say)
        if isinstance(made, Exception):
            raise made
        return made if return_logprobs else made[0]

    @torch.no_grad()
    def generate_many(
        self,
        jobs: Iterable[Callable[[], Mapping[str, Any]]],
        in_flight: int = IN_FLIGHT,
        on_step: Callable[[Slot], object] = lambda slot: None,
    ) -> Iterator[tuple[int, Outcome]]:
        """(index of the job, its ids and log-probabilities or its error), in the order in which they end.

        jobs: functions that give arguments of `generate`, called when a slot is free; an error of one is the
        outcome of its page. Only stage 0 calls this.
        """
        self.idle = False
        try:
            yield from self._generate_many(enumerate(jobs), in_flight, on_step)
        except BaseException:
            self.broken = True
            raise
        self.idle = True

    def _generate_many(
        self,
        left: Iterator[tuple[int, Callable[[], Mapping[str, Any]]]],
        in_flight: int,
        on_step: Callable[[Slot], object],
    ) -> Iterator[tuple[int, Outcome]]:
        self.group.tell(in_flight)
        slots: list[Slot | None] = [None] * in_flight
        more = True
        while more or any(slots):
            for place, slot in enumerate(slots):
                if slot is not None:
                    done, finite = self.hear(slot)
                    on_step(slot)
                    if not done:
                        self.group.send(
                            slot.step(torch.tensor(slot.tokens[-1], device=self.device)[:, None]), 1
                        )
                        continue
                    slots[place] = None
                    yield slot.index, outcome(slot) if finite else broken(slot)
                while more and slots[place] is None:
                    if (job := next(left, None)) is None:
                        more = False
                        self.group.send_object(None, 1)
                        break
                    try:
                        slots[place] = self.begin(*job)
                    except Exception as error:  # of this page: stage 1 does not know of it yet
                        yield job[0], error

    def begin(self, index: int, job: Callable[[], Mapping[str, Any]]) -> Slot:
        """Encode a prompt, run it through the first layers, and pass it on."""
        given, fields = job(), Prompt.__dataclass_fields__
        prompt = Prompt(**{name: given[name] for name in fields if name in given})
        rules = {name: value for name, value in given.items() if name not in fields}
        options = GreedyOptions(**rules)
        if prompt.input_ids.shape[1] == 0 or options.max_new_tokens < 1:
            raise ValueError(f"nothing to do: max_new_tokens {options.max_new_tokens}, or an empty prompt")
        NgramGuard(options.no_repeat_ngram_size, options.ngram_window)  # raises for invalid arguments
        embeds = self.embed(
            prompt.input_ids, prompt.images, prompt.images_seq_mask, prompt.images_spatial_crop
        )
        hidden, step = self.fill(embeds, prompt.attention_mask, options)
        self.group.send_object((prompt.input_ids.cpu(), prompt.attention_mask, rules), 1)
        self.group.send(hidden, 1)
        return Slot(index, prompt.input_ids.cpu(), step)

    def hear(self, slot: Slot) -> tuple[bool, bool]:
        """Take the tokens that stage 1 chose; returns whether the page has ended and all is finite."""
        b = len(slot.input_ids)
        said = self.group.receive(torch.empty(2 * b + 2, dtype=torch.float64), 1).tolist()
        slot.tokens.append([int(token) for token in said[:b]])
        slot.logprobs.append(said[b : 2 * b])
        return bool(said[-2]), bool(said[-1])

    def stop(self) -> None:
        """End `follow` on stage 1, if it is there."""
        if self.idle:
            self.group.tell(None)

    # ------------------------------------------------------------------ stage 1
    @torch.no_grad()
    def follow(self) -> None:
        """The work of stage 1, until `stop`."""
        while (in_flight := self.group.tell()) is not None:
            slots: list[Slot | None] = [None] * in_flight
            more = True
            while more or any(slots):
                for place, slot in enumerate(slots):
                    if slot is not None:
                        hidden = self.empty(len(slot.input_ids), 1)[:, 0]
                        logits = slot.step(self.group.receive(hidden, 0)[:, None])
                    elif not more or (job := self.group.receive_object(0)) is None:
                        more = False
                        continue
                    else:
                        slot, logits = self.take(*job)
                    slots[place] = None if self.choose(slot, logits) else slot

    def take(self, input_ids: Tensor, attention_mask: Tensor | None, rules: dict) -> tuple[Slot, Tensor]:
        """A page that comes from stage 0, and the logits of its first token."""
        options = GreedyOptions(**rules)
        hidden = self.group.receive(self.empty(*input_ids.shape), 0)
        logits, step = self.fill(hidden, attention_mask, options)
        state = GreedyState(self, input_ids, options)
        slot = Slot(0, input_ids, step, state, options.max_new_tokens, [False] * len(input_ids))
        return slot, logits[:, -1]

    def choose(self, slot: Slot, logits: Tensor) -> bool:
        """Choose the next tokens and send them; returns whether the page is finished."""
        assert slot.state is not None
        slot.state.pick(logits)
        ((tokens, logprobs, finite),) = slot.state.sync()
        slot.left -= 1
        ends = slot.state.ends
        slot.ended = [was or token in ends for token, was in zip(tokens, slot.ended, strict=True)]
        done = not finite or slot.left == 0 or all(slot.ended)
        self.group.send(torch.tensor([*tokens, *logprobs, done, finite], dtype=torch.float64), 0)
        return done

    # ------------------------------------------------------------------ both
    def fill(
        self, embeds: Tensor, attention_mask: Tensor | None, options: GreedyOptions
    ) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """A prompt through the layers of this stage: hidden states (b, n, d) or logits (b, 1, vocab), and the
        decode step behind it."""
        cache, positions, mask, visible = places(self, embeds, attention_mask, options.max_new_tokens)
        made = self.decode_embeds(embeds, positions, mask, mask is None, cache, last=self.stage)
        return made, decode_step(self, cache, positions[:, -1:], visible, None)

    def empty(self, b: int, n: int) -> Tensor:
        """Memory for hidden states (b, n, d)."""
        return torch.empty(b, n, self.config.decoder.width, dtype=self.dtype, device=self.device)


def outcome(slot: Slot) -> tuple[Tensor, Tensor]:
    ids = torch.cat((slot.input_ids, torch.tensor(slot.tokens).T), dim=1)
    return ids, torch.tensor(slot.logprobs, dtype=torch.float32).T


def broken(slot: Slot) -> NonFiniteError:
    return NonFiniteError(
        f"logits are NaN or Inf at token {len(slot.tokens)}; read this page in one process to learn the layer"
    )


def load(
    folder: str | Path,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    plan: Mapping[str, Callable] | str | Path | None = None,
    *,
    group: Processes,
) -> PipelineParallel:
    """This stage's part of a checkpoint; reads no other tensors. The arguments are those of tensor.load."""
    loaded = loading.load(
        Path(folder), dtype, torch.device(device), lambda config: PipelineParallel(config, group)
    )
    model = cast(PipelineParallel, loaded)
    model.settle()
    model.use_plan(plans.resolve(plan, model))
    return model.eval().requires_grad_(False)
