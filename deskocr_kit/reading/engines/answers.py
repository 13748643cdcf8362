"""The JSON of an answer -> a Reading. Nothing in it is trusted: types, lengths and numbers are checked."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from model.confidence import Scores
from model.inference import Reading
from model.several_pages import split_pages
from model.untrusted import UntrustedFile, parse_json, shown

from .requests import Served

MOST_BYTES = 32 << 20  # of an answer: 32,768 tokens with their log-probabilities take some 6 MB
MOST_CHARACTERS = 500_000  # of a text, as in model/results.py
MOST_TOKENS = 1 << 20
_PIECE = re.compile(r"<\|?/?[A-Za-z]{1,16}\|?>|[A-Za-z]{1,6}|\s+|.", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")
_END = re.compile(r"<[|｜]end[_▁]of[_▁]sentence[|｜]>\s*\Z")  # skip_special_tokens: false may show it


class BadAnswer(ValueError):
    """The answer for a page cannot be used. Another attempt may give a better one."""


def parsed(body: bytes, what: str = "the answer") -> dict[str, Any]:
    """The JSON object in a body. Raises BadAnswer: not UTF-8, not JSON, NaN, nested too deep, no object."""
    try:
        value = parse_json(body.decode("utf-8"), what)
    except UnicodeDecodeError:
        raise BadAnswer(f"{what} is not text in UTF-8") from None
    except UntrustedFile as error:
        page = b"<html" in body[:2000].lower() or b"<!doctype" in body[:2000].lower()
        hint = "; it is an HTML page: is --base-url right, and is a proxy between?" if page else ""
        raise BadAnswer(f"{error}{hint}") from None
    if not isinstance(value, dict):
        raise BadAnswer(f"{what} is a JSON {type(value).__name__}, expected an object")
    return value


def joined(events: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The answer that a stream of chunks adds up to, in the form of an answer without a stream."""
    text: list[str] = []
    content: list[Any] = []
    reason, usage = None, None
    for event in events:
        if event.get("error") is not None:
            raise BadAnswer(f"the server reports {shown(str(event['error']))}")
        usage = event.get("usage") or usage
        choice = first_choice(event, default={})
        delta = choice.get("delta")
        piece = delta.get("content") if isinstance(delta, dict) else None
        if isinstance(piece, str):
            text.append(piece)
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
            content += logprobs["content"]
        reason = choice.get("finish_reason") or reason
    message = {"role": "assistant", "content": "".join(text)}
    choice = {"message": message, "finish_reason": reason, "logprobs": {"content": content}}
    return {"choices": [choice], "usage": usage}


def first_choice(answer: dict[str, Any], default: dict | None = None) -> dict[str, Any]:
    choices = answer.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    if default is None:
        error = answer.get("error") or answer.get("detail") or answer.get("message")
        raise BadAnswer(
            f"the server reports {shown(str(error))}" if error else "the answer has no list of choices"
        )
    return default


def reading_of(answer: dict[str, Any], served: Served, seconds: float) -> Reading:
    """The reading in an answer, stripped as the kit's own, with confidences if the server has them.

    `ids` stand for tokens, whose ids a server does not send: the tokens with their log-probabilities, or else
    short pieces of the text. `counted` is the number of tokens that the server reports.

    Raises BadAnswer.
    """
    choice = first_choice(answer)
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if content is None:
        content = ""
    if not isinstance(content, str):
        raise BadAnswer(f"the text of the answer is a JSON {type(content).__name__}")
    if len(content) > MOST_CHARACTERS:
        raise BadAnswer(f"the text of the answer has {len(content):,} characters")
    content = _END.sub("", _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", content))
    scores = scored(content, choice.get("logprobs")) if served.logprobs else None
    text = content.strip()
    usage = answer.get("usage") if isinstance(answer.get("usage"), dict) else {}
    return Reading(
        text=text,
        raw=content,
        ids=Pieces().encode(text) if scores is None else scores[1],
        prompt_tokens=whole(usage, "prompt_tokens") or 0,
        image_tokens=0,  # no server tells
        grid=(1, 1),
        truncated=choice.get("finish_reason") != "stop",
        seconds=seconds,
        logprobs=scores[0].logprobs if scores is not None else (),
        spans=scores[0].spans if scores is not None else (),
        counted=whole(usage, "completion_tokens"),
    )


def whole(usage: Any, name: str) -> int | None:
    """A number of tokens, if it is a sensible one."""
    value = usage.get(name) if isinstance(usage, dict) else None
    sensible = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return value if sensible else None


def entries_of(logprobs: Any) -> list[dict[str, Any]]:
    """The entries of `logprobs.content`, one per token; [] unless all of them are whole."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list) or len(content) > MOST_TOKENS:
        return []
    good = all(
        isinstance(each, dict) and isinstance(each.get("token"), str) and is_number(each.get("logprob"))
        for each in content
    )
    return content if good else []


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def scored(content: str, logprobs: Any) -> tuple[Scores, list[int]] | None:
    """(scores, stand-ins for the token ids); None if the tokens do not add up to the text."""
    entries = entries_of(logprobs)
    pieces = Pieces()
    ids = [pieces.id_of(bytes_of(each)) for each in entries]
    values = [min(0.0, float(each["logprob"])) for each in entries]
    end = -1
    if ids and pieces.decode(ids) != content and pieces.decode(ids[:-1]) == content:
        end = ids[-1]  # the end token, which a text does not show
        if end in ids[:-1]:
            return None
    elif not ids or pieces.decode(ids) != content:
        return None
    return Scores.of(pieces, ids, end, values), ids


def bytes_of(entry: dict[str, Any]) -> bytes:
    """The bytes of a token: a token may end in the middle of a character."""
    given = entry.get("bytes")
    if isinstance(given, list) and all(isinstance(n, int) and 0 <= n < 256 for n in given):
        return bytes(given)
    return entry["token"].encode("utf-8", "replace")


class Pieces:
    """Numbers for the tokens of one text, in place of a tokenizer."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}
        self.pieces: list[bytes] = []

    def id_of(self, piece: bytes) -> int:
        number = self.numbers.setdefault(piece, len(self.pieces))
        if number == len(self.pieces):
            self.pieces.append(piece)
        return number

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return b"".join(self.pieces[i] for i in ids).decode("utf-8", "replace")

    @staticmethod
    def encode(text: str, add_special_tokens: bool = False) -> list[int]:
        """Stand-ins for the ids of a text, about as long as tokens, so that loops are found in it."""
        return [zlib.crc32(each.encode("utf-8", "replace")) for each in _PIECE.findall(text)]


def by_page(whole_text: Reading, count: int) -> list[Reading]:
    """One reading per page of an answer for several; the marks between pages are as for the kit's own."""
    parts = split_pages(whole_text.text, count)
    total = max(1, sum(map(len, parts)))
    filled = [k for k, part in enumerate(parts) if part]
    last = filled[-1] if filled else 0
    return [
        replace(
            whole_text,
            text=part,
            raw=part,
            ids=Pieces.encode(part),
            truncated=whole_text.truncated and k >= last,
            seconds=whole_text.seconds * len(part) / total,
            logprobs=(),
            spans=(),
            counted=None,
        )
        for k, part in enumerate(parts)
    ]
