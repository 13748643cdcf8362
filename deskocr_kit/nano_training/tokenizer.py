"""The nano tokenizer: bytes, plus the official special tokens. Writes tokenizer.json and
tokenizer_config.json.

A byte-level BPE without merges, in the official file's format, so that `AutoTokenizer` reads it as it reads
the official one; ids differ from the official ones, names do not.
"""

from __future__ import annotations

from pathlib import Path

from model.files import write_json

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
SPECIAL = (
    "<image>",
    "<|ref|>",
    "<|/ref|>",
    "<|det|>",
    "<|/det|>",
    "<|grounding|>",
    "<td>",
    "</td>",
    "<tr>",
    "</tr>",
    "<|User|>",
    "<|Assistant|>",
)
FIRST_BYTE = 3  # after bos, eos, pad
IMAGE_ID = FIRST_BYTE + 256
VOCAB = FIRST_BYTE + 256 + len(SPECIAL) + 1  # 272: one row to spare, as the official table has rows to spare


def byte_alphabet() -> list[str]:
    """The printable stand-in of each byte 0..255, as every byte-level BPE since GPT-2 writes them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def write(folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json into `folder`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocab = {name: i for i, name in enumerate((BOS, EOS, PAD))}
    vocab.update({name: FIRST_BYTE + i for i, name in enumerate(byte_alphabet())})
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(name, normalized=False, special=True) for name in (BOS, EOS, PAD, *SPECIAL)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "model_max_length": 8192,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", config)
