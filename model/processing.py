"""Page to tensors: prompt and views -> the inputs of `DeepseekOCRForCausalLM`.

Uses images.py (open files), tiling.py (cut views) and prompts.py (named prompts).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .images import ImageError, load_image, open_image, to_rgb
from .official import DEEPSEEK_OCR, Checkpoint
from .prompts import IMAGE_TAG, PROMPTS, resolve_prompt, with_line_breaks
from .tiling import (
    MODES,
    Mode,
    Views,
    count_image_tokens,
    find_mode,
    get_mode,
    make_views,
    pad,
    resize,
    tile_grid,
    to_pixels,
    valid_image_tokens,
)

__all__ = [
    "IMAGE_TAG",
    "MODES",
    "PROMPTS",
    "ImageError",
    "Mode",
    "Views",
    "build_inputs",
    "count_image_tokens",
    "find_mode",
    "get_mode",
    "load_image",
    "make_views",
    "open_image",
    "pad",
    "resize",
    "resolve_prompt",
    "tile_grid",
    "to_pixels",
    "to_rgb",
    "tokenize_prompt",
    "valid_image_tokens",
]

PAD_TOKEN_ID = DEEPSEEK_OCR.pad_token_id


def tokenize_prompt(
    tokenizer,
    prompt: str,
    image_tokens: int | Sequence[int],
    *,
    image_token_id: int,
    bos_token_id: int | None = DEEPSEEK_OCR.language["bos_token_id"],
    repeat_untagged_prompt: bool = False,
) -> tuple[list[int], list[bool]]:
    """The token ids of one sample and a mask that is True on each of the `image_tokens` placeholders.

    image_tokens: of the page, 0 without a page; of several pages a sequence. They stand at the tags in order,
    or all at the only tag.

    Layout: [bos] + text before <image> + placeholders + text after it. The prompt is stripped first, as in
    the original; a typed backslash and "n" behind <image> is a line break (see `with_line_breaks`). For a
    prompt without <image> but with a page, the original puts the whole prompt before
    *and* after the image. This function adds the missing tag ("<image>\\n" + prompt), the form on which the
    model was trained; repeat_untagged_prompt=True gives the original's layout.

    Raises:
        ValueError: the numbers of <image> tags and pages differ.
    """
    prompt = with_line_breaks(prompt.strip())
    several = not isinstance(image_tokens, int)
    counts = [image_tokens] if isinstance(image_tokens, int) else list(image_tokens)
    if several and prompt.count(IMAGE_TAG) == 1:
        prompt = prompt.replace(IMAGE_TAG, IMAGE_TAG * len(counts))
    tags = prompt.count(IMAGE_TAG)
    if several and tags != len(counts):
        raise ValueError(
            f"the prompt has {tags} {IMAGE_TAG} tags for {len(counts)} pages; give one, or one each"
        )
    if tags > 1 and not several:
        raise ValueError(
            f"the prompt has {tags} {IMAGE_TAG} tags; a sample holds one page: "
            "pass several pages as a batch with one tag each"
        )
    if counts == [0] and tags:
        raise ValueError(
            f"the prompt has an {IMAGE_TAG} tag but no page was given; pass a page or remove the tag"
        )
    if counts != [0] and not tags:
        prompt = f"{prompt}{IMAGE_TAG}{prompt}" if repeat_untagged_prompt else f"{IMAGE_TAG}\n{prompt}"
    pieces = prompt.split(IMAGE_TAG) if several else prompt.split(IMAGE_TAG, 1)
    ids = [] if bos_token_id is None else [bos_token_id]
    mask = [False] * len(ids)
    for i, piece in enumerate(pieces):
        if i:
            ids += [image_token_id] * counts[i - 1]
            mask += [True] * counts[i - 1]
        ids += _encode(tokenizer, piece)
        mask += [False] * (len(ids) - len(mask))
    return ids, mask


def build_inputs(
    tokenizer,
    prompt: str | Sequence[str],
    pages,
    mode: str | Mode = DEEPSEEK_OCR.mode,
    *,
    checkpoint: Checkpoint = DEEPSEEK_OCR,
    image_token_id: int | None = None,
    bos_token_id: int | None = DEEPSEEK_OCR.language["bos_token_id"],
    dtype: torch.dtype = torch.float32,
    round_to_bf16: bool = True,
    repeat_untagged_prompt: bool = False,
) -> dict:
    """The inputs of `model(...)` and `model.generate(...)` for b pages.

    Args:
        tokenizer: has `.encode(text, add_special_tokens=False)` and `.convert_tokens_to_ids(token)`.
        prompt: one text for all pages, or one per page.
        pages: one page or a sequence. A page is anything that `load_image` accepts, its Views in this mode
            (made elsewhere, to share the work), or None for a text-only sample. A list inside the sequence is
            one sample with several pages, if the model reads such samples; they are then cut in its mode for
            several pages, without tiles.
        mode: of `checkpoint`, the model of the family that gets the inputs.
        dtype: of the pixels, after round_to_bf16 (the original always rounds).

    Returns:
        input_ids (b, n) int64, left-padded with PAD_TOKEN_ID; attention_mask (b, n) int64; images_seq_mask
        (b, n) bool; images: b pairs (tiles (p, 3, s, s), global view (1, 3, S, S)); images_spatial_crop
        (b, 2) int64, [across, down]; for a sample with several pages, images has a list of pairs and
        images_spatial_crop is a list per sample with one [across, down] per page. A page without tiles has
        zeros (1, 3, S, S) and [1, 1], as in the original; a text-only sample has zeros for both.

    Raises:
        ValueError: the arguments do not fit; ImageError (a ValueError) for an unreadable page.
    """
    mode = get_mode(mode, checkpoint)
    pages = list(pages) if isinstance(pages, (list, tuple)) else [pages]
    prompts = [prompt] * len(pages) if isinstance(prompt, str) else list(prompt)
    if not pages or len(prompts) != len(pages):
        raise ValueError(f"{len(prompts)} prompts for {len(pages)} pages; pass one prompt, or one per page")
    if image_token_id is None:
        image_token_id = _image_token_id(tokenizer)
    rows, images, grids = [], [], []
    for text, page in zip(prompts, pages, strict=True):
        several = list(page) if isinstance(page, (list, tuple)) else None
        how = mode if several is None else _mode_of_pages(mode, len(several))
        parts = [_page_tensors(each, how, round_to_bf16) for each in ([page] if several is None else several)]
        made = [(tiles.to(dtype), overview.to(dtype)) for tiles, overview, _, _ in parts]
        images.append(made[0] if several is None else made)
        grids.append(list(parts[0][2]) if several is None else [list(grid) for _, _, grid, _ in parts])
        count = parts[0][3] if several is None else [count for _, _, _, count in parts]
        rows.append(
            tokenize_prompt(
                tokenizer,
                text,
                count,
                image_token_id=image_token_id,
                bos_token_id=bos_token_id,
                repeat_untagged_prompt=repeat_untagged_prompt,
            )
        )
    width = max(len(ids) for ids, _ in rows)
    if width == 0:
        raise ValueError("nothing to read: the prompt is empty, there is no page and no bos token")
    left = [width - len(ids) for ids, _ in rows]
    return {
        "input_ids": torch.tensor(
            [[PAD_TOKEN_ID] * gap + ids for gap, (ids, _) in zip(left, rows, strict=True)]
        ),
        "attention_mask": torch.tensor([[0] * gap + [1] * (width - gap) for gap in left]),
        "images_seq_mask": torch.tensor(
            [[False] * gap + mask for gap, (_, mask) in zip(left, rows, strict=True)]
        ),
        "images": images,
        "images_spatial_crop": grids
        if any(isinstance(grid[0], list) for grid in grids)
        else torch.tensor(grids),
    }


def _mode_of_pages(mode: Mode, count: int) -> Mode:
    """The mode of several pages in one prompt. Raises ValueError if the model does not read them."""
    official = mode.checkpoint
    if official.pages_mode is None:
        raise ValueError(
            f"{official.title} reads one page per prompt, got {count}; pass several pages as a batch"
        )
    if count == 0:
        raise ValueError("a sample without pages; pass None for a text-only sample")
    return get_mode(official.pages_mode, official) if mode.crop_mode else mode


def _page_tensors(page, mode: Mode, round_to_bf16: bool):
    """One page -> (tiles, overview, grid, number of placeholders), pixels in float32."""
    side = mode.base_size if mode.crop_mode else mode.image_size
    if page is None:
        zeros = torch.zeros(1, 3, side, side)
        return zeros, zeros.clone(), (1, 1), 0
    views = page if isinstance(page, Views) else make_views(load_image(page), mode)
    overview = to_pixels(views.global_view, round_to_bf16)[None]
    if views.tiles:
        tiles = torch.stack([to_pixels(tile, round_to_bf16) for tile in views.tiles])
    else:
        tiles = torch.zeros_like(overview)
    return tiles, overview, views.grid, count_image_tokens(mode, views.grid)


def _encode(tokenizer, text: str) -> list[int]:
    return [int(i) for i in tokenizer.encode(text, add_special_tokens=False)] if text else []


def _image_token_id(tokenizer) -> int:
    token_id = tokenizer.convert_tokens_to_ids(IMAGE_TAG)
    if token_id is None or token_id == getattr(tokenizer, "unk_token_id", None):
        raise ValueError(
            f"the tokenizer does not know {IMAGE_TAG}, so it is not DeepSeek-OCR's; "
            "pass image_token_id, or load the tokenizer in the folder of the weights"
        )
    return int(token_id)
