"""The tokenizer of a checkpoint: tokenizer.json as it is, and nothing else that a folder may contain.

transformers' AutoTokenizer chooses a class by other files. Their `auto_map` asks to run code of the folder,
and for `tokenizer_class: LlamaTokenizerFast`, as in the official folder, transformers 5.3 to 5.15 replace the
byte-level parts by those of Llama: blanks and Chinese vanish without an error. Here only tokenizer.json
decides. It is first tried in a process of its own, see tokenizer_trial.py.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .limited import LimitExceeded, run_limited
from .tokenizer_trial import TEXT
from .untrusted import UntrustedFile, parse_json, read_json_object, read_text, shown
from .weight_files import CheckpointError, absent

if TYPE_CHECKING:
    from .config import DeepseekOCRConfig

FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
AGAIN = f"Copy {FILE} and {CONFIG} from the hub again."
SECONDS, BYTES = 12.0, 1 << 30  # of the trial; measured with 128,812 tokens: 0.8 s of one core, 0.13 GB
ROLES = ("bos_token", "eos_token", "pad_token")


@dataclass(frozen=True)
class TokenizerFacts:
    """What a trial found. `remarks`: what is in the folder and not used."""

    tokens: int
    special: dict[str, str]  # {role: token}
    remarks: tuple[str, ...]


def load_tokenizer(folder: str | Path, config: DeepseekOCRConfig | None = None):
    """The tokenizer of a checkpoint folder, as transformers' PreTrainedTokenizerFast.

    No code of the folder runs, whatever its files ask for, and `tokenizer_class` does not matter.

    Args:
        config: if given, the ids of <image> and of the end token must be those in it.

    Raises:
        CheckpointError: tokenizer.json is missing, damaged, of another model, or does not give text back.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    folder = Path(folder)
    found = try_tokenizer(folder, config)
    raw = Tokenizer.from_str(read_text(folder / FILE))
    return PreTrainedTokenizerFast(tokenizer_object=raw, clean_up_tokenization_spaces=False, **found.special)


def check_round_trip(tokenizer) -> None:
    """Raise ValueError if a tokenizer that was loaded elsewhere does not give text back."""
    text = "中 文"
    ids = tokenizer.encode(text, add_special_tokens=False)
    if (back := tokenizer.decode(ids, skip_special_tokens=False)) != text:
        raise ValueError(
            f"the tokenizer does not give text back: {text!r} became {shown(back, 40)!r}. Some releases of "
            "transformers replace parts of it; use model.load_tokenizer(folder)"
        )


def try_tokenizer(folder: str | Path, config: DeepseekOCRConfig | None = None) -> TokenizerFacts:
    """Load and use tokenizer.json in a process with limits. Raises as `load_tokenizer`."""
    folder = Path(folder)
    path = folder / FILE
    check_file(path)
    stated = read_config(folder / CONFIG)
    special = {role: text for role in ROLES if (text := token_text(stated.get(role)))}
    answer = ask(path, list(special.values()))
    ids = dict(zip(special, answer["ends"], strict=True))
    refuse = refusal(answer, ids, special, config)
    if refuse:
        raise CheckpointError(f"{shown(path)}: {refuse}. {AGAIN}")
    remarks = []
    if "auto_map" in stated:
        remarks.append(f"auto_map in {CONFIG} names code of this folder, which is never run")
    return TokenizerFacts(answer["tokens"], special, tuple(remarks))


def check_file(path: Path) -> None:
    """Raise CheckpointError unless the path is a regular file that is not a git-lfs pointer."""
    try:
        start = read_text(path)[:30]
    except FileNotFoundError:
        lost = f"{FILE} is missing" if absent(path) == "no such file" else f"{FILE} is {absent(path)}"
        raise CheckpointError(f"{shown(path.parent)}: {lost}. {AGAIN}") from None
    except OSError as error:
        raise CheckpointError(f"{shown(path)}: cannot be read ({error.strerror}). {AGAIN}") from None
    except UntrustedFile as error:
        raise CheckpointError(f"{error}. {AGAIN}") from None
    if start.startswith("version https://git-lfs"):
        raise CheckpointError(
            f"{shown(path)}: a git-lfs pointer, not the tokenizer. Run `git lfs pull`, or download it again."
        )


def read_config(path: Path) -> dict:
    """The content of tokenizer_config.json; {} if there is none. Raises CheckpointError."""
    try:
        return read_json_object(path)
    except OSError as error:
        if error.errno == errno.ENOENT and absent(path) == "no such file":
            return {}
        raise CheckpointError(f"{shown(path)}: {error.strerror or error}. {AGAIN}") from None
    except UntrustedFile as error:
        raise CheckpointError(f"{error}. {AGAIN}") from None


def token_text(value: Any) -> str | None:
    """The text of a special token, which a tokenizer_config.json states as text or as an object."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and 0 < len(value) <= 200 and "\0" not in value else None


def ask(path: Path, special: list[str]) -> dict:
    """The answer of the trial. Raises CheckpointError if the trial failed."""
    try:
        done = run_limited(
            "model.tokenizer_trial",
            [str(path), *special],
            seconds=SECONDS,
            memory=BYTES,
            answer_bytes=1 << 20,
        )
    except LimitExceeded as error:
        raise CheckpointError(f"{shown(path)}: the tokenizer cannot be loaded ({error}). {AGAIN}") from None
    try:
        answer = parse_json(done.output.decode("utf-8"))
    except (UntrustedFile, UnicodeDecodeError):
        lines = done.errors.strip().splitlines()
        why = f"its process ended with status {done.status}" + (f": {shown(lines[-1], 120)}" if lines else "")
        raise CheckpointError(f"{shown(path)}: the tokenizer cannot be loaded ({why}). {AGAIN}") from None
    if "error" in answer:
        why = str(answer["error"]).removeprefix(f"{shown(path)}: ")
        raise CheckpointError(f"{shown(path)}: the tokenizer is damaged or cannot be loaded ({why}). {AGAIN}")
    return answer


def refusal(answer: dict, ids: dict, special: dict, config: DeepseekOCRConfig | None) -> str:
    """Why a tokenizer that loads cannot be used, or ""."""
    for role, token in special.items():
        if ids[role] is None:
            return f"{role} {shown(token, 60)} of {CONFIG} is not one of its tokens"
    if answer["round_trip"] != TEXT:
        got = shown(answer["round_trip"], 80)
        return f"it does not give text back: {shown(TEXT, 80)!r} became {got!r}"
    if config is None:
        return ""
    if answer["image"] != config.image_token_id:
        return (
            f"<image> is {answer['image']}, but config.json has {config.image_token_id}: "
            "it belongs to another checkpoint"
        )
    if answer["largest"] >= config.decoder.vocab:
        return f"it has token {answer['largest']}, but config.json has vocab_size {config.decoder.vocab}"
    end = ids.get("eos_token")
    if end is not None and end != config.eos_token_id:
        return f"eos_token is {end}, but config.json has eos_token_id {config.eos_token_id}"
    return ""
