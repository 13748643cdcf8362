"""Two tensors drawn side by side. Crosses mark the differences, so the picture needs no colour."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...synthetic_pages.render import font_folder

MOST = 14  # rows and columns drawn
CELL = 24  # pixels
RED, GREY = (207, 34, 46), (110, 119, 129)


@dataclass(frozen=True)
class Map:
    """An answer and the expected tensor, of any dimension. `differs` is None if their shapes differ."""

    ours: Tensor
    expected: Tensor
    differs: Tensor | None

    def planes(self) -> tuple[Tensor, Tensor, Tensor | None, str]:
        """Both as (rows, columns) around the first difference, their differences, the name of that part."""
        if self.differs is None:
            return _plane(self.ours), _plane(self.expected), None, "first rows and columns"
        first = self.differs.nonzero()[0].tolist() if self.differs.dim() else []
        at = tuple(first[:-2])
        corner = [max(0, i - MOST // 2) for i in first[-2:]]
        ours, expected, differs = (
            _plane(each[at], corner) for each in (self.ours, self.expected, self.differs)
        )
        index = "".join(f"{i}, " for i in at)
        rows = f"{corner[-2]}:, " if len(corner) > 1 else ""
        return ours, expected, differs, f"[{index}{rows}{corner[-1]}:]" if corner else "the number"


def _plane(tensor: Tensor, corner: list[int] | tuple = ()) -> Tensor:
    while tensor.dim() > 2:
        tensor = tensor[0]
    while tensor.dim() < 2:
        tensor = tensor[None]
    top, left = ([0, 0] + list(corner))[-2:]
    return tensor[top : top + MOST, left : left + MOST]


def text_map(map: Map) -> str:
    """The differences as text: x differs, . does not. The two shapes if these differ."""
    *_, differs, part = map.planes()
    if differs is None:
        return f"yours {tuple(map.ours.shape)}, expected {tuple(map.expected.shape)}"
    rows = ["".join(".x"[int(each)] for each in row) for row in differs.tolist()]
    return f"x = differs, {part}\n" + "\n".join(rows)


def draw(map: Map) -> bytes:
    """A PNG: the answer left, the expected tensor right, grey by value, a cross at each difference."""
    import io

    from PIL import Image, ImageDraw, ImageFont

    face = ImageFont.truetype(str(font_folder() / "DejaVuSans.ttf"), 13)
    ours, expected, differs, part = map.planes()
    low, high = _range(expected)
    sides = (("yours", ours, map.ours, differs), ("expected", expected, map.expected, None))
    left, gap, top = 8, 40, 48
    widths = [max(150, each.shape[1] * CELL) for _, each, _, _ in sides]
    sheet = Image.new(
        "RGB",
        (left + sum(widths) + gap + 8, top + max(len(ours), len(expected), 1) * CELL + 32),
        "white",
    )
    pen = ImageDraw.Draw(sheet)
    for (word, plane, whole, crosses), width in zip(sides, widths, strict=True):
        pen.text((left, 6), word, fill="black", font=face)
        pen.text((left, 24), str(tuple(whole.shape)), fill=GREY, font=face)
        for i, row in enumerate(plane.double().tolist()):
            for j, value in enumerate(row):
                box = (left + j * CELL, top + i * CELL, left + (j + 1) * CELL, top + (i + 1) * CELL)
                finite = value == value and abs(value) != float("inf")
                share = min(1.0, max(0.0, (value - low) / (high - low))) if finite else 1.0
                pen.rectangle(box, fill=(int(60 + 195 * share),) * 3, outline=GREY)
                if crosses is not None and crosses[i, j]:
                    inner = (box[0] + 3, box[1] + 3, box[2] - 3, box[3] - 3)
                    pen.line(inner, fill=RED, width=3)
                    pen.line((inner[0], inner[3], inner[2], inner[1]), fill=RED, width=3)
        left += width + gap
    note = part + ("" if differs is None else "; × differs") + ", dark = small"
    pen.text((8, sheet.height - 24), note, fill=GREY, font=face)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _range(plane: Tensor) -> tuple[float, float]:
    values = plane.double()[plane.double().isfinite()]
    low, high = (values.min().item(), values.max().item()) if values.numel() else (0.0, 1.0)
    return (low, high) if high > low else (low, low + 1)
