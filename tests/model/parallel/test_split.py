"""How weights are divided among ranks: the plan, its figures at the official sizes, and what is read."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from model import DeepseekOCRConfig, DeepseekOCRForCausalLM
from model.loading import read_config
from model.parallel import tensor
from model.parallel.split import COLUMNS, INNER, ROWS, WHOLE, Split
from model.safetensors_io import Region
from model.weight_files import find_tensors
from tests.helpers.family import NAMES, tiny
from tests.helpers.golden import CHECKPOINT
from tests.helpers.paths import NANO
from tests.helpers.thread_ranks import Shared, Threads


def group(rank, size):
    """One rank alone: enough to build and load."""
    return Threads(rank, size, Shared(size))


def cut(split, name):
    found = split.cut(name)
    return WHOLE if found is None else found.how


def test_the_goldens_have_three_heads_which_stay_whole_on_two_ranks():
    split = Split.of(read_config(CHECKPOINT), 2)
    layer = "model.layers.1."
    assert cut(split, layer + "self_attn.qkv_proj.weight") == WHOLE
    assert cut(split, layer + "mlp.experts.down_proj") == INNER
    assert cut(split, layer + "mlp.shared_experts.gate_up_proj.weight") == INNER
    assert cut(split, layer + "mlp.gate.weight") == WHOLE
    assert cut(split, "model.layers.0.mlp.gate_up_proj.weight") == ROWS
    assert cut(split, "model.layers.0.mlp.down_proj.weight") == COLUMNS
    assert cut(split, "lm_head.weight") == cut(split, "model.embed_tokens.weight") == ROWS
    (line,) = split.kept_whole()
    assert line.startswith("attention: 3 heads do not divide by 2")
    assert split.decoder().heads == 3 and split.decoder().head_dim == 32


def test_nano_has_six_heads_which_are_cut():
    split = Split.of(read_config(NANO), 2)
    assert cut(split, "model.layers.0.self_attn.qkv_proj.weight") == ROWS
    assert cut(split, "model.layers.0.self_attn.o_proj.weight") == COLUMNS
    assert list(split.kept_whole()) == []
    assert (split.decoder().heads, split.decoder().head_dim, split.decoder().vocab) == (3, 32, 272)


@pytest.mark.parametrize(
    ("ranks", "divided"),
    [
        (2, {"attention", "dense", "experts", "vocabulary"}),
        (4, {"dense", "experts", "vocabulary"}),
        (5, {"attention", "vocabulary"}),
        (7, {"experts"}),
        (8, {"dense", "experts", "vocabulary"}),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_what_divides_at_the_official_sizes(name, ranks, divided):
    assert Split.of(DeepseekOCRConfig.official(name), ranks).divided == divided


def test_a_number_by_which_nothing_divides_is_refused():
    with pytest.raises(
        ValueError, match=r"nothing of this decoder divides by 3 \(10 heads, .*one of 2, 4, 5"
    ):
        Split.of(DeepseekOCRConfig(), 3)
    with pytest.raises(ValueError, match="at least 1 process, got 0"):
        Split.of(DeepseekOCRConfig(), 0)


def test_the_encoder_of_the_second_model_is_not_taken_for_the_decoder():
    """Its layers have the same names behind another prefix."""
    split = Split.of(tiny("deepseek-ocr-2"), 2)
    assert all(split.cut(name) is None for name in split.shapes if "qwen2_model" in name)


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("folder", [CHECKPOINT, NANO], ids=["golden", "nano"])
def test_the_parts_of_all_ranks_are_the_whole(folder, ranks):
    config, entries = read_config(folder), find_tensors(folder)
    split = Split.of(config, ranks)
    whole = DeepseekOCRForCausalLM.from_pretrained(folder)
    for rank in range(ranks):
        part = dict(tensor.load(folder, group=group(rank, ranks)).named_parameters())
        assert {name: p.shape for name, p in part.items()} == {n: split.local_shape(n) for n in split.shapes}
        assert sum(p.numel() for p in part.values()) == split.parameters()
    everywhere = [split.regions(rank) for rank in range(ranks)]
    for name, first in everywhere[0].items():
        size = entries[name].shape[first.dim]
        assert [each[name] for each in everywhere] == [
            Region(first.dim, size // ranks * rank, size // ranks) for rank in range(ranks)
        ]
    layer = whole.model.layers[1]
    experts = [
        tensor.load(folder, group=group(rank, ranks)).model.layers[1].mlp.experts for rank in range(ranks)
    ]
    assert torch.cat([each.down_proj for each in experts], 2).equal(layer.mlp.experts.down_proj)
    gates = [each.gate_up_proj.chunk(2, 1) for each in experts]  # gate and up are each cut, then stacked
    joined = torch.cat([gate for gate, _ in gates] + [up for _, up in gates], 1)
    assert joined.equal(layer.mlp.experts.gate_up_proj)


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_rank_reads_its_share_of_each_tensor_and_no_other_byte(ranks, monkeypatch):
    entries, split = find_tensors(NANO), Split.of(read_config(NANO), ranks)
    read: dict[Path, list[tuple[int, int]]] = {}
    before = os.preadv

    def counting(handle, buffers, at):
        done = before(handle, buffers, at)
        read.setdefault(Path(os.readlink(f"/proc/self/fd/{handle}")), []).append((at, done))
        return done

    monkeypatch.setattr(os, "preadv", counting)
    tensor.load(NANO, group=group(1, ranks))
    regions, item = split.regions(1), 2
    (pieces,) = read.values()
    share = sum(
        entry.size
        if name not in regions
        else entry.size // entry.shape[regions[name].dim] * regions[name].count
        for name, entry in entries.items()
    )
    assert sum(size for _, size in pieces) == share < sum(entry.size for entry in entries.values())
    assert split.parameters() * item == share  # nano's files have 16 bits
    for entry in entries.values():
        inside = [
            (at - entry.start, size) for at, size in pieces if entry.start <= at < entry.start + entry.size
        ]
        region = regions.get(entry.name)
        if region is not None and region.dim == 1:
            rows, columns = entry.shape
            first, wide = region.start * item, region.count * item
            assert inside == [(row * columns * item + first, wide) for row in range(rows)], entry.name


@pytest.mark.parametrize("name", NAMES)
def test_memory_of_a_rank_at_the_official_sizes(name):
    config = DeepseekOCRConfig.official(name)
    splits = [Split.of(config, ranks) for ranks in (1, 2, 4, 8)]
    total = sum(map(math.prod, splits[0].shapes.values()))
    held = [split.parameters() for split in splits]
    assert held[0] == total and held == sorted(held, reverse=True)
    tower = sum(
        math.prod(s) for n, s in splits[0].shapes.items() if not n.startswith(("model.layers", "lm_head"))
    )
    assert total / 2 < held[1] < total / 2 + tower
    assert splits[1].sums() == 1 + 2 * 12 and splits[2].sums() == 1 + 12
    assert splits[1].cache_values() * 2 == splits[0].cache_values() == splits[2].cache_values()


def test_the_table_of_a_split():
    rows = Split.of(read_config(CHECKPOINT), 2).rows(4)
    named = {(what, how): (whole, local) for what, how, whole, local in rows}
    assert named["attention q, k, v", "whole"][0] == named["attention q, k, v", "whole"][1]
    assert ("experts down", "experts' inner") in named and ("output matrix", "rows") in named
    whole, local = named["all weights", ""]
    assert float(local) < float(whole)
