"""The client against transformers' own server, with the weights of nano, in an environment of its own.

It is made once under ~/.cache/deskocr-tests (or DESKOCR_TEST_CACHE): a few packages beside those of this
environment. DESKOCR_SERVE_PYTHON names a Python that has them already.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import httpx
import pytest
import torch
from typer.testing import CliRunner

from deskocr_kit.cli import app
from deskocr_kit.reading.reader import Reader
from deskocr_kit.reading.text_distance import cer
from model.images import load_image
from tests.helpers.batches import check_lines
from tests.helpers.paths import NANO, ROOT
from tests.helpers.transformers_serve import ALONE, PACKAGES
from tests.real_wheel.environment import CACHE, NoRegistry, pip

pytest.importorskip("transformers.models.unlimited_ocr", reason="transformers 5 has this model")
pytestmark = pytest.mark.slow  # it installs packages and starts a server with torch: some minutes

PAGES = sorted((NANO / "pages").glob("*.png"))


def environment() -> Path:
    """A Python with the packages of the server, and all of this environment."""
    if named := os.environ.get("DESKOCR_SERVE_PYTHON"):
        return Path(named)
    place = CACHE / f"transformers-serve-cp{sys.version_info[0]}{sys.version_info[1]}"
    python, stamp = place / "bin" / "python", place / "made-of.txt"
    _, minor, patch = torch.__version__.partition("+")[0].split(".")
    vision = f"torchvision==0.{int(minor) + 15}.{patch}"
    wanted = "\n".join([*PACKAGES, *ALONE, vision, sys.prefix])
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        packages = next((place / "lib").glob("python3.*/site-packages"))
        (packages / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip(python, "install", "--progress-bar=off", *PACKAGES)
        pip(
            python,
            "install",
            "--progress-bar=off",
            "--no-deps",
            *(vision if a in vision else a for a in ALONE),
        )
        stamp.write_text(wanted)
    return python


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    try:
        python = environment()
    except NoRegistry as error:
        pytest.skip(f"no package registry can be reached: {error}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("served")
    command = [str(python), "-m", "tests.helpers.transformers_serve", str(folder / "nano"), str(port)]
    log = folder / "log.txt"
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=folder, env=environ, stdout=output, stderr=output)
    try:
        for _ in range(600):
            assert server.poll() is None, log.read_text()[-3000:]
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        else:
            raise AssertionError(f"the server did not start: {log.read_text()[-3000:]}")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)


def command(*words) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [*map(str, words), "--mode", "tiny"])
    return done.exit_code, done.stdout, done.stderr


def test_the_text_is_that_of_the_kit(url, tmp_path):
    out = tmp_path / "out"
    words = ["batch", *PAGES, "--out", out, "--engine", "openai", "--base-url", url, "--concurrency", "2"]
    status, _, told = command(*words)
    assert status == 0, told
    assert "reading with deepseek-ocr on transformers" in told and "no n-gram guard" in told
    reader = Reader.load("nano", "cpu", "fp32")
    found = check_lines(out)
    assert len(found) == len(PAGES)
    for line in found:
        own = reader.read(load_image(line["file"]))
        assert (line["text"], line["tokens"]) == (own.text, own.new_tokens), line["file"]
        assert line["engine"]["server"] == "transformers" and line["engine"]["ngram_guard"] is False
        assert line["confidence"] is None and line["no_confidence"] == "the server sends no log-probabilities"
    again = command(*words, "--json")
    assert json.loads(again[1])["counts"] == {
        "read": 0, "failed": 0, "skipped": len(PAGES), "truncated": 0, "loops": 0,
    }  # fmt: skip


def test_a_page_that_is_cut_off_is_truncated_and_tried_otherwise(url, tmp_path):
    words = ["batch", PAGES[0], "--out", tmp_path / "out", "--engine", "openai", "--base-url", url]
    status, _, told = command(*words, "--max-tokens", "5")
    assert status == 0, told
    (line,) = check_lines(tmp_path / "out")
    assert line["truncated"] and line["tokens"] == 5
    assert [each["outcome"] for each in line["tries"]] == ["truncated"] * len(line["tries"])
    assert line["tries"][1]["guard"] == {"temperature": 0.2}


def test_a_stream_is_the_same_text(url):
    words = ["ocr", PAGES[1], "--engine", "openai", "--base-url", url]
    streamed, whole = command(*words, "--stream"), command(*words)
    assert streamed[0] == whole[0] == 0 and streamed[1].strip() == whole[1].strip() != ""


def test_the_fields_of_another_server_are_refused(url, tmp_path):
    words = ["batch", PAGES[0], "--out", tmp_path / "out", "--engine", "openai", "--base-url", url]
    done = CliRunner().invoke(app, [*map(str, words), "--server", "vllm", "--served", "nano"])
    assert done.exit_code != 0 and "test picture was not read" in str(done.exception)


def test_the_benchmark(url, tmp_path):
    words = ["bench", PAGES[0], PAGES[1], "--engine", "openai", "--base-url", url, "--repeats", "1"]
    status, told, _ = command(*words, "--concurrency", "2", "--out", tmp_path)
    assert status == 0 and "Throughput of the engine" in told
    result = json.loads((tmp_path / "bench.json").read_text())
    reader = Reader.load("nano", "cpu", "fp32")
    assert result["complete"]
    for file, page in zip(PAGES, result["pages"], strict=False):
        own = reader.read(load_image(file))
        assert page["cer"] == cer(own.text, file.with_suffix(".txt").read_text("utf-8"))
        assert page["new_tokens"] == own.new_tokens
        (run,) = page["runs"]
        assert 0 < run["ttft"] < run["e2e"] <= run["seconds"] and len(run["gaps"]) > 10
