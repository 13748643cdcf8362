"""The speed of our model against transformers' implementation: same process, weights and pages, in turns."""

from __future__ import annotations

import time

from ..baselines.transformers_model import load_peer, peer_inputs, peer_module
from ..device import is_simulated, synchronize
from ..reading.options import PageOptions
from .compare import timing_verdict
from .summary import spread, tpot

PAGES = 4  # each read `repeats` times; few, so that the race does not take longer than the benchmark
# Implementations of the experts in transformers; the fastest one is used.
EXPERTS = ("eager", "grouped_mm", "batched_mm")


class Arrivals:
    """A streamer for transformers that records the time of each call. The first call has the prompt."""

    def __init__(self):
        self.times: list[float] = []

    def put(self, _) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def race(generate, device, tokens: int) -> dict:
    """Times of one request, in seconds, and its token ids.

    generate(times) appends the time of each token to `times` and returns the ids.
    """
    times: list[float] = []
    synchronize(device)
    start = time.perf_counter()
    ids = generate(times)
    end = time.perf_counter()
    last = times[-1] if times else end
    return {
        "ttft": times[0] - start,
        "e2e": last - start,
        "tpot": tpot(last - start, times[0] - start, tokens),
    } | {"ids": ids}


def compare_peer(spec, reader, options: PageOptions, pages) -> dict:
    """Medians of both models, ratios with their interval, and the number of equal tokens.

    Both generate as many tokens as our model needs to read the page to its end. Neither uses an n-gram guard.
    Preprocessing is not timed. Returns {"unavailable": why} if the two cannot be compared here.
    """
    model, device = reader.model, reader.model.device
    if is_simulated(device):
        return {"unavailable": "a simulated device has no times to compare"}
    if spec.weights != "plain":
        return {"unavailable": f"transformers has no {spec.weights} weights here, and both need the same"}
    try:
        peer = load_peer(reader.folder, model.config, model.dtype, "sdpa").to(device)
    except ImportError as error:
        return {"unavailable": f"this version of transformers does not contain this model ({error})"}
    peer.generation_config.eos_token_id = None
    raced = []
    for page in pages[:: max(1, len(pages) // PAGES)][:PAGES]:
        inputs = reader.inputs(page.image, options=options)
        tokens = len(reader.read(page.image, options=options).ids)
        raced.append((inputs, tokens))

    def ours(inputs, tokens):
        return lambda times: model.generate(
            **inputs,
            max_new_tokens=tokens,
            eos_token_id=None,
            record=reader.record,
            on_tokens=lambda _: times.append(time.perf_counter()),
        )[0, inputs["input_ids"].shape[1] :].tolist()

    def theirs(inputs, tokens):
        asked = {
            name: value.to(device, model.dtype) if name.startswith("pixel") else value
            for name, value in peer_inputs(inputs, rows=model.config.clip is not None).items()
        }
        asked |= {name: asked[name].to(device) for name in ("input_ids", "attention_mask")}

        def generate(times):
            streamer = Arrivals()
            ids = peer.generate(**asked, max_new_tokens=tokens, do_sample=False, streamer=streamer)
            times += streamer.times[1:]
            return ids[0, inputs["input_ids"].shape[1] :].tolist()

        return generate

    tried = {}
    for name in EXPERTS:
        try:
            peer.set_experts_implementation(name)
            race(theirs(*raced[0]), device, raced[0][1])  # warm-up
            tried[name] = race(theirs(*raced[0]), device, raced[0][1])["e2e"]
        except (ValueError, RuntimeError, NotImplementedError, AttributeError) as error:
            tried[name] = f"does not run: {str(error).splitlines()[0][:80]}"
    running = {name: seconds for name, seconds in tried.items() if isinstance(seconds, float)}
    if not running:
        return {"unavailable": f"no implementation of its experts runs here: {tried}"}
    fastest = min(running, key=lambda name: running[name])
    peer.set_experts_implementation(fastest)
    sides: dict[str, list[dict]] = {"ours": [], "peer": []}
    same = total = 0
    race(ours(*raced[0]), device, raced[0][1])
    for inputs, tokens in raced:
        for _ in range(spec.repeats):
            a, b = race(ours(inputs, tokens), device, tokens), race(theirs(inputs, tokens), device, tokens)
            same += sum(x == y for x, y in zip(a.pop("ids"), b.pop("ids"), strict=False))
            total += tokens
            sides["ours"].append(a)
            sides["peer"].append(b)
    figures = {}
    for name in ("ttft", "tpot", "e2e"):
        mine, peers = ([run[name] for run in runs if run[name] is not None] for runs in sides.values())
        figures[name] = {"ours": spread(mine), "peer": spread(peers), **timing_verdict(peers, mine)}
    return {
        "name": f"transformers {peer_module(model.config)}",
        "experts": fastest,
        "tried_seconds": tried,
        "pages": len(raced),
        "repeats": spec.repeats,
        "tokens_alike": {"count": same, "of": total},
        "figures": figures,
    }
