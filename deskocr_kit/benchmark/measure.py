"""The steps of a benchmark: load, warm up, read every page, count, measure the limits. Each step is stored.

On a simulated device nothing is timed: the times would be those of the host, mistaken for those of an NPU.
"""

from __future__ import annotations

import os
import time
from dataclasses import fields, replace
from pathlib import Path

from model.files import write_json

from ..device import device_memory, is_simulated, pick_device, reset_peak, synchronize
from ..display.progress import bar
from ..reading.engines.options import EngineOptions
from ..reading.options import PageOptions
from ..reading.reader import Reader
from ..reading.repetition import looped, loops
from ..reading.text_distance import NORMALISATION, cer, edits, ned, normalise
from . import counts, limits, served, timing
from .kernels_used import kernels_used
from .limits import weight_bytes
from .pages import subjects
from .race import compare_peer
from .spec import FILE, FORMAT, PARTIAL, BenchSpec
from .stamp import stamp
from .summary import category, success, summarise


def measure(spec: BenchSpec, out: Path) -> dict:
    """Run all steps of `spec` and write out/bench.json; until then results are in out/bench.partial.json."""
    result: dict = {"format": FORMAT, "complete": False, "stopped": "", "pages": []}

    def store():
        bound = spec.success_cer
        result["summary"] = summarise(result["pages"], bound, not result.get("simulated", False))
        write_json(out / PARTIAL, result)

    try:
        for _ in steps(spec, result):
            store()
    except KeyboardInterrupt:
        result["stopped"] = "interrupted"
        store()
        raise
    except Exception as error:
        result["stopped"] = f"{type(error).__name__}"
        store()
        raise
    result["complete"] = True
    store()
    os.replace(out / PARTIAL, out / FILE)
    return result


def steps(spec: BenchSpec, result: dict):
    """Fill `result`; each yield is a state to store."""
    yield  # a run interrupted before the next yield is stored without a page
    if spec.engine != "kit":
        yield from served.steps(spec, result, page_record, method)
        return
    device = pick_device(spec.device, quiet=True)
    simulated = result["simulated"] = is_simulated(device)
    reader, before = load(spec, device, result)
    mode = spec.mode or reader.settings["mode"]
    options = replace(spec.only(PageOptions), mode=mode)
    result["stamp"] = stamp(spec, reader)
    result["method"] = method(spec, mode, simulated)
    if found := kernels_used(vars(reader.model.slots)):
        result["kernels"] = found
    pages = subjects(spec, mode)
    yield
    peak = reset_peak(device)
    with bar(total=len(pages), unit="page") as progress:
        for _ in range(0 if simulated else spec.warmup):
            one_page(spec, reader, options, pages[0], 1, False)
        for page in pages:
            result["pages"].append(one_page(spec, reader, options, page, spec.repeats, not simulated))
            progress.update()
            yield
    if peak:
        remember_peak(result, device, before)
    inputs = reader.inputs(pages[0].image, options=options)
    result["counts"] = counts.count(reader.model, inputs, result["pages"][0]["new_tokens"])
    yield
    result["limits"] = limits.measure(reader.model, inputs, not simulated)
    rate = result.get("summary", {}).get("all", {}).get("tokens_per_second")
    if rate:
        reached = result["limits"]["active_bytes_per_token"] * rate
        result["limits"]["bandwidth_share"] = reached / result["limits"]["read_bytes_per_second"]
    yield
    if spec.peer:
        result["peer"] = compare_peer(spec, reader, options, pages)
        yield


def load(spec: BenchSpec, device, result: dict):
    """(Reader, bytes in use before loading).

    On the CPU the memory is that of the whole process, so only its growth is meaningful.
    """
    import torch

    torch.zeros(1, device=device).add_(1)  # creates the context of the device, which is not part of loading
    before, peak = device_memory(device).allocated, reset_peak(device)
    start = time.perf_counter()
    reader = Reader.load(spec, device)
    synchronize(device)
    seconds = time.perf_counter() - start
    top = device_memory(device).peak
    result["load"] = {
        "seconds": None if result["simulated"] else seconds,
        "weight_bytes": weight_bytes(reader.model),
        "peak_growth_bytes": top - before if peak and top is not None else None,
    }
    return reader, before


def remember_peak(result: dict, device, before: int) -> None:
    top, weights = device_memory(device).peak, result["load"]["weight_bytes"]
    if top is not None:
        result["memory"] = {"peak_growth_bytes": top - before, "over_weights": (top - before) / weights}


def one_page(spec: BenchSpec, reader, options: PageOptions, page, repeats: int, timed: bool) -> dict:
    runs = []
    for _ in range(repeats if timed else 1):
        reading, run = timing.read(reader, page.image, options)
        runs.append(run)
    return page_record(spec, page, reading, runs if timed else [], reader.tokenizer)


def page_record(spec: BenchSpec, page, reading, runs: list[dict], tokenizer) -> dict:
    text, truth = reading.text, page.truth
    known = truth is not None
    expected = looped(tokenizer.encode(truth, add_special_tokens=False)) if known else 0
    characters = len(normalise(truth if known else text))
    record = {
        "name": page.name,
        "category": category(characters),
        "characters": characters,
        "characters_read": len(text),
        "size": list(page.image.size),
        "vision_tokens": reading.image_tokens or None,  # an engine does not tell
        "prompt_tokens": reading.prompt_tokens,
        "new_tokens": reading.new_tokens,
        "edits": edits(text, truth)[0] if known else None,
        "cer": cer(text, truth) if known else None,
        "ned": ned(text, truth) if known else None,
        "truncated": reading.truncated,
        "loop": loops(reading.ids) and looped(reading.ids) >= 2 * expected,
        "runs": runs,
    }
    record["success"] = success(record, spec.success_cer)
    if page.drawn or spec.keep_text:
        record |= {"text": text, "truth": truth}
    return record


def method(spec: BenchSpec, mode: str, simulated: bool) -> dict:
    """The method of measuring as text, with the values that were used."""
    of_engines = set() if spec.engine != "kit" else {each.name for each in fields(EngineOptions)}
    return {
        **{name: value for name, value in spec.public().items() if name not in of_engines},
        "pages": len(spec.pages),
        "model": Path(spec.model or "default").name,
        "plan": Path(spec.plan).name if spec.plan else None,
        "mode": mode,
        "request": "one page as pixels in memory, batch 1; post is the conversion of tokens to text",
        "timed": "not timed: simulated device"
        if simulated
        else "the device is idle at each boundary between phases",
        "normalisation": NORMALISATION,
        "loop": "nearly the same tokens again and again, see deskocr_kit/reading/repetition.py; at least "
        "twice as many as in the expected text",
        "success_means": f"text returned, not truncated, no loop, CER at most {spec.success_cer}",
    }
