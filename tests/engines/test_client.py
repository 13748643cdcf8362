"""HTTP that misbehaves on order: what is tried again, what ends the run, what fails one page; limits."""

from __future__ import annotations

import datetime
import email.utils
import io
import socket
import threading
import time

import pytest
from PIL import Image

from deskocr_kit.reading.engines import failures as module
from deskocr_kit.reading.engines.answers import BadAnswer
from deskocr_kit.reading.engines.client import (
    ATTEMPTS,
    Client,
    Refused,
    ServerFailed,
    TooSlow,
    Unusable,
    retry_after,
    wait_of,
)  # fmt: skip
from deskocr_kit.reading.engines.requests import How, Served, picture, request
from model.official import DEEPSEEK_OCR
from tests.helpers.engine_server import EngineServer
from tests.helpers.stub_reader import page

SERVED = Served("vllm", DEEPSEEK_OCR, "deepseek-ai/DeepSeek-OCR")


def body(number: int = 1, stream: bool = False) -> dict:
    png, _ = picture(page(number=number), "gundam", DEEPSEEK_OCR)
    return request([png], "<image>\nFree OCR.", SERVED, How(64, stream=stream))


def text(answer) -> str:
    return answer.json["choices"][0]["message"]["content"]


@pytest.fixture
def server():
    with EngineServer() as server:
        yield server


@pytest.fixture
def client(server, monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT", 0.02)
    made = Client(server.url, "s3cret-key", deadline=10.0)
    yield made
    made.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_page(server, client, stream):
    pieces = []
    answer = client.ask(body(stream=stream), pieces.append)
    assert text(answer) == "page 1" and answer.json["usage"]["completion_tokens"] == 3
    assert answer.json["choices"][0]["finish_reason"] == "stop" and answer.waits == []
    assert (pieces, len(answer.arrivals)) == ((["page ", "1"], 2) if stream else ([], 0))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("order", ["429", "500", "cut"])
def test_what_passes_is_tried_again_and_recorded(server, client, order, stream):
    server.orders += [order, order]
    answer = client.ask(body(stream=stream))
    assert text(answer) == "page 1" and len(answer.waits) == 2 == len(server.requests) - 1
    what = {"429": "status 429: ", "500": "status 500: ", "cut": "cut off" if stream else "connection broke"}
    assert all(what[order] in each["error"] for each in answer.waits)


def test_the_server_says_how_long_to_wait_and_all_requests_do(server, client):
    start = time.monotonic()
    server.orders += ["wait"]
    first = threading.Thread(target=client.ask, args=(body(1),))
    first.start()
    while client.not_before < start:
        time.sleep(0.01)
    client.ask(body(2))
    first.join()
    assert time.monotonic() - start >= 1.0
    assert server.numbers in ([1, 2, 1], [1, 1, 2])


@pytest.mark.parametrize("order", ["500", "cut"])
def test_a_page_at_which_the_server_fails_again_and_again_is_given_up(server, client, order):
    server.pages[1] = order
    with pytest.raises(ServerFailed, match=f"{ATTEMPTS} times"):
        client.ask(body(1))
    assert len(server.requests) == ATTEMPTS
    assert text(client.ask(body(2))) == "page 2"


@pytest.mark.parametrize(
    ("order", "what"),
    [
        ("garbage", "UTF-8"), ("nan", "NaN"), ("html", "HTML page"), ("huge", "more than 33,554,432 bytes"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none(server, client, order, what):
    server.orders.append(order)
    with pytest.raises(BadAnswer, match=what):
        client.ask(body())


def test_a_refused_request_is_not_sent_again(server, client):
    server.orders.append("400")
    with pytest.raises(Refused, match="maximum context length"):
        client.ask(body())
    assert len(server.requests) == 1


@pytest.mark.parametrize("order", ["slow", "drip", "drip_headers"])
def test_an_answer_ends_within_the_deadline(server, client, order):
    client.deadline = 0.3
    server.orders.append(order)
    start = time.monotonic()
    with pytest.raises(TooSlow, match=r"within 0\.3 s; --deadline allows more"):
        client.ask(body())
    assert time.monotonic() - start < 4, "the drip would go on for 5 s"


def test_a_redirect_is_not_followed(server, client):
    server.orders.append("redirect")
    with pytest.raises(Unusable, match="redirects elsewhere"):
        client.ask(body())


def test_no_proxy_of_the_environment_gets_a_page(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    client = Client(server.url)
    assert text(client.ask(body())) == "page 1"
    client.close()


def test_a_server_that_is_not_there_is_given_up_after_a_while(client):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        said = []
        gone = Client(f"http://127.0.0.1:{free.getsockname()[1]}/v1", patience=0.2, say=said.append)
        with pytest.raises(Unusable, match="no connection.*gave up after"):
            gone.ask(body())
        assert len(said) == 1 and "waiting for" in said[0]
        gone.close()


def test_a_server_that_answers_other_requests_is_not_given_up(server, client):
    """Silence counts from the last answer, whichever thread got it."""
    client.patience = 0.0
    client.alive = time.monotonic() + 60
    server.pages[1] = ["429", "429"]
    assert text(client.ask(body(1))) == "page 1"
    assert client.alive <= time.monotonic(), "the answer has set it"
    server.pages[1] = ["429"]
    with pytest.raises(Unusable, match="gave up"):
        client.ask(body(1))


def test_the_end_of_a_run_ends_all_waiting(server, client):
    server.pages[1] = "wait_long"
    errors = []

    def ask():
        try:
            client.ask(body(1))
        except Unusable as error:
            errors.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    while not server.requests:
        time.sleep(0.01)
    start = time.monotonic()
    client.close()
    thread.join(40)
    assert errors == ["the run has ended"] and time.monotonic() - start < 30


def test_the_key_is_sent_and_never_shown():
    with EngineServer(key="another") as server:
        client = Client(server.url, "s3cret-key")
        with pytest.raises(Unusable, match="refuses the key") as caught:
            client.get(server.url + "/models", patient=True)
        assert r"Bearer \*\*\*" in str(caught.value).replace("***", r"\*\*\*")
        assert "s3cret-key" not in str(caught.value) and "s3cret-key" not in repr(caught.value.__context__)
        client.close()


@pytest.mark.parametrize("key", ["two\nlines", "schlüssel", "a\tb"])
def test_a_key_that_no_header_can_have_is_refused(key):
    with pytest.raises(ValueError, match="header") as caught:
        Client("http://localhost:1/v1", key)
    assert key not in str(caught.value)


def test_waiting_grows_with_jitter_up_to_a_limit():
    assert all(0.25 <= wait_of(1) <= 0.75 and wait_of(3) <= 3.0 for _ in range(50))
    assert len({wait_of(4) for _ in range(20)}) > 10
    assert wait_of(1000) <= 90.0 and wait_of(1, asked=20.0) == 20.0


def test_retry_after_is_a_number_or_a_date_and_bounded():
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=30)
    assert retry_after("7") == 7.0 and 25 < retry_after(email.utils.format_datetime(later)) <= 30
    assert retry_after("999999") == retry_after("Fri, 01 Jan 2100 00:00:00 GMT") == 300.0
    assert retry_after("Fri, 01 Jan 1999 00:00:00 GMT") == 0.0
    for wrong in ("", "soon", "-1", "1e9", "NaN", "٣", "9" * 400):
        assert retry_after(wrong) is None


def test_the_picture_arrives_as_it_is(server, client):
    client.ask(body(3))
    png = server.requests[0]["messages"][0]["content"][0]["image_url"]["url"]
    assert png.startswith("data:image/png;base64,")
    image = Image.open(io.BytesIO(__import__("base64").b64decode(png.partition(",")[2])))
    assert image.size == (48, 64) and server.numbers == [3]
