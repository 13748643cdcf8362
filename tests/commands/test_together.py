"""`deskocr ocr --together`: the pages of a file in one prompt."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image
from typer.testing import CliRunner

from deskocr_kit.cli import app
from tests.helpers.paths import NANO

ASKED = ["--device", "cpu", "--dtype", "fp32", "--max-tokens", "4", "--json", "--together"]


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """(folder with nano's weights as Unlimited-OCR, PDF of two pages)."""
    folder = tmp_path_factory.mktemp("unlimited")
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(NANO / name, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["UnlimitedOCRForCausalLM"], "sliding_window": 64}
    (folder / "config.json").write_text(json.dumps(config))
    pages = [Image.open(path).convert("RGB") for path in sorted((NANO / "pages").glob("*.png"))[:2]]
    pages[0].save(folder / "scan.pdf", save_all=True, append_images=pages[1:])
    return folder, folder / "scan.pdf"


def test_a_record_per_page(scan, tmp_path):
    folder, file = scan
    done = CliRunner().invoke(app, ["ocr", str(file), "--model", str(folder), "--out", str(tmp_path), *ASKED])
    assert done.exit_code == 0, done.output
    records = json.loads(done.stdout[done.stdout.index("[") :])
    assert [record["page"] for record in records] == [1, 2]
    assert sum(record["tokens"] for record in records) == 4  # of one answer
    assert records[0]["image_tokens"] == records[1]["image_tokens"] == 273
    assert {path.name for path in tmp_path.iterdir()} == {"scan", "scan-p2"}


def test_another_model_says_that_it_reads_one_page(scan):
    done = CliRunner().invoke(app, ["ocr", str(scan[1]), "--model", "nano", *ASKED])
    assert done.exit_code == 2 and "nano reads one page per prompt" in done.output
