"""How the weights are divided among the ranks of a tensor-parallel model.

A matrix whose outputs do not depend on each other (heads, inner units, words) is cut by rows, and the matrix
behind it by columns. Each rank then computes a part of the sum, and one all-reduce adds the parts:

    attention    q, k, v by rows and o by columns: whole heads
    dense        gate, up by rows and down by columns: inner units
    experts      the same in every expert, shared ones too. All ranks have the same work for any routing;
                 whole experts per rank would need as many sums, and wait for the rank with the most tokens
    vocabulary   the embedding by rows (a sum of rows, all but one zero) and the output matrix by rows (the
                 logits are gathered)

A part whose count does not divide stays whole on every rank: it needs no sum. The vision tower, the router
and the norms are always whole; the views of a page are divided among the ranks instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import torch

from ..config import DeepseekOCRConfig
from ..loading import official_names, skeleton
from ..parts import DecoderConfig
from ..safetensors_io import Region

WHOLE, ROWS, COLUMNS, INNER = "whole", "rows", "columns", "experts' inner"
ATTENTION, DENSE, EXPERTS, VOCABULARY = PARTS = ("attention", "dense", "experts", "vocabulary")


@dataclass(frozen=True)
class Cut:
    """How one parameter of the network is cut, if its part divides. dim: of the parameter."""

    part: str
    how: str
    dim: int


#: {end of the name of a parameter: its cut}; the first that fits.
CUTS = {
    "self_attn.qkv_proj.weight": Cut(ATTENTION, ROWS, 0),
    "self_attn.o_proj.weight": Cut(ATTENTION, COLUMNS, 1),
    "mlp.experts.gate_up_proj": Cut(EXPERTS, INNER, 1),
    "mlp.experts.down_proj": Cut(EXPERTS, INNER, 2),
    "mlp.shared_experts.gate_up_proj.weight": Cut(EXPERTS, INNER, 0),
    "mlp.shared_experts.down_proj.weight": Cut(EXPERTS, INNER, 1),
    "mlp.gate_up_proj.weight": Cut(DENSE, ROWS, 0),
    "mlp.down_proj.weight": Cut(DENSE, COLUMNS, 1),
    "model.embed_tokens.weight": Cut(VOCABULARY, ROWS, 0),
    "lm_head.weight": Cut(VOCABULARY, ROWS, 0),
}
OF_THE_DECODER = ("model.layers.", "model.embed_tokens.", "lm_head.")


@dataclass(frozen=True)
class LocalDecoder(DecoderConfig):
    """The decoder as one rank has it: fewer heads of the same size."""

    of_a_head: int = 0

    @property
    def head_dim(self) -> int:
        return self.of_a_head


@dataclass(frozen=True)
class Split:
    """The division of one network among `ranks` processes: per tensor whole, rows, columns, experts' inner.

    shapes: of the parameters of the whole network. divided: the parts that are cut; see PARTS.
    """

    ranks: int
    config: DeepseekOCRConfig
    shapes: dict[str, torch.Size]
    divided: frozenset[str]

    @classmethod
    def of(cls, config: DeepseekOCRConfig, ranks: int) -> Split:
        """The division of the network of a config. Needs no weights.

        Raises:
            ValueError: no count of this decoder divides by `ranks`, or ranks < 1.
        """
        if ranks < 1:
            raise ValueError(f"tensor parallel: expected at least 1 process, got {ranks}")
        there = counts(config.decoder)
        divided = frozenset(part for part, (count, _) in there.items() if count % ranks == 0)
        if not divided:
            listed = ", ".join(f"{count} {what}" for count, what in there.values())
            able = [n for n in range(2, 17) if any(count % n == 0 for count, _ in there.values())]
            raise ValueError(
                f"tensor parallel: nothing of this decoder divides by {ranks} ({listed}): every rank would "
                f"hold and compute everything. Choose one of {', '.join(map(str, able))}"
            )
        shapes = {name: p.shape for name, p in skeleton(config).named_parameters()}
        return cls(ranks, config, shapes, divided)

    # ------------------------------------------------------------------ what is cut
    def cut(self, name: str) -> Cut | None:
        """How a parameter is cut; None: it is whole on every rank."""
        if self.ranks == 1 or not name.startswith(OF_THE_DECODER):
            return None
        found = next((cut for end, cut in CUTS.items() if name.endswith(end)), None)
        return found if found is not None and found.part in self.divided else None

    def local_shape(self, name: str) -> torch.Size:
        """The shape of a parameter in one rank."""
        shape, cut = list(self.shapes[name]), self.cut(name)
        if cut is not None:
            shape[cut.dim] //= self.ranks
        return torch.Size(shape)

    def regions(self, rank: int) -> dict[str, Region]:
        """{official tensor: the part that a rank reads}, for the tensors that are cut."""
        made = {}
        for name, shape in self.shapes.items():
            if (cut := self.cut(name)) is None:
                continue
            for official, index in official_names(self.config, name, shape):
                here = torch.empty(shape, device="meta")[index].shape
                dim = cut.dim - (len(shape) - len(here))  # a stack of experts has one dimension more
                count = here[dim] // self.ranks
                made[official] = Region(dim, rank * count, count)
        return made

    def decoder(self) -> LocalDecoder:
        """The sizes of one rank's decoder. The vocabulary stays: logits are gathered."""
        whole = self.config.decoder
        heads = whole.heads // self.ranks if self.divides(ATTENTION) else whole.heads
        return LocalDecoder(**{**asdict(whole), "heads": heads}, of_a_head=whole.head_dim)

    def divides(self, part: str) -> bool:
        return self.ranks > 1 and part in self.divided

    # ------------------------------------------------------------------ what it costs
    def parameters(self) -> int:
        """Numbers that one rank holds; all ranks hold as many."""
        return sum(math.prod(self.local_shape(name)) for name in self.shapes)

    def cache_values(self) -> int:
        """Numbers that one rank's KV cache holds per position."""
        c = self.decoder()
        return 2 * c.layers * c.heads * c.head_dim

    def sums(self) -> int:
        """All-reduces of one pass through the decoder, for one token or many."""
        c = self.config.decoder
        dense = min(c.dense_layers, c.layers)
        return (
            self.divides(VOCABULARY)
            + c.layers * self.divides(ATTENTION)
            + dense * self.divides(DENSE)
            + (c.layers - dense) * self.divides(EXPERTS)
        )

    def summed(self) -> int:
        """Numbers per token in one all-reduce: a row of the residual stream."""
        return self.config.decoder.width

    def gathered(self) -> int:
        """Numbers per token in the gather of the logits, all ranks together; 0 if the vocabulary is whole."""
        return self.config.decoder.vocab if self.divides(VOCABULARY) else 0

    # ------------------------------------------------------------------ in words
    def kept_whole(self) -> Iterator[str]:
        """One line per part that does not divide."""
        for part, (count, what) in counts(self.config.decoder).items():
            if self.ranks > 1 and part not in self.divided:
                yield (
                    f"{part}: {count} {what} do not divide by {self.ranks}, so every rank holds and computes "
                    "all of them"
                )

    def rows(self, bytes_each: int) -> list[tuple[str, str, str, str]]:
        """Rows of a table: tensors, how they are divided, MB of all, MB of a rank."""
        groups: dict[tuple[str, str], list[str]] = {}
        for name in self.shapes:
            cut = self.cut(name)
            groups.setdefault((family(name), WHOLE if cut is None else cut.how), []).append(name)
        made = []
        for (what, how), names in groups.items():
            whole = sum(math.prod(self.shapes[name]) for name in names)
            local = sum(math.prod(self.local_shape(name)) for name in names)
            made.append((what, how, megabytes(whole * bytes_each), megabytes(local * bytes_each)))
        total = sum(map(math.prod, self.shapes.values()))
        end = (megabytes(total * bytes_each), megabytes(self.parameters() * bytes_each))
        return [*made, ("all weights", "", *end)]

    def traffic(self, bytes_each: int) -> str:
        """What is sent per generated token, in one line."""
        each = self.summed() * bytes_each
        gathered = (
            f", and one gather of {self.gathered() * bytes_each:,} bytes of logits" if self.gathered() else ""
        )
        return (
            f"per token {self.sums()} all-reduces of {each:,} bytes, {self.sums() * each:,} in all{gathered}"
            "; "
            f"KV cache {self.cache_values() * bytes_each:,} bytes per position and rank"
        )


def counts(c: DecoderConfig) -> dict[str, tuple[int, str]]:
    """{part: (what has to divide, in words)} of the parts that a decoder has."""
    made = {ATTENTION: (c.heads, "heads")}
    if c.dense_layers:
        made[DENSE] = (c.dense_hidden, "inner units of a dense layer")
    if c.layers > c.dense_layers:
        made[EXPERTS] = (c.expert_hidden, "inner units of an expert")
    return {**made, VOCABULARY: (c.vocab, "words")}


def family(name: str) -> str:
    """The row of a parameter in the table."""
    if not name.startswith((*OF_THE_DECODER, "model.norm.")):
        return "vision tower, projector"
    if name.startswith("model.embed_tokens."):
        return "embedding"
    if name.startswith("lm_head."):
        return "output matrix"
    for end, label in {
        "qkv_proj.weight": "attention q, k, v",
        "o_proj.weight": "attention o",
        "mlp.experts.gate_up_proj": "experts gate, up",
        "mlp.experts.down_proj": "experts down",
        "shared_experts.gate_up_proj.weight": "shared experts gate, up",
        "shared_experts.down_proj.weight": "shared experts down",
        "mlp.gate_up_proj.weight": "dense gate, up",
        "mlp.down_proj.weight": "dense down",
    }.items():
        if name.endswith(end):
            return label
    return "router, norms"


def megabytes(count: float) -> str:
    return f"{count / 1e6:,.1f}"
