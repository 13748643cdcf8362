"""Drawings of the memory that an operator touches. They come from running it on a tensor of addresses.

columns(side=6, kernel=3, stride=1, padding=1)      im2col: the position of each pixel in the matrix
windows(side=9, kernel=3, stride=2, padding=1)      the windows of F.unfold, called by keyword and by position
patches(side=8, patch=4)                            kernel == stride: a reshape
storage({"base": base, "row": row})                 which tensors share memory, and which do not
scatter(before, mask, source, after)                which rows were replaced, and by which

Two more show how long a program takes: Timeline (when each part works) and throughput (batch sizes).
"""

from .conv import columns, patches, windows
from .drawing import Drawing
from .rows import scatter, storage
from .timeline import Timeline, throughput

__all__ = ["Drawing", "Timeline", "columns", "patches", "scatter", "storage", "throughput", "windows"]
