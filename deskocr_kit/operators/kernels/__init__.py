"""Kernels in Triton: one source that an interpreter, a CUDA compiler and the compiler for Ascend NPUs accept.

launch.py      how a kernel is started, counted and recorded; whether kernels can run here
<name>.py      one kernel each, with the function that starts it
candidates.py  the implementations named `triton`, with the signatures of the slots

Import candidates.py and the kernels only where Triton can be imported: see `launch.why_not`.
Rounding, in all kernels: loads are converted to fp32, sums are in fp32, results are rounded once.
"""
