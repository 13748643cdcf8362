"""Pages and tokenizers for the golden data of preprocessing (goldens/preprocess.json)."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from PIL import Image

from model.official import DEEPSEEK_OCR
from tests.helpers.paths import GOLDENS
from tests.helpers.recipes import synth_image

GOLDEN = json.loads((GOLDENS / "preprocess.json").read_text(encoding="utf-8"))
IMAGE_ID = DEEPSEEK_OCR.image_token_id
PIECES = {  # pieces of the golden prompts and their ids in the official tokenizer
    "\n": [201],
    "<|grounding|>": [128820],
    "Convert the document to markdown.": [21842, 270, 4940, 304, 2121, 7919, 16],
    "Free OCR.": [21431, 126041, 16],
    "see": [6534],
    " ": [223],
}


class StubTokenizer:
    """Greedy longest match over PIECES: it replaces the official tokenizer for the golden prompts."""

    unk_token_id = None

    def encode(self, text, add_special_tokens=True):
        assert add_special_tokens is False, "bos is ours to place"
        ids = []
        while text:
            piece = max((p for p in PIECES if text.startswith(p)), key=len)
            ids, text = ids + PIECES[piece], text[len(piece) :]
        return ids

    def convert_tokens_to_ids(self, token):
        return {"<image>": IMAGE_ID}.get(token)


def page(width, height, kind=0):
    return Image.fromarray(synth_image(width, height, kind))


def digest(image):
    return hashlib.sha256(np.asarray(image).tobytes()).hexdigest()


class GoldenTokenizer:
    """A tokenizer for the one prompt used here, with the official ids in goldens/preprocess.json."""

    def __init__(self):
        self.vectors = {text: ids for text, ids in GOLDEN["token_ids"]["vectors"] if "<image>" in text}

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return self.vectors["<image>" + text][1:]

    def convert_tokens_to_ids(self, token: str) -> int:
        return next(iter(self.vectors.values()))[0]
