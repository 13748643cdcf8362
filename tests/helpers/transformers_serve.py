"""transformers' own server with the weights of nano.

    python -m tests.helpers.transformers_serve FOLDER PORT

writes nano into FOLDER in the form of transformers' `unlimited_ocr`, with a processor and a chat template,
and runs `transformers serve` on it. The environment needs PACKAGES.
"""

from __future__ import annotations

import importlib.util
import io
import re
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.helpers.paths import NANO

PACKAGES = ("fastapi", "uvicorn", "openai", "pydantic")  # of the extra `serving` of transformers
ALONE = ("accelerate", "torchvision")  # these two name a torch of their own, and get none
SIDE = 512  # pixels: nano reads the mode tiny
#: <image> where the picture is, and the text as it is: the prompt of the original.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


def name_operators() -> torch.library.Library:
    """Name the operators of torchvision.

    Its wheel is built for torch with CUDA, and cannot load its C++ beside torch for the CPU. Its Python code
    needs the names of the operators; a processor of pictures calls none of them.
    """
    place = importlib.util.find_spec("torchvision").submodule_search_locations[0]
    source = (Path(place) / "_meta_registrations.py").read_text("utf-8")
    library = torch.library.Library("torchvision", "DEF")
    names = set(re.findall(r'register_fake\("torchvision::(\w+)"', source))
    names |= set(re.findall(r'register_meta\("(\w+)"', source))
    for name in sorted(names):
        library.define(f"{name}(Tensor x) -> Tensor")
    return library


def decode(data, *_, **how) -> torch.Tensor:
    """In place of torchvision.io.decode_image, which is C++, too. data: the bytes of a picture."""
    image = Image.open(io.BytesIO(bytes(data.tolist()))).convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def write(folder: Path) -> None:
    """nano for transformers: weights, tokenizer, processor, template."""
    from transformers import AutoTokenizer
    from transformers.models.unlimited_ocr.image_processing_unlimited_ocr import UnlimitedOcrImageProcessor
    from transformers.models.unlimited_ocr.processing_unlimited_ocr import UnlimitedOcrProcessor

    from deskocr_kit.baselines.transformers_model import load_peer
    from model.loading import read_config

    config = read_config(NANO)
    peer = load_peer(NANO, config)
    peer.generation_config.eos_token_id = config.eos_token_id
    peer.save_pretrained(folder)
    pictures = UnlimitedOcrImageProcessor(
        size={"height": SIDE, "width": SIDE}, crop_to_patches=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    tokenizer = AutoTokenizer.from_pretrained(NANO)
    UnlimitedOcrProcessor(pictures, tokenizer, chat_template=TEMPLATE).save_pretrained(folder)


def main(folder: str, port: str) -> None:
    library = name_operators()  # deleted, it would take the names with it
    torch.set_num_threads(1)
    if not (Path(folder) / "config.json").exists():
        write(Path(folder))
    import torchvision.io
    from transformers.cli.transformers import main as transformers

    torchvision.io.decode_image = decode

    sys.argv = ["transformers", "serve", folder, "--device", "cpu", "--host", "127.0.0.1", "--port", port]
    transformers()
    del library


if __name__ == "__main__":
    main(*sys.argv[1:])
