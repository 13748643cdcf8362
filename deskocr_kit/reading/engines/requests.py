"""Page + prompt + mode + server -> the JSON of a request. Pure functions: no connection, no clock.

What the servers differ in, with the sources of each rule, is in docs/engines.md. A field that a server does
not know is either ignored in silence (vLLM) or refused (transformers: 422), so each server gets its own.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from model.modes import Mode, get_mode
from model.official import Checkpoint
from model.prompts import IMAGE_TAG
from model.tiling import resize

#: Ids of <td> and </td> in the vocabulary of all models of the family: cells of a table may repeat.
TABLE_CELLS = (128821, 128822)
#: {checkpoint: (tokens of an n-gram, window)} of the guard, as each engine's recipe for it says. The kit's
#: own defaults differ: they look at the whole sequence.
GUARDS = {"deepseek-ocr": (30, 90), "deepseek-ocr-2": (30, 90), "unlimited-ocr": (35, 128)}
SPARE = 4  # times the pixels of all tiles: a page with more is reduced, the model sees no more of it
#: SGLang wants a class of its own as a pickle in hex. This is one by name, made without SGLang and dill.
_SGLANG_CLASS = b"csglang.srt.sampling.custom_logit_processor\nDeepseekOCRNoRepeatNGramLogitProcessor\n."


@dataclass(frozen=True)
class Kind:
    """What one kind of server takes beyond the API of OpenAI."""

    special: bool  # skip_special_tokens
    guard: bool  # the fields of an n-gram guard
    logprobs: bool
    stream_usage: bool  # stream_options.include_usage
    tag: bool  # whether the text keeps <image>; if not, the server puts it in front


KINDS = {
    "vllm": Kind(special=True, guard=True, logprobs=True, stream_usage=True, tag=False),
    "sglang": Kind(special=True, guard=True, logprobs=True, stream_usage=True, tag=True),
    "transformers": Kind(special=False, guard=False, logprobs=False, stream_usage=False, tag=False),
}


@dataclass(frozen=True)
class Served:
    """What is known about a server: where requests go, and what they may contain. See probe.py."""

    server: str  # a name in KINDS
    checkpoint: Checkpoint  # the model of the family that it serves
    model: str | None = None  # its name at the server; None: the server has one and wants no name
    version: str = ""
    template: str = ""  # the prompt that POST /tokenize shows
    guard: bool = False  # whether its n-gram guard works
    whitelist: bool = True  # whether it takes a list of ids that may repeat
    logprobs: bool = False  # whether its log-probabilities are those of the model, before the guard
    why_not: str = ""  # why it has no such log-probabilities
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @property
    def kind(self) -> Kind:
        return KINDS[self.server]


@dataclass(frozen=True)
class How:
    """How a page is to be read. ngram_size 0: without the guard. window None: the whole answer."""

    max_tokens: int
    ngram_size: int = 0
    window: int | None = None
    temperature: float = 0.0
    top_logprobs: int = 0
    stream: bool = False


def request(pictures: Sequence[bytes], prompt: str, served: Served, how: How) -> dict[str, Any]:
    """The body of POST /chat/completions for the pages in one prompt.

    Args:
        pictures: PNG files, see `picture`.
        prompt: with or without <image>, as `model.prompts.resolve_prompt` returns it.

    Raises ValueError for a prompt with more than one <image>, or with one behind other text: a server puts it
    in front, and refuses one too many.
    """
    kind = served.kind
    parts: list[dict] = [
        {
            "type": "image_url",
            "image_url": {"url": f"data:image/png;base64,{base64.b64encode(each).decode()}"},
        }
        for each in pictures
    ]
    parts.append({"type": "text", "text": text_of(prompt, served)})
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": how.max_tokens,
        "temperature": how.temperature,
    }
    if served.model is not None:
        body["model"] = served.model
    if kind.special:
        body["skip_special_tokens"] = False  # else the tags of boxes and tables are left out
    if kind.logprobs and (served.logprobs or how.top_logprobs):
        body["logprobs"] = True
        if how.top_logprobs:
            body["top_logprobs"] = how.top_logprobs
    if how.stream:
        body["stream"] = True
        if kind.stream_usage:
            body["stream_options"] = {"include_usage": True}
    return body | guard_fields(served, how)


def guard_fields(served: Served, how: How) -> dict[str, Any]:
    """The fields of the n-gram guard. Without its size in the request, the guard of a server does nothing."""
    if not served.kind.guard or how.ngram_size <= 0:
        return {}
    fields: dict[str, Any] = {"ngram_size": how.ngram_size, "window_size": how.window or how.max_tokens}
    if served.whitelist:
        fields["whitelist_token_ids"] = list(TABLE_CELLS)  # a string would be taken apart into digits
    if served.server == "vllm":
        return {"vllm_xargs": fields}
    return {"custom_logit_processor": json.dumps({"callable": _SGLANG_CLASS.hex()}), "custom_params": fields}


def text_of(prompt: str, served: Served) -> str:
    """The text beside the pictures: with <image> exactly where the server does not put one itself."""
    head, tag, rest = prompt.partition(IMAGE_TAG)
    if not tag:
        head, rest = "", "\n" + prompt
    if head.strip() or IMAGE_TAG in rest:
        raise ValueError(
            f"the prompt has {IMAGE_TAG} more than once, or behind other text; a serving engine takes it "
            "once, in front"
        )
    # The recipe of Unlimited-OCR has a literal <image>: its prompt has no line break there.
    if served.kind.tag or (served.server == "vllm" and served.checkpoint.name == "unlimited-ocr"):
        return IMAGE_TAG + rest
    if served.server == "transformers":
        return rest  # its template puts <image> and no line break
    return rest.lstrip("\n")  # vLLM puts <image> and a line break


def picture(image: Image.Image, mode: str | Mode, checkpoint: Checkpoint) -> tuple[bytes, tuple[int, int]]:
    """(PNG, its size) of a page. A server cuts tiles as in mode gundam, and cannot be told another mode.

    A picture of at most the side of a tile gets no tiles, so for the other modes the page is reduced to it.
    image: upright RGB.
    """
    chosen = get_mode(mode, checkpoint)
    width, height = image.size
    if chosen.crop_mode:
        most = SPARE * checkpoint.max_tiles * checkpoint.tile**2
        scale = min(1.0, (most / (width * height)) ** 0.5)
    else:
        scale = min(1.0, min(chosen.image_size, checkpoint.tile) / max(width, height))
    if scale < 1:
        image = resize(image, max(1, round(width * scale)), max(1, round(height * scale)))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue(), image.size


def has_tiles(size: tuple[int, int], checkpoint: Checkpoint) -> bool:
    """Whether the server cuts a picture of this size into tiles."""
    return max(size) > checkpoint.tile
