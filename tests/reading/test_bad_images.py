"""Bad input: a faulty image or PDF gives one clear line (problem, file, remedy); unusual ones work."""

from __future__ import annotations

import io
import random
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from deskocr_kit.reading.pages import iter_pages
from model.images import ImageError, load_image
from model.processing import build_inputs
from tests.helpers.image_files import (
    BMP,
    GIF,
    JPEG,
    PAGE,
    PNG,
    TIFF,
    WEBP,
    encoded,
    flipped,
    png_chunk,
    png_of_size,
    rgb,
)

FAULTY = {  # file name: (content, problem in the message, remedy in the message)
    "empty.png": (b"", "empty file (0 bytes)", "copy or download it again"),
    "half.jpg": (JPEG[: len(JPEG) // 2], "truncated image", "copy or download it again"),
    "half.png": (PNG[: len(PNG) // 2], "truncated image", "copy or download it again"),
    "half.tif": (TIFF[: len(TIFF) // 2], "image (", "copy or download it again"),
    "half.webp": (WEBP[: len(WEBP) // 2], "image", "copy or download it again"),
    "half.bmp": (BMP[: len(BMP) // 2], "truncated image", "copy or download it again"),
    "half.gif": (GIF[: len(GIF) // 2], "truncated image", "copy or download it again"),
    "head_only.jpg": (JPEG[:20], "image", "copy or download it again"),
    "head_only.png": (PNG[:20], "image", "copy or download it again"),
    "four_bytes.png": (PNG[:4], "a PNG with a damaged header", "copy or download it again"),
    "flipped_bits.png": (flipped(PNG, 300), "damaged image|truncated image", "copy or download it again"),
    "bad_header.png": (flipped(PNG, 12, 8), "a PNG with a damaged header", "copy or download it again"),
    "text.png": (b"just some words\n" * 9, "not a readable image: unknown format", "convert it"),
    "zeros.jpg": (bytes(5000), "begins with zero bytes", "copy it again"),
    "page.html.jpg": (b"\n<!DOCTYPE html><html>404", "it is an HTML page", "download the picture again"),
    "error.json.png": (b'{"error": "not found"}', "it is JSON text", "download the picture again"),
    "lfs.png": (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer", "git lfs pull"),
    "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG", "export it as PNG"),
    "letter.docx": (b"PK\x03\x04" + bytes(60), "ZIP archive or an Office document", "print it to PDF"),
    "page.png.gz": (b"\x1f\x8b\x08" + bytes(60), "gzip", "unpack it"),
    "really_a.pdf.png": (b"%PDF-1.4\n%", "it is a PDF", "render its pages"),
    "photo.heic": (b"\0\0\0\x18ftypheic" + bytes(60), "HEIC/AVIF", "convert it to PNG"),
    "bomb.png": (png_of_size(60000, 60000), "too many pixels", "scale it down"),
    "strip.png": (png_of_size(1, 70000), "1x70000 is longer than 65500 pixels", "cut it into pages"),
    "no_pixels.png": (png_of_size(5, 0), "image|no pixels", "again"),
    "noise.tif": (b"II*\0" + bytes(range(200)), "image", "copy or download it again"),
    "endless.png": (
        PNG[:33] + png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(70_000_000))),
        "image",
        "again",
    ),
}


@pytest.mark.parametrize("name", FAULTY)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_faulty_file_gives_one_clear_line(name, tmp_path):
    content, what, do = FAULTY[name]
    path = tmp_path / name
    path.write_bytes(content)
    message = says(path)
    assert message.startswith(f"{path}: "), message
    assert "\n" not in message
    assert any(part in message for part in what.split("|")), message
    assert any(part in message for part in do.split("|")), message
    if content:  # the same message for bytes in memory
        with pytest.raises(ImageError, match="bytes>: "):
            load_image(content)


def says(source):
    with pytest.raises(ImageError) as error:
        load_image(source)
    return str(error.value)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "two-page TIFF", "PDF"])
@pytest.mark.filterwarnings("ignore")
def test_random_damage_gives_a_page_or_an_image_error_and_nothing_else(format, tmp_path):
    dice = random.Random(format)
    more = {"save_all": True, "append_images": [PAGE.rotate(9)]} if format.startswith("two") else {}
    data, path = encoded(format.split()[-1], **more), tmp_path / "page"
    failed = 0
    for _ in range(120):
        damaged = bytearray(data)
        for _ in range(dice.choice([1, 3, 20])):
            damaged[dice.randrange(min(len(data), dice.choice([64, len(data)])))] = dice.randrange(256)
        path.write_bytes(damaged[: dice.choice([len(data), dice.randrange(len(data))])])
        for page in iter_pages(path, collect_errors=True):
            assert (page.image is None) == isinstance(page.error, ImageError)
            failed += page.image is None
            assert page.error is None or "\n" not in str(page.error)
    assert failed > 20


def test_paths_that_are_no_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert says("no.png") == f"no.png: no such file (looked in {tmp_path}); check the path"
    assert says(tmp_path / "no.png") == f"{tmp_path / 'no.png'}: no such file; check the path"
    assert says(tmp_path) == f"{tmp_path}: is a folder, not an image; give the files in it"
    assert "cannot be opened" in says("a\0b.png") or "no such file" in says("a\0b.png")
    assert says("x" * 5000).endswith("permissions")
    assert says("/dev/zero") == "/dev/zero: not a regular file; give an image file"


def test_sources_that_are_no_files():
    assert says(b"") == "<0 bytes>: empty (0 bytes); check the source of the bytes"
    assert says(io.BytesIO()) == "<BytesIO>: not a readable image: no data; check its source"
    assert "cannot read a page from int" in says(5)
    assert "cannot read a page from NoneType" in says(None)
    assert "no pixels (0x7)" in says(Image.new("RGB", (0, 7)))


def test_a_message_of_a_batch_names_the_page(tmp_path):
    (tmp_path / "bad.png").write_bytes(PNG[:200])
    with pytest.raises(ImageError, match=r"bad\.png: truncated"):
        build_inputs(None, "x", [tmp_path / "bad.png", PAGE], "tiny", image_token_id=5)


def test_bomb_warning_turned_into_an_error_is_still_one_clear_line(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "too many pixels" in says(PNG)


@pytest.mark.parametrize("source", ["path", "str", "bytes", "file", "image"])
def test_every_kind_of_source_gives_the_same_page(source, tmp_path):
    path = tmp_path / "p.png"
    path.write_bytes(PNG)
    with path.open("rb") as file:
        given = {"path": path, "str": str(path), "bytes": PNG, "file": file, "image": PAGE}[source]
        page = load_image(given)
    assert (page.mode, page.info) == ("RGB", {"notes": []})
    assert np.array_equal(rgb(page), rgb(PAGE))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "PA", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_usual_colour_modes_equal_pillows_conversion(mode):
    """The original uses convert("RGB")."""
    source = PAGE.convert("P").convert("PA") if mode == "PA" else PAGE.convert(mode)
    assert np.array_equal(rgb(load_image(source)), rgb(source.convert("RGB")))


def test_premultiplied_alpha():
    source = PAGE.convert("RGBA")
    assert np.array_equal(rgb(load_image(source.convert("RGBa"))), rgb(PAGE))


def test_a_colour_mode_without_a_way_to_rgb_is_named(monkeypatch):
    def no_way(image, mode):
        raise ValueError("conversion not supported")

    monkeypatch.setattr(Image.Image, "convert", no_way)
    message = says(Image.new("CMYK", (4, 4)))
    assert "colour mode CMYK cannot be converted (conversion not supported); save it as 8-bit RGB" in message


def test_cmyk_jpeg_and_palette_with_transparency():
    page = load_image(encoded("JPEG", Image.new("CMYK", (9, 9), (0, 255, 255, 0))))
    assert np.abs(rgb(page)[4, 4] - (255, 0, 0)).max() < 6
    palette = PAGE.convert("P")
    assert np.array_equal(
        rgb(load_image(encoded("PNG", palette, transparency=0))), rgb(palette.convert("RGB"))
    )


def test_alpha_is_dropped_as_in_the_original_and_noted():
    source = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    page = load_image(encoded("PNG", source))
    assert page.getpixel((3, 3)) == (10, 20, 30)
    assert page.info["notes"] == ["transparency dropped: such pixels show the colour stored under them"]
    assert load_image(PAGE.convert("RGBA")).info["notes"] == []


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled_where_pillow_clips(format):
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    page = load_image(encoded(format, Image.fromarray(ramp)))
    assert np.array_equal(rgb(page)[..., 1].ravel(), np.arange(256))
    assert page.info["notes"] == ["16-bit gray scaled to 8 bits"]


@pytest.mark.parametrize(("top", "said"), [(255, "8-bit"), (4095, "12-bit"), (65535, "16-bit")])
def test_depth_of_gray_is_seen_from_the_brightest_pixel(top, said):
    values = np.array([[0, top // 2, top]], dtype=np.uint16)
    page = load_image(Image.fromarray(values))
    assert rgb(page)[0, :, 0].tolist() == pytest.approx([0, 127, 255], abs=1)
    assert said in page.info["notes"][0]


@pytest.mark.parametrize(
    ("values", "want"),
    [([0, 0.5, 1], [0, 128, 255]), ([-2, 0, 2], [0, 128, 255]), ([0, 1e6, 2e6], [0, 128, 255])],
)
def test_float_and_32_bit_gray(values, want):
    array = np.array([values], dtype=np.float32)
    assert rgb(load_image(Image.fromarray(array)))[0, :, 0].tolist() == pytest.approx(want, abs=1)
    if max(values) > 1:
        assert rgb(load_image(Image.fromarray(array.astype(np.int32))))[0, :, 0].tolist() == pytest.approx(
            want, abs=1
        )
    holes = np.array([[0, np.nan, 1, np.inf]], dtype=np.float32)
    assert rgb(load_image(Image.fromarray(holes)))[0, :, 0].tolist() == [0, 0, 255, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientations(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.new("RGB", (64, 32), "white")
    ImageDraw.Draw(picture).rectangle((0, 0, 31, 15), fill="black")  # marks the top left corner as stored
    page = load_image(encoded(format, picture, exif=exif))
    assert page.size == ((64, 32) if orientation < 5 else (32, 64))
    corners = {1: (0, 0), 2: (1, 0), 3: (1, 1), 4: (0, 1), 5: (0, 0), 6: (1, 0), 7: (1, 1), 8: (0, 1)}
    right, down = corners[orientation]
    at = (page.width - 5 if right else 4, page.height - 5 if down else 4)
    assert max(page.getpixel(at)) < 60
    assert load_image(page).size == page.size, "must not be turned twice"


def test_broken_exif_does_not_cost_the_page():
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        assert load_image(encoded("JPEG", PAGE, exif=exif)).size == PAGE.size


def test_first_frame_of_an_animation_is_read_and_said():
    frames = [Image.new("RGB", (20, 10), c) for c in ("red", "lime", "blue")]
    data = encoded("GIF", frames[0], save_all=True, append_images=frames[1:])
    page = load_image(data)
    assert page.getpixel((5, 5)) == (255, 0, 0)
    assert page.info["notes"] == ["frame 1 of 3 was read"]
    assert load_image(data, frame=2).getpixel((5, 5)) == (0, 0, 255)
    with pytest.raises(ImageError, match="there is no frame 3"):
        load_image(data, frame=3)


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1)])
def test_tiny_and_thin_pages_can_be_read(size):
    assert load_image(encoded("PNG", Image.new("RGB", size))).size == size
