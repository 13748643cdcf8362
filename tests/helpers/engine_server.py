"""A serving engine on 127.0.0.1, with the standard library's HTTP server: it misbehaves on order.

    with EngineServer("vllm") as server: ...   # server.url
    server.orders += ["429", "cut"]            # for the next requests of pages, one each
    server.pages[7] = "500"                    # for every request of page 7 of tests/helpers/stub_reader.py
    server.pages[8] = ["429", "cut"]           # for the first requests of page 8
    server.requests                            # the bodies that arrived

It reads the test picture of the probe and the coloured pages of the stub reader, or anything with `read`.
Its n-gram guard works on words. As the real ones, it puts <image> in front, needs the fields of its kind,
leaves special tokens out unless told otherwise, and refuses what it does not know.
"""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image, ImageChops

from deskocr_kit.reading.engines.probe import TEXT, known
from tests.helpers.stub_reader import CUT_OFF, LOOPS, RAISES, colour

TAGS = re.compile(r"<\|?/?(?:ref|det|td|tr|table)\|?>")
COMMON = {"model", "messages", "max_tokens", "temperature", "stream"}
OWN = {
    "vllm": {"skip_special_tokens", "vllm_xargs", "logprobs", "top_logprobs", "stream_options"},
    "sglang": {
        "skip_special_tokens", "custom_logit_processor", "custom_params",
        "logprobs", "top_logprobs", "stream_options",
    },
    "transformers": set(),
}  # fmt: skip


def words(text: str) -> list[str]:
    return re.findall(r"\S+\s?|\s", text)


def guarded(tokens: list[str], size: int, window: int) -> list[str]:
    """The tokens, with ~ for each that would repeat an n-gram."""
    out: list[str] = []
    for token in tokens:
        near = out[-window:]
        grams = {tuple(near[i : i + size]) for i in range(len(near) - size + 1)}
        out.append("~ " if (*out[-(size - 1) :], token) in grams else token)
    return out


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, *_) -> None:
        """A client that goes away, and an order to die, are no news."""


class EngineServer:
    """guard: whether it was started with its flag. raw: log-probabilities from before the guard."""

    def __init__(
        self,
        kind: str = "vllm",
        *,
        guard: bool = True,
        raw: bool = True,
        whitelist: bool = True,
        name: str = "deepseek-ai/DeepSeek-OCR",
        read: Callable[[Image.Image, dict], tuple[str, bool]] | None = None,
        key: str = "",
        tells: bool = True,
    ):
        self.kind, self.guard, self.raw, self.whitelist, self.name = kind, guard, raw, whitelist, name
        self.read, self.key, self.tells = read or self.stub, key, tells
        self.orders: list[str | None] = []
        self.pages: dict[int, str | list[str]] = {}
        self.requests: list[dict] = []
        self.seen_headers: list[dict] = []
        self.numbers: list[int | None] = []
        self.at_once = self.most_at_once = 0
        self.seconds = 0.0
        self.port = 0
        self.lock = threading.Lock()
        self.known = known()

    def __enter__(self) -> EngineServer:
        handler = type("Handler", (Handler,), {"engine": self})
        self.http = QuietServer(("127.0.0.1", self.port), handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.http.shutdown()
        self.http.server_close()

    def order_for(self, number: int | None) -> str | None:
        with self.lock:
            mine = None if number is None else self.pages.get(number)
            if mine is not None:
                return mine if isinstance(mine, str) else mine.pop(0) if mine else None
            return self.orders.pop(0) if self.orders and number is not None else None

    def stub(self, image: Image.Image, body: dict) -> tuple[str, bool]:
        """(text, whether it was cut off)."""
        if self.is_known(image):
            return TEXT, False
        kind, number = colour(image)
        again = body["temperature"] > 0
        if kind == LOOPS and not again:
            return "seven " * 60, False
        if kind == RAISES:
            return f"<|ref|>title<|/ref|><|det|>[[10, 20, 900, 400]]<|/det|>\npage {number}", False
        return f"page {number}", kind == CUT_OFF and not again

    def is_known(self, image: Image.Image) -> bool:
        return image.size == self.known.size and ImageChops.difference(image, self.known).getbbox() is None


class Handler(BaseHTTPRequestHandler):
    engine: EngineServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        engine, path = self.engine, self.path
        found: dict | None = None
        if path == "/v1/models":
            if engine.key and self.headers.get("Authorization") != f"Bearer {engine.key}":
                return self.give(401, {"error": f"wrong key {self.headers.get('Authorization')}"})
            found = {"object": "list", "data": [{"id": engine.name, "object": "model", "root": "/models/x"}]}
            if engine.kind == "transformers":
                found["data"] = [{"id": "somebody/llama"}, {"id": "somebody/qwen"}]
        elif not engine.tells:
            found = None
        elif path == "/version" and engine.kind == "vllm":
            found = {"version": "0.12.0"}
        elif path == "/get_server_info" and engine.kind == "sglang":
            found = {"version": "0.5.6"}
        elif path == "/openapi.json" and engine.kind == "transformers":
            found = {"paths": {"/load_model": {}, "/v1/chat/completions": {}}}
        self.give(200, found) if found is not None else self.give(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        engine = self.engine
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        engine.seen_headers.append(dict(self.headers))
        if self.path == "/tokenize" and engine.kind == "vllm":
            return self.give(200, {"token_strs": ["<｜begin▁of▁sentence｜>", "Free", " OCR", "."]})
        if self.path != "/v1/chat/completions":
            return self.give(404, {"detail": "Not Found"})
        with engine.lock:
            engine.at_once += 1
            engine.most_at_once = max(engine.most_at_once, engine.at_once)
        try:
            self.chat(body)
        finally:
            with engine.lock:
                engine.at_once -= 1

    def chat(self, body: dict) -> None:
        engine = self.engine
        engine.requests.append(body)
        if wrong := self.wrong(body):
            return self.give(422 if engine.kind == "transformers" else 400, {"detail": wrong})
        *pictures, _ = body["messages"][0]["content"]
        image = Image.open(io.BytesIO(base64.b64decode(pictures[0]["image_url"]["url"].partition(",")[2])))
        image = image.convert("RGB")
        number = None if engine.is_known(image) else colour(image)[1]
        engine.numbers.append(number)
        time.sleep(0 if number is None else engine.seconds)
        order = engine.order_for(number)
        if order is not None and getattr(self, "order_" + order)(body):
            return
        written, cut = engine.read(image, body)
        self.answer(body, written, cut)

    def answer(self, body: dict, written: str, cut: bool) -> None:
        tokens = words(written)
        fields = self.guard_fields(body)
        wanted = list(tokens)
        if self.engine.guard and fields.get("ngram_size"):
            tokens = guarded(tokens, fields["ngram_size"], fields["window_size"])
        written = "".join(tokens)
        if body.get("skip_special_tokens", True):
            written = TAGS.sub("", written)
        choice: dict = {
            "index": 0,
            "message": {"role": "assistant", "content": written},
            "finish_reason": "length" if cut else "stop",
        }
        if body.get("logprobs"):
            choice["logprobs"] = {"content": self.logprobs(body, tokens, wanted)}
        usage = {"prompt_tokens": 280, "completion_tokens": len(tokens) + 1}
        if body.get("stream"):
            return self.stream(choice, usage, tokens)
        self.give(200, {"object": "chat.completion", "choices": [choice], "usage": usage})

    def logprobs(self, body: dict, tokens: list[str], wanted: list[str]) -> list[dict]:
        made = []
        for token, want in zip([*tokens, "<｜end▁of▁sentence｜>"], [*wanted, ""], strict=True):
            forced = token == "~ " and self.engine.raw
            entry: dict = {
                "token": token,
                "logprob": -6.0 if forced else -0.25,
                "bytes": list(token.encode()),
            }
            top = [{"token": token, "logprob": entry["logprob"]}]
            top += [{"token": want, "logprob": -0.01}] if forced else [{"token": "?", "logprob": -4.0}]
            entry["top_logprobs"] = top[: body.get("top_logprobs", 0)]
            made.append(entry)
        return made

    def guard_fields(self, body: dict) -> dict:
        return body.get("vllm_xargs") or body.get("custom_params") or {}

    def wrong(self, body: dict) -> str:
        """What the server does not take in a request."""
        engine = self.engine
        if unknown := body.keys() - COMMON - OWN[engine.kind]:
            return f"Unexpected fields in the request: {unknown}"
        if engine.kind != "transformers" and body.get("model") != engine.name:
            return f"The model {body.get('model')} does not exist"
        listed = self.guard_fields(body).get("whitelist_token_ids")
        if listed is not None and (isinstance(listed, str) or not engine.whitelist):
            return "vllm_xargs.whitelist_token_ids: Input should be a valid string, integer or float"
        text = body["messages"][0]["content"][-1]["text"]
        most = 1 if engine.kind == "sglang" or "unlimited" in engine.name.lower() else 0
        if text.count("<image>") != most:
            return f"expected {most} placeholders in the text, got {text.count('<image>')}"
        return ""

    def give(self, status: int, value: object, **headers: str) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def stream(self, choice: dict, usage: dict, tokens: list[str], until: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        content = choice.get("logprobs", {}).get("content", [])
        for i, token in enumerate(tokens[:until]):
            part: dict = {"delta": {"content": token}, "finish_reason": None}
            if content:
                part["logprobs"] = {"content": [content[i]]}
            self.event({"choices": [part]})
            time.sleep(0.001)
        if until is None:
            last: dict = {"delta": {}, "finish_reason": choice["finish_reason"]}
            if content:
                last["logprobs"] = {"content": [content[-1]]}
            self.event(
                {"choices": [last], **({"usage": usage} if self.engine.kind == "transformers" else {})}
            )
            if self.engine.kind != "transformers":
                self.event({"choices": [], "usage": usage})
                self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def event(self, value: dict) -> None:
        self.wfile.write(b"data: " + json.dumps(value).encode() + b"\n\n")
        self.wfile.flush()

    # ------------------------------------------------------------------ orders: True if it is answered
    def order_429(self, _) -> bool:
        self.give(429, {"error": "too many requests"})
        return True

    def order_wait(self, _) -> bool:
        self.give(503, {"error": "loading"}, Retry_After="1")
        return True

    def order_wait_long(self, _) -> bool:
        self.give(503, {"error": "loading"}, Retry_After="60")
        return True

    def order_500(self, _) -> bool:
        self.give(500, {"error": {"message": "EngineCore encountered an issue"}})
        return True

    def order_400(self, _) -> bool:
        self.give(400, {"error": {"message": "This model's maximum context length is 8192 tokens"}})
        return True

    def order_redirect(self, _) -> bool:
        self.give(307, b"", Location="http://127.0.0.1:9/elsewhere")
        return True

    def order_slow(self, _) -> bool:
        time.sleep(1.5)
        return False

    def order_drip(self, _) -> bool:
        """One byte now and then, without an end."""
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        for _ in range(100):
            time.sleep(0.05)
            self.wfile.write(b" ")
            self.wfile.flush()
        return True

    def order_drip_headers(self, _) -> bool:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(100):
            time.sleep(0.05)
            self.wfile.write(b"x")
            self.wfile.flush()
        return True

    def order_cut(self, body: dict) -> bool:
        """The connection ends in the middle of the answer."""
        if body.get("stream"):
            self.stream({"finish_reason": "stop"}, {}, ["page ", "1"], until=1)
        else:
            self.send_response(200)
            self.send_header("Content-Length", "5000")
            self.end_headers()
            self.wfile.write(b'{"choices": [{"message": {"content": "pag')
            self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True
        return True

    def order_garbage(self, _) -> bool:
        self.give(200, b'{"choices": [{"message": \xff\x00')
        return True

    def order_nan(self, _) -> bool:
        self.give(
            200, b'{"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"logprob": NaN}]}}]}'
        )
        return True

    def order_html(self, _) -> bool:
        self.give(200, b"<!DOCTYPE html><html><body>Sign in</body></html>")
        return True

    def order_huge(self, _) -> bool:
        self.give(200, b'{"choices": [{"message": {"content": "' + b"x" * (33 << 20) + b'"}}]}')
        return True

    def order_empty(self, body: dict) -> bool:
        self.answer(body, "", False)
        return True

    def order_nothing(self, _) -> bool:
        self.give(200, {"choices": []})
        return True

    def order_error(self, _) -> bool:
        self.give(200, {"error": {"message": "CUDA error: an illegal memory access"}})
        return True
