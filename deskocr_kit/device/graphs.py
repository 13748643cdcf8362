"""Record the decode step as a graph that the device replays."""

from __future__ import annotations

from .torch_import import import_torch


def graphs(device):
    """A function for `generate(record=…)` that records the decode step as a CUDA graph or an NPU graph.

    The function takes a callable, records one call of it, and returns a callable that replays the recording.
    The code follows the documentation of CUDA graphs and of torch_npu. It is tested with a stand-in, and was
    not run on a device. An NPU graph accepts only aclnn operators, and does not work with
    TASK_QUEUE_ENABLE=2.

    Raises:
        NotImplementedError: the device has no graphs.
    """
    torch = import_torch()
    kind = torch.device(device).type
    place, name = getattr(torch, kind, None), {"cuda": "CUDAGraph", "npu": "NPUGraph"}.get(kind, "")
    if place is None or not hasattr(place, name):
        raise NotImplementedError(f"{kind} has no graphs to record here; decode without `record`")

    def record(run):
        warm_up = place.Stream()
        warm_up.wait_stream(place.current_stream())
        with place.stream(warm_up):  # workspaces must exist before the recording, for both kinds of graphs
            for _ in range(2):
                run()
        place.current_stream().wait_stream(warm_up)
        graph = getattr(place, name)()
        with place.graph(graph):
            result = run()

        def replay():
            graph.replay()
            return result

        return replay

    return record
