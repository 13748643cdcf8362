"""HTTP to a serving engine: limits on time and size, back-off, the key. No request is sent anywhere else.

    what happens                              what the client does
    no connection, 429, 502, 503, 504         waits, longer each time or as asked for; all requests wait.
                                              Gives up (Unusable) after `patience` without any answer
    500 and the like, a cut connection        tries again, ATTEMPTS times in all; then ServerFailed
    401, 403, 404, a redirect                 Unusable: every page would fail
    400, 413, 422                             Refused: this request would fail again
    no end of an answer within `deadline`     TooSlow
    an answer that is not usable JSON         BadAnswer, see answers.py

Proxies and netrc of the environment are not used: pages and key go to the base URL only.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from model.untrusted import shown

from .answers import MOST_BYTES, BadAnswer, joined, parsed
from .deadline import Deadline, limited
from .failures import Again, NotThere, Refused, ServerFailed, TooSlow, Unusable, retry_after, wait_of

if TYPE_CHECKING:
    import httpx

CONNECT = 10.0  # seconds
WRITE = 120.0
QUESTION = 30.0  # for an answer about the server itself
ATTEMPTS = 3
BUSY = (429, 502, 503, 504)
ERROR_BYTES = 1 << 16  # of an error's body
MOST_LINE = 4 << 20  # bytes of a line of a stream
TEXT = 300  # characters of a server's text in a message


@dataclass
class Answer:
    """arrivals: time (perf_counter) of each piece of text of a stream. waits: what was tried before."""

    json: dict[str, Any]
    start: float
    end: float
    arrivals: list[float] = field(default_factory=list)
    waits: list[dict[str, Any]] = field(default_factory=list)


class Client:
    """Sends requests to one server; threads may share it.

    Args:
        base_url: see options.checked_url.
        key: for the header Authorization; "" sends none. It is removed from every text of the server.
        deadline: seconds for one answer; None: no limit.
        patience: seconds without any answer until the server is given up.
        say: gets one line when waiting begins.
    """

    def __init__(
        self,
        base_url: str,
        key: str = "",
        *,
        concurrency: int = 8,
        deadline: float | None = None,
        patience: float = 600.0,
        say: Callable[[str], object] = lambda _: None,
    ):
        self.base_url, self.key = base_url, key
        self.deadline, self.patience, self.say = deadline, patience, say
        self.httpx = import_httpx()
        headers = {"Accept-Encoding": "identity", "User-Agent": "deskocr"}
        if key:
            if not key.isascii() or not key.isprintable():
                raise ValueError("the key of the server has characters that a header cannot have")
            headers["Authorization"] = f"Bearer {key}"
        self.limit = Deadline()
        secure = base_url.startswith("https:")
        transport = self.httpx.HTTPTransport(
            verify=ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE")) if secure else True,
            limits=self.httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            trust_env=False,
        )
        self.http = self.httpx.Client(
            headers=headers,
            transport=limited(transport, self.limit),
            follow_redirects=False,
            trust_env=False,
        )
        self.lock = threading.Lock()
        self.not_before = 0.0  # all requests wait until then (monotonic)
        self.alive = time.monotonic()  # the last answer
        self.stopped = threading.Event()

    def close(self) -> None:
        """End all waiting, also that of other threads."""
        self.stopped.set()
        self.http.close()

    def ask(
        self,
        body: dict[str, Any],
        on_text: Callable[[str], object] | None = None,
        waits: list[dict[str, Any]] | None = None,
    ) -> Answer:
        """POST /chat/completions.

        on_text: gets the pieces of a stream (`body["stream"]`). waits: gets an entry for each request that
        had no answer, also if an error is raised.

        Raises Unusable, Refused, ServerFailed, TooSlow, BadAnswer.
        """
        content = json.dumps(body).encode()
        waits = [] if waits is None else waits

        def send(limit: float | None) -> Answer:
            start = time.perf_counter()
            arrivals: list[float] = []
            with self._open("POST", f"{self.base_url}/chat/completions", limit, content) as response:
                if body.get("stream") and "event-stream" in response.headers.get("content-type", ""):
                    events = self._events(response, limit, arrivals, on_text)
                    answer = joined(events)
                else:
                    answer = parsed(self._read(response, MOST_BYTES, limit))
            return Answer(answer, start, time.perf_counter(), arrivals, waits)

        return self._persist(send, waits, self.deadline)

    def get(self, url: str, patient: bool = False) -> dict[str, Any] | None:
        """The JSON object at a URL of the server; None if there is none. patient: wait for a busy server."""

        def send(limit: float | None) -> dict[str, Any] | None:
            try:
                with self._open("GET", url, limit) as response:
                    return parsed(self._read(response, MOST_BYTES, limit))
            except (BadAnswer, NotThere):
                return None

        return self._persist(send, [], QUESTION) if patient else self._once(send)

    def post(self, url: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """The JSON object that answers a POST to a URL of the server; None if there is none."""

        def send(limit: float | None) -> dict[str, Any] | None:
            with self._open("POST", url, limit, json.dumps(body).encode()) as response:
                return parsed(self._read(response, MOST_BYTES, limit))

        return self._once(send)

    def _once(self, send: Callable[[float | None], Any]) -> Any:
        try:
            return send(time.monotonic() + QUESTION)
        except (Again, NotThere, Unusable, BadAnswer, TooSlow):
            return None

    def _persist(
        self,
        send: Callable[[float | None], Any],
        waits: list[dict[str, Any]],
        deadline: float | None,
    ) -> Any:
        """Call `send` until it answers. waits: gets one entry per failure."""
        failures, busy, begin = 0, 0, time.monotonic()
        while True:
            self._wait_for_turn()
            start = time.monotonic()
            try:
                found = send(None if deadline is None else start + deadline)
                self.alive = time.monotonic()
                return found
            except NotThere as error:
                raise Unusable(str(error)) from None
            except Again as error:
                text = str(error)
                waits.append({"error": text, "seconds": round(time.monotonic() - start, 3)})
                if error.busy:
                    busy += 1
                    silent = time.monotonic() - max(self.alive, begin)
                    if silent > self.patience:
                        raise Unusable(f"{text}; gave up after {silent:.0f} s") from None
                    if busy == 1:
                        self.say(f"waiting for {self.base_url}: {text}")
                    self._hold(wait_of(busy, error.wait))
                else:
                    failures += 1
                    if failures >= ATTEMPTS:
                        raise ServerFailed(f"{text}, {failures} times") from None
                    self._sleep(wait_of(failures, error.wait))

    @contextlib.contextmanager
    def _open(
        self, method: str, url: str, limit: float | None, content: bytes | None = None
    ) -> Iterator[httpx.Response]:
        """A response with status 200. limit: time (monotonic) of its end."""
        left = None if limit is None else max(0.05, limit - time.monotonic())
        timeout = self.httpx.Timeout(connect=CONNECT, read=left, write=WRITE, pool=None)
        headers = {"Content-Type": "application/json"} if content is not None else None
        self.limit.set(limit)
        try:
            with self.http.stream(method, url, content=content, headers=headers, timeout=timeout) as response:
                self._check(response, limit)
                yield response
        except (self.httpx.ConnectError, self.httpx.ConnectTimeout) as error:
            raise Again(f"no connection ({self._clean(str(error))})", busy=True) from None
        except (self.httpx.ReadTimeout, self.httpx.WriteTimeout):
            raise TooSlow(self._too_slow()) from None
        except self.httpx.HTTPError as error:  # cut off, or not HTTP
            if self.stopped.is_set():
                raise Unusable("the run has ended") from None
            raise Again(f"the connection broke ({self._clean(str(error))})", busy=False) from None
        except RuntimeError:
            if self.stopped.is_set():  # the client was closed by another thread
                raise Unusable("the run has ended") from None
            raise

    def _check(self, response: httpx.Response, limit: float | None) -> None:
        """Raise what a status other than 200 means."""
        status = response.status_code
        if status == 200:
            if response.headers.get("content-encoding", "identity") != "identity":
                raise BadAnswer("the answer is compressed, which was not asked for")
            return
        if 300 <= status < 400:
            raise Unusable(
                f"{self.base_url} redirects elsewhere (status {status}); give the address it moved to"
            )
        text = self._excerpt(response, limit)
        if status in (401, 403):
            raise Unusable(f"{self.base_url} refuses the key (status {status}): {text}")
        if status in (404, 405):
            raise NotThere(f"{self.base_url}: not there (status {status}): {text}")
        if status in BUSY:
            asked = retry_after(response.headers.get("retry-after", ""))
            raise Again(f"status {status}: {text}", busy=True, wait=asked)
        if status >= 500:
            raise Again(f"status {status}: {text}", busy=False)
        raise Refused(f"the server refuses the request (status {status}): {text}")

    def _excerpt(self, response: httpx.Response, limit: float | None) -> str:
        """The beginning of an error's body, for a message."""
        try:
            body = self._read(response, ERROR_BYTES, limit, cut=True)
        except (BadAnswer, TooSlow, self.httpx.HTTPError):
            return ""
        return self._clean(" ".join(body.decode("utf-8", "replace").split()))

    def _clean(self, text: str) -> str:
        if self.key:
            text = text.replace(self.key, "***")
        return shown(text, TEXT)

    def _read(self, response: httpx.Response, most: int, limit: float | None, cut: bool = False) -> bytes:
        """The body. Beyond `most` bytes: BadAnswer, or with `cut` its beginning. After `limit`: TooSlow."""
        body = bytearray()
        for piece in response.iter_raw():
            body += piece
            self._check_time(limit)
            if len(body) > most:
                if cut:
                    break
                raise BadAnswer(f"the answer has more than {most:,} bytes")
        return bytes(body[:most])

    def _events(
        self,
        response: httpx.Response,
        limit: float | None,
        arrivals: list[float],
        on_text: Callable[[str], object] | None,
    ) -> Iterator[dict[str, Any]]:
        """The chunks of a stream of server-sent events. Raises Again if it ends without its last one."""
        held, total, finished = b"", 0, False
        for piece in response.iter_raw():
            total += len(piece)
            self._check_time(limit)
            *lines, held = (held + piece).split(b"\n")
            if total > MOST_BYTES or len(held) > MOST_LINE:
                raise BadAnswer(f"the answer has more than {MOST_BYTES:,} bytes")
            for line in lines:
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                event = parsed(data, "a chunk of the answer")
                text, reason = chunk_of(event)
                if text:
                    arrivals.append(time.perf_counter())
                    if on_text is not None:
                        on_text(text)
                finished = finished or bool(reason) or event.get("error") is not None
                yield event
        if not finished:  # transformers sends no [DONE]
            raise Again("the stream was cut off", busy=False)

    def _check_time(self, limit: float | None) -> None:
        if limit is not None and time.monotonic() > limit:
            raise TooSlow(self._too_slow())
        if self.stopped.is_set():
            raise Unusable("the run has ended")

    def _too_slow(self) -> str:
        allowed = f" within {self.deadline:g} s; --deadline allows more" if self.deadline else " in time"
        return f"no end of the answer{allowed}"

    def _hold(self, seconds: float) -> None:
        """Let all requests wait: the server is busy, or not there."""
        with self.lock:
            self.not_before = max(self.not_before, time.monotonic() + seconds)

    def _wait_for_turn(self) -> None:
        while (left := self.not_before - time.monotonic()) > 0:
            self._sleep(left + random.uniform(0, min(0.5, left)))  # not all at the same moment
        if self.stopped.is_set():
            raise Unusable("the run has ended")

    def _sleep(self, seconds: float) -> None:
        if self.stopped.wait(seconds):
            raise Unusable("the run has ended")


def import_httpx() -> Any:
    """The package. Raises Unusable with the command that installs it."""
    try:
        import httpx
    except ImportError as error:
        raise Unusable(f"--engine openai needs httpx ({error}); pip install httpx") from None
    return httpx


def chunk_of(event: dict[str, Any]) -> tuple[str, Any]:
    """(text, finish_reason) of a chunk of a stream."""
    choices = event.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    delta = choice.get("delta")
    text = delta.get("content") if isinstance(delta, dict) else None
    return text if isinstance(text, str) else "", choice.get("finish_reason")
