"""The benchmark behind `deskocr bench`: time per phase, work of the device, accuracy.

    result = bench(BenchSpec(device="cpu"), "reports/cpu-nano")  # in a child process; Ctrl-C keeps results
    result["summary"]["all"]["tpot"]["p50"]

spec.py      the options             pages.py     the pages and their expected text
child.py     the child process       measure.py   the order of the steps
timing.py    one page, by phase      counts.py    launches, waits, bytes: a separate run without timing
limits.py    bandwidth, FLOP         stamp.py     the environment, to repeat the measurement
summary.py   arithmetic; needs no torch
frame.py     the result as a pandas table (not imported here: `deskocr bench --help` needs no numpy)
compare.py   two results             race.py      our model and transformers' in the same run
report.py    text, Markdown and HTML; report_figures.py its figures
"""

from .child import bench
from .spec import FORMAT, BenchSpec

__all__ = ["FORMAT", "BenchSpec", "bench"]
