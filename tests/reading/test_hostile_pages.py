"""Pages that cost a decoder minutes or gigabytes, or that block: one line for each, and the next follows."""

from __future__ import annotations

import io
import os
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deskocr_kit.batch.records import stored_in
from deskocr_kit.reading import page_child, page_source
from deskocr_kit.reading.pages import count_pages, expand_inputs, iter_pages
from model.images import ImageError, load_image
from tests.helpers.hostile_files import animation, empty_scans, fifo, many_operators, nested_forms
from tests.helpers.image_files import JPEG, PAGE, encoded, png_of_size, rgb


@pytest.fixture
def child():
    """A new child for this test, and none of its settings afterwards."""
    page_source.close()
    yield
    page_source.close()


def written(path, content: bytes):
    path.write_bytes(content)
    return path


def pages(path, **how):
    return [page.error or page.image for page in iter_pages(path, collect_errors=True, **how)]


# ------------------------------------------------------------------ time and memory
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space of a process")
def test_a_page_that_needs_too_much_memory_fails_and_the_next_is_read(tmp_path, monkeypatch, child):
    """2.7 kB of forms in forms: without a limit 4.7 GB in 12 s."""
    monkeypatch.setattr(page_source, "MEMORY", 64 << 20)
    bomb, second = pages(written(tmp_path / "forms.pdf", nested_forms()))
    assert "page 1 of 2 needs more than" in str(bomb) and "export the PDF again" in str(bomb)
    assert second.size == (400, 200)


def test_a_page_that_takes_too_long_fails_and_the_next_is_read(tmp_path, monkeypatch, child):
    path = written(tmp_path / "curves.pdf", many_operators(50_000))
    page_source._running()  # its start does not count here
    assert pages(written(tmp_path / "a.jpg", JPEG))[0].size == PAGE.size
    monkeypatch.setattr(page_source, "SECONDS", 2.0)
    began = time.monotonic()
    slow, second = pages(path)
    assert "page 1 of 2 takes more than 2 s to read" in str(slow)
    assert second.size == (400, 200) and time.monotonic() - began < 30


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the address space of a process")
@pytest.mark.parametrize("make", [nested_forms, lambda: many_operators(1_000_000)], ids=["memory", "time"])
def test_the_real_limits_hold(make, tmp_path, child):
    """Half a minute: 30 s and 2 GB, as docs/security.md states."""
    import resource

    began = time.monotonic()
    first, second = pages(written(tmp_path / "bomb.pdf", make()))
    assert isinstance(first, ImageError) and second.size == (400, 200)
    assert time.monotonic() - began < 90
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < (page_child.MEMORY >> 10) * 1.3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_largest_image_takes_the_memory_of_one_page_here(tmp_path, child):
    """Some seconds. 13,300 x 13,300 pixels took 2.3 GB; Pillow holds 4 bytes of each, 0.7 GB."""
    import resource

    file = io.BytesIO()
    Image.new("RGB", (13_300, 13_300), "white").save(file, "PNG", compress_level=1)
    path = written(tmp_path / "wall.png", file.getvalue())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (page,) = pages(path)
    assert page.size == (13_300, 13_300)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 900 << 10


def test_a_progressive_jpeg_with_many_empty_scans_has_a_limit_too(tmp_path, monkeypatch, child):
    assert pages(written(tmp_path / "a.jpg", JPEG))[0].size == PAGE.size
    monkeypatch.setattr(page_source, "SECONDS", 0.5)
    (found,) = pages(written(tmp_path / "scans.jpg", empty_scans(9000, 9000, 3000)))
    assert "takes more than 0.5 s" in str(found)


def test_the_frames_of_an_animation_are_read_in_one_pass_and_capped(tmp_path, monkeypatch):
    path = written(tmp_path / "long.gif", animation(page_child.MAX_FRAMES + 7, 16))
    found = pages(path)
    assert len(found) == page_child.MAX_FRAMES + 1
    assert "the pages after the first 2,000 were left out; split the file" in str(found[-1])
    assert all(page.size == (16, 16) for page in found[:-1])


@pytest.mark.parametrize("disposal", [0, 1, 2, 3])
def test_a_frame_read_in_one_pass_equals_the_frame_read_alone(disposal, tmp_path):
    dice = np.random.default_rng(disposal)
    frames = [Image.fromarray(dice.integers(0, 256, (24, 32, 3), dtype=np.uint8)) for _ in range(4)]
    data = encoded("GIF", frames[0], save_all=True, append_images=frames[1:], disposal=disposal)
    path = written(tmp_path / "a.gif", data)
    for k, page in enumerate(pages(path)):
        assert np.array_equal(rgb(page), rgb(load_image(path, frame=k)))
    (third,) = list(iter_pages(path, skip={1, 2, 4}))
    assert third.number == 3 and np.array_equal(rgb(third.image), rgb(load_image(path, frame=2)))


# ------------------------------------------------------------------ what is no file
@pytest.mark.skipif(sys.platform == "win32", reason="no FIFO, no /dev")
def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path):
    pipe = fifo(tmp_path / "page.png")
    for path in (pipe, "/dev/zero", tmp_path):
        (found,) = pages(path)
        assert isinstance(found, ImageError) and (
            "not a regular file" in str(found) or "folder" in str(found)
        )
    link = tmp_path / "link.png"
    link.symlink_to(pipe)
    assert "not a regular file" in str(pages(link)[0])
    assert count_pages([pipe, link]) == 2
    written(tmp_path / "good.png", JPEG)
    assert [path.name for path in expand_inputs([tmp_path])] == ["good.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFO")
def test_a_result_json_of_any_kind_is_no_page_of_an_earlier_run(tmp_path):
    kinds = {
        "deep": lambda path: path.write_text('{"a":' * 100_000),
        "list": lambda path: path.write_text("[]"),
        "numbers": lambda path: path.write_text(
            '{"source": "x", "page": 1, "settings": {}, "files": [1, {}]}'
        ),
        "digits": lambda path: path.write_text('{"page": ' + "9" * 5000 + "}"),
        "pipe": fifo,
        "folder": lambda path: path.mkdir(),
        "device": lambda path: path.symlink_to("/dev/zero"),
        "bytes": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    }
    for name, make in kinds.items():
        (tmp_path / name).mkdir()
        make(tmp_path / name / "result.json")
        assert stored_in(tmp_path / name) is None, name


def test_an_image_that_is_a_program_is_not_run(tmp_path, monkeypatch):
    def run(*words, **how):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run)
    head = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\n(x) show\nshowpage\n%%EOF\n"
    path = written(tmp_path / "page.png", head)
    assert "EPS is a program that draws, and is not run; export it as PNG" in str(pages(path)[0])
    with pytest.raises(ImageError, match="is not run"):
        load_image(path)


# ------------------------------------------------------------------ the child
def test_nothing_of_a_decoder_reaches_the_terminal(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PAGE.width * PAGE.height - 1)  # Pillow warns from here on
    broken = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(40)
    for name, data in (("large.png", encoded("PNG")), ("exif.jpg", encoded("JPEG", PAGE, exif=broken))):
        path = written(tmp_path / name, data)
        assert pages(path)[0].size == load_image(path).size == PAGE.size
    assert capfd.readouterr() == ("", "")


def test_files_read_in_turn_keep_their_pages_apart(tmp_path):
    for i, name in enumerate(("a", "b")):
        frames = [Image.new("RGB", (20, 10), (100 * i, 50 * k, 7)) for k in range(3)]
        frames[0].save(tmp_path / name, "TIFF", save_all=True, append_images=frames[1:])
    both = zip(iter_pages(tmp_path / "a"), iter_pages(tmp_path / "b"), strict=True)
    assert [[page.image.getpixel((1, 1)) for page in pair] for pair in both] == [
        [(0, 50 * k, 7), (100, 50 * k, 7)] for k in range(3)
    ]


def test_threads_share_the_child(tmp_path):
    path = written(tmp_path / "a.jpg", JPEG)
    found = []
    threads = [threading.Thread(target=lambda: found.extend(pages(path) * 1)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [page.size for page in found] == [PAGE.size] * 4


def test_a_child_that_died_is_started_again_and_a_relative_path_is_found_after_chdir(tmp_path, monkeypatch):
    written(tmp_path / "a.jpg", JPEG)
    assert pages(tmp_path / "a.jpg")[0].size == PAGE.size
    page_source._child.process.kill()
    page_source._child.process.wait()
    monkeypatch.chdir(tmp_path)
    assert pages("a.jpg")[0].size == PAGE.size
    assert "no.png: no such file" in str(pages("no.png")[0])


def test_a_file_that_vanishes_between_its_pages_ends_there(tmp_path):
    frames = [PAGE.resize((30, 20)) for _ in range(5)]
    path = tmp_path / "a.tif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    reading = iter_pages(path, collect_errors=True)
    assert next(reading).image is not None
    page_source.close()
    os.unlink(path)
    rest = list(reading)
    assert len(rest) == 1 and "no such file" in str(rest[0].error)


def test_bands_of_a_large_page_arrive_in_order(tmp_path, monkeypatch):
    gradient = Image.fromarray((np.arange(3000 * 1000 * 3) % 251).astype(np.uint8).reshape(1000, 3000, 3))
    (page,) = pages(written(tmp_path / "a.png", encoded("PNG", gradient, compress_level=1)))
    assert np.array_equal(np.asarray(page), np.asarray(gradient))


def test_a_16_bit_page_converted_in_bands_is_the_same(monkeypatch):
    ramp = Image.fromarray((np.arange(64 * 48) * 21 % 65536).astype(np.uint16).reshape(48, 64))
    whole = load_image(ramp)
    monkeypatch.setattr("model.images.BAND", 64 * 5)
    assert np.array_equal(rgb(load_image(ramp)), rgb(whole))


@pytest.mark.parametrize("data", [png_of_size(60_000, 60_000), b"%PDF-", b"", b"\x89PNG"])
def test_messages_name_the_file_as_it_was_given(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "bad", data)
    assert str(pages("bad")[0]).startswith("bad: ")


@pytest.mark.fuzz
@given(
    st.binary(max_size=200),
    st.sampled_from([b"%PDF-1.4\n", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"\xff\xd8\xff", b""]),
)
def test_any_bytes_give_pages_or_one_line(tmp_path_factory, data, head):
    path = written(tmp_path_factory.getbasetemp() / "any", head + data)
    for found in pages(path):
        assert found.mode == "RGB" if isinstance(found, Image.Image) else "\n" not in str(found)
