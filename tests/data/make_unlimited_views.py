"""Makes unlimited_views.json: the views of transformers' processor of Unlimited-OCR at 200 page sizes.

That processor needs torchvision, which this project does not. Run it from the root of the repository in an
environment with transformers 5.23 and torchvision:

    python -m tests.data.make_unlimited_views
"""

from __future__ import annotations

import json
from pathlib import Path

import torchvision
import transformers
from transformers.models.unlimited_ocr.image_processing_unlimited_ocr import UnlimitedOcrImageProcessor

from tests.helpers.family_pages import page, sizes, summary


def main() -> None:
    processor = UnlimitedOcrImageProcessor()
    pages = []
    for width, height in sizes():
        made = processor(page(width, height), return_tensors="pt")
        tiles = made["pixel_values_local"].numpy() if made["num_local_patches"][0] else []
        whole = processor(page(width, height), crop_to_patches=False, return_tensors="pt")
        pages.append(
            {
                "size": [width, height],
                "grid": [int(n) for n in made["patches_grid"][0]],
                "view": summary(made["pixel_values"][0].numpy()),
                "without_tiles": summary(whole["pixel_values"][0].numpy())["box"],
                "tiles": [summary(tiles[i])["blocks"] for i in (0, -1)] if len(tiles) else [],
            }
        )
    about = f"transformers {transformers.__version__}, torchvision {torchvision.__version__}"
    lines = ",\n".join(json.dumps(each) for each in pages)
    text = f'{{"made_with": "{about}", "pages": [\n{lines}\n]}}\n'
    Path(__file__).with_name("unlimited_views.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
