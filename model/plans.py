"""Resolve the name of a plan to implementations of the slots.

A plan may name implementations that are not in this package. The package that has them registers a provider:
in its metadata (entry point group "deskocr.plan", name "auto"), or in `makers` when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path

from .network import Network

GROUP = "deskocr.plan"

#: {name: provider}. A provider takes the model and the path of a plan (or None) -> {slot: function}.
makers: dict[str, Callable[[Network, Path | None], Mapping[str, Callable]]] = {}


def resolve(plan: Mapping[str, Callable] | str | Path | None, model: Network) -> Mapping[str, Callable]:
    """{slot: function} of a mapping, None, "auto", or the path of a plan file.

    Raises ValueError if the plan is a name or a path and no plan provider is registered.
    """
    if plan is None or isinstance(plan, Mapping):
        return plan or {}
    if "auto" not in makers:
        for found in entry_points(group=GROUP, name="auto"):
            makers["auto"] = found.load()
    if "auto" not in makers:
        raise ValueError(
            f"plan={str(plan)!r}: no plan provider is registered. Install the kit (pip install -e .) or "
            "import deskocr_kit.operators.plan first; plan=None uses the defaults"
        )
    return makers["auto"](model, None if plan == "auto" else Path(plan))
