"""What may leave in a bundle: known words, numbers, versions and a few shapes. The rest becomes "<removed>".

No list of secrets is complete, so nothing passes because it does not look like one. A word passes if this kit
uses it itself: in its tables, in doctor's own messages, or in the list of npu-smi's titles.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

from ..ascend import codes, errors, versions

REMOVED, FOLDER, USER = "<removed>", "<folder>", "<user>"
LINE = 4000  # characters of a line that are looked at; the rest is removed

_NPU_SMI = """
    NPU Name Health Power Temp Hugepages Usage page Chip Phy ID Bus Id AICore Memory HBM Process process
    name memory MB No running processes found in OK Warning Alarm Critical Abnormal NA Count Total
    Product Model Manufacturer Huawei Software Firmware Version Compatibility PCIe Info Slot Class
    Capacity Clock MHz Bandwidth Utilization Aicore Aicpu Ctrlcpu Aivector Aicube DDR Rate Real time
    Temperature Logic Device Mcu MCU MiniD npu smi info python python3 python3.8 python3.9 python3.10
    python3.11 python3.12 python3.13 VLLMEngineCor
"""
_OTHER = """
    torch npu torchvision torchaudio transformers tokenizers safetensors numpy scipy sympy decorator
    attrs psutil cffi pyyaml protobuf cloudpickle absl py ml dtypes tornado pathlib2 requests pillow
    pypdfium2 tbe te hccl topi auto tune opc op compile tool accelerate vllm ascend deepspeed triton
    mindie peft modelscope einops addict easydict matplotlib typer rich click hub huggingface
    huggingface_hub datasets opencv usr local lib lib64 bin opt home root Users data Ascend toolkit
    latest versions cann nnal nnae atb cxx_abi_0 cxx_abi_1 driver common opp python site packages plugin
    plugins opskernel nnengine op_impl ai_core tbe built compiler runtime tools devlib linux aarch64
    x86_64 include share version info install set_env sh venv ccec_compiler aoe hiai asc dist export
    declare
"""
_DOTTED_QUAD = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}\Z")
_VERSION_WORDS = ("smi", "version", "driver", "firmware", "hdk", "package", "cann", "toolkit")
_SECRET_WORDS = re.compile(
    r"(?:pass(?:w(?:or)?d|phrase)?|pwd|pw|secret|bearer|basic|credentials?|api_?key|access_?key|auth|authorization"
    r"|cookie|session|login|user(?:name)?|host(?:name)?|serial|token)\Z",
    re.I,
)
_HOMES = ("home", "users")
#: One token: an address of a PCIe bus, a word with its inner punctuation, or any other character.
_TOKEN = re.compile(
    r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f](?!\w)|[\w.+\-]{1,200}|[^\w.+\-]"
)
_SHAPES = tuple(
    re.compile(shape)
    for shape in (
        r"\d{1,7}(?:\.\d{1,6})?%?",
        r"-\d{1,7}(?:\.\d{1,3})?",
        r"\d(?:\.\d{1,3})?e[+-]?\d{1,2}",
        r"0x[0-9a-fA-F]{1,8}",
        r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]",  # a PCIe address
        r"v?\d{1,4}(?:\.(?:\d{1,4}|(?:rc|RC|T|t|B|b|post|dev|a|alpha|beta)\.?\d{0,4})){1,6}(?:[+-](?:cpu|cu\d{1,4}|(?:alpha|beta)\.?\d))?",
        r"V\d{3}R\d{3}C\d{2}(?:SPC\d{3})?(?:B\d{3})?",  # a release train of CANN
        r"(?:Ascend)?(?:910|310|950)(?:_?[A-Z0-9]{0,4}|Pro[AB]|PremiumA)",  # a chip
        r"IT\d{2}[A-Z]{2,6}(?:_Bin\d)?",  # a board
        r"npu:\d{1,3}|davinci\d{1,3}|E[A-Z0-9]\d{4}|ERR\d{5}|SIG[A-Z]{2,6}",
        r"[.+\-_]{1,200}",
    )
)


def _split(word: str) -> list[str]:
    return [part for part in re.split(r"[-_.+]", word) if part]


@lru_cache(maxsize=1)
def vocabulary() -> frozenset[str]:
    """Every word of the tables, of doctor's own texts and of npu-smi's titles, in lower case."""
    texts = [
        _NPU_SMI,
        _OTHER,
        json.dumps(errors.rows()),
        json.dumps(codes.tables()),
        json.dumps(versions.tables()),
    ]
    for path in Path(__file__).parent.glob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        texts += [
            node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    words = {word for text in texts for word in re.findall(r"[^\W\d_][\w.+\-]{0,100}", text)}
    words |= {part for word in words for part in _split(word)}
    return frozenset(word.lower().strip(".-+") for word in words)


def _known(word: str) -> bool:
    if any(shape.fullmatch(word) for shape in _SHAPES):
        return True
    words = vocabulary()
    if word.lower().strip(".-+") in words:
        return True
    parts = _split(word)
    return len(parts) > 1 and all(part.lower() in words or re.fullmatch(r"\d{1,4}", part) for part in parts)


def clean(text: str, removed: Counter | None = None, versions_only: bool = False) -> str:
    """The text with every unknown word as "<removed>", and every folder below a home as "<user>".

    A dotted number of four parts may be an address: it stays only after a word like "version", or with
    `versions_only`, which says that the text has versions in such places. `removed` counts what was removed.
    """
    lines = [_clean_line(line[:LINE], removed, versions_only) for line in text.split("\n")]
    return "\n".join(lines)


def _clean_line(line: str, removed: Counter | None, versions_only: bool) -> str:
    out: list[str] = []
    last = ""  # the word before
    hide = 0  # words that follow one like "password"
    home = False
    for token in _TOKEN.findall(line):
        if not (token[0].isalnum() or token[0] in "_.+-"):
            out.append(token if token.isascii() or not token.isalnum() else "")
            home = home and token in "/\\"
            continue
        word = token.strip("-")
        address = (
            _DOTTED_QUAD.match(token) and not versions_only and not last.lower().endswith(_VERSION_WORDS)
        )
        if home:
            out.append(USER)
        elif (hide and word not in ("is", "was", "of")) or address or not _known(token):
            out.append(REMOVED)
        else:
            out.append(token)
        if removed is not None and out[-1] in (REMOVED, USER):
            removed["words, names and addresses"] += 1
        hide = 2 if _SECRET_WORDS.search(word) else max(0, hide - 1)
        home, last = word.lower() in _HOMES, word or last
    return "".join(out)


def clean_path(path: str, removed: Counter | None = None) -> str:
    """A path or a list of paths with its unknown folders as "<folder>" and those below a home as "<user>"."""
    out = []
    for each in path.split("\n")[0][:LINE].split(":"):
        parts = each.split("/")
        for i, part in enumerate(parts):
            if i and parts[i - 1].lower() in _HOMES:
                parts[i] = USER if part else part
            elif part and (
                _DOTTED_QUAD.match(part) or not re.fullmatch(r"[\w.+\-]{1,100}", part) or not _known(part)
            ):
                parts[i] = FOLDER
            if removed is not None and parts[i] in (USER, FOLDER):
                removed["folders"] += 1
        out.append("/".join(parts))
    return ":".join(out)


def program(command: str, removed: Counter | None = None) -> str:
    """The base name of the program of a command line: no folder, no argument."""
    words = command.split()
    name = words[0].rsplit("/", 1)[-1].rsplit("\\", 1)[-1] if words else ""
    name = name if re.fullmatch(r"[A-Za-z][\w.+\-]{0,31}", name) else REMOVED if name else ""
    if removed is not None and name != command.strip():
        removed["folders and arguments of programs"] += 1
    return name
