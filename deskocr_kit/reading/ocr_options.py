"""Options of `deskocr ocr`."""

from __future__ import annotations

from dataclasses import dataclass

from .engines.options import ServedOptions
from .options import option


@dataclass(frozen=True)
class OcrOptions(ServedOptions):
    """The options of the command `ocr`: those for reading, and how many processes share one model."""

    tensor_parallel: int = option(
        1, "Number of cards that share every layer: lower latency, see docs/parallel.md.", minimum=1
    )
    pipeline_parallel: int = option(
        1, "2: split the layers between two cards, for many pages.", minimum=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pipeline_parallel > 2:
            raise ValueError(f"--pipeline-parallel {self.pipeline_parallel}: there are two stages")
        if self.tensor_parallel > 1 and self.pipeline_parallel > 1:
            raise ValueError("--tensor-parallel and --pipeline-parallel cannot be combined")
        if self.processes > 1 and self.graph:
            raise ValueError(
                "--graph needs one process: several that share a model exchange data in each step"
            )
        if self.processes > 1 and self.engine != "kit":
            raise ValueError(f"--engine {self.engine} has its own processes; give the server how many")

    @property
    def processes(self) -> int:
        """How many processes share the model."""
        return max(self.tensor_parallel, self.pipeline_parallel)
