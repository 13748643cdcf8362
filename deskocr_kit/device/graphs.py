"""Record the decode step as a graph that the device replays."""

from __future__ import annotations

from .torch_import import import_torch


def graphs(device):
    """`record` for `generate(record=…)`: records the decode step as a CUDA graph or an NPU graph.

    Written after the documentation of CUDA graphs and torch_npu, and tested with a stand-in; not yet run on a
    device. An NPU graph accepts only aclnn operators, and does not work with TASK_QUEUE_ENABLE=2.

    Raises:
        NotImplementedError: the device has no graphs.
    """
    torch = import_torch()
    kind = torch.device(device).type
    place, name = getattr(torch, kind, None), {"cuda": "CUDAGraph", "npu": "NPUGraph"}.get(kind, "")
    if place is None or not hasattr(place, name):
        raise NotImplementedError(f"{kind} has no graphs to record here; decode without `record`")

    def record(run):
        aside = place.Stream()
        aside.wait_stream(place.current_stream())
        with place.stream(aside):  # both require that workspaces exist before the recording
            for _ in range(2):
                run()
        place.current_stream().wait_stream(aside)
        graph = getattr(place, name)()
        with place.graph(graph):
            result = run()

        def replay():
            graph.replay()
            return result

        return replay

    return record
