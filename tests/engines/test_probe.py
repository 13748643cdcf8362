"""Before the first page: rules 2, 3, 4 and 8 of docs/engines.md."""

from __future__ import annotations

import threading

import pytest

from deskocr_kit.reading.engines import failures
from deskocr_kit.reading.engines.client import Client, Unusable
from deskocr_kit.reading.engines.options import EngineOptions
from deskocr_kit.reading.engines.probe import TEXT, probe, which_checkpoint
from model.official import CHECKPOINTS
from tests.helpers.engine_server import EngineServer, guarded, words


def look(engine: EngineServer, checkpoint=None, **options):
    client = Client(engine.url, deadline=10.0)
    try:
        return probe(client, EngineOptions("openai", engine.url, **options), checkpoint)
    finally:
        client.close()


@pytest.mark.parametrize(
    ("kind", "version", "guard"),
    [("vllm", "0.12.0", True), ("sglang", "0.5.6", True), ("transformers", "", False)],
)
def test_the_server_tells_what_it_is(kind, version, guard):
    with EngineServer(kind) as server:
        found = look(server)
    assert (found.server, found.version, found.guard, found.logprobs) == (kind, version, guard, guard)
    assert found.model == (None if kind == "transformers" else "deepseek-ai/DeepSeek-OCR")
    assert found.template == ("<｜begin▁of▁sentence｜>Free OCR." if kind == "vllm" else "")
    assert len(found.warnings) == (2 if kind == "transformers" else 0)
    assert len(server.requests) == (1 if kind == "transformers" else 2)


def test_a_server_that_does_not_tell_has_to_be_named():
    with EngineServer("vllm", tells=False) as server:
        with pytest.raises(Unusable, match=r"say --server vllm\|sglang\|transformers"):
            look(server)
        assert look(server, server="vllm").guard and look(server, server="vllm").version == ""


def test_a_guard_that_is_off_is_found_with_the_repeated_lines():
    for kind, flag in (("vllm", "--logits_processors"), ("sglang", "--enable-custom-logit-processor")):
        with EngineServer(kind, guard=False) as server:
            found = look(server)
        assert not found.guard and flag in found.warnings[0] and "loop" in found.warnings[0]
        assert found.logprobs, "nothing is guarded, so its log-probabilities are the model's"


def test_the_known_text_repeats_what_the_second_request_forbids():
    size = 3
    assert "".join(guarded(words(TEXT), size, 256)) != TEXT
    assert "".join(guarded(words(TEXT), 30, 90)) == TEXT


def test_log_probabilities_from_behind_the_guard_are_no_confidences():
    with EngineServer("sglang", raw=False) as server:
        found = look(server)
    assert found.guard and not found.logprobs and "behind the n-gram guard" in found.why_not


def test_a_server_that_refuses_a_list_of_ids_gets_none_and_no_string():
    with EngineServer("vllm", whitelist=False) as server:
        found = look(server)
        assert not found.whitelist and found.guard and "no list of ids" in found.warnings[0]
    given = [each["vllm_xargs"].get("whitelist_token_ids") for each in server.requests]
    assert given == [[128821, 128822], None, None]


def test_a_wrong_text_stops_the_run_and_says_where_to_look():
    with EngineServer("vllm", name="my-model", read=lambda *_: ("", False)) as server:
        with pytest.raises(Unusable) as caught:
            look(server)
        for part in ("CER 1.00", "'my-model'", "Free OCR.", "--model names another", "--unchecked"):
            assert part in str(caught.value)
        found = look(server, unchecked=True)
    assert "contains ocr" in found.warnings[0] or "chat template by the name" in found.warnings[0]
    assert any("CER 1.00" in each for each in found.warnings)


FORMS = {
    "typed": "<|det|>text [10, 20, 300, 40]<|/det|>{}",
    "refs": "<|ref|>{}<|/ref|><|det|>[[10, 20, 300, 40]]<|/det|>",
    "labels": "<|ref|>text<|/ref|><|det|>[[10, 20, 300, 40]]<|/det|>\n{}",
    "markdown": "## {}\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_the_known_text_may_come_with_boxes(form):
    """Unlimited-OCR has no prompt without boxes."""
    text = "\n".join(FORMS[form].format(line) for line in TEXT.splitlines())
    with EngineServer("vllm", name="baidu/Unlimited-OCR", read=lambda *_: (text, False)) as server:
        found = look(server)
    assert found.checkpoint is CHECKPOINTS["unlimited-ocr"] and found.guard and not found.warnings


def test_the_wrong_kind_of_server_is_found_at_once():
    with EngineServer("transformers") as server, pytest.raises(Unusable, match="Unexpected fields"):
        look(server, server="vllm", served="somebody/llama")


def test_one_of_several_models_has_to_be_chosen():
    with EngineServer("vllm") as server:
        with pytest.raises(Unusable, match="no model 'other'; it serves deepseek-ai/DeepSeek-OCR"):
            look(server, served="other")
        server.name = None
        with pytest.raises(Unusable, match="choose one with --served"):
            look(server)


def test_the_model_of_the_family_is_named_or_guessed():
    v1, v2, v3 = CHECKPOINTS.values()
    assert which_checkpoint(None, "deepseek-ai/DeepSeek-OCR", "") is v1
    assert which_checkpoint(None, "ocr", "/models/DeepSeek-OCR-2") is v2
    assert which_checkpoint(None, "baidu/Unlimited_OCR", None) is v3
    assert which_checkpoint("unlimited-ocr", "x") is v3 and which_checkpoint("/weights/deepseek-ocr-2") is v2
    assert which_checkpoint("nano", "nano") is v1


def test_a_server_that_starts_later_is_waited_for(monkeypatch):
    monkeypatch.setattr(failures, "FIRST_WAIT", 0.05)
    late = EngineServer("vllm")
    with EngineServer() as other:
        late.port = other.http.server_port  # free after this block
    client = Client(f"http://127.0.0.1:{late.port}/v1")
    starting = threading.Timer(0.3, late.__enter__)
    starting.start()
    found = probe(client, EngineOptions("openai", client.base_url), None)
    starting.join()
    late.__exit__()
    client.close()
    assert found.guard
