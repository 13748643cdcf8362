"""Count the operators of one token as the original decodes it."""

from __future__ import annotations

import torch

from model import DeepseekOCRConfig
from model.loading import skeleton

from ..baselines.original import Original, pick
from ..opcount.assume import Assume
from ..opcount.recorder import Recorder
from ..operator_census.result import Census


def census_original(
    config: DeepseekOCRConfig | None = None,
    filled: int = 100,
    dtype: torch.dtype = torch.float16,
    torch_npu: str | None = None,
) -> Census:
    """Census of a dry run of one decoded token, batch 1, phase "decode".

    The n-gram guard is active, as in the original's `infer`, and bans nothing.

    Args:
        config: the size; None: official.
        filled: number of tokens before it; the count does not depend on it.
    """
    model = skeleton(config or DeepseekOCRConfig()).to(dtype).eval().requires_grad_(False)
    c = model.config.decoder
    path = Original(model, torch.ones(1, filled, dtype=torch.long, device="meta"))
    shape = (1, c.heads, filled - 1, c.head_dim)
    path.keys, path.values = ([torch.empty(shape, dtype=dtype, device="meta")] * c.layers for _ in "kv")
    ids = torch.zeros(1, filled, dtype=torch.long, device="meta")
    going, ends = ids.new_ones(1), ids.new_ones(1)
    assume = Assume(scalar=0, sizes=c.experts_per_token)
    recorder = Recorder(model, assume)
    recorder.phase = "decode"
    with torch.no_grad(), recorder:
        path.mask = torch.cat((path.mask[:, :-1], path.mask.new_ones(1, 1)), dim=-1)
        logits = path.forward(model.model.embed_tokens(ids[:, -1:]))
        ids, going = pick(logits, ids, going, ends, 2, filled + 2)  # the guard reads, and bans nothing
        if going.max() == 0:
            pass
    subject = f"one token of batch 1 as the original decodes it, dry run in {str(dtype).partition('.')[2]}"
    return Census.make(recorder, torch_npu, subject, assume.used)
