"""Values that contain tensors: nested tuples, lists and dicts, outputs of transformers, KV caches.

A tree is a tensor, or any of these with trees inside: tuple, named tuple, list, mapping (dict, ModelOutput,
BatchEncoding), dataclass, PackedSequence, or an object with attributes, such as a KV cache. Modules, classes
and functions are not entered.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import enum
import types
from collections.abc import Callable, Iterator, Mapping, MutableMapping

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

_CLOSED = (
    type,
    nn.Module,
    types.ModuleType,
    enum.Enum,
    torch.Size,
    torch.device,
    torch.dtype,
    torch.Generator,
)
PLAIN = (str, bytes, bool, int, float, complex)


def mapped(
    value,
    change: Callable[[Tensor], Tensor],
    attribute: Callable = lambda held: held,
    _seen: dict | None = None,
):
    """A copy of a tree in which `change(tensor)` replaces every tensor.

    A tensor or object that occurs twice occurs twice in the copy too. Containers keep their type.

    Args:
        attribute: replaces the other attributes of objects, for example a cache's record of its dtype.
    """
    seen = {} if _seen is None else _seen
    if id(value) in seen:
        return seen[id(value)]

    def inner(item):
        return mapped(item, change, attribute, seen)

    if isinstance(value, Tensor):
        new = seen[id(value)] = change(value)
        return new
    if isinstance(value, PLAIN) or value is None or _is_closed(value):
        return value
    if isinstance(value, PackedSequence):  # the sizes of its batches stay on the host
        return PackedSequence(
            inner(value.data), value.batch_sizes, inner(value.sorted_indices), inner(value.unsorted_indices)
        )
    if isinstance(value, tuple):
        items = [inner(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if not (isinstance(value, (list, MutableMapping)) or _attributes(value)):
        return value
    try:
        new = copy.copy(value)
    except Exception:  # an object that holds a lock or a stream
        return value
    seen[id(value)] = new
    if isinstance(value, list):
        new[:] = [inner(item) for item in value]
    elif isinstance(value, MutableMapping):
        for key, item in value.items():
            new[key] = inner(item)
    else:
        for name, held in _attributes(value).items():
            with contextlib.suppress(AttributeError, TypeError):  # a property without a setter
                object.__setattr__(new, name, attribute(inner(held)))
    return new


def tensors(value) -> Iterator[Tensor]:
    """Every tensor of a tree, in order. An object that occurs twice counts once."""
    return (leaf for leaf in leaves(value) if isinstance(leaf, Tensor))


def leaves(value, _seen: set | None = None) -> Iterator:
    """Every tensor, text and number of a tree, in order; of an object with attributes only the tensors."""
    seen = set() if _seen is None else _seen
    if isinstance(value, (Tensor, *PLAIN)):
        yield value
        return
    if value is None or _is_closed(value) or id(value) in seen:
        return
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from leaves(item, seen)
    elif isinstance(value, Mapping):
        seen.add(id(value))
        for item in value.values():
            yield from leaves(item, seen)
    else:
        seen.add(id(value))
        for held in _attributes(value).values():
            yield from (leaf for leaf in leaves(held, seen) if isinstance(leaf, Tensor))


def _is_closed(value) -> bool:
    return isinstance(value, _CLOSED) and not _is_cache_module(value)


def _is_cache_module(value) -> bool:
    """Whether this is a KV cache of transformers before 4.48, where caches are modules."""
    return isinstance(value, nn.Module) and hasattr(value, "get_seq_length")


def _attributes(value) -> dict:
    """The attributes of an object with state; {} for functions and values without attributes."""
    if _is_cache_module(value):
        return {name: held for name, held in vars(value).items() if not name.startswith("_")}
    if callable(value) and not dataclasses.is_dataclass(value):
        return {}
    found = dict(getattr(value, "__dict__", {}))
    if dataclasses.is_dataclass(value):  # with slots it has no __dict__
        found |= {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return found
