"""At least 60 bad inputs in one folder: each has its line with a reason, and no good page is lost."""

from __future__ import annotations

import gzip
import io
import os
import random
import socket
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from deskocr_kit.batch import decode
from tests.helpers.batches import check_lines, stub_batch
from tests.helpers.image_files import (
    BMP,
    GIF,
    JPEG,
    PNG,
    TIFF,
    WEBP,
    encoded,
    flipped,
    png_chunk,
    png_of_size,
)
from tests.helpers.stub_reader import GOOD, page, save


def pdf_of(*pages) -> bytes:
    file = io.BytesIO()
    pages[0].save(file, "PDF", save_all=True, append_images=list(pages[1:]))
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../escape.png", PNG)
    return file.getvalue()


PDF = pdf_of(page(GOOD, 1, (60, 80)))
NO_PAGES = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n"
)
LOOPED = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[2 0 R]/Count 1>>endobj\n"
    b"trailer<</Root 1 0 R>>"
)

#: {name: content}; none of them is a page that can be read.
BAD = {
    **{f"empty{suffix}": b"" for suffix in (".png", ".jpg", ".gif", ".tif", ".bmp", ".webp", ".pdf")},
    **{f"text{suffix}": b"not a picture at all\n" * 9 for suffix in (".png", ".jpg", ".tif", ".pdf", ".jp2")},
    **{f"zeros{suffix}": bytes(5000) for suffix in (".png", ".jpg", ".pdf")},
    **{f"random{seed}.png": random.Random(seed).randbytes(3000) for seed in range(8)},
    "cut.png": PNG[: len(PNG) // 2],
    "cut.tif": TIFF[:60],
    "cut.webp": WEBP[: len(WEBP) // 2],
    "cut.gif": GIF[:14],
    "cut.bmp": BMP[:30],
    "head_only.png": PNG[:33],
    "head_only.jpg": JPEG[:20],
    "no_data.png": PNG[:33] + png_chunk(b"IEND", b""),
    "damaged_header.png": flipped(PNG, 8),
    "damaged_header.jpg": flipped(JPEG, 0),
    "damaged_header.tif": flipped(TIFF, 0),
    "damaged_header.gif": flipped(GIF, 0),
    "damaged_header.webp": flipped(WEBP, 0),
    "damaged_header.bmp": flipped(BMP, 0),
    "bomb_wide.png": png_of_size(2_000_000_000, 1),
    "bomb_tall.png": png_of_size(1, 70_000),
    "bomb.png": png_of_size(60_000, 60_000),
    "no_width.png": png_of_size(0, 10),
    "no_size.png": png_of_size(0, 0),
    "page.html.png": b"<!DOCTYPE html><html><body>404</body></html>",
    "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "answer.png": b'{"error": "not found"}',
    "pointer.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "archive.png": zipped(),
    "packed.png": gzip.compress(PNG),
    "program.png": b"\x7fELF" + bytes(200),
    "pickle.png": b"\x80\x04cos\nsystem\n(S'touch escaped'\ntR.",
    "half.pdf": PDF[: len(PDF) // 3],
    "mark_only.pdf": b"%PDF-1.7\n",
    "no_pages.pdf": NO_PAGES + b"trailer<</Root 1 0 R>>",
    "own_parent.pdf": LOOPED,
    "encrypted.pdf": PDF.replace(b"trailer", b"trailer\n<</Encrypt 99 0 R>>", 1)[: len(PDF) // 2],
    "damaged.pdf": b"%PDF-1.4" + random.Random(9).randbytes(4000),
    "nested.json.png": b"[" * 100_000,
    "latin.png": "größe".encode("latin-1") * 50,
    "heic.jpg": b"\0\0\0\x18ftypheic" + bytes(100),
    "avi.png": b"RIFF\x10\0\0\0AVI LIST" + bytes(50),
    "ico.png": b"\0\0\1\0\1\0" + bytes(10),
    "psd.png": b"8BPS\0\1" + bytes(20),
    "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 999999 999999\n",
    "wmf.png": b"\xd7\xcd\xc6\x9a" + bytes(30),
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    place = folder / "in"
    place.mkdir()
    for name, content in BAD.items():
        (place / name).write_bytes(content)
    (place / "a folder.png").mkdir()
    (place / "nowhere.png").symlink_to(place / "does not exist")
    (place / "itself.png").symlink_to(place / "itself.png")
    os.mkfifo(place / "pipe.png")
    server = socket.socket(socket.AF_UNIX)
    previous = os.getcwd()
    os.chdir(place)
    server.bind("socket.png")
    os.chdir(previous)
    special = ["nowhere.png", "itself.png", "pipe.png", "socket.png"]
    more = [str(place / name) for name in special]
    more += [
        "/dev/zero",
        "/dev/null",
        str(place / ("n" * 300 + ".png")),
        str(place / "nul\0.png"),
        "/proc/self/mem",
    ]
    good = save(place / "good", [GOOD] * 6)
    bad = [str(place / name) for name in BAD] + more
    given = [
        x
        for i, name in enumerate(bad)
        for x in ((name, str(good[i // 12])) if i % 12 == 0 and i // 12 < 6 else (name,))
    ]
    summary = stub_batch(given, folder / "out", batch_size=4, workers=2, formats=("md",), gallery=True)
    server.close()
    return folder, bad, good, summary


def test_there_are_at_least_sixty_of_them(outcome):
    assert len(outcome[1]) >= 60 and len(set(outcome[1])) == len(outcome[1])


def test_each_bad_input_has_one_line_with_a_reason_and_no_good_page_is_lost(outcome):
    folder, bad, good, summary = outcome
    found = check_lines(folder / "out")
    states = {line["file"]: line["state"] for line in found}
    assert {name for name in bad if states.get(name) != "failed"} == set()
    assert all(states[str(path)] == "done" for path in good) and len(found) == len(bad) + len(good)
    for line in found:
        if line["state"] == "failed":
            assert "\n" not in line["error"] and len(line["error"]) > 10 and line["kind"] == "file", line
    assert not summary.pending and not summary.stopped


def test_nothing_is_written_beside_the_output_folder(outcome):
    folder = outcome[0]
    assert sorted(path.name for path in folder.iterdir()) == ["in", "out"]
    assert not Path("escaped").exists() and not list(folder.rglob("escape*"))


def test_a_decoder_that_fails_in_its_own_way_does_not_end_the_run(tmp_path, monkeypatch):
    real = decode.iter_pages

    def pages(file, **how):
        if file.endswith("1.png"):
            raise AssertionError("a bug in a library")
        if file.endswith("2.png"):
            yield from real(file, **how)
            raise RecursionError("too deep")
        yield from real(file, **how)

    monkeypatch.setattr(decode, "iter_pages", pages)
    summary = stub_batch(save(tmp_path / "in", [GOOD] * 4), tmp_path / "out")
    assert len(summary.read) == 3 and summary.kinds == {"file": 2}
    errors = [each["error"] for each in summary.failed]
    assert any("AssertionError: a bug in a library" in text for text in errors)


def test_pictures_of_unusual_kinds_are_read(tmp_path):
    """The border of bad inputs: these can be opened."""
    pictures = {
        "gray16.png": Image.new("I;16", (40, 40), 900),
        "bit.png": Image.new("1", (9, 9)),
        "alpha.png": Image.new("RGBA", (40, 40)),
        "tiny.png": Image.new("RGB", (1, 1)),
        "strip.png": Image.new("L", (1, 20000)),
    }
    good = {name: encoded("PNG", picture) for name, picture in pictures.items()}
    good |= {"cmyk.jpg": encoded("JPEG", Image.new("CMYK", (40, 40))), "pdf.png": PDF, "picture.pdf": PNG}
    good["palette.gif"] = encoded("GIF", Image.new("P", (20, 20)))
    for name, content in good.items():
        (tmp_path / name).write_bytes(content)
    summary = stub_batch([tmp_path / name for name in good], tmp_path / "out")
    assert len(summary.read) == len(good), summary.failed
