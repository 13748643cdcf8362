"""Every form in which the network starts a kernel at the official size: types, block sizes, grid.

The forms are recorded from dry runs of the whole network on "meta" tensors, so that none is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from model import DeepseekOCRConfig
from model.fast import DEFAULTS
from model.slots import SPANNING

from ..operator_census.ocr_model import census_ocr, page_inputs
from ..operators.kernels.candidates import CANDIDATES
from ..operators.kernels.launch import Launch, listening

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
#: The n-gram guard as the scripts of the official model set it, with its two free tokens.
GUARD = {"no_repeat_ngram_size": 35, "ngram_window": 90, "ngram_whitelist": (128821, 128822)}


@dataclass
class Form:
    """One compiled variant of a kernel. grids: those with which it is started; launches: how often."""

    kernel: Any
    types: dict[str, str]
    constants: dict[str, Any]
    grids: set[tuple[int, ...]] = field(default_factory=set)
    launches: int = 0

    @property
    def name(self) -> str:
        return self.kernel.__name__

    @property
    def dtype(self) -> str:
        """The dtype of the numbers: that of the first pointer to floats."""
        floats = [each for each in self.types.values() if each in ("*fp16", "*bf16", "*fp32")]
        return floats[0].removeprefix("*") if floats else ""


def plan(without: tuple[str, ...] = ()) -> dict[str, Callable]:
    """{slot: implementation}: the defaults of the network, and each kernel but those of the slots named."""
    kernels = {slot: found["triton"] for slot, found in CANDIDATES.items() if slot not in without}
    return {**DEFAULTS, **kernels}


def official_forms(
    dtypes: tuple[torch.dtype, ...] = DTYPES, config: DeepseekOCRConfig | None = None
) -> list[Form]:
    """The forms of a page of 2x3 tiles with its prompt and a decoded token, in each dtype.

    With and without padding, the n-gram guard, and the slots that span others.
    """
    forms: dict[tuple, Form] = {}

    def seen(launch: Launch) -> None:
        key = (launch.name, launch.types, launch.constants)
        form = forms.setdefault(key, Form(launch.kernel, dict(launch.types), dict(launch.constants)))
        form.grids.add(launch.grid)
        form.launches += 1

    config = config or DeepseekOCRConfig()
    page = page_inputs(config, "gundam", (2, 3))
    padded = torch.ones_like(page["input_ids"])
    padded[:, :5] = 0  # as in a batch with a longer prompt
    for dtype in dtypes:
        for without, more in (((), GUARD), ((), {"attention_mask": padded}), (SPANNING, {})):
            with listening(seen):
                census_ocr(config, dtype=dtype, plan=plan(without), inputs={**page, **more})
    return list(forms.values())
