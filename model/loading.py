"""The official checkpoint layout: names, shapes, streaming load, save.

The parameters of the network have the official names, except where several official tensors are one stacked
parameter here (qkv, gate|up, experts). `placements` maps each official name to a slice of a parameter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor
from torch.overrides import TorchFunctionMode

from . import config_check
from .config import DeepseekOCRConfig
from .files import write_json
from .foreign_weights import no_config, whose
from .network import Network
from .safetensors_io import Region, read_into, write_file
from .untrusted import UntrustedFile, open_regular, read_json_object, shown
from .weight_files import INDEX, SHOWN, CheckpointError, Entry, find_tensors

IGNORED = {"model.vision_model.embeddings.position_ids"}  # a buffer in some re-saved copies
# CLIP's own patch embedding is never used. Copies that transformers writes do not have it; then it is zero.
OPTIONAL = {"model.vision_model.embeddings.patch_embedding.weight"}

Index = tuple[int | slice, ...]


def official_names(config: DeepseekOCRConfig, ours: str, shape: torch.Size) -> Iterator[tuple[str, Index]]:
    """The official tensors that form the parameter `ours`, each with its slice."""
    name = ours.replace("vision_model.layers.", "vision_model.transformer.layers.")
    name = re.sub(r"embeddings\.(patch|position)_embedding$", r"embeddings.\1_embedding.weight", name)
    name = re.sub(r"^(model\.qwen2_model)\.(layers|norm)\.", r"\1.model.model.\2.", name)
    layer, _, last = name.rpartition(".self_attn.")
    if name.startswith("model.layers.") and name.endswith("self_attn.qkv_proj.weight"):
        for i, part in enumerate("qkv"):
            rows = slice(i * shape[0] // 3, (i + 1) * shape[0] // 3)
            yield f"{layer}.self_attn.{part}_proj.weight", (rows,)
    elif name.startswith("model.qwen2_model.") and last.startswith("qkv_proj."):
        encoder, start = config.encoder, 0
        for part, heads in zip("qkv", (encoder.heads, encoder.kv_heads, encoder.kv_heads), strict=True):
            rows = slice(start, start := start + heads * encoder.head_dim)
            yield f"{layer}.self_attn.{part}_proj.{last.removeprefix('qkv_proj.')}", (rows,)
    elif name.endswith("experts.gate_up_proj"):
        prefix, hidden = name.removesuffix(".gate_up_proj"), shape[1] // 2
        for e in range(shape[0]):
            yield f"{prefix}.{e}.gate_proj.weight", (e, slice(0, hidden))
            yield f"{prefix}.{e}.up_proj.weight", (e, slice(hidden, 2 * hidden))
    elif name.endswith("experts.down_proj"):
        for e in range(shape[0]):
            yield f"{name.removesuffix('.down_proj')}.{e}.down_proj.weight", (e,)
    elif name.endswith("gate_up_proj.weight"):
        prefix, hidden = name.removesuffix(".gate_up_proj.weight"), shape[0] // 2
        yield f"{prefix}.gate_proj.weight", (slice(0, hidden),)
        yield f"{prefix}.up_proj.weight", (slice(hidden, 2 * hidden),)
    else:
        yield name, ()


class NoInitialisation(TorchFunctionMode):
    """Skips the initialisation of new modules.

    A checkpoint or `random` fills the parameters later. Random numbers on the meta device would import
    torch._dynamo, which takes a second.
    """

    FILLS = frozenset((Tensor.uniform_, Tensor.normal_, Tensor.fill_, Tensor.zero_))

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in self.FILLS or getattr(function, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


def skeleton(config: DeepseekOCRConfig, build: Callable[..., Network] = Network) -> Network:
    """The network on the meta device: shapes without memory."""
    with torch.device("meta"), NoInitialisation():
        return build(config)


def placements(config: DeepseekOCRConfig, model: nn.Module) -> dict[str, tuple[str, Index]]:
    """{official name: (parameter name, slice)} for every tensor of the official file."""
    return {
        name: (ours, index)
        for ours, parameter in model.named_parameters()
        for name, index in official_names(config, ours, parameter.shape)
    }


def official_shapes(config: DeepseekOCRConfig) -> dict[str, list[int]]:
    """{official tensor name: shape}; with the default config, that of the official checkpoint."""
    model = skeleton(config)
    parameters = dict(model.named_parameters())
    return {
        name: list(parameters[ours][index].shape) for name, (ours, index) in placements(config, model).items()
    }


def official_tensors(config: DeepseekOCRConfig, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(official name, view of the parameter) for every tensor of the official file."""
    parameters = dict(model.named_parameters())
    for name, (ours, index) in placements(config, model).items():
        yield name, parameters[ours].detach()[index]


def read_config(folder: Path) -> DeepseekOCRConfig:
    """The config of a checkpoint folder. Raises CheckpointError if config.json is missing or damaged."""
    folder = Path(folder)
    path = folder / "config.json"
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: {'a file, not a' if folder.exists() else 'no such'} folder. Expected a folder with "
            "config.json and *.safetensors (model/README.md says where to get the official weights; "
            "model/nano is included)."
        )
    try:
        content = read_json_object(path)
    except FileNotFoundError:
        raise CheckpointError(no_config(folder)) from None
    except UntrustedFile as error:
        raise CheckpointError(f"{error}. Copy it again.") from None
    except OSError as error:
        raise CheckpointError(f"{shown(path)}: cannot be read ({error.strerror}).") from error
    if refused := config_check.refusals(content):
        raise CheckpointError(f"{shown(path)}: " + ";\n  ".join(refused))
    try:
        return DeepseekOCRConfig(**config_check.without_noise(content))
    except Exception as error:  # the base class in transformers may refuse a value too
        why = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{shown(path)}: {shown(why.removeprefix('config.json: '))}") from error


def compare(expected: dict[str, list[int]], found: dict[str, Entry], folder: Path) -> None:
    """Raise one CheckpointError that names the first few missing, extra and misshapen tensors."""
    shapes = [
        f"{name} is {list(found[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in found and list(found[name].shape) != shape
    ]
    faults = {
        "missing": [name for name in expected if name not in found and name not in OPTIONAL],
        "not part of this network": [name for name in found if name not in expected],
        "of another shape": shapes,
    }
    lines = [
        f"  {len(names)} {what}: {'; '.join(shown(name) for name in names[:SHOWN])}"
        f"{'; …' if len(names) > SHOWN else ''}"
        for what, names in faults.items()
        if names
    ]
    if lines:
        remedy = "Check that config.json and weights belong together and that every file is complete."
        raise CheckpointError(
            f"{shown(folder)}: the tensors do not fit config.json:\n" + "\n".join(lines) + "\n"
            f"{whose(expected, found) or remedy}"
        )


def tensors_of(folder: Path) -> dict[str, Entry]:
    """The tensors of a folder, without those that are ignored. Raises CheckpointError."""
    return {name: entry for name, entry in find_tensors(folder).items() if name not in IGNORED}


def check_tensors(config: DeepseekOCRConfig, entries: dict[str, Entry], folder: Path) -> None:
    """Raise CheckpointError unless the tensors are those of the config.

    Their number is compared before the network is built, because a config.json may ask for a billion.
    """
    decoder = config.decoder
    dense = min(decoder.dense_layers, decoder.layers)
    needed = 9 * dense + (10 + 3 * decoder.experts) * (decoder.layers - dense)
    if needed > 2 * len(entries) + 3000:
        raise CheckpointError(
            f"{shown(folder)}: config.json describes a decoder of {needed:,} tensors ({decoder.layers} "
            f"layers, {decoder.experts} experts), and the files have {len(entries):,}. They do not belong "
            "together."
        )
    compare(official_shapes(config), entries, folder)


def check_dtypes(entries: dict[str, Entry], folder: Path) -> None:
    """Raise CheckpointError if a tensor holds integers."""
    if whole := [entry for entry in entries.values() if not entry.is_floating]:
        raise CheckpointError(
            f"{shown(folder)}: {len(whole)} tensors hold integers, first {whole[0].name} "
            f"(torch.{whole[0].dtype}): a quantised copy, which is not supported. Download the original."
        )


def check_folder(folder: Path) -> tuple[DeepseekOCRConfig, dict[str, Entry]]:
    """Config and tensor list of a checkpoint folder, checked against each other. Reads no weights.

    examination.py makes the same checks for `deskocr weights check`, one by one.
    """
    folder = Path(folder)
    config, entries = read_config(folder), tensors_of(folder)
    check_tensors(config, entries, folder)
    check_dtypes(entries, folder)
    return config, entries


def materialise(model: nn.Module, dtype: torch.dtype, device: torch.device) -> None:
    """Give every meta parameter uninitialised memory."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            empty = torch.empty(parameter.shape, dtype=dtype, device=device)
            setattr(module, name, nn.Parameter(empty, requires_grad=parameter.requires_grad))


def load(
    folder: Path,
    dtype: torch.dtype | None,
    device: torch.device,
    build: Callable[..., Network] = Network,
    region: Callable[[str], Region | None] = lambda name: None,
) -> Network:
    """Stream a checkpoint folder into a model, tensor by tensor, each directly into its place.

    dtype: None for that of the first tensor in the files. Peak memory: the model and one tensor. Tensors
    without a parameter in the model are not read (parallel/ builds parts of a model). region: what is read of
    an official tensor; None: all of it.
    """
    config, entries = check_folder(folder)
    model = skeleton(config, build)
    placed = placements(config, model)
    materialise(model, dtype or getattr(torch, next(iter(entries.values())).dtype), device)
    parameters = dict(model.named_parameters())
    with ExitStack() as stack, torch.no_grad():
        files = {path: stack.enter_context(open_regular(path)) for path in {e.path for e in entries.values()}}
        for name in OPTIONAL & (placed.keys() - entries.keys()):
            parameters[placed[name][0]].zero_()
        for entry in sorted(entries.values(), key=lambda e: (e.path, e.start)):  # sequential reads
            if entry.name in placed:
                ours, index = placed[entry.name]
                target = parameters[ours].detach()[index]
                read_into(entry, files[entry.path], target, region(entry.name))
    return model


def save(config: DeepseekOCRConfig, model: nn.Module, folder: Path, shard_bytes: int = 5_000_000_000) -> None:
    """Write config.json and the official tensors; above `shard_bytes`, several files and an index.

    Raises:
        CheckpointError: the model lacks tensors, for example because it is quantised; nothing is written.
    """
    folder = Path(folder)
    there = {name: p.shape for name, p in model.named_parameters()}
    needed = {name: p.shape for name, p in skeleton(config).named_parameters()}
    if gone := sorted(name for name, shape in needed.items() if there.get(name) != shape):
        raise CheckpointError(
            f"{folder}: not written. {len(gone)} of {len(needed)} weights are missing from the model or are "
            f"parts, first {gone[0]}; a quantised model cannot be saved, save the model before quantising. "
            "Nor can the part of a model that one of several processes has."
        )
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[list[tuple[str, Tensor]]] = [[]]
    size = total = 0
    for name, tensor in official_tensors(config, model):
        nbytes = tensor.numel() * tensor.element_size()
        if shards[-1] and size + nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append((name, tensor))
        size, total = size + nbytes, total + nbytes
    for stale in [*folder.glob("model*.safetensors"), folder / INDEX]:
        stale.unlink(missing_ok=True)
    count = len(shards)
    weight_map = {}
    for i, shard in enumerate(shards, 1):
        name = "model.safetensors" if count == 1 else f"model-{i:05d}-of-{count:06d}.safetensors"
        write_file(folder / name, shard)
        weight_map.update({tensor: name for tensor, _ in shard})
    if count > 1:
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    write_json(folder / "config.json", {**config.to_dict(), "torch_dtype": dtype})
