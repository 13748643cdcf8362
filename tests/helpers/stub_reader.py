"""A Reader without a network, for tests of batches: what it does with a page depends on the page's colour.

    page(kind, number)     a picture of one colour: red is the kind, green and blue the number, up to 255
    load(device)           the reader; a function of a module, so that a worker process can call it

Every page that is read is noted in the file named by STUB_READS: "process kind number pages guard".
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from PIL import Image

from deskocr_kit.reading.options import LoadOptions
from deskocr_kit.reading.reader import Reader
from model.inference import Reading
from model.official import DEEPSEEK_OCR
from tests.helpers.paths import NANO

GOOD, RAISES, RAISES_IN_GROUP, TOO_LARGE, EXITS, POISONS, HANGS, LOOPS, CUT_OFF, NEVER_FITS, KILLED_ONCE = (
    range(11)
)


class StubReader(Reader):
    """Reads the number of a page."""

    def read_batch(self, images, prompt="free", mode=None, target=None, max_new_tokens=None, *, options=None):
        guard = self.settings["no_repeat_ngram_size"]
        pages = [colour(image) for image in images]
        for kind, number in pages:
            note(f"{os.getpid()} {kind} {number} {len(pages)} {guard}")
        time.sleep(float(os.environ.get("STUB_SECONDS", 0)) * len(pages))
        for kind, number in pages:
            misbehave(kind, number, len(pages))
        return [reading(kind, number, bool(guard)) for kind, number in pages]


def misbehave(kind: int, number: int, pages: int) -> None:
    if kind == RAISES or (kind == RAISES_IN_GROUP and pages > 1):
        raise RuntimeError(f"page {number} is unlucky")
    if kind == NEVER_FITS or (kind == TOO_LARGE and pages > 2):
        raise RuntimeError("NPU out of memory. Tried to allocate 2.00 GiB")
    if kind == EXITS:
        os._exit(3)
    if kind == POISONS and first_time(f"poison{number}"):
        raise RuntimeError(
            "The Inner error is reported. ERR00100 PTA call acl api failed, error code is 507035"
        )
    if kind == HANGS:
        time.sleep(3600)
    if kind == KILLED_ONCE and first_time(f"killed{number}"):
        os.kill(os.getpid(), signal.SIGKILL)


def first_time(name: str) -> bool:
    try:
        Path(os.environ["STUB_READS"] + "." + name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def reading(kind: int, number: int, guarded: bool) -> Reading:
    text = f"page {number}"
    ids = [100 + (number * k) % 97 for k in range(3, 3 + number % 5)] + [number + 5, 1]
    if kind == LOOPS and not guarded:
        ids, text = [7] * 40 + [1], "seven " * 40
    return Reading(
        text=text, raw=text, ids=ids, prompt_tokens=4, image_tokens=2, grid=(1, 1),
        truncated=kind == CUT_OFF and not guarded, seconds=0.01, logprobs=[-0.1] * len(ids),
        spans=[(0, len(text))] * len(ids),
    )  # fmt: skip


def load(device: str = "cpu") -> StubReader:
    if device == "broken":
        raise ValueError("the stub cannot be loaded on this device")
    config = SimpleNamespace(checkpoint=DEEPSEEK_OCR)
    model = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32, config=config)
    settings = {"mode": "tiny", "max_new_tokens": 64, "no_repeat_ngram_size": 0, "ngram_window": None}
    return StubReader(model, None, NANO, settings, 0.0, LoadOptions("nano", "cpu"))


def page(kind: int = GOOD, number: int = 0, size=(48, 64)) -> Image.Image:
    return Image.new("RGB", size, tuple(16 * level + 8 for level in (kind, number // 16 % 16, number % 16)))


def save(folder: Path, kinds, name: str = "{:04}.png") -> list[Path]:
    """One picture per kind, numbered from 0."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name.format(i) for i in range(len(kinds))]
    for i, (path, kind) in enumerate(zip(paths, kinds, strict=True)):
        page(kind, i).save(path)
    return paths


def colour(image) -> tuple[int, int]:
    image = getattr(image, "global_view", image)
    red, green, blue = image.getpixel((image.width // 2, image.height // 2))
    return red // 16, green // 16 * 16 + blue // 16  # the lowest bits may change: a PDF holds a JPEG


def note(line: str) -> None:
    if path := os.environ.get("STUB_READS"):
        with open(path, "a") as file:
            file.write(line + "\n")


def reads(path) -> list[tuple[int, ...]]:
    """(process, kind, number, pages, guard) of every page that was read so far."""
    path = Path(path)
    return [tuple(map(int, line.split())) for line in path.read_text().splitlines()] if path.exists() else []
