"""Block sizes, by shape. Nothing is tuned at first use: a page must not wait for a search.

An NPU starts one program per vector core (40 on a 910B2) or cube core (20); more programs queue. Its unified
buffer holds 192 KiB per program, half of it where loads are double-buffered.
"""

from __future__ import annotations

import torch

from .launch import interpreted

ROWS = 40  # programs that share the rows of an elementwise kernel: the vector cores of a 910B2
FLAT = 4096  # numbers per step of an elementwise kernel: 16 KiB in fp32
PRODUCT = (64, 64, 32)  # rows, columns and depth of a block of a matrix product
KEYS = 64  # keys per step of an attention
DEPTH = 256  # numbers per step of a product with one vector


def block_rows() -> int:
    """Rows of a matrix per program of a product with one vector.

    An interpreter pays for every program and step, a device for every number that does not fit its buffer.
    """
    return 128 if interpreted() else 16


def attention_block(dtype: torch.dtype) -> tuple[int, int]:
    """(queries of one program, keys per step) of an attention of many queries.

    In fp32 the numbers of the larger block do not fit the registers of a CUDA card: its assembler kept up to
    7.9 KB per thread on the stack (`python -m deskocr_kit.kernel_evidence.assembled`).
    """
    return (16, KEYS // 2) if dtype == torch.float32 and not interpreted() else (32, KEYS)
