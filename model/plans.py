"""From the name of a plan to the functions of the slots, by whoever makes plans.

A plan names implementations that this package does not have. The package that has them registers a maker, in
its metadata (entry point group "deskocr.plan", name "auto") or in `makers` when it is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.modeling_deepseekocr import DeepseekOCRForCausalLM

GROUP = "deskocr.plan"

#: {name: maker}; a maker takes the model and the path of a plan or None, and gives {slot: function}.
makers: dict[str, Callable[[DeepseekOCRForCausalLM, Path | None], Mapping[str, Callable]]] = {}


def resolve(
    plan: Mapping[str, Callable] | str | Path | None, model: DeepseekOCRForCausalLM
) -> Mapping[str, Callable]:
    """{slot: function} of a mapping, None, "auto", or the path of a plan file.

    Raises ValueError where a plan is named but nobody here makes plans.
    """
    if plan is None or isinstance(plan, Mapping):
        return plan or {}
    if "auto" not in makers:
        for found in entry_points(group=GROUP, name="auto"):
            makers["auto"] = found.load()
    if "auto" not in makers:
        raise ValueError(
            f"plan={str(plan)!r}: nobody here makes plans. Install the kit (pip install -e .) or import "
            "deskocr_kit.operators.plan first; plan=None takes the defaults"
        )
    return makers["auto"](model, None if plan == "auto" else Path(plan))
