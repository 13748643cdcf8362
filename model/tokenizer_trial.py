"""Try a tokenizer.json in a process of its own, which tokenizer.py starts.

The library that reads it is written in Rust: some files abort the process or take its memory, which nothing
can catch from inside. The process answers one JSON object on its standard output: {"error": …}, or facts.
"""

from __future__ import annotations

import json
import os
import sys

from .limited import child_bytes, limit_memory
from .untrusted import UntrustedFile, parse_json, read_text, shown

IMAGE = "<image>"
TEXT = "Free OCR.\n\t a  b — é ß ∑ 中文，标点。 한국어 12345 <td>x</td>"  # composed characters only
LENGTH = (
    1 << 24
)  # characters that all tokens of a vocabulary may have together; the official ones: 0.7 million


def check_decoder(decoder, where: str) -> None:
    """Raise UntrustedFile for a decoder that can make text longer than the tokens say."""
    if decoder is None:
        return
    if not isinstance(decoder, dict):
        raise UntrustedFile(f"{where}: decoder is a JSON {type(decoder).__name__}, not an object")
    kind = decoder.get("type")
    if kind == "Sequence" and isinstance(decoder.get("decoders"), list):
        for each in decoder["decoders"]:
            check_decoder(each, where)
    elif kind == "Replace":
        pattern, content = decoder.get("pattern"), decoder.get("content")
        pattern = pattern.get("String") if isinstance(pattern, dict) else None
        if not isinstance(pattern, str) or not isinstance(content, str) or len(content) > len(pattern):
            raise UntrustedFile(f"{where}: the decoder replaces text by longer text")
    elif kind not in ("ByteLevel", "ByteFallback", "Fuse", "Strip"):
        raise UntrustedFile(f"{where}: decoder {shown(str(kind), 40)} is not one of a byte-level tokenizer")


def facts(path: str, ends: list[str]) -> dict:
    """What a tokenizer.json gives: the ids of <image> and `ends`, the largest id, TEXT after a round trip."""
    text, where = read_text(path), shown(path)
    stored = parse_json(text, where)
    if not isinstance(stored, dict):
        raise UntrustedFile(f"{where}: a JSON {type(stored).__name__}, expected an object")
    check_decoder(stored.get("decoder"), where)
    del stored
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = sorted(tokenizer.get_vocab(with_added_tokens=True).values())
    length = sum(
        len(tokenizer.decode(ids[at : at + 1000], skip_special_tokens=False))
        for at in range(0, len(ids), 1000)
    )
    if length > LENGTH:
        raise UntrustedFile(f"{where}: its {len(ids):,} tokens have {length:,} characters together")
    there_and_back = tokenizer.encode(TEXT, add_special_tokens=False).ids
    return {
        "image": tokenizer.token_to_id(IMAGE),
        "image_alone": tokenizer.encode(IMAGE, add_special_tokens=False).ids[:4],
        "ends": [tokenizer.token_to_id(end) for end in ends],
        "tokens": len(ids),
        "largest": ids[-1] if ids else -1,
        "round_trip": tokenizer.decode(there_and_back, skip_special_tokens=False)[:200],
    }


def main() -> None:
    limit_memory(child_bytes())
    try:
        answer = facts(sys.argv[1], sys.argv[2:])
    except (UntrustedFile, MemoryError) as error:
        answer = {"error": str(error) or "out of memory"}
    except Exception as error:  # of tokenizers, which raises plain Exception
        answer = {"error": f"{shown(sys.argv[1])}: {shown(str(error))}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
