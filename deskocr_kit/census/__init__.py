"""Which operators does a model really run, how often, from which line, and what does an NPU do with each?

    from deskocr_kit.census import census, census_ocr

    census(any_module, inputs)                   # any nn.Module, any inputs, any device, "meta" included
    census_ocr()                                 # the official size, dry: vision, prefill, one decode step
    result.rows(), result.launches("decode"), result.worst(), result.save("reports/…")
    result.judged_by("2.6.0.post5")              # the same calls, another torch_npu

recorder.py sees, assume.py stands in for values in a dry run, verdicts.py judges, result.py and picture.py
show, ocr.py knows our network's phases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn as nn

from .assume import Assume, DryRunError
from .ocr import census_ocr
from .recorder import Call, Recorder
from .result import Census, Entry
from .verdicts import MEANING, Verdict, composites, judge, nearest, versions

__all__ = [
    "MEANING",
    "Assume",
    "Call",
    "Census",
    "DryRunError",
    "Entry",
    "Recorder",
    "Verdict",
    "census",
    "census_ocr",
    "judge",
    "nearest",
    "versions",
]


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
    recorder = Recorder(module, assume, composites(nearest(torch_npu)))
    with torch.no_grad(), recorder:
        run()
    name = subject if subject is not None else type(module).__name__
    return Census.make(recorder.counts, recorder.examples, torch_npu, name, assume.used if assume else ())
