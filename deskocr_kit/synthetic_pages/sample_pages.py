"""The sample pages of nano, in model/nano/pages/.

`python -m deskocr_kit.synthetic_pages.sample_pages` draws the same files again, bit for bit. The pages
belong to the domain of nano, but training used none of their sentences.
"""

from __future__ import annotations

import random
from pathlib import Path

import model

from .render import CELL, SIDE, Page, Style, render

FOLDER = Path(model.__file__).parent / "nano" / "pages"
PAGES = {
    "1_letter": (
        "DejaVuSans",
        32,
        [
            "Dear reader,",
            "this page was drawn by a",
            "script and read by a tiny",
            "network: 5 M parameters.",
            "Yours, nano",
        ],
    ),
    "2_invoice": (
        "DejaVuSansMono",
        30,
        ["Invoice 2026-0117", "3 x cable: $ 14.85", "1 x board: $ 99.00", "TOTAL: $113.85"],
    ),
    "3_story": (
        "DejaVuSerif",
        34,
        [
            "The old lighthouse had",
            "no keeper. Still, at 9:30",
            "each night, someone lit",
            "the lamp; nobody knew",
            'who. "Not me," she said.',
        ],
    ),
    "4_code": (
        "DejaVuSansMono",
        28,
        ["def area(w, h=2):", "# floor division", "return w * h // 2", "assert area(7) == 7"],
    ),
    "5_notes": (
        "DejaVuSans",
        36,
        ["Buy: milk, eggs (12)", "Call Zoe @ 18:45!", "Room #407 -> key 3B", "50% off until 24/12"],
    ),
    "6_dense": (
        "DejaVuSerif",
        28,
        [
            "Quick zebras vex a jumpy dog,",
            "while five big wizards mix",
            "gin & tonic; 1234567890 times",
            'they ask: "Why? How? When?"',
            "Pack my box with a dozen",
            "liquor jugs, sphinx of black",
            "quartz, judge my vow.",
        ],
    ),
}


def draw(name: str) -> Page:
    """Draw one sample page."""
    face, size, lines = PAGES[name]
    style = Style(sizes=(size, size), pitch=(CELL, CELL), margins=(16, 16), styled=0.0, dirt=0.0)
    return render(random.Random(name), style, lines, face)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in PAGES:
        page = draw(name)
        widest = max(line.box[2] for line in page.lines)
        if widest > SIDE:
            raise ValueError(f"{name}: a line ends at pixel {widest:.0f}, beyond the page")
        page.image.convert("L").save(FOLDER / f"{name}.png", optimize=True)
        (FOLDER / f"{name}.txt").write_text(page.text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
