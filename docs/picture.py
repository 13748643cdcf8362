"""Draws docs/page.png for the README: `python docs/picture.py`. The text is what nano reads."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from deskocr_kit.reading.reader import Reader
from deskocr_kit.reading.sample_pages import sample_pages
from deskocr_kit.reading.text_distance import cer
from model.processing import load_image


def main() -> None:
    reader = Reader.load("nano", "cpu", "fp32")
    path, truth = sample_pages()[0]
    page = load_image(path)
    text = reader.read(page, "free").text
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), width_ratios=(1, 1.05))
    left.imshow(page)
    left.set_title(path.name, fontsize=10)
    right.set_title("the text that nano reads", fontsize=10)
    right.text(
        0.02, 0.94, text, family="DejaVu Sans Mono", fontsize=11, va="top", linespacing=1.7, parse_math=False
    )
    right.text(0.02, 0.04, f"character error rate {cer(text, truth):.3f}", fontsize=9, color="#555555")
    right.set_xlim(0, 1)
    right.set_ylim(0, 1)
    for axis in (left, right):
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout()
    figure.savefig(Path(__file__).with_name("page.png"), dpi=110)


if __name__ == "__main__":
    main()
