"""Position tables and the inside of every block, compared with the original (units, layers_g640)."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from model.decoder import rotary_tables
from model.slots import rms_norm
from model.vision import relative_table, resize_grid
from tests.helpers.golden import GOLDENS, inputs

UNITS, LAYERS = load_file(GOLDENS / "units.safetensors"), load_file(GOLDENS / "layers_g640.safetensors")


def close(ours, theirs, atol=2e-4):
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@pytest.mark.parametrize("side", [32, 40, 64, 80])
def test_sam_position_table(golden_model, side):
    table = resize_grid(golden_model.model.sam_model.pos_embed.detach(), side)
    close(table[:, ::4, ::4], UNITS[f"sam_pos_embed_{side}.sub4"], 1e-6)


@pytest.mark.parametrize("side", [32, 40, 64, 80])
@pytest.mark.parametrize("axis", ["h", "w"])
def test_relative_table_of_a_global_block(golden_model, side, axis):
    table = getattr(golden_model.model.sam_model.blocks[1].attn, f"rel_pos_{axis}").detach()
    close(relative_table(table, side)[::4, ::4], UNITS[f"rel_pos_{axis}_block1_{side}.sub4"], 1e-6)


def test_relative_table_of_a_window(golden_model):
    table = golden_model.model.sam_model.blocks[0].attn.rel_pos_h.detach()
    close(relative_table(table, 14), UNITS["rel_pos_h_block0_14"], 0)


@pytest.mark.parametrize("side", [8, 10, 16, 20])
def test_clip_position_table(golden_model, side):
    embeddings = golden_model.model.vision_model.embeddings
    nothing = torch.zeros(1, 64, side, side)
    with torch.no_grad():
        table = embeddings(nothing)
    table[:, 0] -= embeddings.class_embedding.detach()
    close(table, UNITS[f"clip_pos_embed_{side}"], 1e-6)


@pytest.mark.parametrize("head_dim", [32, 128])
def test_rotary_tables(head_dim):
    cos, sin = rotary_tables(UNITS["rope_positions"], head_dim, 10000.0, torch.float32)
    # angles reach 8191, where one fp32 step is 5e-4; torch versions may differ by one such step in the power
    close(cos[:, 0], UNITS[f"rope{head_dim}_cos"], 1e-3)
    close(sin[:, 0], UNITS[f"rope{head_dim}_sin"], 1e-3)


def test_every_block_inside(golden_model):
    """One pass over g640 with a hook on every block."""
    seen: dict[str, torch.Tensor] = {}

    def keep(name, module, take=lambda module, args, out: out):
        return module.register_forward_hook(
            lambda module, args, out: seen.__setitem__(name, take(module, args, out).detach())
        )

    m = golden_model.model
    sam, clip = m.sam_model, m.vision_model
    into = lambda module, args, out: args[0]  # noqa: E731
    hooks = [
        keep("sam.patch_embed", sam.patch_embed),
        keep("sam.net_2", sam.net_2),
        keep("sam.net_3", sam.net_3),
    ]
    hooks += [keep(f"sam.block{i}", block) for i, block in enumerate(sam.blocks)]
    hooks += [keep(f"sam.block{i}.attn", block.attn) for i, block in enumerate(sam.blocks)]
    hooks += [keep(f"sam.neck{i}", stage) for i, stage in enumerate(sam.neck)]
    hooks += [keep("clip.embeddings", clip.embeddings), keep("clip.pre_layrnorm", clip.pre_layrnorm)]
    hooks += [keep(f"clip.layer{i}", layer) for i, layer in enumerate(clip.layers)]
    hooks += [keep("projector", m.projector), keep("lm.norm", m.norm), keep("logits", golden_model.lm_head)]
    for i, layer in enumerate(m.layers):
        hooks += [
            keep(f"lm.layer{i}", layer),
            keep(f"lm.layer{i}.attn", layer.self_attn),
            keep(f"lm.layer{i}.attn_in", layer.self_attn, into),
            keep(f"lm.layer{i}.mlp", layer.mlp),
            keep(f"lm.layer{i}.mlp_in", layer.mlp, into),
        ]
    try:
        with torch.no_grad():
            golden_model(**inputs("g640"))
    finally:
        for hook in hooks:
            hook.remove()

    compared = set()
    for key, theirs in LAYERS.items():
        name = key.removesuffix(".sub4").removesuffix(".head")
        if name not in seen:
            continue
        ours = seen[name]
        if key.endswith(".head"):
            ours = ours[:2, ::5, ::5]
        elif key.endswith(".sub4"):
            ours = ours[:, :, ::4, ::4] if ".neck" in key else ours[:, ::4, ::4]
        close(ours, theirs, 5e-4 if name == "logits" else 2e-4)
        compared.add(key)
    routers = {key for key in LAYERS if "topk" in key or "gate_margin" in key}
    assert compared | routers == set(LAYERS), "a stored layer was not compared"

    for i in (1, 2):
        moe = m.layers[i].mlp
        ids, weights = moe.route(seen[f"lm.layer{i}.mlp_in"][0])
        order = ids.argsort(dim=1)  # the order of the chosen experts is not defined in the original
        assert torch.equal(ids.gather(1, order), LAYERS[f"lm.layer{i}.topk_idx_by_id"])
        close(weights.gather(1, order), LAYERS[f"lm.layer{i}.topk_weight_by_id"], 1e-5)


def test_rms_norm_rounds_before_it_scales():
    """In half precision the order matters: x * rsqrt(...) is rounded first, then multiplied by the weight."""
    x = torch.linspace(-3, 3, 64, dtype=torch.float32).to(torch.bfloat16)[None]
    weight = torch.linspace(0.5, 1.5, 64).to(torch.bfloat16)
    x32 = x.float()
    expected = weight * (x32 / (x32.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()).to(torch.bfloat16)
    assert torch.equal(rms_norm(x, weight, 1e-6), expected)
