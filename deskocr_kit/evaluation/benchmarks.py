"""Published benchmarks, read from their folders: OmniDocBench, and Fox-style folders of pages and texts.

Neither is part of the kit. What is read is treated as data of strangers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from model.untrusted import UntrustedFile, is_regular, read_json, read_text, shown

#: Categories of OmniDocBench whose text the metric counts: not headers, footers and page numbers.
TEXT = ("text_block", "title", "code_txt", "reference", "figure_caption", "table_caption")
ANNOTATIONS = 512 << 20  # bytes; the official file has 60 MB
PICTURES = (".png", ".jpg", ".jpeg")
MOST_PAGES = 100_000


@dataclass(frozen=True)
class BenchmarkPage:
    """A page of a benchmark: the picture, its true text blocks in reading order, and its language."""

    picture: Path
    truth: tuple[str, ...]
    language: str = ""


def omnidocbench(folder: str | Path) -> list[BenchmarkPage]:
    """The pages of a folder with OmniDocBench.json (or one other JSON file) and images/.

    Raises ValueError, in one line, if the annotation file is of another form or a picture is missing.
    """
    folder = Path(folder)
    file = annotation_file(folder)
    try:
        samples = read_json(file, ANNOTATIONS)
    except OSError as error:
        raise ValueError(f"{shown(file)}: {error.strerror or error}") from None
    if not isinstance(samples, list) or not samples:
        raise ValueError(f"{shown(file)}: expected a list of pages, as in OmniDocBench.json")
    pages = [_page(sample, i, file, folder) for i, sample in enumerate(samples[:MOST_PAGES])]
    names = [page.picture.stem for page in pages]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"{shown(file)}: two pages are called {shown(twice)}; their predictions would collide"
        )
    return pages


def annotation_file(folder: Path) -> Path:
    """OmniDocBench.json, else the only JSON file of the folder. Raises ValueError."""
    if not folder.is_dir():
        raise ValueError(f"{shown(folder)}: no such folder")
    official = folder / "OmniDocBench.json"
    others = sorted(folder.glob("*.json"))
    if official.exists() or len(others) == 1:
        return official if official.exists() else others[0]
    raise ValueError(f"{shown(folder)}: no OmniDocBench.json, and {len(others)} other JSON files")


def _page(sample, index: int, file: Path, folder: Path) -> BenchmarkPage:
    where = f"{shown(file)}, page {index}"
    try:
        info, boxes = sample["page_info"], sample["layout_dets"]
        name = info["image_path"]
        attributes = info.get("page_attribute") or {}
        blocks = [box for box in boxes if box["category_type"] in TEXT and not box.get("ignore")]
        blocks.sort(key=lambda box: (box.get("order") is None, box.get("order") or 0))
        truth = tuple(box["text"] for box in blocks if isinstance(box.get("text"), str))
        language = str(attributes.get("language", "")) if isinstance(attributes, dict) else ""
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where}: not in the form of OmniDocBench ({shown(repr(error))})") from None
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}: page_info.image_path is no name of a picture")
    return BenchmarkPage(_picture(folder, name, where), truth, language)


def _picture(folder: Path, name: str, where: str) -> Path:
    """The file of a picture. Raises ValueError if it is missing, or if the name leads out of the folder."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if not parts.is_absolute() and ".." not in parts.parts:
        for path in (folder / "images" / parts, folder / parts):
            if is_regular(path):
                return path
    raise ValueError(f"{where}: the picture {shown(name)} is not in {shown(folder / 'images')}")


def fox(folder: str | Path) -> list[BenchmarkPage]:
    """The pages of a folder with NAME.png (or .jpg) beside NAME.txt, its true text.

    Raises ValueError if there is none, or a picture has no text.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{shown(folder)}: no such folder")
    pages = []
    for picture in sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES):
        try:
            pages.append(BenchmarkPage(picture, (read_text(picture.with_suffix(".txt")),)))
        except (OSError, UntrustedFile) as error:
            raise ValueError(f"{shown(picture)}: no text beside it ({shown(str(error))})") from None
    if not pages:
        raise ValueError(f"{shown(folder)}: no page; expected NAME.png beside NAME.txt")
    return pages


@cache
def published() -> dict:
    """The paper's figures, see published.json."""
    return json.loads((Path(__file__).with_name("published.json")).read_text(encoding="utf-8"))
