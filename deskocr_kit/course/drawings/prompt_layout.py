"""The network's input for a page, as text and as figures: views, tiles, and the rows of the prompt.

prompt_rows(inputs, "tiny")      # ["B", "········N", …, "S", "ttttt"]: one letter per token
draw_prompt(rows)                # the same as a figure
draw_views(page)                 # the views of each mode, and the number of tokens
"""

from __future__ import annotations

from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING

from model.tiling import MODES, count_image_tokens, get_mode, make_views

from ...display.palette import TOKEN_EDGE, TOKENS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from model.tiling import Mode

ACROSS = 3  # panels in a row of draw_views

# {letter: meaning}. The colours (palette.TOKENS) repeat it, so colour alone never carries a meaning.
LETTERS = {
    "B": "begin of text",
    "l": "cell of a tile",
    "g": "cell of the whole view",
    "N": "newline, after each row",
    "S": "separator",
    "t": "text of the prompt",
    "_": "padding of a batch",
}


def prompt_rows(inputs: dict, mode: str | Mode, sample: int = 0) -> list[str]:
    """One letter per token of a prompt (see LETTERS), one string per row of the image.

    The order is that of the network: rows of the tiles, rows of the whole view, separator. Raises ValueError
    if the prompt's number of placeholders is not that of the mode.
    """
    mode = get_mode(mode)
    mask = inputs["images_seq_mask"][sample].tolist()
    padding = int((inputs["attention_mask"][sample] == 0).sum())
    w, h = inputs["images_spatial_crop"][sample].tolist()
    places = count_image_tokens(mode, (w, h))
    if sum(mask) != places:
        raise ValueError(
            f"{sum(mask)} placeholders in the prompt, {mode.name} with {w}x{h} tiles has {places}"
        )
    first = mask.index(True)
    before = "_" * padding + "B" + "t" * (first - padding - 1)
    side = mode.base_size if mode.crop_mode else mode.image_size
    rows = [before]
    if w * h > 1:
        tile = cells(mode.image_size)
        rows += ["l" * (w * tile) + "N"] * (h * tile)
    rows += ["g" * cells(side) + "N"] * cells(side)
    return [*rows, "S", "t" * (len(mask) - first - places)]


def cells(side: int) -> int:
    """Cells along the side of a view: patches of 16 pixels, then two convolutions of stride 2."""
    return -(-(side // 16) // 4)


def draw_prompt(rows: list[str], title: str = "") -> Figure:
    """Draw every token of a prompt as a square, row by row."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    across, down = max(map(len, rows)), len(rows)
    side = min(0.26, 5.7 / across, 6.6 / down)  # inches of one token
    figure = Figure(figsize=(3.8 + side * across, 0.9 + side * down), layout="constrained")
    axes = figure.subplots()
    small = max(across, down) > 30
    for y, row in enumerate(rows):
        for x, letter in enumerate(row):
            axes.add_patch(
                Rectangle(
                    (x, y), 1, 1, facecolor=TOKENS[letter], edgecolor=TOKEN_EDGE, lw=0.2 if small else 0.5
                )
            )
            if letter not in "lg" and not (small and letter == "N"):
                axes.text(x + 0.5, y + 0.5, letter, ha="center", va="center", fontsize=5 if small else 7)
    used = [letter for letter in LETTERS if any(letter in row for row in rows)]
    handles = [Rectangle((0, 0), 1, 1, facecolor=TOKENS[each], edgecolor=TOKEN_EDGE) for each in used]
    counts = {each: sum(row.count(each) for row in rows) for each in used}
    labels = [f"{each}: {LETTERS[each]}, {counts[each]}" for each in used]
    axes.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8, frameon=False)
    axes.set(xlim=(-0.1, across + 0.1), ylim=(down + 0.1, -0.1), aspect="equal", anchor="W")
    axes.set_title(title, loc="left", fontsize=10)
    axes.axis("off")
    return figure


def draw_views(page: Image.Image) -> Figure:
    """Draw the view of each mode, and the tiles of each mode that has tiles.

    Dashed lines are tile borders. The titles state pixels and tokens.
    """
    from matplotlib.figure import Figure

    panels = [partial(_draw_view, mode=mode) for mode in MODES.values()]
    panels += [partial(_draw_tiles, mode=mode) for mode in MODES.values() if mode.crop_mode]
    down = -(-len(panels) // ACROSS)
    figure = Figure(figsize=(8.4, 3.4 * down), layout="constrained")
    for axes, draw in zip_longest(figure.subplots(down, ACROSS, squeeze=False).flat, panels):
        axes.set_xticks([])
        axes.set_yticks([])
        if draw is None:  # the last row is not full
            axes.axis("off")
        else:
            draw(axes, page)
    return figure


def _draw_view(axes, page: Image.Image, mode: Mode) -> None:
    views = make_views(page, mode)
    axes.imshow(views.global_view)
    more = f" + {len(views.tiles)} tiles" if views.tiles else ""
    tokens = count_image_tokens(mode, views.grid)
    axes.set_title(f"{mode.name}: {views.global_view.width} px{more}\n{tokens} tokens", fontsize=8)


def _draw_tiles(axes, page: Image.Image, mode: Mode) -> None:
    w, h = make_views(page, mode).grid
    axes.imshow(page)
    for i in range(1, w):
        axes.axvline(page.width * i / w, color="#e6550d", ls="--", lw=1.2)
    for i in range(1, h):
        axes.axhline(page.height * i / h, color="#e6550d", ls="--", lw=1.2)
    axes.set_title(f"the tiles of {mode.name}\n{w} across, {h} down", fontsize=8)


def sheet(pages: list[Image.Image], across: int = 2) -> Image.Image:
    """Join pages of one size to one image that is large enough for tiles."""
    from PIL import Image

    w, h = pages[0].size
    down = -(-len(pages) // across)
    whole = Image.new("RGB", (across * w, down * h), "white")
    for i, page in enumerate(pages):
        whole.paste(page, (i % across * w, i // across * h))
    return whole
