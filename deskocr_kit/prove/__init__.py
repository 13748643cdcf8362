"""`deskocr prove`: every substitute on the device at hand, against the reference; then a plan.

report = prove("npu-sim:as-believed", ["fp16"], "nano")
report                       # the verdict table
report.plan                  # what to use where
report.save("reports/npu-sim-as-believed-nano")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

__all__ = ["DTYPES", "config_of", "folder_name", "prove"]

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
OFFICIAL_SIZES = "official-sizes"


def config_of(checkpoint: str):
    """The configuration whose sizes are probed: "official-sizes" needs no weights, else a checkpoint."""
    from model import DeepseekOCRConfig

    from ..checkpoints import find_checkpoint

    if checkpoint == OFFICIAL_SIZES:
        return DeepseekOCRConfig()
    return DeepseekOCRConfig.from_pretrained(find_checkpoint(checkpoint))


def folder_name(device_name: str, checkpoint: str) -> str:
    """reports/<this>: "npu-sim:as-believed", "nano" -> "npu-sim-as-believed-nano"."""
    return f"{device_name}-{checkpoint}".replace(":", "-").replace("/", "-")


def prove(
    device: str = "auto",
    dtypes: Iterable[str] = ("fp32", "bf16", "fp16"),
    checkpoint: str = "nano",
    slots: Iterable[str] | None = None,
    repeats: int = 7,
    config=None,
    tell: Callable[[str], object] = lambda text: None,
):
    """Probe the candidates of every slot (or of `slots`) and choose; returns a Report.

    Args:
        device: as for device.pick. On the simulated NPU its profile decides what can run.
        dtypes: of "fp32", "bf16", "fp16"; the plan has a choice for each.
        checkpoint: whose sizes; "official-sizes" are those of the 3.3 B network.
        repeats: timed samples per candidate; the median counts.
        config: a configuration in place of the checkpoint's.
        tell: called with what is about to run, for a progress bar.

    Raises ValueError for unknown names, DeviceError without the device.
    """
    from .. import device as kit
    from ..plan import Plan, fingerprint
    from ..substitutes import SLOTS
    from .choice import choose
    from .probes import Sizes, probes
    from .report import Report
    from .runner import run

    dtypes = list(dtypes)
    for name in dtypes:
        if name not in DTYPES:
            raise ValueError(f"unknown dtype {name!r}: use {', '.join(DTYPES)}")
    wanted = list(slots or SLOTS)
    for name in wanted:
        if name not in SLOTS:
            raise ValueError(f"no slot named {name!r}; there are {', '.join(SLOTS)}")
    torch = kit.import_torch()
    at = kit.pick(device, quiet=True)
    config = config or config_of(checkpoint)
    every = [probe for probe in probes(Sizes.of(config)) if probe.slot in wanted]
    rows = run(every, at, [getattr(torch, DTYPES[name]) for name in dtypes], repeats, tell)
    told = kit.describe(at)
    choices = {DTYPES[name]: choose(rows, DTYPES[name], told["simulated"]) for name in dtypes}
    command = f"deskocr prove --device {device} --dtype {','.join(dtypes)} --checkpoint {checkpoint}"
    if slots:
        command += f" --slots {','.join(wanted)}"
    about = {"command": command, "device": told, "checkpoint": checkpoint}
    return Report(told, checkpoint, command, rows, Plan(fingerprint(at, config), choices, about))
