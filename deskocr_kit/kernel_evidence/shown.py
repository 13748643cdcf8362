"""One kernel as the front end of Huawei's compiler lowers it, as a text that notebook 11 shows.

    python -m deskocr_kit.kernel_evidence.shown notebooks/data/conv2d_on_ascend.mlir

Run it in an environment with triton-ascend, as kernel_evidence.lowering.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from ..operators.digests import source_digest
from ..operators.kernels import conv2d
from ..operators.kernels.launch import Launch, listening
from .forms import Form
from .lowering import CHIP, lower

SHAPES = ((1, 512, 32, 32), (1024, 512, 3, 3))  # SAM's last convolution: input, weight


def shown_form() -> Form:
    """The kernel of a convolution 3x3 with stride 2 of the official size, in fp16."""
    seen: list[Launch] = []
    x, weight = (torch.empty(shape, dtype=torch.float16, device="meta") for shape in SHAPES)
    with listening(seen.append):
        conv2d.conv2d(x, weight, None, (2, 2), (1, 1))
    (one,) = seen
    return Form(one.kernel, dict(one.types), dict(one.constants), {one.grid}, 1)


def kernel_source_digest() -> str:
    """Hash of the code of operators/kernels/conv2d.py, without comments and docstrings."""
    return source_digest([Path(conv2d.__file__).read_text(encoding="utf-8")])


def shown_text(compiler: str) -> str:
    """The text of the file: two lines about its origin, then linalg."""
    return (
        f"// conv2d_kernel, 3x3 in fp16, lowered for {CHIP} by the front end of {compiler}\n"
        f"// made from code {kernel_source_digest()} by python -m deskocr_kit.kernel_evidence.shown\n"
        f"{lower(shown_form()).strip()}\n"
    )


def main() -> None:
    """Write the text to the file named on the command line."""
    import triton

    Path(sys.argv[1]).write_text(shown_text(f"triton-ascend {triton.__version__}"), encoding="utf-8")


if __name__ == "__main__":
    main()
