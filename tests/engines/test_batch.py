"""`deskocr batch --engine openai` against a server that misbehaves: nothing is lost, and all is recorded."""

from __future__ import annotations

import json
import os
import threading

import pytest
from PIL import Image
from typer.testing import CliRunner

from deskocr_kit.batch.engines import Places, UsageError, devices_of
from deskocr_kit.batch.run import Plan, run
from deskocr_kit.batch.sources import sources
from deskocr_kit.cli import app
from deskocr_kit.reading.engines import failures
from deskocr_kit.reading.engines.options import EngineOptions, ServedOptions
from deskocr_kit.reading.reader import Reader
from deskocr_kit.reading.sample_pages import sample_pages
from model.images import load_image
from tests.helpers.batches import check_lines, essence, lines
from tests.helpers.engine_server import EngineServer
from tests.helpers.stub_reader import CUT_OFF, GOOD, LOOPS, RAISES, page, save

KEY = "k3y-of-the-server"
BOX = "<|ref|>title<|/ref|><|det|>[[10, 20, 900, 400]]<|/det|>"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(failures, "FIRST_WAIT", 0.02)
    monkeypatch.setenv("DESKOCR_ENGINE_KEY", KEY)


def batch(server, files, out, *, deadline=20.0, plan=None, patience=600.0, **options):
    given = ServedOptions(engine="openai", base_url=server.url, **{"concurrency": 4, **options})
    said = []
    devices = devices_of(given, Places(deadline=deadline, say=said.append))
    devices[0].connection.client.patience = patience
    summary = run(
        sources(list(map(str, files))), out, devices, given, plan or Plan(formats=("md",), gallery=True)
    )
    return summary, said


def inked(folder, kinds):
    """Pages that are not blank."""
    files = save(folder, kinds)
    for file in files:
        with Image.open(file) as image:
            image.paste("black", (0, 0, 48, 6))
            image.save(file)
    return files


@pytest.mark.parametrize("kind", ["vllm", "sglang", "transformers"])
def test_every_page_is_read_whatever_the_server_does(kind, tmp_path):
    kinds = [GOOD, LOOPS, CUT_OFF, GOOD, GOOD, GOOD, GOOD, GOOD, RAISES, GOOD]
    files = inked(tmp_path / "in", kinds)
    with EngineServer(kind, key=KEY) as server:
        server.pages |= {0: ["429", "500"], 3: ["cut"], 4: ["garbage"], 5: ["empty"], 6: ["wait", "429"]}
        server.pages[7] = "500"
        summary, _ = batch(server, files, tmp_path / "out")
        assert server.most_at_once <= 4
    found = {int(os.path.basename(line["file"])[:4]): line for line in check_lines(tmp_path / "out")}
    assert len(found) == 10 and sorted(summary.kinds) == ["server"] and not summary.stopped
    assert "status 500" in found[7]["error"] and found[7]["attempts"] == 2 and found[7]["kind"] == "server"
    good = {n: line["text"] for n, line in found.items() if line["state"] == "done"}
    tags = "title[[10, 20, 900, 400]]" if kind == "transformers" else BOX
    assert good.pop(8) == f"{tags}\npage 8"
    assert good == {n: f"page {n}" for n in (0, 1, 2, 3, 4, 5, 6, 9)}
    assert sum(summary.devices.values()) == 9 and len(summary.devices) == 4
    waits = [
        wait["error"] for line in found.values() for each in line["tries"] for wait in each.get("waits", [])
    ]
    assert sum("status 429" in each for each in waits) == 2 and any("status 503" in each for each in waits)


def test_nano_behind_a_server_that_misbehaves_gives_the_text_of_nano(tmp_path):
    """The test picture, too, is read by the network: nothing here knows its text."""
    nano, (file, _) = Reader.load("nano", "cpu", "fp32"), sample_pages()[0]

    def read(image, body):
        reading = nano.read(image, mode="tiny", max_new_tokens=body["max_tokens"])
        return reading.text, reading.truncated

    with EngineServer("transformers", read=read) as server:
        server.orders += ["500", "cut", "garbage", "429"]
        batch(server, [file], tmp_path / "out", mode="tiny", concurrency=1)
        assert len(server.requests) == 1 + 5 and server.requests[-1]["temperature"] == 0.2
    (line,) = check_lines(tmp_path / "out")
    assert line["text"] == nano.read(load_image(file)).text and not line["truncated"]
    assert [each["outcome"] for each in line["tries"]] == ["answer", "done"]
    assert [[wait["error"][:14] for wait in each["waits"]] for each in line["tries"]] == [
        ['status 500: {"', "the connection"],
        ['status 429: {"'],
    ]


def test_boxes_reach_the_record_the_picture_and_the_markdown(tmp_path):
    (file,) = save(tmp_path / "in", [RAISES])
    with EngineServer("vllm") as server:
        batch(server, [file], tmp_path / "out")
        assert server.requests[-1]["skip_special_tokens"] is False
    stored = json.loads((tmp_path / "out" / "0000" / "result.json").read_text())
    (box,) = stored["boxes"]
    assert (box["label"], box["box_999"]) == ("title", [10, 20, 900, 400])
    assert 0 < box["confidence"] < 1 and (tmp_path / "out" / "0000" / "result_with_boxes.jpg").exists()
    assert "<|ref|>" not in (tmp_path / "out" / "0000" / "result.mmd").read_text()


def test_a_record_says_which_engine_read_it_and_how_sure_it_was(tmp_path):
    (file,) = save(tmp_path / "in", [GOOD])
    for kind in ("vllm", "sglang", "transformers"):
        out = tmp_path / kind
        with EngineServer(kind, raw=kind == "vllm") as server:
            batch(server, [file], out)
        (line,) = lines(out)
        engine = line["engine"]
        assert (engine["server"], engine["ngram_guard"]) == (kind, kind != "transformers")
        assert engine["version"] == {"vllm": "0.12.0", "sglang": "0.5.6"}.get(kind)
        assert (engine["template"] is not None) == (kind == "vllm") and server.url not in json.dumps(line)
        if kind == "vllm":
            assert line["confidence"] == pytest.approx(0.7788, abs=1e-4) and "no_confidence" not in line
        else:
            assert line["confidence"] is None and "log-probabilities" in line["no_confidence"]
        stored = json.loads((out / "0000" / "result.json").read_text())
        assert stored["device"] == "engine" and stored["dtype"] is stored["weights"] is None
        assert stored["tokens"] == line["tokens"] == 3, "the number that the server reports"


def test_a_bad_page_is_read_otherwise_and_every_attempt_is_recorded(tmp_path):
    files = inked(tmp_path / "in", [LOOPS, CUT_OFF, GOOD])
    page(CUT_OFF, 3, size=(900, 1200)).save(tmp_path / "in" / "0003.png")
    with EngineServer("vllm") as server:
        server.pages[2] = "empty"
        server.read = lambda image, body: (
            ("too long", True) if max(image.size) > 640 else EngineServer.stub(server, image, body)
        )
        batch(server, [*files, tmp_path / "in" / "0003.png"], tmp_path / "out", concurrency=1)
    found = {os.path.basename(line["file"]): line for line in check_lines(tmp_path / "out")}
    warmer = {"temperature": 0.2, "no_repeat_ngram_size": 15, "ngram_window": None}
    assert [each["outcome"] for each in found["0000.png"]["tries"]] == ["loop", "done"]
    assert [each.get("guard") for each in found["0001.png"]["tries"]] == [None, warmer]
    assert [each["outcome"] for each in found["0002.png"]["tries"]] == ["answer", "answer"]
    assert found["0002.png"]["tries"][1]["guard"] == warmer and found["0002.png"]["kind"] == "answer"
    assert "the answer is empty, and the page is not" in found["0002.png"]["error"]
    last = found["0003.png"]
    assert [each["outcome"] for each in last["tries"]] == ["truncated", "truncated", "done"]
    assert last["tries"][2]["guard"] == {**warmer, "mode": "base"} and last["text"] == "page 3"
    asked = server.requests[-1]
    assert asked["temperature"] == 0.2 and asked["vllm_xargs"]["ngram_size"] == 15
    assert asked["vllm_xargs"]["window_size"] == asked["max_tokens"]


def test_an_empty_answer_for_an_empty_page_is_right(tmp_path):
    Image.new("RGB", (64, 64), "white").save(tmp_path / "blank.png")
    with EngineServer("vllm", read=lambda image, body: ("", False)) as server:
        batch(server, [tmp_path / "blank.png"], tmp_path / "out", unchecked=True)
    (line,) = lines(tmp_path / "out")
    assert (line["state"], line["text"]) == ("done", "")


def test_a_run_whose_server_dies_keeps_what_is_done_and_goes_on(tmp_path):
    files = save(tmp_path / "in", [GOOD] * 12)
    with EngineServer("vllm") as server:
        server.seconds = 0.02
        real = server.order_for

        def die(number):
            if len(server.numbers) > 7:
                server.http.socket.close()
                raise ConnectionResetError
            return real(number)

        server.order_for = die
        summary, _ = batch(server, files, tmp_path / "out", concurrency=2, patience=0.1)
    assert "gave up" in summary.stopped or summary.failed
    done = len(summary.read)
    assert 0 < done < 12
    with EngineServer("vllm") as server:
        again, _ = batch(server, files, tmp_path / "out", concurrency=2)
        assert len(again.skipped) == done and len(again.read) == 12 - done and not again.failed
    with EngineServer("vllm") as server:
        batch(server, files, tmp_path / "whole")
    assert essence(tmp_path / "out") == essence(tmp_path / "whole")


def test_other_settings_are_other_texts_and_a_new_version_is_not(tmp_path):
    (file,) = save(tmp_path / "in", [GOOD])
    with EngineServer("vllm") as server:
        assert len(batch(server, [file], tmp_path / "out")[0].read) == 1
        assert len(batch(server, [file], tmp_path / "out")[0].skipped) == 1
        assert len(batch(server, [file], tmp_path / "out", mode="base")[0].read) == 1
    with EngineServer("vllm", guard=False) as server:
        assert len(batch(server, [file], tmp_path / "out", mode="base")[0].read) == 1


def test_the_key_is_in_no_file_and_no_line(tmp_path, capsys):
    files = save(tmp_path / "in", [GOOD, GOOD])
    with EngineServer("vllm", key=KEY) as server:
        server.pages[1] = "400"
        command(server, files, tmp_path / "out", "--log-json", str(tmp_path / "log.jsonl"))
        assert {each["Authorization"] for each in server.seen_headers} == {f"Bearer {KEY}"}
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path
    assert KEY not in "".join(capsys.readouterr())


def command(server, files, out, *more):
    words = [
        "batch",
        *map(str, files),
        "--out",
        str(out),
        "--engine",
        "openai",
        "--base-url",
        server.url,
        *more,
    ]
    return CliRunner().invoke(app, words)


def test_the_command(tmp_path):
    files = save(tmp_path / "in", [GOOD, RAISES])
    with EngineServer("transformers") as server:
        done = command(server, files, tmp_path / "out", "--concurrency", "2")
        assert done.exit_code == 0, done.output
        assert "reading with deepseek-ocr on transformers at " + server.url in done.stderr
        assert "warning: transformers has no n-gram guard" in done.stderr
        for words, what in (
            (["--device", "cpu"], "--device belongs to the kit's own network"),
            (["--weights", "int8"], "--weights belongs to"),
            (["--batch-size", "4"], "--concurrency sets the requests"),
            (["--devices", "cpu,cpu"], "--devices belongs to"),
            (["--server", "ollama"], "unknown server 'ollama'; choose one of vllm, sglang, transformers"),
            (["--prompt", "<image><image>x"], "once, in front"),
        ):
            wrong = command(server, files, tmp_path / "out", *words)
            assert wrong.exit_code != 0, words
            told = f"{wrong.stderr}{wrong.exception}".replace("\n", " ").replace("│ ", "").replace("  ", " ")
            assert what in told, told
        dry = command(server, files, tmp_path / "dry", "--dry-run")
        assert dry.exit_code == 0 and "estimate, from 2 pages" in dry.stdout
        for more in ([], ["--stream"]):
            words = ["ocr", str(files[0]), "--engine", "openai", "--base-url", server.url, *more]
            one = CliRunner().invoke(app, words)
            assert one.exit_code == 0 and one.stdout.strip() == "page 0", one.output
    dry = CliRunner().invoke(app, ["batch", str(files[0]), "--out", str(tmp_path), "--engine", "openai"])
    assert dry.exit_code == 2 and "needs --base-url" in dry.stderr


def test_without_httpx_the_error_says_how_to_install_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "httpx", None)
    options = ServedOptions(engine="openai", base_url="http://localhost:1")
    with pytest.raises(UsageError, match="pip install httpx"):
        devices_of(options, Places())


def test_ctrl_c_while_the_server_is_waited_for(tmp_path):
    """The devices are stopped from another thread: nothing waits for `patience`."""
    (file,) = save(tmp_path / "in", [GOOD])
    with EngineServer("vllm") as server:
        url = server.url
    options = ServedOptions(engine="openai", base_url=url, concurrency=2)
    devices = devices_of(options, Places(say=lambda _: None))
    threading.Timer(0.3, devices[0].kill).start()
    with pytest.raises(ValueError, match="the run has ended"):
        run(sources([str(file)]), tmp_path / "out", devices, options, Plan())


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("localhost:8000", "expected http"), ("ftp://host/v1", "expected http"), ("http://", "expected http"),
        ("http://me:pw@host/v1", "has a user or a password"), ("http://host/v1?key=1", "query"),
        ("http://host:99999/v1", "not a URL"), ("http://[::1", "not a URL"),
        ("file:///etc/passwd", "expected http"),
    ],
)  # fmt: skip
def test_a_base_url_that_is_none(url, what):
    with pytest.raises(ValueError, match=what) as caught:
        EngineOptions("openai", url)
    assert "pw" not in str(caught.value).replace("/etc/passwd", "")


def test_a_base_url_gets_its_path():
    for given, url in (
        ("http://host:8000", "http://host:8000/v1"),
        ("https://host/v1/", "https://host/v1"),
        ("http://host/engines/a/v1", "http://host/engines/a/v1"),
    ):
        assert EngineOptions("openai", given).base_url == url
