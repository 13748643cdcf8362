"""The input of the rules: facts, their origin, and the results of the live probes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .capture import ASCEND, Capture
from .probes import Probe


@dataclass
class Case:
    """Input of the rules. `root` is "/" outside tests; `probes` is empty for captured files."""

    capture: Capture
    facts: dict
    root: Path = Path("/")
    probes: dict[str, Probe] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)
    homes: list[str] = field(default_factory=list)  # CANN folders that exist here
    notebook: bool = False
    model: Path | None = None  # folder given by the user

    @property
    def live(self) -> bool:
        return self.capture.live

    @property
    def nodes(self) -> list[Path]:
        """Device nodes of NPUs: /dev/davinci0 ... (not davinci_manager)."""
        return sorted(self.root.glob("dev/davinci[0-9]*")) if self.live else []

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    @property
    def hardware(self) -> bool:
        """Whether there is any sign of an NPU or its driver. (A laptop may have CANN or torch-npu alone.)"""
        if self.facts["npus"] or self.facts["npu_smi"]["complaint"] or self.facts["driver"]["version"]:
            return True
        if not self.live:
            return "npu-smi.txt" in self.capture or "driver_version.info" in self.capture
        driver = self.at("/dev/davinci_manager").exists() or self.at(f"{ASCEND}/driver").exists()
        return bool(self.nodes) or driver or self.probes.get("npu-smi", Probe("missing")).state != "missing"

    @property
    def cann(self) -> str | None:
        return self.facts["cann"]["version"]

    def package(self, name: str) -> str | None:
        return self.facts["packages"].get(name)
