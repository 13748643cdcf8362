"""The network while it learns: with the extra heads (not part of the stored checkpoint) and its losses."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from model import DeepseekOCRForCausalLM
from model.decoder import MoE

from .batches import CELLS, CLASSES, EDGES, PLACES, Batch
from .recipe import nano_config


def rel_pos_attention(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """`slots.rel_pos_attention` without a separate (n, n) bias: it becomes 2s more columns of q and k.

    The query gets its scores against every key row and every key column, the key says which row and column it
    is, one-hot; their product is the bias.
    """
    b, h, n, d = q.shape
    s = rel_h.shape[0]
    grid = q.view(b, h, s, s, d)
    bias_h = torch.einsum("bhijk,ixk->bhijx", grid, rel_h).reshape(b, h, n, s)
    bias_w = torch.einsum("bhijk,jyk->bhijy", grid, rel_w).reshape(b, h, n, s)
    eye = torch.eye(s, dtype=k.dtype, device=k.device)
    where = torch.cat((eye[:, None].expand(s, s, s), eye[None].expand(s, s, s)), dim=-1).view(n, 2 * s)
    k = torch.cat((k, where.expand(b, h, n, 2 * s)), dim=-1)
    return plain_attention(torch.cat((q * d**-0.5, bias_h, bias_w), dim=-1), k, v)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: None = None, causal: bool = False) -> Tensor:
    """`slots.attention` by `plain_attention`."""
    return plain_attention(q * q.shape[-1] ** -0.5, k, v, causal)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """Two matrix products and a softmax, in bf16; q is scaled already.

    For training only. On the CPU, the backward pass of torch's fused attention takes several times as long.
    """
    with torch.autocast("cpu", enabled=False):
        return PlainAttention.apply(q.bfloat16(), k.bfloat16(), v.bfloat16(), causal)


class PlainAttention(torch.autograd.Function):
    """softmax(q kᵀ) v; q, k (b, h, n, k), v (b, h, n, d).

    The backward pass takes the sum over p * dp from the output, as flash attention does (Dao et al., 2022):
    two passes over the scores instead of torch's softmax backward, a fifth of its time in bf16 on a CPU.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        scores = q @ k.transpose(-1, -2)
        if causal:
            n = scores.shape[-1]
            scores += torch.full((n, n), -1e4, dtype=scores.dtype).triu(1)
        p = scores.softmax(-1)
        out = p @ v
        ctx.save_for_backward(q, k, v, p, out)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, p, out = ctx.saved_tensors
        ds = grad @ v.transpose(-1, -2)
        ds.sub_((grad.float() * out.float()).sum(-1, keepdim=True).to(ds.dtype)).mul_(p)
        return ds @ k, ds.transpose(-1, -2) @ q, p.transpose(-1, -2) @ grad, None


class Trainee(nn.Module):
    """The network and the extra heads: characters per cell, digits of the box per cell."""

    def __init__(self, seed: int):
        super().__init__()
        self.ocr = DeepseekOCRForCausalLM.random(nano_config(), seed=seed).train()
        self.ocr.use_plan({"rel_pos_attention": rel_pos_attention, "attention": attention})
        # White paper drowns the ink otherwise: filters that ignore flat areas and answer with unit size to
        # strokes.
        with torch.no_grad():
            weight = self.ocr.model.sam_model.patch_embed.proj.weight
            weight.sub_(weight.mean((1, 2, 3), keepdim=True)).mul_(1.5)
        generator = torch.Generator().manual_seed(seed)
        width = self.ocr.config.decoder.width
        self.places = nn.Linear(width, PLACES * CLASSES)
        with torch.no_grad():
            self.places.weight.normal_(0, width**-0.5, generator=generator)
            self.places.bias.zero_()
        self.edges = nn.Linear(width, EDGES * 10)
        with torch.no_grad():
            self.edges.weight.normal_(0, width**-0.5, generator=generator)
            self.edges.bias.zero_()

    def forward(self, batch: Batch, task: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Losses: per place, per digit of a box, per character, expert balance."""
        m = self.ocr.model
        with torch.set_grad_enabled(task in ("eyes", "both")):
            features = m.encode_views(batch.pixels)  # b cells d
        with torch.set_grad_enabled(task != "align"):
            where = F.cross_entropy(self.places(features).view(-1, CLASSES).float(), batch.places.view(-1))
            digits = self.edges(features).view(-1, 10).float()
            edges = F.cross_entropy(digits, batch.edges.view(-1), ignore_index=-100)
        if task in ("eyes", "head"):
            return where, edges, where.new_zeros(()), where.new_zeros(())
        b, _, d = features.shape
        rows = features.view(b, CELLS, CELLS, d)
        assert m.image_newline is not None  # the towers of DeepSeek-OCR have it
        rows = torch.cat((rows, m.image_newline.expand(b, CELLS, 1, d)), dim=2).flatten(1, 2)
        vision = torch.cat((rows, m.view_seperator.expand(b, 1, d)), dim=1)  # b 73 d
        text = m.embed_tokens(batch.ids)
        embeds = torch.cat((text[:, :1], vision.to(text.dtype), text[:, 1 + vision.shape[1] :]), dim=1)
        positions = torch.arange(embeds.shape[1]).expand(b, -1)
        asked = batch.ids.shape[1] - 1 - vision.shape[1]
        with Balance(self.ocr) as balance:
            logits = self.ocr.decode_embeds(embeds, positions, None, True, last=asked)
        targets, weights = batch.targets[:, -asked:].flatten(), batch.weights[:, -asked:].flatten()
        says = F.cross_entropy(logits.flatten(0, 1), targets, ignore_index=-100, reduction="none")
        return (
            where,
            edges,
            (says * weights).sum() / weights[targets != -100].sum(),
            balance.loss(),
        )


class Balance:
    """Collects the router inputs of one pass; the loss is 1 where all experts are used alike."""

    def __init__(self, ocr: DeepseekOCRForCausalLM):
        self.layers = [m for m in ocr.model.layers.modules() if isinstance(m, MoE)]
        self.inputs: list[tuple[MoE, Tensor]] = []

    def __enter__(self):
        self.hooks = [
            mlp.register_forward_pre_hook(lambda mlp, args: self.inputs.append((mlp, args[0])))
            for mlp in self.layers
        ]
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()

    def loss(self) -> Tensor:
        total = []
        for mlp, x in self.inputs:
            with torch.autocast("cpu", enabled=False):
                scores = F.linear(x.flatten(0, 1).float(), mlp.gate.weight.float()).softmax(-1)  # n e
            chosen = scores.topk(mlp.top, dim=-1).indices
            share = torch.zeros_like(scores).scatter_(1, chosen, 1.0).mean(0) / mlp.top
            total.append((share * scores.mean(0)).sum() * scores.shape[1])
        return torch.stack(total).mean()
