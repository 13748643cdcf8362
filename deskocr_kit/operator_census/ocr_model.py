"""The census of one page through our network, by phase: vision, prefill, one decode step.

Without a model it is a dry run at the official size: meta tensors, a few seconds, no memory for weights.
Results that depend on values (which experts are chosen) are assumed and listed in the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from model import DeepseekOCRConfig, DeepseekOCRForCausalLM
from model.pages import by_sample
from model.tiling import count_image_tokens, get_mode

from ..opcount.assume import Assume
from ..opcount.recorder import Recorder
from .result import Census

PROMPT_TOKENS = 5  # <bos> and "\nFree OCR.", in addition to the placeholders


def page_inputs(config: DeepseekOCRConfig, mode: str, grid: tuple[int, int]) -> dict:
    """Inputs of `generate` for one blank page of this mode and tile grid, on the host.

    grid: (tiles across, down); ignored in modes without crops.
    """
    chosen = get_mode(mode, config.checkpoint)
    view_side, tile_side = (
        (chosen.base_size, chosen.image_size) if chosen.crop_mode else (chosen.image_size, 0)
    )
    w, h = grid if chosen.crop_mode else (1, 1)
    tiles = torch.zeros(w * h if w * h > 1 else 1, 3, tile_side or view_side, tile_side or view_side)
    places = count_image_tokens(chosen, (w, h))
    ids = torch.full((1, places + PROMPT_TOKENS), config.image_token_id)
    ids[:, 0], ids[:, 1 + places :] = config.bos_token_id, 3
    return {
        "input_ids": ids,
        "images": [(tiles, torch.zeros(1, 3, view_side, view_side))],
        "images_seq_mask": ids == config.image_token_id,
        "images_spatial_crop": torch.tensor([[w, h]]),
    }


def census_ocr(
    model: DeepseekOCRForCausalLM | DeepseekOCRConfig | None = None,
    mode: str = "gundam",
    grid: tuple[int, int] = (2, 3),
    dtype: torch.dtype = torch.float16,
    plan: Mapping[str, Callable] | None = None,
    torch_npu: str | None = None,
    inputs: dict | None = None,
    on_phase: Callable[[str], object] = lambda phase: None,
) -> Census:
    """The census of one page: vision (all views), prefill, and one decode step with its choice of token.

    Args:
        model: a model with weights, for a real run on its device; or a config (None: the official one), for a
            dry run of that size.
        mode, grid: the page if `inputs` is None; grid is (tiles across, down).
        dtype: dtype of the weights in a dry run.
        plan: {slot: function} to count instead of the defaults.
        torch_npu: the version for the verdicts, see ascend.dispatch.nearest_wheel.
        inputs: inputs of `generate`, for a real page.
        on_phase: called with the name of each phase that begins: "prefill", "vision", "prefill", "decode".

    Raises:
        DryRunError: the plan reads a value that cannot be assumed.
    """
    dry = not isinstance(model, DeepseekOCRForCausalLM)
    if not isinstance(model, DeepseekOCRForCausalLM):
        skeleton = DeepseekOCRForCausalLM.skeleton(model or DeepseekOCRConfig())
        model = skeleton.to(dtype).eval().requires_grad_(False)
    config, c = model.config, model.config.decoder
    inputs = inputs or page_inputs(config, mode, grid)
    before = dict(vars(model.slots))
    model.use_plan(plan or {})
    assume = None
    if dry:
        places = int(inputs["images_seq_mask"].sum())

        def distinct(chosen):  # as many experts as can be chosen
            return min(c.experts, chosen.numel())

        def rows(hit):  # with the tokens spread evenly over them
            return max(1, hit.numel() // distinct(hit))

        pairs = inputs["input_ids"].numel() * c.experts_per_token
        assume = Assume(distinct=distinct, rows=rows, scalar=places, sizes=pairs)
    recorder = Recorder(model, assume)
    encode = model.encode_pages

    def begin(phase):
        recorder.phase = phase
        if phase is not None:
            on_phase(phase)

    begin("prefill")

    def seeing(*args):
        begin("vision")
        try:
            return encode(*args)
        finally:
            begin("prefill")

    def next_phase(tokens):
        begin("decode" if recorder.phase == "prefill" else None)

    model.encode_pages = seeing  # type: ignore[method-assign]  # for this run
    try:
        with torch.no_grad(), recorder:
            model.generate(**inputs, max_new_tokens=2, eos_token_id=None, on_tokens=next_phase)
    finally:
        del model.encode_pages
        model.use_plan(before)
    kind = f"dry run in {str(model.dtype).removeprefix('torch.')}" if dry else f"run on {model.device}"
    pages = by_sample(inputs["images"], inputs["images_spatial_crop"])[0]
    (_, view), (w, h) = pages[0]
    what = "one page" if len(pages) == 1 else f"{len(pages)} pages"
    size = f"{view.shape[-1]} px view, {w}x{h} tiles, {inputs['input_ids'].shape[1]} tokens"
    subject = f"{what} ({size}), {kind}"
    used = assume.used if assume else ()
    return Census.make(recorder, torch_npu, subject, used, every="--json, or .rows()")
