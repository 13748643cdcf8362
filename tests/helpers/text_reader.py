"""A Reader without a network: it "reads" a given text on every page."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from deskocr_kit.reading.options import LoadOptions
from deskocr_kit.reading.reader import Reader
from model.inference import Reading
from model.official import DEEPSEEK_OCR


class TextReader(Reader):
    """Reads the given texts, one after the other; the last one repeats. An exception is raised."""

    texts: list

    def read(self, image, on_text=None, options=None) -> Reading:
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        if isinstance(text, BaseException):
            raise text
        if on_text is not None:
            on_text(text)
        text = text.strip()
        spans = [(i, min(i + 50, len(text))) for i in range(0, len(text), 50)]
        return Reading(text, text, [5] * len(spans), 3, 1, (1, 1), False, 0.1, [-0.1] * len(spans), spans)

    def read_batch(self, images, options=None) -> list[Reading]:
        return [self.read(image, options=options) for image in images]

    def doubts(self, image, reading, options=None) -> list[str]:
        return []


def text_reader(folder, *texts) -> TextReader:
    """texts: what the pages say; see TextReader. folder: of the weights, which need not exist."""
    config = SimpleNamespace(checkpoint=DEEPSEEK_OCR)
    model = SimpleNamespace(device=torch.device("cpu"), dtype=torch.float32, config=config)
    settings = {"mode": "tiny", "max_new_tokens": 9, "no_repeat_ngram_size": 0, "ngram_window": None}
    made = TextReader(model, None, folder, settings, 0.0, LoadOptions())
    made.texts = list(texts)
    return made
