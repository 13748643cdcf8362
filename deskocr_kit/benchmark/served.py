"""The benchmark of a serving engine: the steps of measure.py that need no network in this process.

Times are those of a client: a request is a page in memory, sent with a stream, one at a time; TTFT contains
the way there, the queue and the prefill of the server. `throughput` then sends all pages with as many
requests at a time as --concurrency says, which is what an engine is for. Launches, memory and limits of the
hardware are not known here, and are left out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ..display.progress import bar
from ..reading.engines.answers import Pieces
from ..reading.engines.options import ServedOptions
from ..reading.engines.reader import EngineReader, client_for
from ..reading.options import PageOptions
from .pages import subjects
from .spec import BenchSpec, public
from .stamp import environment
from .summary import gaps

REQUEST = "one page as pixels in memory, sent to the server as PNG with a stream, one request at a time"


def read(reader: EngineReader, image, options: PageOptions):
    """(Reading, run), as timing.read; vision and prefill are None: a server does not tell them apart."""
    mode, prompt, how = reader._how("", None, None, None, options)
    start, cpu = time.perf_counter(), time.process_time()
    reading, answer = reader.ask([image], prompt, mode, how, on_text=lambda _: None)
    end = time.perf_counter()
    arrivals = answer.arrivals or [answer.end]
    run: dict[str, Any] = {
        "preprocess": answer.start - start,
        "vision": None,
        "prefill": None,
        "decode": arrivals[-1] - arrivals[0],
        "post": end - answer.end,
        "ttft": arrivals[0] - start,
        "e2e": arrivals[-1] - start,
        "seconds": end - start,
        "cpu": time.process_time() - cpu,
        "issued": {},
        "gaps": [round(gap, 7) for gap in gaps(arrivals)],
    }
    return reading, run


def steps(spec: BenchSpec, result: dict, page_record, method) -> Iterator[None]:
    """Fill `result`, as measure.steps. page_record, method: those of measure.py."""
    result["simulated"] = False
    given = spec.only(ServedOptions)
    client = client_for(given)
    try:
        reader = EngineReader.connect(client, given)
        mode = spec.mode or reader.settings["mode"]
        options = replace(spec.only(PageOptions), mode=mode)
        result["engine"] = {
            **reader.facts,
            "warnings": list(reader.served.warnings),
            "concurrency": spec.concurrency,
        }
        result["load"] = {"seconds": None, "weight_bytes": None, "peak_growth_bytes": None}
        result["stamp"] = {
            **environment(spec),
            "device": {"device": "engine", "name": reader.title, "simulated": False},
            "threads": None,
            "checkpoint": {"name": reader.name, "sha256": None, "parameters": None, "dtype": None},
            "slots": {},
        }
        result["method"] = {
            **method(spec, mode, False),
            "model": reader.name,
            "base_url": public("base_url", spec.base_url),
            "request": REQUEST,
        }
        pages = subjects(spec, mode)
        yield
        with bar(total=len(pages), unit="page") as progress:
            for _ in range(spec.warmup):
                read(reader, pages[0].image, options)
            for page in pages:
                read_runs = [read(reader, page.image, options) for _ in range(spec.repeats)]
                runs = [run for _, run in read_runs]
                result["pages"].append(page_record(spec, page, read_runs[-1][0], runs, Pieces()))
                progress.update()
                yield
        result["throughput"] = throughput(reader, [page.image for page in pages], options, spec.concurrency)
        yield
    finally:
        client.close()


def throughput(reader: EngineReader, images: list, options: PageOptions, concurrency: int) -> dict:
    """Pages and tokens per second with `concurrency` requests at a time, at least two for each."""
    asked = images * max(1, -(-2 * concurrency // max(1, len(images))))

    def one(image) -> int:
        return reader.read_batch([image], options=options)[0].new_tokens

    start = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        tokens = sum(pool.map(one, asked))
    seconds = time.perf_counter() - start
    return {
        "concurrency": concurrency,
        "pages": len(asked),
        "tokens": tokens,
        "seconds": seconds,
        "pages_per_second": len(asked) / seconds,
        "tokens_per_second": tokens / seconds,
    }
