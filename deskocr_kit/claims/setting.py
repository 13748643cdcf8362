"""Device and checkpoint of the checks of the claims ledger."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch

from ..device import describe_device, is_simulated, pick_device
from ..reading.checkpoints import find_checkpoint


@dataclass(frozen=True)
class Setting:
    """Device and checkpoint. `npu` is True only on a real NPU: a simulated one decides nothing about NPUs."""

    device: torch.device
    name: str
    npu: bool
    model: str | None

    @classmethod
    def on(cls, device: str, model: str | None) -> Setting:
        where = pick_device(device, quiet=True)
        simulated = is_simulated(where)
        facts = describe_device(where)
        name = f"{facts['name']} ({'simulated, ' if simulated else ''}torch {facts['torch']})"
        return cls(where, name, where.type == "npu" and not simulated, model)

    @property
    def official(self) -> bool:
        """Whether the checkpoint has the official size."""
        path = find_checkpoint(self.model or "nano") / "config.json"
        return path.exists() and json.loads(path.read_text()).get("num_hidden_layers") == 12

    @property
    def decides(self) -> bool:
        """Whether this setting decides claims about speed or reading: an NPU and the official weights."""
        return self.npu and self.official
