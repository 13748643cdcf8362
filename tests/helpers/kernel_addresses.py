"""Whether interpreted kernels load and store in their tensors only, also where a mask excludes a number.

An NPU makes some loads before it applies their mask, see deskocr_kit/kernel_evidence/before_mask.py.
"""

from __future__ import annotations

import contextlib
import json
import linecache
import sys
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from deskocr_kit.course.interpreted_memory import replaced
from deskocr_kit.kernel_evidence.before_mask import accesses
from deskocr_kit.kernel_evidence.table import DATA
from deskocr_kit.operators.kernels.launch import Launch, listening


def before_their_mask() -> set[str]:
    """The loads of the record of level `lowered` that are made before their mask is applied."""
    forms = json.loads((DATA / "lowered.json").read_text("utf-8"))["forms"]
    return {each for form in forms for each in form["before_mask"]}


@contextlib.contextmanager
def outside_accesses(checked: set[str]) -> Iterator[set[str]]:
    """The loads and stores of the kernels in this context of which an address lies outside of every tensor.

    What a mask excludes counts for the `checked` loads, expressions as in `before_mask`, and for those whose
    address has a `tl.where`.
    """
    from triton.runtime.interpreter import interpreter_builder as builder

    spans: list[tuple[int, int]] = []
    found: set[str] = set()
    load, store = builder.create_masked_load, builder.create_masked_store

    def started(launch: Launch) -> None:
        tensors = [each for each in launch.args if isinstance(each, Tensor) and not each.is_meta]
        storages = [each.untyped_storage() for each in tensors]
        spans[:] = [(each.data_ptr(), each.data_ptr() + each.nbytes()) for each in storages]

    def look(places: np.ndarray) -> None:
        places = places.astype(np.int64).ravel()
        inside = np.zeros(places.shape, dtype=bool)
        for first, end in spans:
            inside |= (places >= first) & (places < end)
        if not inside.all():
            found.add(_site())

    def loading(pointers, mask, *rest):
        site = _site()
        every = site in checked or "tl.where" in site.partition(" mask=")[0]
        look(pointers.data if every else pointers.data[mask.data])
        return load(pointers, mask, *rest)

    def storing(pointers, value, mask, *rest):
        look(pointers.data[mask.data])
        return store(pointers, value, mask, *rest)

    with (
        replaced(builder, create_masked_load=loading, create_masked_store=storing),
        listening(started),
    ):
        yield found


def _site() -> str:
    """The access that the innermost kernel makes: its expression if it has a mask, else its line."""
    frame = sys._getframe(1)
    while frame is not None:
        file, number = frame.f_code.co_filename, frame.f_lineno
        if frame.f_code.co_name.endswith("_kernel"):
            return accesses(file).get(number) or linecache.getline(file, number).strip()
        frame = frame.f_back
    return ""
