"""Call any model with its inputs: a dict, a tuple, a tensor, or the BatchFeature of a processor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch.nn as nn
from torch import Tensor

from ..compare.trace import move_to
from ..device.module_place import place_of
from .left_behind import explained

#: The output that matters, where a model returns several.
NAMES = ("logits", "last_hidden_state", "pred_masks", "pooler_output", "image_embeds")


def make_run(inputs, output: str | int | Callable | None = None) -> Callable[[nn.Module], Tensor]:
    """A function that calls a module with `inputs` and returns the tensor that matters.

    The inputs are moved to the device of the module, floating ones also to its dtype: an nn.Module needs no
    attributes `.device` and `.dtype` for this.

    Args:
        inputs: those of forward, on any device: a dict or another mapping (keyword arguments), a tuple or
            list (positional arguments), or one tensor.
        output: key, attribute or index in what forward returns, or a function of it. None: the first of
            `logits`, `last_hidden_state`, … that it has, else its first floating tensor.

    The function raises RuntimeError, which names the tensors to move, if the module mixes two devices, and
    ValueError if there is no such output.
    """

    def run(module: nn.Module) -> Tensor:
        where, dtype = place_of(module)
        given = move_to(inputs, where, dtype)
        try:
            if isinstance(given, Mapping):
                found = module(**given)
            else:
                found = module(*((given,) if isinstance(given, Tensor) else given))
        except RuntimeError as error:
            clear = explained(error, module, where)
            if clear is None:
                raise
            raise clear from error
        return chosen(found, output)

    return run


def chosen(found, output: str | int | Callable | None = None) -> Tensor:
    """The tensor of an output of forward that `make_run` returns."""
    if callable(output):
        return output(found)
    if isinstance(output, int):
        return found[output]
    if output is not None:
        value = found.get(output) if isinstance(found, Mapping) else getattr(found, output, None)
        if value is None:
            has = ", ".join(found) if isinstance(found, Mapping) else type(found).__name__
            raise ValueError(f"the output has no {output!r}; it has: {has}")
        return value
    for name in NAMES:
        value = found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)
        if isinstance(value, Tensor):
            return value
    first = next(_floating(found), None)
    if first is None:
        raise ValueError(
            f"forward returned a {type(found).__name__} without a floating tensor: pass output=, a function "
            "of it that returns the tensor to compare"
        )
    return first


def _floating(value) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _floating(each)
    elif isinstance(value, (tuple, list)):
        for each in value:
            yield from _floating(each)


def shapes(inputs):
    """The inputs with the shape of each tensor in its place, to look at."""
    if isinstance(inputs, Tensor):
        return tuple(inputs.shape)
    if isinstance(inputs, Mapping):
        return {name: shapes(value) for name, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return [shapes(value) for value in inputs]
    return inputs
