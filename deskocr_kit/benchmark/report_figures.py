"""The figures of a report, each as (SVG text, caption).

The report of a simulated device shows counts and accuracy, and no times.
"""

from __future__ import annotations

import io

import numpy as np

from ..display.palette import SERIES, SERIES_HATCHES
from .summary import CATEGORIES, PHASES


def figures(result: dict) -> dict[str, tuple[str, str]]:
    """{name: (svg, caption)} of every figure for which the result has data."""
    makers = [launches, accuracy]
    if result.get("summary", {}).get("all", {}).get("runs"):
        makers = [phases, roofline, launches, latency, accuracy]
    if "engine" in result:  # it does not tell its phases
        makers = [each for each in makers if each not in (phases, roofline)]
    made = {}
    for maker in makers:
        drawn = maker(result)
        if drawn is not None:
            figure, caption = drawn
            made[maker.__name__] = (svg(figure), caption)
    return made


def svg(figure) -> str:
    """The SVG of a figure: the same bytes every time (no date, fixed ids), with its text as text."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "deskocr", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def canvas(height: float = 3.0):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, height), layout="constrained")
    return figure, figure.subplots()


def phases(result: dict):
    rows = {name: row for name, row in result["summary"].items() if row.get("runs")}
    figure, axes = canvas(1.4 + 0.45 * len(rows))
    for y, row in enumerate(rows.values()):
        left = 0.0
        for phase, colour, hatch in zip(PHASES, SERIES, SERIES_HATCHES, strict=True):
            width = row["phases"][phase]["mean"] * 1e3
            axes.barh(y, width, left=left, color=colour, hatch=hatch, edgecolor="white", height=0.6,
                      label=phase if y == 0 else None)  # fmt: skip
            left += width
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_xlabel("mean milliseconds per page")
    axes.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.3 - 0.1 / len(rows)), frameon=False)
    return figure, "Mean time per page, by phase and by length of the page."


def roofline(result: dict):
    found = result.get("limits", {})
    if "flop_per_second" not in found:
        return None
    bandwidth, peak = found["read_bytes_per_second"], found["flop_per_second"]
    whole = result["summary"]["all"]
    seconds = {name: whole["phases"][name]["mean"] for name in ("vision", "prefill")}
    if whole["tokens_per_second"]:
        seconds["decode"] = 1 / whole["tokens_per_second"]
    figure, axes = canvas(3.6)
    x = np.logspace(-1, 4, 200)
    axes.loglog(x, np.minimum(peak, x * bandwidth) / 1e9, color="black", label="limit measured in this run")
    for (name, spent), marker, colour in zip(seconds.items(), "so^", SERIES[1:], strict=False):
        work = found["work"][name]
        axes.loglog(work["flop"] / work["weight_bytes"], work["flop"] / spent / 1e9, marker, color=colour,
                    ms=9, label=name)  # fmt: skip
    axes.set_xlabel("FLOP per byte of weights")
    axes.set_ylabel("GFLOP/s")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure, (
        "Roofline: the rate of each phase (marks) and the limit of this device (line: read bandwidth, then "
        "matrix product). The bytes are those of the weights, which each pass reads once."
    )


def launches(result: dict):
    if "counts" not in result:
        return None
    parts = result["counts"]["phases"]
    names = {"vision": "vision", "prefill": "prefill", "token": "one decoded token"}
    figure, axes = canvas(2.2)
    for y, name in enumerate(names):
        value, waits = parts[name]["launches"], parts[name]["syncs"]
        axes.barh(y, value, color=SERIES[1], height=0.6)
        axes.annotate(f"{value:,.0f} launches, {waits:.3g} host waits", (value, y), (4, 0),
                      textcoords="offset points", va="center", fontsize=8)  # fmt: skip
    axes.set_yticks(range(3), list(names.values()))
    axes.invert_yaxis()
    axes.set_xlim(0, 1.5 * max(1, *(parts[name]["launches"] for name in names)))
    axes.set_xlabel(
        f"operators launched on the device ({'simulated NPU' if result['simulated'] else 'counted'})"
    )
    return figure, "Launches and host waits, counted in a separate run."


def latency(result: dict):
    gaps = np.array([gap for page in result["pages"] for run in page["runs"] for gap in run["gaps"]]) * 1e3
    if not len(gaps):
        return None
    figure, axes = canvas()
    gaps.sort()
    axes.plot(gaps, np.linspace(0, 100, len(gaps)), color=SERIES[1])
    for percent, style in ((50, "--"), (99, ":")):
        value = np.percentile(gaps, percent)
        axes.axvline(value, color="black", ls=style, label=f"p{percent}: {value:.3g} ms")
    axes.set_xscale("log" if gaps[0] > 0 else "symlog")
    axes.set_xlabel("milliseconds between two tokens (ITL)")
    axes.set_ylabel("gaps up to this length, per cent")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure, f"Distribution of the time between tokens: {len(gaps):,} gaps."


def accuracy(result: dict):
    pages = [page for page in result["pages"] if page["cer"] is not None]
    if not pages:
        return None
    figure, axes = canvas()
    for name, marker, colour in zip(CATEGORIES, "os^D", SERIES[1:], strict=True):
        group = [page for page in pages if page["category"] == name]
        if group:
            xy = [page["characters"] for page in group], [page["cer"] for page in group]
            axes.plot(*xy, marker, color=colour, label=name, alpha=0.7, ls="")
    axes.set_xlabel("characters on the page")
    axes.set_ylabel("CER")
    axes.set_ylim(bottom=-0.02)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure, f"Character error rate of each of {len(pages)} pages, by length of the page."
