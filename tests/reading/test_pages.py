"""Files to pages: PDFs (whole, encrypted, broken, empty), multi-frame files, folders."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageDraw

from deskocr_kit.reading.pages import expand_inputs, iter_pages
from model.images import ImageError
from tests.helpers.image_files import JPEG, PAGE, encoded, flipped, rgb
from tests.helpers.pdf_files import make_encrypted_pdf, make_pdf
from tests.helpers.recipes import synth_image


def pdf_says(path, **options):
    with pytest.raises(ImageError) as error:
        list(iter_pages(path, **options))
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value)


def test_pdf_pages_are_rendered_at_144_dpi(tmp_path):
    path = make_pdf(tmp_path / "a.pdf", [(612, 792), (200, 100)])
    pages = list(iter_pages(path))
    assert [(p.file, p.number, p.image.size) for p in pages] == [
        (str(path), 1, (1224, 1584)),
        (str(path), 2, (400, 200)),
    ]
    assert [next(iter_pages(path, dpi=72)).image.size, pages[0].image.mode, pages[0].notes] == [
        (612, 792),
        "RGB",
        [],
    ]
    with pytest.raises(ValueError, match="dpi=5"):
        list(iter_pages(path, dpi=5))


def test_pdf_content_arrives_upright_and_in_colour(tmp_path):
    picture = Image.new("RGB", (300, 200), "white")
    ImageDraw.Draw(picture).rectangle((0, 0, 99, 99), fill=(200, 30, 30))
    picture.save(tmp_path / "named_wrongly.png", "PDF", resolution=72, save_all=True, append_images=[PAGE])
    first, second = iter_pages(tmp_path / "named_wrongly.png")
    assert first.image.size == (600, 400)
    assert np.abs(np.array(first.image.getpixel((60, 60))) - (200, 30, 30)).max() < 12
    assert min(first.image.getpixel((500, 300))) > 245
    assert second.image.size == (640, 480)


def test_encrypted_pdf(tmp_path):
    path = make_encrypted_pdf(tmp_path / "secret.pdf", "open sesame")
    assert "the PDF is encrypted; give its password" in pdf_says(path)
    assert "the password is wrong" in pdf_says(path, password="wrong")
    assert [p.image.size for p in iter_pages(path, password="open sesame")] == [(400, 200)]
    no_password_needed = make_encrypted_pdf(tmp_path / "open.pdf", "")
    assert len(list(iter_pages(no_password_needed))) == 1


def test_broken_pdf(tmp_path):
    whole = make_pdf(tmp_path / "a.pdf").read_bytes()
    for content in (whole[:60], b"%PDF-1.7\n" + bytes(500), b"%PDF-"):
        path = tmp_path / "broken.pdf"
        path.write_bytes(content)
        assert "broken PDF; download or export it again" in pdf_says(path)


def test_pdf_without_pages(tmp_path):
    path = make_pdf(tmp_path / "none.pdf", [])
    for content in (b"%PDF-", make_encrypted_pdf(tmp_path / "s.pdf", "x").read_bytes()):
        (tmp_path / "before.pdf").write_bytes(content)
        pdf_says(tmp_path / "before.pdf")  # PDFium keeps this reason and reports it for the next file
        assert "the PDF has 0 pages; export it again" in pdf_says(path)


def test_poster_is_rendered_smaller_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_000_000)
    (page,) = iter_pages(make_pdf(tmp_path / "poster.pdf", [(14400, 7200)]), dpi=300)
    assert page.image.width * page.image.height <= Image.MAX_IMAGE_PIXELS
    assert page.image.width == pytest.approx(2 * page.image.height, abs=2)
    assert page.notes == [f"the page is 200x100 inch: rendered at {page.image.width / 200:.0f} dpi"]


def test_a_bad_file_can_be_collected_instead_of_raised(tmp_path):
    path = tmp_path / "bad.pdf"
    path.write_bytes(b"%PDF-")
    (page,) = iter_pages(path, collect_errors=True)
    assert (page.number, page.image, page.notes) == (1, None, [])
    assert isinstance(page.error, ImageError)
    (page,) = iter_pages(tmp_path / "missing.png", collect_errors=True)
    assert "no such file" in str(page.error)


@pytest.mark.parametrize("format", ["TIFF", "GIF"])
def test_frames_are_pages(format, tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    frames = [Image.new("RGB", (20 + 2 * i * (format == "TIFF"), 10), c) for i, c in enumerate(colours)]
    path = tmp_path / f"scan.{format.lower()}"
    frames[0].save(path, format, save_all=True, append_images=frames[1:])
    pages = list(iter_pages(path))
    assert [(p.number, p.image.getpixel((5, 5)), p.notes) for p in pages] == [
        (i + 1, colour, []) for i, colour in enumerate(colours)
    ]
    assert [p.image.size for p in pages] == [f.size for f in frames]


def test_a_single_image_is_one_page(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(JPEG)
    (page,) = iter_pages(str(path))
    assert (page.file, page.number, page.image.size) == (str(path), 1, PAGE.size)


def test_a_damaged_frame_does_not_cost_the_others(tmp_path):
    frames = [Image.fromarray(synth_image(64, 64, kind)) for kind in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:], compression="tiff_adobe_deflate")
    with Image.open(file) as tiff:
        tiff.seek(1)
        start, length = tiff.tag_v2[273][0], tiff.tag_v2[279][0]
    path = tmp_path / "scan.tif"
    path.write_bytes(flipped(file.getvalue(), start, length))
    pages = list(iter_pages(path, collect_errors=True))
    assert [p.error is None for p in pages] == [True, False, True]
    assert "scan.tif" in str(pages[1].error)
    assert np.array_equal(rgb(pages[2].image), rgb(frames[2]))
    with pytest.raises(ImageError):
        list(iter_pages(path))


def test_thumbnails_and_masks_in_a_tiff_are_no_pages(tmp_path):
    path, multipage = tmp_path / "pyramid.tif", {"tiffinfo": {254: 2}}
    data = encoded("TIFF", PAGE.copy(), save_all=True, append_images=[PAGE.resize((32, 24))], **multipage)
    entry = struct.pack("<HHII", 254, 4, 1, 2)  # tag 254, one LONG, "a page of a multi-page file"
    assert data.count(entry) == 2
    before, after = data[: data.rindex(entry)], data[data.rindex(entry) + len(entry) :]
    path.write_bytes(before + struct.pack("<HHII", 254, 4, 1, 1) + after)  # "a smaller copy"
    with Image.open(path) as tiff:
        tiff.seek(1)
        assert (tiff.size, tiff.tag_v2[254]) == ((32, 24), 1)
    assert [p.image.size for p in iter_pages(path)] == [PAGE.size]


def test_folders_are_expanded_in_natural_order(tmp_path):
    for name in ("p10.png", "p2.PNG", "p1.pdf", "notes.txt", ".hidden.png", "a.tiff", "b.jpeg"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "sub.png").mkdir()
    single = tmp_path / "notes.txt"
    found = expand_inputs([tmp_path, str(single), "missing.png"])
    names = ["a.tiff", "b.jpeg", "p1.pdf", "p2.PNG", "p10.png", "notes.txt", "missing.png"]
    assert [p.name for p in found] == names
