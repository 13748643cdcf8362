"""Where the checks of the claims ledger run, and with which checkpoint."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch

from ..device import describe_device, is_simulated, pick_device
from ..reading.checkpoints import find_checkpoint


@dataclass(frozen=True)
class Setting:
    """Where the checks run. `npu` is True on a real NPU only: a simulated one decides nothing about NPUs."""

    device: torch.device
    name: str
    npu: bool
    model: str | None

    @classmethod
    def on(cls, device: str, model: str | None) -> Setting:
        where = pick_device(device, quiet=True)
        simulated = is_simulated(where)
        told = describe_device(where)
        name = f"{told['name']} ({'simulated, ' if simulated else ''}torch {told['torch']})"
        return cls(where, name, where.type == "npu" and not simulated, model)

    @property
    def official(self) -> bool:
        """Whether the checkpoint at hand is of the official size."""
        path = find_checkpoint(self.model or "nano") / "config.json"
        return path.exists() and json.loads(path.read_text()).get("num_hidden_layers") == 12

    @property
    def decides(self) -> bool:
        """Whether a claim about speed or reading can be decided here: an NPU and the official weights."""
        return self.npu and self.official
