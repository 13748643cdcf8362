"""EngineReader: reads pages through a server, as Reader does with the kit's own network."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from model.inference import Reading

from ..options import LoadOptions
from ..page_look import look
from ..reader import Reader
from .answers import BadAnswer, by_page, reading_of
from .client import Answer, Client
from .options import EngineOptions, ServedOptions
from .probe import probe
from .requests import GUARDS, How, Served, has_tiles, picture, request

if TYPE_CHECKING:
    from model.observer import Observer

WARMER = 0.2  # temperature of a second attempt
DEADLINE = 1800.0  # seconds for a page where no option says otherwise, as in `deskocr batch`
PATIENCE, LONG_PATIENCE = 60.0, 600.0  # seconds without an answer, for a few pages and for a run
OWN = ("device", "dtype", "plan", "weights", "graph")  # options of the kit's own network


@dataclass
class EngineReader(Reader):
    """Reads pages with a server. `folder.name` is the name of its model; there is no tokenizer."""

    client: Client = field(default=None)  # type: ignore[assignment]
    served: Served = field(default=None)  # type: ignore[assignment]

    @classmethod
    def connect(cls, client: Client, options: ServedOptions) -> EngineReader:
        """Ask the server what it is, and read a test picture. Raises Unusable with the reason."""
        start = time.perf_counter()
        served = probe(client, options.only(EngineOptions), options.model)
        for line in served.warnings:
            client.say(f"warning: {line}")
        return cls.of(client, served, time.perf_counter() - start)

    @classmethod
    def of(cls, client: Client, served: Served, seconds: float = 0.0) -> EngineReader:
        """A reader for a server that is known."""
        size, window = GUARDS[served.checkpoint.name] if served.guard else (0, None)
        settings = {
            "mode": served.checkpoint.mode,
            "max_new_tokens": served.checkpoint.max_new_tokens,
            "no_repeat_ngram_size": size,
            "ngram_window": window,
        }
        model: Any = SimpleNamespace(
            device=Place(served.server), dtype="unknown", config=SimpleNamespace(checkpoint=served.checkpoint)
        )
        folder = Path(served.model or served.checkpoint.name)
        return cls(model, None, folder, settings, seconds, client=client, served=served)

    @property
    def title(self) -> str:
        """The server and its version."""
        return f"{self.served.server} {self.served.version}".strip()

    @property
    def where(self) -> str:
        return f"{self.title} at {self.client.base_url}"

    @property
    def facts(self) -> dict[str, Any]:
        """What is known about the server, without its address, which may be private."""
        return {
            "server": self.served.server,
            "version": self.served.version or None,
            "model": self.name,
            "template": self.served.template or None,
            "ngram_guard": self.served.guard,
        }

    def origin(self, reading: Reading) -> dict[str, Any]:
        served = self.served
        why = {} if reading.logprobs else {"no_confidence": served.why_not or "its tokens are not its text"}
        return {
            "device": "engine",
            "dtype": None,
            "weights": None,
            "engine": self.facts,
            **why,
        }

    def identity(self) -> dict[str, Any]:
        """What the text of a page depends on beside the options; its version may change during a long run."""
        return {"model": self.name, "engine": "openai", "server": self.served.server}

    def _one(
        self,
        image,
        prompt: str,
        mode: str,
        how: dict[str, Any],
        on_text: Callable[[str], object] | None = None,
        observer: Observer | None = None,
    ) -> Reading:
        """`observer` is not called: its phases are those of a network."""
        images = image if isinstance(image, list) else [image]
        if len(images) > 1:
            official = self.served.checkpoint
            assert official.pages_mode is not None  # checked by read_together
            mode = official.pages_mode
            if how["ngram_window"] is not None:  # pages repeat headings that one page does not
                how = {**how, "ngram_window": official.pages_ngram_window}
        return self.ask(images, prompt, mode, how, on_text)[0]

    def _each(self, images, prompt: str, mode: str, how: dict[str, Any]) -> list[Reading]:
        """One after the other: the server forms batches from the requests of threads."""
        return [self._one(image, prompt, mode, how) for image in images]

    def _check_room(self, count: int) -> None:
        """The server knows how many positions it has."""

    def _split(self, whole: Reading, count: int) -> list[Reading]:
        return by_page(whole, count)

    def inputs(self, image, *args, **how) -> dict[str, Any]:
        raise ValueError("a serving engine has no tensors here; use --engine kit")

    def ask(
        self,
        images: list,
        prompt: str,
        mode: str,
        how: dict[str, Any],
        on_text: Callable[[str], object] | None = None,
        waits: list[dict[str, Any]] | None = None,
    ) -> tuple[Reading, Answer]:
        """One request. how: max_new_tokens, no_repeat_ngram_size, ngram_window, temperature.

        waits: see Client.ask.

        Raises BadAnswer also for an empty text of a page that is not blank.
        """
        start = time.perf_counter()
        cut = [picture(image, mode, self.served.checkpoint) for image in images]
        asked = How(
            how["max_new_tokens"],
            how["no_repeat_ngram_size"],
            how["ngram_window"],
            how.get("temperature", 0.0),
            stream=on_text is not None,
        )
        body = request([png for png, _ in cut], prompt, self.served, asked)
        answer = self.client.ask(body, on_text, waits)
        reading = reading_of(answer.json, self.served, time.perf_counter() - start)
        if not reading.text and not all(look(image).blank for image in images):
            raise BadAnswer("the answer is empty, and the page is not")
        return reading, answer

    def otherwise(self, tiles: bool = True) -> list[dict[str, Any]]:
        """Other settings for a page whose text loops, is cut off or cannot be used, in order.

        The first one is warmer and has a stronger guard, where there is one; the second one has no tiles.
        """
        size = self.settings["no_repeat_ngram_size"]
        first: dict[str, Any] = {"temperature": WARMER}
        if size:
            first |= {"no_repeat_ngram_size": max(4, size // 2), "ngram_window": None}
        return [first, {**first, "mode": "base"}] if tiles else [first]

    def has_tiles(self, image, mode: str | None) -> bool:
        """Whether the server cuts tiles of a page in this mode."""
        return has_tiles(image.size, self.served.checkpoint) and (mode or self.settings["mode"]) == "gundam"


@dataclass(frozen=True)
class Place:
    """Stands for a torch.device."""

    name: str
    type: str = "engine"

    def __str__(self) -> str:
        return self.name


class Connection:
    """A client, and an EngineReader that is made once, when the first of several threads needs it."""

    def __init__(self, client: Client, options: ServedOptions):
        self.client, self.options = client, options
        self.lock = threading.Lock()
        self.reader: EngineReader | None = None
        self.error: Exception | None = None

    def open(self) -> EngineReader:
        """Raises what the first attempt raised, to every thread: Unusable."""
        with self.lock:
            if self.error is not None:
                raise self.error
            if self.reader is None:
                try:
                    self.reader = EngineReader.connect(self.client, self.options)
                except Exception as error:
                    self.error = error
                    raise
            return self.reader


def open_reader(options: ServedOptions, say: Callable[[str], object]) -> Reader:
    """The Reader of --engine, for a few pages. Raises ValueError, and what `Reader.load` raises."""
    if options.engine == "kit":
        return Reader.load(options)
    if options.engine != "openai":
        raise ValueError(f"--engine {options.engine} reads with `deskocr batch`")
    return EngineReader.connect(client_for(options, DEADLINE, say, PATIENCE), options)


def client_for(
    options: ServedOptions,
    deadline: float | None = None,
    say: Callable[[str], object] = lambda _: None,
    patience: float = LONG_PATIENCE,
) -> Client:
    """The client of the options; no connection yet. say: gets warnings, one line each.

    Raises ValueError for options of the kit's own network, Unusable without httpx.
    """
    check_options(options)
    assert options.base_url is not None  # checked by the options
    key = os.environ.get(options.key_variable, "")
    if key and options.base_url.startswith("http:") and not is_local(options.base_url):
        say("warning: the key of the server is sent without encryption; use https")
    return Client(
        options.base_url,
        key,
        concurrency=options.concurrency,
        deadline=deadline,
        patience=patience,
        say=say,
    )


def check_options(options: ServedOptions) -> None:
    """Raise ValueError for an option that only the kit's own network has."""
    unset = LoadOptions()
    for name in OWN:
        if getattr(options, name) != getattr(unset, name):
            raise ValueError(f"--{name} belongs to the kit's own network, not to --engine {options.engine}")


def is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or bool(re.fullmatch(r"127(\.\d{1,3}){3}", host))
