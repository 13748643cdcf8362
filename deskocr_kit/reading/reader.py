"""A loaded checkpoint that reads pages: model, tokenizer, device and settings in one place."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from model import DeepseekOCRForCausalLM
from model.inference import Request, defaults, make_readings, make_request, read_page, read_pages
from model.loading import read_config
from model.modes import get_mode
from model.official import CHECKPOINTS
from model.processing import build_inputs, resolve_prompt
from model.several_pages import by_page
from model.tiling import count_image_tokens
from model.tokenizer import load_tokenizer

from ..device import graphs, pick_device, synchronize
from ..device.dtypes import dtype_name, find_dtype
from .checkpoints import find_checkpoint
from .doubt import doubts, limits_of
from .fingerprint import weights_digest
from .options import WEIGHTS, LoadOptions, PageOptions
from .pages import iter_pages

if TYPE_CHECKING:
    from model import DeepseekOCRForCausalLM
    from model.inference import Reading
    from model.observer import Observer

    from .pages import Page


@dataclass
class Reader:
    """Read pages with `read` (one image) or `read_file` (every page of a file)."""

    model: DeepseekOCRForCausalLM
    tokenizer: object
    folder: Path
    settings: dict  # mode, max_new_tokens, no_repeat_ngram_size, ngram_window
    load_seconds: float
    options: LoadOptions = field(default_factory=LoadOptions)  # what it was loaded with
    limits: dict = field(default_factory=dict)  # confidence.json of the checkpoint, see doubt.py
    record: Callable | None = None  # of `generate`: the decode step as a graph, see device.graphs

    @classmethod
    def load(
        cls,
        name: str | Path | LoadOptions | None = None,
        device="auto",
        dtype: str = "auto",
        plan: str | Path | None = None,
        weights: str = "plain",
        *,
        graph: bool = False,
        from_pretrained: Callable[..., DeepseekOCRForCausalLM] = DeepseekOCRForCausalLM.from_pretrained,
    ) -> Reader:
        """Load a checkpoint (see checkpoints.find_checkpoint) onto a device.

        name: the checkpoint, or options, which then replace the arguments after it.
        device: a name (see device.pick_device), or a torch.device, which also
        replaces the device of options. plan: as in from_pretrained. weights: one of WEIGHTS; int8 and int4
        are quantised on the device, see quantise. graph: replay the decode step as a graph of the device, see
        device.graphs; it is recorded once per page, and tried once here. from_pretrained: what loads the
        weights, called as DeepseekOCRForCausalLM.from_pretrained; model.parallel has others.

        Raises CheckpointError for weights or a tokenizer that cannot be used, ValueError for unknown names,
        GraphError where there is no graph.
        """
        start = time.perf_counter()
        if isinstance(name, LoadOptions):
            options = name.only(LoadOptions)
        else:
            checkpoint = None if name is None else str(name)
            options = LoadOptions(checkpoint, str(device), dtype, plan, weights, graph)  # type: ignore[arg-type]  # a Path
        folder = find_checkpoint(options.model)
        where = pick_device(options.device) if isinstance(device, str) else device
        dtype_there = find_dtype(options.dtype, where)
        record = graphs(where) if options.graph else None
        # The small files first: a fault there is found before the weights are read, which may take minutes.
        tokenizer = load_tokenizer(folder, read_config(folder))
        settings, limits = defaults(folder), limits_of(folder)
        model = from_pretrained(folder, dtype_there, where, options.plan)
        if bits := WEIGHTS[options.weights]:
            from ..quantise.apply import quantise  # a package above this one, imported only if needed

            quantise(model, bits)
        synchronize(where)
        seconds = time.perf_counter() - start
        reader = cls(model, tokenizer, folder, settings, seconds, options, limits, record)
        reader.try_graph()
        return reader

    def try_graph(self, batch: int = 1) -> None:
        """Record the decode step of `batch` pages and replay it once, so that a failure precedes the pages.

        Does nothing without a graph. Raises GraphError if the step cannot be recorded.
        """
        if self.record is not None:
            prompt = torch.full((batch, 2), self.model.config.bos_token_id)
            self.model.generate(prompt, max_new_tokens=3, eos_token_id=None, record=self.record)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def where(self) -> str:
        """The device, the dtype and the weights, for a message."""
        kind = self.options.weights
        rounded = "" if kind == "plain" else f", {kind} weights"
        graph = ", decoding by a graph" if self.record is not None else ""
        return f"{self.model.device}, {dtype_name(self.model.dtype)}{rounded}{graph}"

    def origin(self, reading: Reading) -> dict[str, Any]:
        """What the record of a page says about where `reading` comes from."""
        return {
            "device": str(self.model.device),
            "dtype": dtype_name(self.model.dtype),
            "weights": self.options.weights,
        }

    def identity(self) -> dict[str, Any]:
        """What the text of a page depends on, beside the options and `settings`."""
        return {
            "model": self.name,
            "weights": weights_digest(self.folder),
            "device": self.model.device.type,
            "dtype": dtype_name(self.model.dtype),
        }

    def read(
        self,
        image,
        prompt: str = "free",
        mode: str | None = None,
        target: str | None = None,
        max_new_tokens: int | None = None,
        on_text: Callable[[str], object] | None = None,
        observer: Observer | None = None,
        *,
        options: PageOptions | None = None,
    ) -> Reading:
        """Read one image. prompt: a name in PROMPTS or free text; mode: a name in MODES, or the checkpoint's
        own. options: replace prompt, mode, target and max_new_tokens.
        """
        mode, text, how = self._how(prompt, mode, target, max_new_tokens, options)
        return self._one(image, text, mode, how, on_text, observer)

    def read_batch(
        self,
        images,
        prompt: str = "free",
        mode: str | None = None,
        target: str | None = None,
        max_new_tokens: int | None = None,
        *,
        options: PageOptions | None = None,
    ) -> list[Reading]:
        """Read several images, decoded together; the arguments are those of `read`."""
        mode, text, how = self._how(prompt, mode, target, max_new_tokens, options)
        return self._each(images, text, mode, how)

    def read_many(self, images: Iterable, *, options: PageOptions) -> Iterator[Reading | Exception]:
        """A Reading or the error of every image, in their order.

        For a model that has several pages under way (model.parallel.pipeline). An image is taken when the
        model has room for it.
        """
        mode, text, how = self._how("", None, None, None, options)
        requests: dict[int, Request] = {}
        ready: dict[int, Reading | Exception] = {}
        following = 0

        def job(index: int, image) -> dict:
            requests[index] = make_request(self.model, self.tokenizer, [image], text, mode, **how)
            return requests[index].arguments

        jobs = (functools.partial(job, index, image) for index, image in enumerate(images))
        for index, made in self.model.generate_many(jobs):  # type: ignore[operator]
            request = requests.pop(index, None)
            if request is None or isinstance(made, Exception):
                ready[index] = made
            else:
                (ready[index],) = make_readings(self.model, self.tokenizer, request, *made)
            while following in ready:
                yield ready.pop(following)
                following += 1

    def read_together(
        self,
        images,
        prompt: str = "pages",
        mode: str | None = None,
        target: str | None = None,
        max_new_tokens: int | None = None,
        on_text: Callable[[str], object] | None = None,
        *,
        options: PageOptions | None = None,
    ) -> list[Reading]:
        """Read several images as one document, in one prompt: one Reading per image.

        The arguments are those of `read`. With the default prompt of the options, the model's prompt for
        several pages is used. Raises ValueError if the model reads one page per prompt.
        """
        official = self.model.config.checkpoint
        images = list(images)
        if official.pages_mode is None and len(images) > 1:
            able = ", ".join(each.title for each in CHECKPOINTS.values() if each.pages_mode)
            raise ValueError(f"{official.title} reads one page per prompt; {able} reads several together")
        self._check_room(len(images))
        mode, text, how = self._how(prompt, mode, target, max_new_tokens, options)
        if len(images) == 1:
            return [self._one(images[0], text, mode, how, on_text)]
        if options is not None and options.prompt == PageOptions().prompt:
            text = official.prompts["pages"]
        return self._split(self._one(images, text, mode, how, on_text), len(images))

    def doubts(
        self,
        image,
        reading: Reading,
        prompt: str = "free",
        mode: str | None = None,
        *,
        options: PageOptions | None = None,
    ) -> list[str]:
        """Warnings about a reading of `image`, one line each, with what to do; see doubt.py.

        prompt, mode: those of the reading. options: replace both.
        """
        if options is not None:
            prompt, mode = options.prompt, options.mode
        cut = get_mode(mode or self.settings["mode"], self.model.config.checkpoint)
        return doubts(image, reading, self.limits, cut, prompt, self.name)

    def inputs(
        self,
        image,
        prompt: str = "free",
        mode: str | None = None,
        target: str | None = None,
        *,
        options: PageOptions | None = None,
    ) -> dict[str, Any]:
        """The arguments of `model.forward` and `model.generate` for one image, called as `read`."""
        mode, text, _ = self._how(prompt, mode, target, None, options)
        config = self.model.config
        return build_inputs(
            self.tokenizer,
            text,
            image,
            mode,
            checkpoint=config.checkpoint,
            image_token_id=config.image_token_id,
            bos_token_id=config.bos_token_id,
        )

    # What reads, behind the methods above: engines/reader.py replaces these four.
    def _one(
        self,
        image,
        prompt: str,
        mode: str,
        how: dict[str, Any],
        on_text: Callable[[str], object] | None = None,
        observer: Observer | None = None,
    ) -> Reading:
        """One prompt. image: one, or a list of several; how: see `_how`."""
        return read_page(
            self.model, self.tokenizer, image, prompt, mode,
            on_text=on_text, observer=observer, record=self.record, **how,
        )  # fmt: skip

    def _each(self, images, prompt: str, mode: str, how: dict[str, Any]) -> list[Reading]:
        """A prompt per image."""
        return read_pages(self.model, self.tokenizer, images, prompt, mode, record=self.record, **how)

    def _check_room(self, count: int) -> None:
        """Raise ValueError if `count` images are too long for one prompt."""
        official = self.model.config.checkpoint
        taken = count * count_image_tokens(official.pages_mode or official.mode)
        limit = self.model.config.decoder.max_positions
        if taken >= limit:
            raise ValueError(
                f"{count} pages take {taken} of {limit} positions of {official.title}; read fewer"
            )

    def _split(self, whole: Reading, count: int) -> list[Reading]:
        """The Reading of each image of one prompt."""
        return by_page(whole, self.tokenizer, count)

    def _how(
        self,
        prompt: str,
        mode: str | None,
        target: str | None,
        max_new_tokens: int | None,
        options: PageOptions | None,
    ):
        """(mode, prompt text, arguments of the decoding): the requested ones, else the checkpoint's."""
        if options is not None:
            prompt, mode, target = options.prompt, options.mode, options.target
            max_new_tokens = options.max_tokens
        settings = dict(self.settings)
        own = settings.pop("mode", None)
        if max_new_tokens is not None:
            settings["max_new_tokens"] = max_new_tokens
        return mode or own, resolve_prompt(prompt, target, self.model.config.checkpoint), settings

    def read_file(
        self, path: str | Path, password: str | None = None, **how
    ) -> Iterator[tuple[Page, Reading | None]]:
        """Every page of an image or PDF with its reading, or with None if `page.error` is set.

        password: of an encrypted PDF. The other arguments are those of `read`.
        """
        for page in iter_pages(path, collect_errors=True, password=password):
            yield page, None if page.error is not None else self.read(page.image, **how)
