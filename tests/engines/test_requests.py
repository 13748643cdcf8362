"""The JSON of a request, per kind of server: rules 1, 2, 3, 5 and 6 of docs/engines.md."""

from __future__ import annotations

import base64
import io
import json
import pickle
import sys
from types import ModuleType

import pytest
from PIL import Image

from deskocr_kit.reading.engines.requests import GUARDS, How, Served, picture, request, text_of
from model.official import CHECKPOINTS, DEEPSEEK_OCR, UNLIMITED_OCR
from model.prompts import resolve_prompt

HOW = How(100, 30, 90)
V1, V2, V3 = CHECKPOINTS.values()


def served(server: str, checkpoint=DEEPSEEK_OCR, **more) -> Served:
    return Served(server, checkpoint, "DeepSeek-OCR", guard=True, **more)


def test_the_request_to_vllm():
    body = request([b"png"], "<image>\nFree OCR.", served("vllm"), HOW)
    image = {"url": "data:image/png;base64," + base64.b64encode(b"png").decode()}
    assert body == {
        "model": "DeepSeek-OCR",
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": image}, {"type": "text", "text": "Free OCR."}],
            }
        ],
        "max_tokens": 100,
        "temperature": 0.0,
        "skip_special_tokens": False,
        "vllm_xargs": {"ngram_size": 30, "window_size": 90, "whitelist_token_ids": [128821, 128822]},
    }


def test_the_request_to_sglang_names_its_own_class():
    body = request([b""], "<image>\nFree OCR.", served("sglang"), HOW)
    assert body["messages"][0]["content"][-1]["text"] == "<image>\nFree OCR."
    assert body["skip_special_tokens"] is False and "vllm_xargs" not in body
    assert body["custom_params"] == {
        "ngram_size": 30, "window_size": 90, "whitelist_token_ids": [128821, 128822],
    }  # fmt: skip
    name = "sglang.srt.sampling.custom_logit_processor"
    packages = [name.rsplit(".", k)[0] for k in range(4)]
    module = ModuleType(name)
    module.DeepseekOCRNoRepeatNGramLogitProcessor = found = type("P", (), {})
    for each in packages:
        assert each not in sys.modules
        sys.modules[each] = module if each == name else ModuleType(each)
    try:
        given = json.loads(body["custom_logit_processor"])["callable"]
        assert pickle.loads(bytes.fromhex(given)) is found
    finally:
        for each in packages:
            del sys.modules[each]


def test_the_request_to_transformers_has_no_field_of_its_own():
    body = request([b""], "<image>document parsing.", Served("transformers", UNLIMITED_OCR), HOW)
    assert body.keys() == {"messages", "max_tokens", "temperature"}
    assert body["messages"][0]["content"][-1]["text"] == "document parsing."


def test_the_whitelist_is_a_list_of_ids_or_absent():
    for server, key in (("vllm", "vllm_xargs"), ("sglang", "custom_params")):
        assert request([b""], "x", served(server), HOW)[key]["whitelist_token_ids"] == [128821, 128822]
        assert "whitelist_token_ids" not in request([b""], "x", served(server, whitelist=False), HOW)[key]


def test_without_a_size_there_is_no_guard_and_without_a_window_it_is_the_whole_answer():
    assert "vllm_xargs" not in request([b""], "x", served("vllm"), How(100))
    assert request([b""], "x", served("vllm"), How(100, 15, None))["vllm_xargs"]["window_size"] == 100


@pytest.mark.parametrize("checkpoint", CHECKPOINTS.values(), ids=CHECKPOINTS)
@pytest.mark.parametrize("name", ["free", "document", "Read me aloud."])
def test_the_placeholder_is_there_once(checkpoint, name):
    """In the text, or put in front of it by the server: never both."""
    prompt = resolve_prompt(name, None, checkpoint)
    vllm = text_of(prompt, served("vllm", checkpoint))
    assert vllm.count("<image>") == (1 if checkpoint is UNLIMITED_OCR else 0) and vllm == vllm.strip()
    sglang = text_of(prompt, served("sglang", checkpoint))
    assert sglang == (prompt if "<image>" in prompt else "<image>\n" + prompt)
    assert "<image>" + text_of(prompt, served("transformers", checkpoint)) == sglang


@pytest.mark.parametrize("prompt", ["<image><image>x", "Look: <image>\nx"])
def test_a_placeholder_too_many_is_an_error_before_the_server_finds_it(prompt):
    with pytest.raises(ValueError, match="once, in front"):
        text_of(prompt, served("vllm"))


@pytest.mark.parametrize(
    ("checkpoint", "mode", "page", "sent"),
    [
        (V1, "gundam", (1654, 2339), (1654, 2339)),
        (V1, "base", (1654, 2339), (453, 640)),
        (V1, "tiny", (1654, 2339), (362, 512)),
        (V1, "small", (600, 300), (600, 300)),
        (V2, "base", (1536, 1000), (768, 500)),
        (V1, "gundam", (5000, 5000), (3840, 3840)),
        (V1, "gundam", (100000, 1), (100000, 1)),
    ],
)
def test_the_client_chooses_the_mode_by_the_size_of_the_picture(checkpoint, mode, page, sent):
    png, size = picture(Image.new("RGB", page), mode, checkpoint)
    assert size == sent == Image.open(io.BytesIO(png)).size
    assert max(sent) <= checkpoint.tile or mode == "gundam", "no tiles"


def test_every_model_of_the_family_has_a_guard():
    assert GUARDS.keys() == CHECKPOINTS.keys()
