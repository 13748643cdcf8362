"""Page -> views: the global view and the tiles of each mode (modes.py), and how many tokens each takes.

For DeepSeek-OCR the results equal the original's bit for bit with every Pillow version. `make_views` states
the one deviation. For DeepSeek-OCR-2 and Unlimited-OCR the sizes are those of transformers, which rounds in
another way (`pad`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image

from .modes import MODES, Mode, find_mode, get_mode
from .official import DEEPSEEK_OCR

__all__ = [
    "GRAY", "MODES", "TILE", "Mode", "Views", "count_image_tokens", "find_mode", "get_mode", "make_views",
    "pad", "resize", "tile_grid", "to_pixels", "valid_image_tokens",
]  # fmt: skip

GRAY = (127, 127, 127)  # padding colour: int(0.5 * 255), which is -0.0039 after normalisation, not 0
TILE = DEEPSEEK_OCR.tile


@dataclass(frozen=True)
class Views:
    """The images for the network: a padded overview and w*h tiles, row by row (none if grid is (1, 1))."""

    global_view: Image.Image
    tiles: list[Image.Image] = field(default_factory=list)
    grid: tuple[int, int] = (1, 1)  # (tiles across, tiles down)


def tile_grid(
    width: int, height: int, min_tiles: int = 2, max_tiles: int = DEEPSEEK_OCR.max_tiles, tile: int = TILE
) -> tuple[int, int]:
    """(tiles across, tiles down): the grid whose aspect ratio is nearest to that of the page.

    Considers grids of min_tiles to max_tiles tiles of `tile` pixels (original: 2 to 9; its vLLM script: 2 to
    6). If two grids are equally near, the larger one is chosen only if the page has more pixels than half of
    that grid. Never returns (1, 1) for min_tiles > 1.
    """
    if not 1 <= min_tiles <= max_tiles:
        raise ValueError(f"need 1 <= min_tiles <= max_tiles, got {min_tiles} and {max_tiles}")
    if width < 1 or height < 1:
        raise ValueError(f"no page has {width}x{height} pixels")
    candidates = sorted(
        (
            (w, h)
            for w in range(1, max_tiles + 1)
            for h in range(1, max_tiles + 1)
            if min_tiles <= w * h <= max_tiles
        ),
        key=lambda grid: (grid[0] * grid[1], grid),
    )
    ratio, best, best_difference = width / height, (1, 1), float("inf")
    for w, h in candidates:
        difference = abs(ratio - w / h)
        if difference < best_difference:
            best, best_difference = (w, h), difference
        elif difference == best_difference and width * height > 0.5 * tile * tile * w * h:
            best = (w, h)
    return best


def resize(image: Image.Image, width: int, height: int) -> Image.Image:
    """Bicubic resize in two explicit passes, first across, then down.

    Pillow up to 12 always filters in this order. Pillow 13 uses the cheaper order, which changes up to a
    fifth of the pixels by up to 4/255; separate passes fix the order. Tested against the digests of the
    goldens with Pillow 10.4, 12.3 and 13.0.
    """
    bicubic = Image.Resampling.BICUBIC
    return image.resize((width, image.height), bicubic).resize((width, height), bicubic)


def pad(image: Image.Image, side: int, like_pillow: bool = True) -> Image.Image:
    """Fit the page into side x side with its aspect ratio, centred on grey: ImageOps.pad with `resize`.

    A side that rounds to 0 (a strip of 1x20000) becomes 1 pixel; PIL raises there.

    like_pillow: round as ImageOps.pad, which DeepSeek-OCR calls. False: as transformers' processors of the
    other two models. The shorter side is then round(length * (side / longest)) instead of
    round(length / longest * side), and an odd margin is smaller at the left or top, where ImageOps.pad
    rounds half to even.
    """
    width = height = side
    if not like_pillow:
        scale = side / max(image.size)
        width, height = (max(1, round(length * scale)) for length in image.size)
        place = ((side - width) // 2, (side - height) // 2)
        return _on_grey(resize(image, width, height), side, place)
    if image.width > image.height:
        height = max(1, round(image.height / image.width * side))
    elif image.width < image.height:
        width = max(1, round(image.width / image.height * side))
    place = (round((side - width) * 0.5), round((side - height) * 0.5))
    return _on_grey(resize(image, width, height), side, place)


def _on_grey(image: Image.Image, side: int, place: tuple[int, int]) -> Image.Image:
    """The image on a grey square, its upper left corner at `place`."""
    if image.size == (side, side):
        return image
    canvas = Image.new("RGB", (side, side), GRAY)
    canvas.paste(image, place)
    return canvas


def make_views(image: Image.Image, mode: str | Mode) -> Views:
    """Cut a page into views. image: upright RGB (see `load_image`).

    Without crop_mode: one view of image_size. Up to 640 pixels the page is squeezed (its aspect ratio is
    lost); above, it is padded. DeepSeek-OCR-2 always pads. With crop_mode: the padded global view of
    base_size, and tiles if either side of the page exceeds the side of a tile, 640 pixels (DeepSeek-OCR-2:
    768).

    Deviation: for image_size != 640 the original still cuts tiles of 640 pixels but counts tokens for
    image_size, so features are silently truncated. Here tiles have image_size, in the original's grid: the
    token ids are the same, and the features fit.
    """
    mode = get_mode(mode)
    if image.mode != "RGB":
        raise ValueError(f"the page has colour mode {image.mode}, RGB is needed; use load_image")
    side, official = mode.image_size, mode.checkpoint
    if not mode.crop_mode:
        if side <= official.squeeze:
            return Views(resize(image, side, side))
        return Views(pad(image, side, official.pad_like_pillow))
    overview = pad(image, mode.base_size, official.pad_like_pillow)
    if max(image.size) <= official.tile:
        return Views(overview)
    w, h = tile_grid(*image.size, max_tiles=official.max_tiles, tile=official.tile)
    sheet = resize(image, w * side, h * side)
    boxes = [(c * side, r * side, (c + 1) * side, (r + 1) * side) for r in range(h) for c in range(w)]
    return Views(overview, [sheet.crop(box) for box in boxes], (w, h))


# Look-up table of the 256 values of a byte, normalised in fp32 as torchvision does.
_NORMALISED = (np.arange(256, dtype=np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)


def to_pixels(image: Image.Image, round_to_bf16: bool = False) -> torch.Tensor:
    """RGB image -> float32 (3, H, W) in -1..1: (v/255 - 0.5) / 0.5.

    round_to_bf16: round the values to bfloat16 (returned as float32). The original always rounds, and the
    official weights were trained on such pixels.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(_NORMALISED[np.asarray(image)].transpose(2, 0, 1)))
    return pixels.to(torch.bfloat16).to(torch.float32) if round_to_bf16 else pixels


def _rows(side: int) -> int:
    """Feature rows of a square view: patches of 16 pixels, then two convolutions with stride 2."""
    return -(-(side // 16) // 4)


def count_image_tokens(mode: str | Mode, grid: tuple[int, int] = (1, 1)) -> int:
    """Placeholders of one page with newlines and separator, e.g. tiny 73, base 273, gundam 2x3 903."""
    mode = get_mode(mode)
    if mode.checkpoint.queries:
        return _count_queries(mode, grid)
    tile = _rows(mode.image_size)
    if not mode.crop_mode:
        return tile * (tile + 1) + 1
    overview, (w, h) = _rows(mode.base_size), grid
    return overview * (overview + 1) + 1 + (h * tile * (w * tile + 1) if w > 1 or h > 1 else 0)


def _count_queries(mode: Mode, grid: tuple[int, int]) -> int:
    """Placeholders of one page with learned queries: those of all views, and the separator."""
    small, large = mode.checkpoint.queries

    def view(side: int) -> int:
        return small if _rows(side) ** 2 <= small else large

    w, h = grid
    if not mode.crop_mode:
        return view(mode.image_size) + 1
    return view(mode.base_size) + 1 + (w * h * view(mode.image_size) if w > 1 or h > 1 else 0)


def valid_image_tokens(
    mode: str | Mode, image_size_wh: tuple[int, int], grid: tuple[int, int] = (1, 1)
) -> int:
    """Vision tokens that show the page, not padding: the original's divisor for its compression ratio.

    As in the original, the result is 0 for sizes that are not in its table; check before dividing.
    """
    mode = get_mode(mode)
    width, height = image_size_wh
    long, short = max(width, height), min(width, height)
    filled = 1 - (long - short) / long
    padded = {1024: int(256 * filled), 1280: int(400 * filled)}
    if not mode.crop_mode:
        return {**padded, 640: 100, 512: 64}.get(mode.base_size, 0)
    w, h = grid
    tiles = w * h if w > 1 or h > 1 else 0
    return padded.get(mode.base_size, 0) + (100 * tiles if mode.image_size == TILE else 0)
