"""The options of `--engine`. No torch and no httpx here: the help of a command works without them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from ..options import BY_THE_READER, Options, ReadingOptions, option

#: {name of --engine: what reads the pages}. batch/engines.py makes the devices of each.
ENGINES = {
    "kit": "the kit's own network",
    "openai": "a server with the API of OpenAI: vLLM, SGLang, transformers",
    "ray": "the kit's own network on the devices of a Ray cluster",
}
SERVERS = ("vllm", "sglang", "transformers")
KEY_VARIABLE = "DESKOCR_ENGINE_KEY"


@dataclass(frozen=True)
class EngineOptions(Options):
    """What reads the pages. Raises ValueError for options that do not belong together."""

    engine: str = option(
        "kit",
        "; ".join(f"{name}: {what}" for name, what in ENGINES.items()) + ".",
        choices=ENGINES,
        key=BY_THE_READER,
    )
    base_url: str | None = option(
        None, "URL of the server for --engine openai, such as http://localhost:8000/v1.", unset="none", key=BY_THE_READER
    )
    server: str | None = option(
        None,
        f"{', '.join(SERVERS)}: selects the extra fields of a request.",
        choices=SERVERS,
        unset="the server is asked",
        key=BY_THE_READER,
    )
    served: str | None = option(
        None, "Name of the model at the server.", unset="the only one it serves", key=BY_THE_READER
    )
    concurrency: int = option(8, "Requests to the server at a time.", minimum=1, key=BY_THE_READER)
    key_variable: str = option(
        KEY_VARIABLE, "Environment variable that contains the key of the server.", key=BY_THE_READER
    )
    unchecked: bool = option(
        False, "Continue even if the test picture, which is read first, gives a wrong text.", key=BY_THE_READER
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine != "openai":
            given = [name for name in ("base_url", "server", "served") if getattr(self, name) is not None]
            if given:
                name = "--" + given[0].replace("_", "-")
                raise ValueError(f"{name} belongs to --engine openai; the engine is {self.engine}")
        elif not self.base_url:
            raise ValueError("--engine openai needs --base-url, such as http://localhost:8000/v1")
        else:
            object.__setattr__(self, "base_url", checked_url(self.base_url))


@dataclass(frozen=True)
class ServedOptions(EngineOptions, ReadingOptions):
    """All options of commands that read pages with any engine."""


def checked_url(text: str) -> str:
    """The base URL without a slash at its end, with /v1 if it has no path.

    Raises ValueError for anything else than http or https, and for a URL with a user, a query or a fragment:
    a password in it would end up in records.
    """
    try:
        parts = urlsplit(text.strip())
        port = parts.port
    except ValueError as error:
        raise ValueError(f"--base-url is not a URL ({error}); expected http://HOST:PORT/v1") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f"--base-url {shown(text)}: expected http://HOST:PORT/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("--base-url has a user or a password; put the key into an environment variable")
    if parts.query or parts.fragment:
        raise ValueError("--base-url has a query or a fragment; expected http://HOST:PORT/v1")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


def shown(text: str) -> str:
    """A URL for a message: without what may be a user and a password."""
    return repr(text if "@" not in text else "…@" + text.rpartition("@")[2])
