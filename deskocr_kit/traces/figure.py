"""The figure of a trace: time by type, the units that ran it, and idle time."""

from __future__ import annotations

from ..display.palette import BAD, GOOD, INK, MIDDLING, NEUTRAL, POOR

TOP = 12
#: {core: (colour, hatch)}; a word in the label repeats it.
LOOKS = {"AI_CPU": BAD, "AI_VECTOR_CORE": MIDDLING, "CPU": POOR}


def draw(trace):
    """A matplotlib Figure: the types with most time (or most rows, if there are no times)."""
    from matplotlib.figure import Figure

    found = trace.by_type()[:TOP]
    timed = any(total.us is not None for total in found)
    figure = Figure(figsize=(9, 0.9 + 0.32 * max(len(found), 1)), layout="constrained")
    axis = figure.subplots()
    for y, total in enumerate(found):
        length = float(total.us or 0) / 1e3 if timed else total.count
        colour, hatch = LOOKS.get(total.core, GOOD)
        axis.barh(y, length, color=colour, hatch=hatch, edgecolor=INK, linewidth=0.6)
        axis.text(length, y, f"  {total.core or 'core unknown'}, {total.count} rows", va="center", fontsize=8)
    axis.set_yticks(range(len(found)), [total.type[:40] for total in found], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, axis.get_xlim()[1] * 1.35)  # room for the labels
    axis.set_xlabel("ms of the device" if timed else "rows", fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.axvline(0, color=NEUTRAL, linewidth=0.6)
    how = "SIMULATED, host times: " if trace.simulated else ""
    figure.suptitle(f"{how}{trace.form}: {trace.count} kernels", fontsize=10)
    return figure
