"""What is known about each kernel, level by level, and never more than was done.

interpreted  it ran in Triton's interpreter; the error against fp64 is recorded
lowered      the front end of the compiler for Ascend NPUs accepted it, in every official form
assembled    Triton's compiler made machine code for CUDA cards of it, in every official form; nothing ran
compiled     it ran compiled, on a CUDA card
run          it ran on an NPU

The first proves indices, masks, dtypes and the algorithm. The second proves that the vendor's front end takes
the kernel. The third proves that it compiles for CUDA, and what it takes of a card. None of them
proves the rounding of a device, its speed, or that the kernel fits on an NPU.
"""
