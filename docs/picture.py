"""Takes docs/page.png for the README: a search in the page that `make ocr` leaves, in a headless Chromium.

python docs/picture.py        # needs `chromium` on the PATH
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURE = Path(__file__).with_name("page.png")
SIZE = (1100, 640)  # pixels
SHOWN = "3_story"  # the first of the sample pages that nano reads without an error
NAMES = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        sys.exit(f"no browser found; install one of {', '.join(NAMES)}")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        subprocess.run([sys.executable, "-m", "deskocr_kit", "demo", "--out", out], check=True)
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder}",
        ]
        size = f"--window-size={SIZE[0]},{SIZE[1]}"
        page = f"{(out / 'index.html').as_uri()}#{SHOWN}"
        subprocess.run([browser, *options, size, f"--screenshot={PICTURE}", page], check=True, timeout=120)
    image = Image.open(PICTURE).convert("RGB").crop((0, 0, *SIZE))
    image.quantize(128).save(PICTURE, optimize=True)  # a third of the bytes, and nobody sees it


if __name__ == "__main__":
    main()
