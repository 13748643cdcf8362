"""EngineReader is used like Reader: several pages in one prompt, doubts, what it cannot do."""

from __future__ import annotations

import pytest

from deskocr_kit.reading.engines.options import ServedOptions
from deskocr_kit.reading.engines.reader import client_for, is_local, open_reader
from deskocr_kit.reading.options import PageOptions
from tests.helpers.engine_server import EngineServer
from tests.helpers.stub_reader import page


def test_several_pages_in_one_prompt():
    with EngineServer("vllm", name="baidu/Unlimited-OCR") as server:
        reader = open_reader(ServedOptions(engine="openai", base_url=server.url), print)
        server.read = lambda image, body: ("<PAGE>\nfirst\n<PAGE>\nsecond", False)
        readings = reader.read_together([page(number=1), page(number=2)], options=PageOptions())
        body = server.requests[-1]
    assert [each.text for each in readings] == ["first", "second"]
    *pictures, text = body["messages"][0]["content"]
    assert len(pictures) == 2 and text["text"] == "<image>Multi page parsing."
    assert body["vllm_xargs"] == {
        "ngram_size": 35,
        "window_size": 1024,
        "whitelist_token_ids": [128821, 128822],
    }
    assert body["max_tokens"] == 32768


def test_a_model_that_reads_one_page_says_so_and_a_server_has_no_tensors():
    said = []
    with EngineServer("sglang", guard=False) as server:
        reader = open_reader(ServedOptions(engine="openai", base_url=server.url), said.append)
        with pytest.raises(ValueError, match="one page per prompt"):
            reader.read_together([page(), page()])
        with pytest.raises(ValueError, match="no tensors"):
            reader.inputs(page())
        reading = reader.read(page(number=5), mode="base")
    assert reading.text == "page 5" and reader.doubts(page(), reading) == [
        "the page is blank: check the file"
    ]
    assert "n-gram guard of the server is off" in said[0]
    assert "custom_params" not in server.requests[-1], "what does nothing is not sent"


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://localhost:1", True), ("http://127.0.0.1", True), ("http://[::1]:8/v1", True),
        ("http://127.example.org", False), ("http://localhost.example.org", False),
        ("http://10.0.0.1", False),
    ],
)  # fmt: skip
def test_which_host_is_this_one(url, local):
    assert is_local(url) is local


def test_a_key_without_encryption_is_warned_about(monkeypatch):
    monkeypatch.setenv("DESKOCR_ENGINE_KEY", "k")

    said = []
    client_for(ServedOptions(engine="openai", base_url="http://10.0.0.1"), say=said.append).close()
    assert said == ["warning: the key of the server is sent without encryption; use https"]
    client_for(ServedOptions(engine="openai", base_url="https://10.0.0.1"), say=said.append).close()
    assert len(said) == 1
