"""What a folder holds instead of the expected weights: a LoRA adapter, wrapped names, another model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from .untrusted import UntrustedFile, read_json_object, shown
from .weight_files import absent, names_in

ADAPTER = "adapter_config.json"
_ADAPTER_NAME = re.compile(r"\.lora_|\.(?:lora|hada|lokr|ia3|dora|oft)_[A-Za-z]|modules_to_save\.")
#: {prefix of all names: what adds it}
WRAPPERS = {
    "base_model.model.": "PEFT",
    "_orig_mod.": "torch.compile",
    "module.": "DataParallel or DistributedDataParallel",
    "_forward_module.": "Lightning",
    "_fsdp_wrapped_module.": "FSDP",
}


def no_config(folder: Path) -> str:
    """The message for a folder without config.json."""
    path, names = Path(folder) / "config.json", names_in(folder)
    if "config.json" in names:
        return f"{shown(path)}: {absent(path)}. Copy the file itself."
    if ADAPTER in names:
        return (
            f"{shown(folder)}: config.json is missing: this is a LoRA adapter{base_of(folder)}, not a model. "
            "Merge it into its base model (PEFT: merge_and_unload) and save the result."
        )
    if "params.json" in names or "model_index.json" in names:
        return f"{shown(folder)}: config.json is missing: this is a folder of another kind of model."
    return f"{shown(folder)}: config.json is missing. Copy it from the official repository."


def base_of(folder: Path) -> str:
    """ " of <base model>" as an adapter's config states it, or ""."""
    try:
        base = read_json_object(Path(folder) / ADAPTER).get("base_model_name_or_path")
    except (OSError, UntrustedFile):
        return ""
    return f" of {shown(base, 80)}" if isinstance(base, str) and base else ""


def whose(expected: Collection[str], found: Collection[str]) -> str:
    """A sentence about tensors that are not the expected ones, or "" if they are nearly those.

    Args:
        expected: the names that config.json asks for.
        found: the names in the files.
    """
    wanted = set(expected)
    if adapters := [name for name in found if _ADAPTER_NAME.search(name)]:
        return (
            f"{len(adapters)} of {len(found)} tensors belong to a LoRA adapter. Merge it into its base model "
            "(PEFT: merge_and_unload) and save the result, or move it elsewhere: it is not applied."
        )
    right = sum(name in wanted for name in found)
    prefix = common_prefix(wanted, found)
    if prefix and sum(name.removeprefix(prefix) in wanted for name in found) > right:
        by = next((what for start, what in WRAPPERS.items() if prefix.startswith(start)), "")
        return (
            f"The names begin with {shown(prefix, 80)!r}{f', which {by} adds' if by else ''}. Save the model "
            "inside that wrapper, or rename the tensors without it."
        )
    if found and right < len(found) / 10:
        return "These are the weights of another model, or config.json belongs to another model."
    return ""


def common_prefix(wanted: set[str], found: Collection[str]) -> str:
    """What stands before most of the names that end like an expected one, for example "module."; or ""."""
    counted: Counter[str] = Counter()
    for name in list(found)[:200]:
        start = 0
        while (start := name.find(".", start) + 1) > 0 and start < 200:
            if name[start:] in wanted:
                counted[name[:start]] += 1
    return counted.most_common(1)[0][0] if counted else ""
