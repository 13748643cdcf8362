"""`deskocr batch`: bad pages, interrupted and repeated runs, equal names, pages decoded together."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from typer.testing import CliRunner

from deskocr_kit.batch.run import read_batch
from deskocr_kit.cli import app
from deskocr_kit.reading.page_record import output_folder
from deskocr_kit.reading.pages import Page, count_pages, iter_pages
from deskocr_kit.reading.reader import Reader
from tests.helpers.paths import ROOT

SAMPLES = sorted((ROOT / "model" / "nano" / "pages").glob("*.png"))
FEW = 4  # tokens; the text does not matter here


@pytest.fixture(scope="module")
def reader():
    return Reader.load("nano", "cpu", "fp32")


def stored(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def stamps(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("*/result.json")}


def test_pages_decoded_together_give_the_text_of_each_alone(reader):
    short, *others = (Image.open(path).convert("RGB") for path in SAMPLES[:3])
    alone = [reader.read(short)]
    most = len(alone[0].ids) + 8  # so that one page ends by itself while the others continue
    alone += [reader.read(image, max_new_tokens=most) for image in others]
    together = reader.read_batch([short, *others], max_new_tokens=most)
    assert [r.ids for r in together] == [r.ids for r in alone]
    assert [(r.text, r.truncated, r.prompt_tokens, r.image_tokens, r.grid) for r in together] == [
        (r.text, r.truncated, r.prompt_tokens, r.image_tokens, r.grid) for r in alone
    ]
    assert len({len(r.ids) for r in alone}) > 1, "pages of one length would not test the early end"


def test_bad_pages_are_told_and_the_rest_is_read(reader, tmp_path):
    bad, empty = tmp_path / "bad.png", tmp_path / "empty.pdf"
    bad.write_bytes(b"nothing")
    empty.write_bytes(b"%PDF-")
    files = [bad, SAMPLES[0], empty, tmp_path / "missing.png", SAMPLES[1]]
    summary = read_batch(files, reader, tmp_path / "out", max_tokens=FEW, batch_size=2)
    assert summary.read == [SAMPLES[0].stem, SAMPLES[1].stem]
    assert [Path(each["file"]).name for each in summary.failed] == ["bad.png", "empty.pdf", "missing.png"]
    assert all(each["file"] in each["error"] for each in summary.failed)
    assert summary.truncated == summary.read and summary.tokens == 2 * FEW
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert record["counts"] == {"read": 2, "failed": 3, "skipped": 0, "truncated": 2, "loops": 0} | {
        "loops": len(summary.loops)
    }
    assert "missing.png" in repr(summary) and "&lt;" not in repr(summary)


def test_a_page_that_breaks_the_reading_takes_no_other_with_it(reader, tmp_path, monkeypatch):
    sizes, real = [], reader.read_batch

    def touchy(images, **how):
        sizes.append(len(images))
        if any(image.info.get("poison") for image in images):
            raise FloatingPointError("logits are NaN or Inf")
        return real(images, **how)

    def poisoned(file, **how):
        for page in iter_pages(file, **how):
            page.image.info["poison"] = page.file.endswith(SAMPLES[1].name)
            yield page

    monkeypatch.setattr(reader, "read_batch", touchy)
    monkeypatch.setattr("deskocr_kit.batch.decode.iter_pages", poisoned)
    summary = read_batch(SAMPLES[:3], reader, tmp_path, max_tokens=FEW, batch_size=3)
    assert sizes == [3, 1, 1, 1]
    assert summary.read == [SAMPLES[0].stem, SAMPLES[2].stem]
    (failed,) = summary.failed
    assert failed["error"] == f"{SAMPLES[1]} page 1: logits are NaN or Inf"


def test_a_second_run_reads_only_what_is_missing_or_changed(reader, tmp_path):
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for i in range(3):
        shutil.copy(SAMPLES[i], scans / f"{i}.png")
    files, how = sorted(scans.iterdir()), {"max_tokens": FEW}
    assert read_batch(files, reader, out, **how).read == ["0", "1", "2"]
    before = stamps(out)
    again = read_batch(files, reader, out, batch_size=2, **how)
    assert (again.read, again.skipped, stamps(out)) == ([], ["0", "1", "2"], before)

    shutil.copy(SAMPLES[3], scans / "1.png")  # other content under the same name
    (out / "2" / "result.mmd").unlink()  # damaged
    changed = read_batch(files, reader, out, **how)
    assert (changed.read, changed.skipped) == (["1", "2"], ["0"])
    assert (out / "2" / "result.mmd").exists()
    assert read_batch(files[:1], reader, out, max_tokens=FEW + 1).read == ["0"], "other settings"
    assert read_batch(files[:1], reader, out, max_tokens=FEW + 1, prompt="ocr").read == ["0"]
    assert sorted(stamps(out)) == ["0", "1", "2"], "a page keeps its folder"


def test_a_half_written_folder_is_not_taken_for_a_page(reader, tmp_path):
    (tmp_path / SAMPLES[0].stem).mkdir()
    for content in ("", "{", "[]", '{"files": ["../../etc/passwd"]}'):
        (tmp_path / SAMPLES[0].stem / "result.json").write_text(content)
        summary = read_batch(SAMPLES[:1], reader, tmp_path / ".", max_tokens=2)
        assert len(summary.read) == 1 and not summary.skipped
        shutil.rmtree(tmp_path / summary.read[0], ignore_errors=True)
        (tmp_path / SAMPLES[0].stem).mkdir(exist_ok=True)


def test_two_files_of_one_name_keep_apart_whatever_the_order(reader, tmp_path):
    for i, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        shutil.copy(SAMPLES[i], tmp_path / name / "page.png")
    a, b, out = tmp_path / "a" / "page.png", tmp_path / "b" / "page.png", tmp_path / "out"
    assert read_batch([b], reader, out, max_tokens=FEW).read == ["page"]
    assert read_batch([a, b, a], reader, out, max_tokens=FEW).read == ["page-2"]
    assert (stored(out / "page")["source"], stored(out / "page-2")["source"]) == (str(b), str(a))
    assert read_batch([a, b], reader, out, max_tokens=FEW).skipped == ["page-2", "page"]


def test_pages_of_a_pdf_are_resumed_one_by_one(reader, tmp_path, monkeypatch):
    images = [Image.open(path).convert("RGB") for path in SAMPLES[:3]]
    images[0].save(tmp_path / "scan.pdf", save_all=True, append_images=images[1:])
    out = tmp_path / "out"
    assert read_batch([tmp_path / "scan.pdf"], reader, out, max_tokens=2).read == [
        "scan", "scan-p2", "scan-p3",
    ]  # fmt: skip
    shutil.rmtree(out / "scan-p2")
    rendered, real = [], __import__("deskocr_kit.reading.pages", fromlist=["_render"])._render
    monkeypatch.setattr("deskocr_kit.reading.pages._render", lambda *a: rendered.append(a[1]) or real(*a))
    again = read_batch([tmp_path / "scan.pdf"], reader, out, max_tokens=2)
    assert (again.read, again.skipped, rendered) == (["scan-p2"], ["scan", "scan-p3"], [1])


def test_the_bar_counts_pages_not_files(reader, tmp_path):
    images = [Image.open(path).convert("RGB") for path in SAMPLES[:3]]
    pdf, broken = tmp_path / "scan.pdf", tmp_path / "broken.pdf"
    images[0].save(pdf, save_all=True, append_images=images[1:])
    broken.write_bytes(b"%PDF-")
    files = [pdf, SAMPLES[0], pdf, broken, tmp_path / "missing.png"]
    told = []
    bar = SimpleNamespace(update=told.append, set_postfix_str=lambda *a, **k: None, write=lambda text: None)
    for _ in ("read", "done already"):
        read_batch(files, reader, tmp_path / "out", max_tokens=1, progress=bar)
        assert sum(told) == count_pages(files) == 7
        told.clear()


def test_no_name_leads_out_of_the_folder_or_clashes_on_any_disk():
    taken = {"summary.json"}
    names = [
        output_folder(Path("o"), Page(f, 1), taken).name for f in ("...png", "A.png", "a.png", "x/A.gif")
    ]
    assert names == ["page", "A", "a-2", "A-3"]
    assert output_folder(Path("o"), Page("summary.json.png", 1), taken).name == "summary.json-2"


# SIGTERM is handled as SIGINT, so the second test has both on its path.
@pytest.mark.parametrize("kind", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_an_interrupted_run_keeps_what_is_done_and_goes_on(tmp_path, kind):
    words = [sys.executable, "-m", "deskocr_kit", "batch", *map(str, SAMPLES), *copies(tmp_path)]
    words += ["--model", "nano", "--device", "cpu", "--out", str(tmp_path / "out"), "--max-tokens", "20"]

    def start():  # children of a test in the background ignore Ctrl-C; SIGTERM must work even then
        signal.signal(signal.SIGINT, signal.SIG_IGN if kind == signal.SIGTERM else signal.default_int_handler)

    pipe = subprocess.PIPE
    run = subprocess.Popen(words, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, preexec_fn=start)
    deadline = time.monotonic() + 240
    while not stamps(tmp_path / "out") and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    run.send_signal(kind)
    out, err = run.communicate(timeout=120)
    assert run.returncode == 130, out + err
    assert "interrupted" in out and "Traceback" not in err
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    done = stamps(tmp_path / "out")
    assert record["interrupted"] and 1 <= len(record["read"]) < 2 * len(SAMPLES)
    assert set(record["read"]) <= set(done)
    assert not list((tmp_path / "out").rglob("*.part"))
    handler = signal.getsignal(signal.SIGTERM)
    rest = CliRunner().invoke(app, [*words[3:], "--json"])  # the same message, without starting torch again
    signal.signal(signal.SIGTERM, handler)
    record = json.loads(rest.stdout)
    assert rest.exit_code == 0 and not record["interrupted"], rest.stderr
    assert set(record["skipped"]) == set(done) and len(record["read"]) == 2 * len(SAMPLES) - len(done)
    assert all(stamps(tmp_path / "out")[name] == done[name] for name in done)


def copies(folder: Path) -> list[str]:
    """Copies of the sample pages, so that the run is long enough to interrupt."""
    made = [folder / f"again_{path.name}" for path in SAMPLES]
    for path, copy in zip(SAMPLES, made, strict=True):
        shutil.copy(path, copy)
    return [str(path) for path in made]
