"""Colours and hatches of tables and figures.

A colour is never the only carrier of a meaning: a word, a hatch, a marker or a letter repeats it.
"""

from __future__ import annotations

# Words in tables: 3.9:1 or better on JupyterLab's white and on its dark ground alike.
GREEN, AMBER, RED, BLUE, GREY = "#1f883d", "#9a6700", "#d93a32", "#2070d8", "#6e7781"

INK = "#333333"  # edges, limits and labels of figures
NEUTRAL = "#bbbbbb"

#: Areas of bar charts: {meaning: (colour, hatch)}, from harmless to bad.
GOOD, MIDDLING, POOR, BAD = ("#8fbf9f", ""), ("#e3c770", "//"), ("#e09a4f", "xx"), ("#c4554d", "**")

#: Verdicts of the operator census.
VERDICTS = {
    "kernel": GOOD,
    "composite": ("#c7d9e8", ".."),
    "slow kernel": MIDDLING,
    "AI CPU": POOR,
    "CPU fallback": BAD,
    "unknown": (NEUTRAL, "oo"),
    "transfer": ("#9c8fbf", "\\\\"),
}

#: Plans of a prediction.
PLANS = {
    "original": (BAD[0], "xx"),
    "portable": MIDDLING,
    "fused": GOOD,
    "kernels": ("#c7d9e8", ".."),
    "graph": ("#9c8fbf", "\\\\"),
}
BOUND = "#1f4e79"  # the hardware's limit in a prediction

#: Series of the benchmark's figures: phases, categories.
SERIES = ("#6e7781", "#0969da", "#8250df", "#1a7f37", "#b35900")
SERIES_HATCHES = ("", "//", "..", "\\\\", "xx")

#: The ladder: an error alone, an error in the run, a wrong block.
ALONE, IN_RUN, WRONG = "#1f5fa8", "#b35c00", "#b3261e"
BELOW_LIMIT = "#6f8fb5"  # headroom: a layer below the fp16 maximum

#: Drawings of the course: memory cells.
CELL_BLUE, CELL_ORANGE, CELL_PALE = "#9ec5e8", "#f0b267", "#f2f2f2"

#: Tokens of a prompt by letter, see course/drawings/prompt_layout.py.
TOKENS = {
    "B": "#b9c2cc", "l": "#9ecae1", "g": "#4292c6", "N": "#fdae6b", "S": "#e6550d", "t": "#d9d9d9",
    "_": "#ffffff",
}  # fmt: skip
TOKEN_EDGE = "#555"
