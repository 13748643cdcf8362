"""Record the decode step as a graph that the device replays."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from .memory_stats import is_out_of_memory
from .selection import backend_of, is_simulated
from .torch_import import DeviceError, import_torch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Run = Callable[[], Tensor]

KINDS = {"cuda": "CUDAGraph", "npu": "NPUGraph"}  # {kind of device: its class of graphs}


class GraphError(DeviceError, NotImplementedError):
    """There is no graph here; the message says why and what to do."""


def graphs(device: torch.device | str) -> Callable[[Run], Run]:
    """A function for `generate(record=…)` that records the decode step as a CUDA graph or an NPU graph.

    The function takes a callable, records one call of it, and returns a callable that replays the recording.
    The code follows the documentation of CUDA graphs and of torch_npu. It is tested with a stand-in, and was
    not run on a device. An NPU graph accepts only aclnn operators, and does not work with
    TASK_QUEUE_ENABLE=2.

    Raises:
        GraphError: the device has no graphs. The returned function raises it if the step cannot be recorded:
            an operator waits for the device, or is none that a graph may contain.
    """
    kind = import_torch().device(device).type
    if reason := why_none(device):
        raise GraphError(f"{reason}. Leave out --graph (in Python: record)")
    place = backend_of(device)

    def record(run: Run) -> Run:
        warm_up = place.Stream()
        warm_up.wait_stream(place.current_stream())
        with place.stream(warm_up):  # workspaces must exist before the recording, for both kinds of graphs
            for _ in range(2):
                run()
        place.current_stream().wait_stream(warm_up)
        graph = getattr(place, KINDS[kind])()
        try:
            with place.graph(graph):
                result = run()
        except RuntimeError as error:
            if is_out_of_memory(error):  # fewer samples may fit
                raise
            why = error.__context__ or error  # the end of a failed recording raises an error of its own
            first = (str(why).strip().splitlines() or [type(why).__name__])[0]
            raise GraphError(
                f"the decode step cannot be recorded as a graph on {device}, because an operator waits for "
                f"the device or is not allowed in a graph ({first}); decode without a graph, fewer pages at "
                "a time, or with another plan"
            ) from error

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay

    return record


def why_none(device: torch.device | str) -> str:
    """Why a device has no graphs; "" if it has them."""
    kind = import_torch().device(device).type
    if kind not in KINDS:
        return f"{kind} has no graphs to record; cuda and npu have them"
    if is_simulated(device):
        return "the simulated NPU has no graphs to record"
    if not hasattr(backend_of(device), KINDS[kind]):
        return f"this version of torch has no graphs for {kind}: torch.{kind}.{KINDS[kind]} is missing"
    if kind == "npu" and os.environ.get("TASK_QUEUE_ENABLE") == "2":
        return "an NPU records no graph with TASK_QUEUE_ENABLE=2 (set it to 1)"
    return ""
