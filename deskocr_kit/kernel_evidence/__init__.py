"""What is known about each kernel, in four levels, and never more than was done.

interpreted  it ran in Triton's interpreter; the error against fp64 is recorded
lowered      the front end of the compiler for Ascend NPUs accepted it, in every official form
compiled     it ran compiled, on a CUDA card
run          it ran on an NPU

The first proves indices, masks, dtypes and the algorithm. The second proves that the vendor's front end takes
the kernel. Neither proves the rounding, the speed, or that it fits on an NPU.
"""
