"""Faults to plant in a model, each with the module and the words by which a comparison must name it.

A fault is a function of (candidate, reference, dtype). It changes the candidate (and the reference, where
only both together make a fault) and returns what is expected, or None where the model has no place for it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn as nn


@dataclass(frozen=True)
class Expected:
    """module: the path that must be named, or several separated by blanks. words: a regular expression."""

    module: str
    words: str = "."

    def named(self, first) -> bool:
        """Whether a Divergence is the planted fault, named rightly."""
        return first is not None and first.module in self.modules and bool(re.search(self.words, str(first)))

    @property
    def modules(self) -> list[str]:
        return self.module.split(" ") if self.module else [""]


Fault = Callable[[nn.Module, nn.Module, torch.dtype], Expected | None]
FAULTS: dict[str, Fault] = {}


def fault(plant: Fault) -> Fault:
    FAULTS[plant.__name__.replace("_", " ")] = plant
    return plant


# ---------------------------------------------------------------------- places
def members(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The members of the last list of blocks: of the decoder, where there is one."""
    lists = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == 2]
    lists = [(n, m) for n, m in lists if not any(isinstance(x, nn.ModuleList) for x in m[0].children())]
    name, chosen = lists[-1]
    yield from ((f"{name}.{i}", each) for i, each in enumerate(chosen))


def inside(model: nn.Module, *kinds, names: str = "") -> tuple[str, nn.Module] | None:
    """The last module of these classes in the last block, or else in the model."""
    block = list(members(model))[-1][0]
    found = [
        (n, m)
        for n, m in model.named_modules()
        if isinstance(m, kinds) and re.search(names, n.rpartition(".")[2]) and called(model, n)
    ]
    return next((each for each in reversed(found) if each[0].startswith(block)), found[-1] if found else None)


def called(model: nn.Module, name: str) -> bool:
    """Not inside a cross attention or a tower that these inputs do not use."""
    return "out_proj" not in name or "embed" not in name


def projection(model: nn.Module):
    return inside(model, nn.Linear, names=r"^(down_proj|fc2|v_proj|columns)$") or inside(
        model, *matrices(), names="^c_proj$"
    )


def matrices() -> tuple[type, ...]:
    from transformers.pytorch_utils import Conv1D

    return (nn.Linear, Conv1D)


def hooked(module: nn.Module, change: Callable):
    """Change the first tensor that a module returns."""

    def hook(module, args, output):
        if isinstance(output, torch.Tensor):
            return change(args, output)
        if isinstance(output, tuple):
            return (change(args, output[0]), *output[1:])
        output[next(iter(output))] = change(args, output[0])
        return output

    return module.register_forward_hook(hook)


# ---------------------------------------------------------------------- weights
@fault
def wrong_weight(candidate, reference, dtype):
    """One value of a projection is 0.5 too large."""
    name, module = projection(candidate)
    module.weight[1, 2] += 0.5
    return Expected(name, r"weight: 1 of \d+ values|one wrong bit")


@fault
def missing_bias(candidate, reference, dtype):
    """The last projection with a bias has none."""
    name, module = inside(candidate, *matrices()) or ("", None)
    found = [(n, m) for n, m in candidate.named_modules() if isinstance(m, matrices()) and m.bias is not None]
    if not found:
        return None
    name, module = found[-1]
    module.register_parameter("bias", None)
    return Expected(name, "bias: missing in the candidate")


@fault
def exchanged_layers(candidate, reference, dtype):
    """The parameters of the two layers of a stack are exchanged."""
    (a, x), (_, y) = members(candidate)
    if [p.shape for p in x.parameters()] != [p.shape for p in y.parameters()]:
        return None
    for p, q in zip(x.parameters(), y.parameters(), strict=True):
        p.data, q.data = q.data, p.data
    first = " ".join(n for n, _ in candidate.named_modules() if n == a or n.startswith(a + "."))
    return Expected(first, "exchanged with")


@fault
def swapped_heads(candidate, reference, dtype):
    """The rows of two heads of the query projection are exchanged."""
    found = inside(candidate, nn.Linear, names=r"^(q_proj|query)$")
    found = found or inside(candidate, *matrices(), names="^c_attn$")
    if found is None:
        return None
    name, module = found
    width = 32 // 4
    axis = 0 if isinstance(module, nn.Linear) else 1
    for t in [module.weight, *([module.bias] if module.bias is not None else [])]:
        heads = t.movedim(axis if t.dim() > 1 else 0, 0)[: 2 * width]
        heads.copy_(heads.roll(width, 0))
    return Expected(name, r"at the wrong place")


@fault
def wrong_rope_theta(candidate, reference, dtype):
    """The frequencies of the rotary embedding (inv_freq) are raised to the power of 0.8."""
    found = rotary(candidate)
    if found is None:
        return None
    name, module = found
    module.inv_freq.data = module.inv_freq**0.8
    return Expected(name, r"inv_freq: \d+ of \d+ values differ")


def rotary(model: nn.Module):
    """The outermost rotary embedding: before transformers 4.48 each layer has one too, which is not used."""
    found = [(n, m) for n, m in model.named_modules() if "inv_freq" in dict(m.named_buffers(recurse=False))]
    return min(found, key=lambda each: each[0].count(".")) if found else None


@fault
def rounded_buffer(candidate, reference, dtype):
    """inv_freq is rounded to 16 bits."""
    found = rotary(candidate)
    if found is None:
        return None
    name, module = found
    if dtype == torch.float32:
        module.inv_freq.data = module.inv_freq.half().float()
    else:
        module.inv_freq.data = module.inv_freq.to(dtype)
    return Expected(name, "inv_freq is rounded|inv_freq: ")


# ---------------------------------------------------------------------- settings and code
@fault
def scaled_module(candidate, reference, dtype):
    """The output of a projection is multiplied by 1.03."""
    name, module = projection(candidate)
    hooked(module, lambda args, y: y * 1.03)
    return Expected(name, r"aten::mul\(1\.03\)")


@fault
def swapped_heads_in_code(candidate, reference, dtype):
    """The input of the output projection of attention is shifted by one head."""
    found = inside(candidate, nn.Linear, names=r"^(o_proj|out_proj)$")
    if found is None:
        return None
    name, module = found
    module.register_forward_pre_hook(lambda module, args: (args[0].roll(8, -1),))
    return Expected(name, "aten::roll")


@fault
def wrong_eps(candidate, reference, dtype):
    """eps of the last norm is 0.03."""
    name, module = [
        (n, m) for n, m in candidate.named_modules() if hasattr(m, "eps") or hasattr(m, "variance_epsilon")
    ][-1]
    setting = "eps" if hasattr(module, "eps") else "variance_epsilon"
    setattr(module, setting, 3e-2)
    return Expected(name, f"{setting} is 0.03, expected")


@fault
def wrong_activation(candidate, reference, dtype):
    """The activation of the last block is ReLU."""
    found = inside(candidate, nn.Module, names=r"^(act|act_fn|activation_fn|activation|intermediate_act_fn)$")
    if found is None:
        return None
    name, _ = found
    parent = candidate.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], nn.ReLU())
    return Expected(name, "relu|ReLU")


@fault
def dropped_residual(candidate, reference, dtype):
    """The input of the last layer is subtracted from its output."""
    name, layer = list(members(candidate))[-1]
    if isinstance(layer, nn.LSTM):
        return None  # it has no residual of its own

    def drop(args, kwargs, output):
        given = args[0] if args else kwargs["hidden_states"]
        return (output[0] - given, *output[1:]) if isinstance(output, tuple) else output - given

    layer.register_forward_hook(lambda module, args, kwargs, y: drop(args, kwargs, y), with_kwargs=True)
    return Expected(name, "aten::sub")


@fault
def skipped_layer(candidate, reference, dtype):
    """The last layer returns its input."""
    name, layer = list(members(candidate))[-1]

    def forward(hidden_states, *args, **kwargs):
        return (hidden_states, None) if isinstance(layer, nn.LSTM) else hidden_states

    layer.forward = forward
    return Expected(name, "returns its input unchanged|is never called|only the reference")


def stack_of(model: nn.Module) -> nn.Module:
    """The module that runs the last list of blocks."""
    first, _ = next(members(model))
    return model.get_submodule(first.rpartition(".")[0].rpartition(".")[0])


@fault
def upside_down(candidate, reference, dtype):
    """The output of a stack of layers is reversed along dimension 1."""
    stack = stack_of(candidate)
    if stack is candidate:
        return None
    hooked(stack, lambda args, y: y.flip(1))
    return Expected("", "aten::flip")


@fault
def scale_between_blocks(candidate, reference, dtype):
    """The output of a stack of layers is multiplied by 1.3, which 16 bits show without doubt."""
    stack = stack_of(candidate)
    if stack is candidate:
        return None
    hooked(stack, lambda args, y: y * 1.3)
    return Expected("", r"aten::mul\(1.3\)")


@fault
def wrong_mask(candidate, reference, dtype):
    """The padding is not masked."""
    forward = candidate.forward

    def unmasked(*args, **kwargs):
        if "attention_mask" in kwargs:
            kwargs["attention_mask"] = torch.ones_like(kwargs["attention_mask"])
        return forward(*args, **kwargs)

    candidate.forward = unmasked
    return Expected("", "input of")


@fault
def fewer_experts(candidate, reference, dtype):
    """The router chooses one expert fewer (top_k)."""
    found = [(n, m) for n, m in candidate.named_modules() if isinstance(getattr(m, "top_k", None), int)]
    if not found:
        return None
    name, module = found[-1]
    module.top_k -= 1
    return Expected(" ".join([name, name.rpartition(".")[0]]), "top_k is 1, expected 2")


@fault
def overflow(candidate, reference, dtype):
    """Values between two layers of a block are beyond 65504, which only fp16 cannot hold."""
    if dtype != torch.float16:
        return None
    pairs = {"up_proj": "down_proj", "fc1": "fc2", "c_fc": "c_proj", "columns": "norm"}
    found = [
        (n, m) for n, m in candidate.named_modules() if n.rpartition(".")[2] in pairs and hasattr(m, "weight")
    ]
    if not found:
        return None
    name, _ = found[-1]
    parent, _, own = name.rpartition(".")
    other = f"{parent}.{pairs[own]}" if parent else pairs[own]
    first, second = reference.get_submodule(name), reference.get_submodule(other)
    scale = 5e4 / float(first.weight.abs().max())
    first.weight.data *= scale
    second.weight.data /= scale
    for place in (name, other):
        candidate.get_submodule(place).weight.data = reference.get_submodule(place).weight.data.to(dtype)
    return Expected(name, "65504")


# ---------------------------------------------------------------------- sound
def as_it_is(candidate: nn.Module) -> None:
    """Nothing is changed, so nothing must be named."""


def other_sums(candidate: nn.Module) -> None:
    """Each Linear adds its products in another order, in fp32, and rounds once, as a matrix unit does."""
    for module in candidate.modules():
        if isinstance(module, nn.Linear):
            module.forward = functools.partial(_in_two_halves, module)


def _in_two_halves(module: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    half = module.in_features // 2
    a, b = x.float().split((half, module.in_features - half), -1)
    c, d = module.weight.float().split((half, module.in_features - half), -1)
    total = b @ d.mT + a @ c.mT
    return (total if module.bias is None else total + module.bias.float()).to(x.dtype)


SOUND: dict[str, Callable[[nn.Module], None]] = {
    "none: a sound port": as_it_is,
    "none: other order of sums": other_sums,
}


# ---------------------------------------------------------------------- every module in turn
def three_percent(model: nn.Module, name: str):
    """Make one module wrong by 3 %. Returns the handle that undoes it."""
    return hooked(model.get_submodule(name), lambda args, y: y * 1.03)


def modules_that_count(model: nn.Module, run: Callable[[nn.Module], torch.Tensor]) -> list[str]:
    """The modules with weights of their own whose 3 % change the output of a model in fp32.

    Not so a projection before a norm, which takes its scale away, or a router whose logits nobody reads.
    """
    expected, found = run(model), []
    for name, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            handle = three_percent(model, name)
            if float((run(model) - expected).norm() / expected.norm()) > 1e-5:
                found.append(name)
            handle.remove()
    return found
