"""What memory an operator touches, drawn from the operator itself: a map of addresses is sent through it.

columns(side=6, kernel=3, stride=1, padding=1)      im2col: which pixel stands where in the matrix
windows(side=9, kernel=3, stride=2, padding=1)      the windows of F.unfold, called right and called wrong
patches(side=8, patch=4)                            kernel == stride: a reshape
storage({"base": base, "row": row})                 which tensors share memory, and which do not
scatter(before, mask, source, after)                which rows were replaced, by which
"""

from .conv import columns, patches, windows
from .drawing import Drawing
from .rows import scatter, storage

__all__ = ["Drawing", "columns", "patches", "scatter", "storage", "windows"]
