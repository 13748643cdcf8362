"""One page in, text out: prompt, views, generation, decoding; infer.py has the interface of the original."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from .confidence import Scores, Span
from .observer import Observer
from .official import DEEPSEEK_OCR, Checkpoint, by_architecture
from .processing import Mode, build_inputs
from .side_files import architectures, generation_settings


def official_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """The settings that a model of the family was published with; the keys of `defaults`."""
    return {
        "mode": checkpoint.mode,
        "max_new_tokens": checkpoint.max_new_tokens,
        "no_repeat_ngram_size": checkpoint.no_repeat_ngram_size,
        "ngram_window": checkpoint.ngram_window,
    }


DEFAULTS: dict[str, Any] = official_settings(DEEPSEEK_OCR)


@dataclass(frozen=True)
class Reading:
    """The model's answer for one page. `text` is without the end token; `raw` is with it."""

    text: str
    raw: str
    ids: list[int]  # new tokens, the end token included
    prompt_tokens: int  # with the placeholders
    image_tokens: int  # placeholders
    grid: tuple[int, int]  # tiles across, down; (1, 1) is none
    truncated: bool  # stopped by max_new_tokens, not by the end token
    seconds: float  # preprocessing to last token; in a batch the share of this page
    logprobs: Sequence[float] = ()  # natural log-probability of each of `ids`, before the n-gram guard
    spans: Sequence[Span] = ()  # the characters of each of `ids` in `text`
    counted: int | None = None  # new tokens, where `ids` only stand for them: of a serving engine

    @property
    def new_tokens(self) -> int:
        return len(self.ids) if self.counted is None else self.counted

    @cached_property
    def scores(self) -> Scores:
        """How sure the model was of tokens, lines, boxes and cells; what is averaged: see confidence.py."""
        return Scores(self.text, self.logprobs, self.spans)

    @property
    def confidence(self) -> float | None:
        """Of the page, 0 to 1: the geometric mean of the tokens' probabilities, see confidence.py."""
        return self.scores.page

    @property
    def confidences(self) -> list[float]:
        """The probability of each of `ids`."""
        return self.scores.tokens

    def __repr__(self) -> str:
        stop = ", truncated" if self.truncated else ""
        sure = "" if self.confidence is None else f", confidence {self.confidence:.2f}"
        # ≈ marks what the notebook tests skip
        return f"≈ {self.text!r} ({self.new_tokens} tokens{stop}{sure})"

    def _repr_html_(self) -> str:
        return f'<pre style="white-space:pre-wrap">{escape(repr(self))}</pre>'  # model output


def defaults(folder: str | Path) -> dict:
    """The settings of a checkpoint: the published ones of its model, overridden by generation_config.json.

    Keys: mode (a name in MODES), max_new_tokens, no_repeat_ngram_size, ngram_window. The official folder has
    no such file; the nano checkpoint has one. Raises CheckpointError for a damaged file.
    """
    given = generation_settings(folder)
    official = official_settings(by_architecture(architectures(folder)))
    return {key: given.get(key, value) for key, value in official.items()}


class TextStream:
    """Decodes tokens as they arrive and holds back bytes that are not yet a whole character."""

    def __init__(self, tokenizer, ends: set[int], emit: Callable[[str], object]):
        self.tokenizer, self.ends, self.emit = tokenizer, ends, emit
        self.pending: list[int] = []

    def __call__(self, tokens: list[int]) -> None:
        if tokens[0] in self.ends:
            return self.flush()
        self.pending.append(tokens[0])
        text = self.tokenizer.decode(self.pending, skip_special_tokens=False)
        if not text.endswith("\ufffd"):
            self.pending = []
            self.emit(text)

    def flush(self) -> None:
        """Emit what is pending, whole or not: generation has ended."""
        if self.pending:
            self.emit(self.tokenizer.decode(self.pending, skip_special_tokens=False))
            self.pending = []


def read_page(
    model,
    tokenizer,
    page,
    prompt: str,
    mode: str | Mode | None = None,
    *,
    max_new_tokens: int | None = None,
    no_repeat_ngram_size: int | None = None,
    ngram_window: int | None = None,
    on_text: Callable[[str], object] | None = None,
    observer: Observer | None = None,
    record: Callable | None = None,
) -> Reading:
    """Read one page: anything that `load_image` accepts, or None for a text-only prompt.

    Args:
        page: a list reads several pages in one prompt, if the model does; see several_pages.by_page.
        mode, max_new_tokens, no_repeat_ngram_size: None takes the model's own; the n-gram window belongs to
            the size, so it is then the model's own too.
        on_text: called with each new piece of text, for streaming.
        observer: follows the phases and the tokens, see observer.Observer.
        record: replays the decode step, see generation.generate.

    Raises:
        ImageError: the page cannot be read.
        ValueError, NonFiniteError: see generation.generate.
    """
    stream = None if on_text is None else TextStream(tokenizer, {model.config.eos_token_id}, on_text)
    (reading,) = read_pages(
        model,
        tokenizer,
        [page],
        prompt,
        mode,
        max_new_tokens=max_new_tokens,
        no_repeat_ngram_size=no_repeat_ngram_size,
        ngram_window=ngram_window,
        on_tokens=stream,
        observer=observer,
        record=record,
    )
    if stream is not None:
        stream.flush()
    return reading


def read_pages(
    model,
    tokenizer,
    pages: Sequence,
    prompt: str,
    mode: str | Mode | None = None,
    *,
    max_new_tokens: int | None = None,
    no_repeat_ngram_size: int | None = None,
    ngram_window: int | None = None,
    on_tokens: Callable[[list[int]], object] | None = None,
    observer: Observer | None = None,
    record: Callable | None = None,
) -> list[Reading]:
    """Read several pages with one prompt as one batch: shorter prompts are padded on the left.

    A list in `pages` is one sample with several pages. mode, max_new_tokens, no_repeat_ngram_size: see
    `read_page`. `seconds` of each page is its share of the time, by tokens. on_tokens, observer, record:
    see generation.generate.

    Raises:
        ImageError: one of the pages cannot be read.
        ValueError, NonFiniteError: see generation.generate.
    """
    request = make_request(
        model,
        tokenizer,
        pages,
        prompt,
        mode,
        max_new_tokens=max_new_tokens,
        no_repeat_ngram_size=no_repeat_ngram_size,
        ngram_window=ngram_window,
    )
    if observer is not None:
        observer.phase("preprocess")
    generated, logprobs = model.generate(
        **request.arguments, on_tokens=on_tokens, observer=observer, record=record, return_logprobs=True
    )
    return make_readings(model, tokenizer, request, generated, logprobs)


@dataclass(frozen=True)
class Request:
    """Pages as arguments of `generate`. start: time.perf_counter() when they came."""

    arguments: dict[str, Any]
    start: float


def make_request(
    model,
    tokenizer,
    pages: Sequence,
    prompt: str,
    mode: str | Mode | None = None,
    *,
    max_new_tokens: int | None = None,
    no_repeat_ngram_size: int | None = None,
    ngram_window: int | None = None,
) -> Request:
    """Prepare pages for the model; the arguments and errors are those of `read_pages`."""
    start = time.perf_counter()
    config = model.config
    official = config.checkpoint
    if no_repeat_ngram_size is None:
        no_repeat_ngram_size, ngram_window = official.no_repeat_ngram_size, official.ngram_window
    if ngram_window == official.ngram_window and any(isinstance(page, (list, tuple)) for page in pages):
        ngram_window = official.pages_ngram_window  # pages repeat headings that one page does not
    inputs = build_inputs(
        tokenizer,
        prompt,
        list(pages),
        mode or official.mode,
        checkpoint=official,
        image_token_id=config.image_token_id,
        bos_token_id=config.bos_token_id,
    )
    rules = {
        "max_new_tokens": max_new_tokens or official.max_new_tokens,
        "no_repeat_ngram_size": no_repeat_ngram_size,
        "ngram_window": ngram_window,
        "ngram_whitelist": table_cells(tokenizer),
    }
    return Request({**inputs, **rules}, start)


def make_readings(model, tokenizer, request: Request, generated, logprobs) -> list[Reading]:
    """One Reading per page of a request, from what `generate` returned for it."""
    inputs, end = request.arguments, model.config.eos_token_id
    n = inputs["input_ids"].shape[1]
    # Behind the end token there is padding, until the longest page of the batch has ended.
    rows = [ids[: ids.index(end) + 1] if end in ids else ids for ids in generated[:, n:].tolist()]
    per_token = (time.perf_counter() - request.start) / sum(map(len, rows))
    scores = [
        Scores.of(tokenizer, ids, end, values[: len(ids)])
        for ids, values in zip(rows, logprobs.tolist(), strict=True)
    ]
    return [
        Reading(
            text=scores[i].text,
            raw=tokenizer.decode(ids, skip_special_tokens=False),
            ids=ids,
            prompt_tokens=int(inputs["attention_mask"][i].sum()),
            image_tokens=int(inputs["images_seq_mask"][i].sum()),
            grid=_grid(inputs["images_spatial_crop"][i]),
            truncated=ids[-1] != end,
            seconds=per_token * len(ids),
            logprobs=scores[i].logprobs,
            spans=scores[i].spans,
        )
        for i, ids in enumerate(rows)
    ]


def _grid(crop) -> tuple[int, int]:
    """The grid of a page, from its entry in images_spatial_crop; several pages have no tiles."""
    w, h = crop if isinstance(crop[0], int) else (1, 1) if isinstance(crop, list) else crop.tolist()
    return w, h


def table_cells(tokenizer) -> list[int]:
    """Ids of <td> and </td>, which may repeat: the original's whitelist (128821, 128822 in its tokenizer)."""
    ids = tokenizer.convert_tokens_to_ids(["<td>", "</td>"])
    return [i for i in ids if isinstance(i, int)]
