"""Any nn.Module -> its census."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn as nn

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
    """Every operator of `module(*inputs)` (or `module(**inputs)`, or `run()`), judged for a torch_npu.

    Nothing is needed but the module: on "meta" (or under FakeTensorMode) shapes are enough, and `assume`
    answers what depends on values. No gradient is recorded.
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
    return Census.make(recorder.counts, recorder.examples, torch_npu, name, assume.used if assume else ())
