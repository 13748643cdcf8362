"""The two stages of a pipeline: which tensors each has, reads and keeps. test_processes.py runs them."""

from __future__ import annotations

import os

import pytest
import torch

from model import DeepseekOCRConfig
from model.loading import CheckpointError, placements, read_config, skeleton
from model.parallel import pipeline
from model.parallel.pipeline import Stages
from model.weight_files import find_tensors
from tests.helpers.family import NAMES, tiny
from tests.helpers.paths import NANO
from tests.helpers.thread_ranks import Shared, Threads


def stage(rank, folder=NANO, **how):
    return pipeline.load(folder, group=Threads(rank, 2, Shared(2)), **how)


@pytest.mark.parametrize("name", NAMES)
def test_the_border_is_where_the_larger_stage_is_smallest(name):
    config = DeepseekOCRConfig.official(name)
    stages = Stages.of(config)
    larger = max(stages.parameters(0), stages.parameters(1))
    others = [Stages(first, stages.sizes) for first in range(1, config.decoder.layers)]
    assert larger == min(max(each.parameters(0), each.parameters(1)) for each in others)
    twice = stages.sizes["model.norm.weight"]
    assert stages.parameters(0) + stages.parameters(1) == sum(stages.sizes.values()) + twice


def test_one_layer_is_not_divided():
    with pytest.raises(ValueError, match="1 layer cannot be divided among 2 stages"):
        Stages.of(tiny("deepseek-ocr", num_hidden_layers=1))


def test_three_processes_are_not_two_stages():
    with pytest.raises(ValueError, match="3 processes for 2 stages"):
        pipeline.load(NANO, group=Threads(0, 3, Shared(3)))


def test_a_step_is_not_recorded():
    with pytest.raises(ValueError, match="not recorded"):
        stage(0).generate(torch.tensor([[0, 5]]), record=lambda run: run)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_stage_reads_and_holds_its_tensors_only(rank, monkeypatch):
    config, entries = read_config(NANO), find_tensors(NANO)
    stages, starts, before = Stages.of(config), [], os.preadv

    def counting(handle, buffers, at):
        done = before(handle, buffers, at)
        starts.append((at, done))
        return done

    monkeypatch.setattr(os, "preadv", counting)
    model = stage(rank)
    owned = {
        name for name, (ours, _) in placements(config, skeleton(config)).items() if stages.owns(rank, ours)
    }
    assert sorted(starts) == sorted((entries[name].start, entries[name].size) for name in owned)
    assert sum(p.numel() for p in model.parameters()) == stages.parameters(rank)
    assert len(model.model.layers) == model.decoder_config.layers == [stages.first, 4 - stages.first][rank]
    assert [layer.self_attn.index for layer in model.model.layers] == list(range(len(model.model.layers)))


def test_a_stage_is_not_saved_as_a_checkpoint(tmp_path):
    for rank in (0, 1):
        with pytest.raises(CheckpointError, match="not written"):
            stage(rank).save_pretrained(tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


def test_dtype_and_device_are_known_without_the_output_matrix():
    model = stage(0, dtype=torch.float16)
    assert (model.dtype, model.device) == (torch.float16, torch.device("cpu"))
