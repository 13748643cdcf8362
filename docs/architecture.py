"""Draws docs/architecture.svg, the packages and their imports, from the code: `python -m docs.architecture`.

An arrow is left out where a longer path through other packages implies it. Imports inside functions are
left out too; tests/project/test_architecture.py lists them.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.helpers.imports import imports, modules, unit

PICTURE = Path(__file__).with_name("architecture.svg")
LAYERS = Path(__file__).with_name("architecture.json")
STARTS = {"__main__", "cli", "deskocr_kit"}


def edges() -> dict[str, set[str]]:
    """{package: the packages that it imports}."""
    found: dict[str, set[str]] = {unit(name): set() for name in modules()}
    for each in imports(modules()):
        if (a := unit(each.module)) != (b := unit(each.target)) and not each.inside:
            found[a].add(b)
    return {a: found[a] - STARTS for a in sorted(found) if a not in STARTS}


def layers() -> dict:
    """The content of the picture: the packages by level, the lowest first, and the arrows."""
    below = edges()
    level: dict[str, int] = {}

    def height(name: str) -> int:
        if name not in level:
            level[name] = 1 + max(map(height, below[name]), default=-1)
        return level[name]

    def reached(name: str) -> set[str]:
        return below[name].union(*map(reached, below[name]))

    for name in below:
        height(name)
    rows = [[n for n in below if level[n] == k] for k in range(max(level.values()) + 1)]
    drawn = {
        a: sorted(b for b in below[a] if not any(b in reached(c) for c in below[a] - {b})) for a in below
    }
    return {"rows": rows, "arrows": drawn}


def stored() -> dict:
    """The content of the stored picture."""
    return json.loads(LAYERS.read_text(encoding="utf-8"))


def draw(found: dict):
    """A matplotlib Figure: one row per level, arrows from a package to what it imports."""
    from matplotlib.figure import Figure

    rows, arrows = found["rows"], found["arrows"]
    figure = Figure(figsize=(10, 0.95 * len(rows)), layout="constrained")
    axes = figure.subplots()
    place, boxes = {}, {}
    for y, row in enumerate(rows):
        targets = {n: [place[b][0] for b in arrows[n]] for n in row}  # a package stands over what it imports
        middle = {
            n: sum(xs) / len(xs) if xs else 10 * k / len(row) for k, (n, xs) in enumerate(targets.items())
        }
        for x, name in enumerate(sorted(row, key=middle.get)):
            place[name] = ((x + 0.5) / len(row) * 10 + (0.3 if y % 2 else -0.3), y)
    for name, (x, y) in place.items():
        box = {"boxstyle": "round,pad=0.35", "fc": "#f6e3c5" if name == "model" else "#e8eef4", "ec": "#456"}
        boxes[name] = axes.text(x, y, name, ha="center", va="center", fontsize=9, bbox=box, zorder=3)
    for a, b in ((a, b) for a, targets in arrows.items() for b in targets):
        style = {"arrowstyle": "-|>", "color": "#7a8794", "lw": 0.8}
        ends = {"patchA": boxes[a].get_bbox_patch(), "patchB": boxes[b].get_bbox_patch()}
        axes.annotate("", place[b], place[a], arrowprops=style | ends | {"shrinkA": 1, "shrinkB": 1})
    axes.set(xlim=(-0.6, 10.6), ylim=(-0.5, len(rows) - 0.5))
    axes.axis("off")
    return figure


if __name__ == "__main__":
    found = layers()
    LAYERS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(found).savefig(PICTURE, metadata={"Date": None})
