"""Default implementations of the slots, made of plain operators; no worse than the references anywhere.

    moe                chosen experts only, and no synchronisation while decoding
    rel_pos_attention  no (n, n) bias: 805 MB less for one view of 1024 pixels
    rms_norm           six operators instead of eight, in place; two while decoding
    rotary             three operators instead of five; one while decoding
    resize_grid, relative_table   resized once per size

Proofs compare with the references in slots.py; `model.use_plan(references())` runs them. Where a reference is
as good (convolution, activations), it is the default. step.py decodes one token at a time.
"""

from .defaults import DEFAULTS, references

__all__ = ["DEFAULTS", "references"]
