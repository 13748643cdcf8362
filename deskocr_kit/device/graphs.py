"""The decode step as a graph that the device replays."""

from __future__ import annotations

from .torch_import import import_torch


def graphs(device):
    """`record` for `generate(record=…)`: the decode step as a CUDA graph, or an NPU graph of torch_npu.

    Written after the documents of both and tested against a stand-in; no device has run it yet. An NPU graph
    takes aclnn operators only, and no TASK_QUEUE_ENABLE=2. Raises NotImplementedError where there are none.
    """
    torch = import_torch()
    kind = torch.device(device).type
    place, name = getattr(torch, kind, None), {"cuda": "CUDAGraph", "npu": "NPUGraph"}.get(kind, "")
    if place is None or not hasattr(place, name):
        raise NotImplementedError(f"{kind} has no graphs to record here; decode without `record`")

    def record(run):
        aside = place.Stream()
        aside.wait_stream(place.current_stream())
        with place.stream(aside):  # workspaces are made before the recording, as both ask for
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
