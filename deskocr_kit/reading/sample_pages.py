"""Pages with known text in a folder, such as the sample pages that ship with nano."""

from __future__ import annotations

from pathlib import Path

from .checkpoints import named


def sample_pages(folder: str | Path = "") -> list[tuple[Path, str]]:
    """(picture, true text) of each NAME.png beside a NAME.txt in `folder`; of nano's own pages for "".

    Raises FileNotFoundError if there is no such pair.
    """
    place = Path(folder) if folder else named()["nano"] / "pages"
    texts = {path: path.with_suffix(".txt") for path in sorted(place.glob("*.png"))}
    pairs = [(path, text.read_text(encoding="utf-8")) for path, text in texts.items() if text.is_file()]
    if not pairs:
        raise FileNotFoundError(f"{place}: expected NAME.png and its true text in NAME.txt, found none")
    return pairs
