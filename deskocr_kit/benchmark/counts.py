"""The work of the device for one page and one token, counted in a separate run because counting is slow.

The work of one token is (a run of 1 + TOKENS tokens - a run of 1 token) / TOKENS, so work that the host does
only every k tokens is spread over them. These runs have no end token, so the figures do not depend on the
text of the page.
"""

from __future__ import annotations

from dataclasses import asdict

from .. import simulator
from ..device import is_simulated
from ..device.counting import Counts, counted

TOKENS = 32
KEYS = ("launches", "syncs", "h2d_bytes", "d2h_bytes", "fallbacks", "ai_cpu")


def difference(more: Counts, less: Counts, over: int = 1) -> dict:
    return {key: (getattr(more, key) - getattr(less, key)) / over for key in KEYS}


def count(model, inputs: dict, new_tokens: int) -> dict:
    """Launches, waits and bytes of "vision", "prefill", "token", and of a page of `new_tokens` tokens.

    vision: the towers and the placing of their vectors. prefill: includes the choice of the first token.
    page: the sum of both, and `new_tokens` - 1 times a token.
    """
    import torch

    device, tokens = model.device, {}
    embedding = {key: value for key, value in inputs.items() if key != "attention_mask"}
    with torch.no_grad(), counted(device) as vision:
        model.embed(**embedding)
    seen = {}
    for n in (1, 1 + TOKENS):
        with counted(device) as seen[n]:
            model.generate(**inputs, max_new_tokens=n, eos_token_id=None)
    per_token = difference(seen[1 + TOKENS], seen[1], TOKENS)
    tokens["vision"] = {key: asdict(vision)[key] for key in KEYS}
    tokens["prefill"] = difference(seen[1], vision)
    tokens["token"] = per_token
    page = {key: tokens["vision"][key] + tokens["prefill"][key] for key in KEYS}
    page = {key: page[key] + (new_tokens - 1) * per_token[key] for key in KEYS}
    return {
        "how": how(device),
        "tokens_counted": TOKENS,
        "phases": tokens,
        "page": {"new_tokens": new_tokens, **page},
        **by_operator(model, inputs),
    }


def how(device) -> str:
    if is_simulated(device):
        return "the counters of the simulated NPU"
    return "a dispatch mode: the operators that a device with its own kernels would run"


def by_operator(model, inputs: dict) -> dict:
    """On the simulated NPU: the operators of one token, and the lines where the host waits.

    Most frequent first; empty on other devices.
    """
    if not is_simulated(model.device):
        return {}

    seen = {}
    for n in (1, 1 + TOKENS):
        with simulator.record() as seen[n]:
            model.generate(**inputs, max_new_tokens=n, eos_token_id=None)
    found = {}
    for name, group in (("operators_per_token", "by_operator"), ("syncs_per_token", "by_site")):
        kind = "launch" if group == "by_operator" else "sync"
        more, less = (getattr(seen[n], group)(kind) for n in (1 + TOKENS, 1))
        rest = {shorter(key): (more[key] - less[key]) / TOKENS for key in more if more[key] != less[key]}
        found[name] = dict(sorted(rest.items(), key=lambda item: -item[1]))
    return found


def shorter(site: str) -> str:
    """The last folder and the file of a source line, without the path on this machine."""
    return "/".join(site.replace("\\", "/").split("/")[-2:])
