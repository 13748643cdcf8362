"""`deskocr bench`: where the time of a page goes, what the device is given to do, how well it reads.

result = run(Spec(device="cpu"), "reports/cpu-nano")   # in a child process; Ctrl-C keeps what is done
result["summary"]["all"]["tpot"]["p50"]

spec.py      what is asked          pages.py    the pages and their truth
child.py     the process            measure.py  the order of things
timing.py    one page, by phase     counts.py   launches, waits, bytes: a run of its own, never timed
limits.py    bandwidth, FLOP        stamp.py    what one needs to repeat it
loops.py     repetition             summary.py  arithmetic: nothing here needs torch
frame.py     as a pandas table (not imported here: the help of `deskocr bench` needs no numpy)
compare.py   against another file   peer.py     against transformers, in the same run
"""

from .child import bench
from .spec import FORMAT, BenchSpec

__all__ = ["FORMAT", "BenchSpec", "bench"]
