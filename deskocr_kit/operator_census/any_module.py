"""The census of any nn.Module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn as nn

from ..device.dtypes import dtype_name
from ..device.module_place import place_of
from ..opcount.assume import Assume
from ..opcount.recorder import Recorder
from .result import Census


def census(
    module: nn.Module,
    inputs: Mapping | Sequence | torch.Tensor = (),
    run: Callable[[], object] | None = None,
    torch_npu: str | None = None,
    assume: Assume | None = None,
    subject: str | None = None,
) -> Census:
    """Every operator of `module(*inputs)`, `module(**inputs)` or `run()`, judged for a torch_npu.

    The module is called without gradients. On "meta" (or under FakeTensorMode) only shapes are needed;
    `assume` then supplies the results that depend on values. subject: the name in the title, by default that
    of the class.
    """
    if run is None:
        if isinstance(inputs, Mapping):
            run = lambda: module(**inputs)  # noqa: E731
        else:
            given = (inputs,) if isinstance(inputs, torch.Tensor) else tuple(inputs)
            run = lambda: module(*given)  # noqa: E731
    recorder = Recorder(module, assume)
    with torch.no_grad(), recorder:
        run()
    name = subject if subject is not None else type(module).__name__
    where, dtype = place_of(module)
    place = f"{where} in {dtype_name(dtype)}"
    return Census.make(recorder, torch_npu, name, assume.used if assume else (), place)
