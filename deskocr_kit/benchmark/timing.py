"""One page, timed by phase, with the device idle at every border."""

from __future__ import annotations

import time
from contextlib import contextmanager

from model import inference

from ..device import synchronize
from ..reading.options import PageOptions
from .summary import gaps


@contextmanager
def hooked(model, mark):
    """Call mark("vision") after `model.embed` and mark("prefill") after the first pass behind it."""
    embed, decode = model.embed, model.decode_embeds

    def embedding(*args, **kwargs):
        result = embed(*args, **kwargs)
        mark("vision")
        return result

    def first_pass(*args, **kwargs):
        result = decode(*args, **kwargs)
        vars(model).pop("decode_embeds", None)  # the next passes are the model's own again
        mark("prefill")
        return result

    model.embed, model.decode_embeds = embedding, first_pass
    try:
        yield
    finally:
        for name in ("embed", "decode_embeds"):
            vars(model).pop(name, None)


def read(reader, image, options: PageOptions):
    """(Reading, run): what `reader.read` gives, and the seconds of its phases.

    run: preprocess, vision (embedding and placing included), prefill, decode, post; ttft; e2e (to the last
    token); seconds (the whole request); gaps between tokens; cpu (this process's CPU seconds to e2e);
    `issued`: how long the host took to hand over vision and prefill, before it waited.
    """
    device, ends, arrivals, issued = reader.model.device, {}, [], {}

    def mark(name):
        issued[name] = time.perf_counter()
        synchronize(device)
        ends[name] = time.perf_counter()

    built = inference.build_inputs

    def building(*args, **kwargs):
        result = built(*args, **kwargs)
        ends["preprocess"] = time.perf_counter()
        return result

    generate = reader.model.generate

    def generating(*args, on_tokens=None, **kwargs):
        result = generate(*args, on_tokens=lambda _: arrivals.append(time.perf_counter()), **kwargs)
        ends["decode"] = time.perf_counter()
        ends["cpu"] = time.process_time()
        return result

    synchronize(device)
    start, used = time.perf_counter(), time.process_time()
    inference.build_inputs, reader.model.generate = building, generating
    try:
        with hooked(reader.model, mark):
            reading = reader.read(image, options=options)
        end = time.perf_counter()
    finally:
        inference.build_inputs = built
        vars(reader.model).pop("generate", None)
    borders = [start, *(ends[name] for name in ("preprocess", "vision", "prefill", "decode")), end]
    names = ("preprocess", "vision", "prefill", "decode", "post")
    run = {name: b - a for name, a, b in zip(names, borders, borders[1:], strict=False)}
    run |= {
        "ttft": arrivals[0] - start,
        "e2e": arrivals[-1] - start,
        "seconds": end - start,
        "cpu": ends["cpu"] - used,
        "issued": {
            "vision": issued["vision"] - ends["preprocess"],
            "prefill": issued["prefill"] - ends["vision"],
        },
        "gaps": [round(gap, 7) for gap in gaps(arrivals)],
    }
    return reading, run
