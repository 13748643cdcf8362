"""Prove the slots of this network, or the calls of any module."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from torch import nn

from model import DeepseekOCRConfig
from model.loading import read_config

from ...device import describe_device, pick_device
from ...device.dtypes import DTYPES
from ...reading.checkpoints import find_checkpoint, official_size
from ..kernels.launch import KERNEL, interpreted
from ..plan import Plan, fingerprint
from ..substitutes.registry import SLOTS
from . import runner
from .choice import choose
from .module_probes import describe, probes_of
from .probes import Sizes, probes
from .verdict_table import Report

OFFICIAL_SIZES = "official-sizes"


def config_of(checkpoint: str):
    """The configuration whose sizes are probed: "official-sizes" needs no weights, else a checkpoint.

    "official-sizes:unlimited-ocr" are those of another model of the family.
    """
    if official := official_size(checkpoint, OFFICIAL_SIZES):
        return DeepseekOCRConfig.official(official)
    return read_config(find_checkpoint(checkpoint))


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
    """Probe the candidates of every slot (or of `slots`), choose among them, and return a Report.

    Args:
        device: as for device.pick_device. On the simulated NPU its profile determines which operators run.
        dtypes: some of "fp32", "bf16", "fp16"; the plan has choices for each of them.
        checkpoint: the checkpoint whose sizes are probed; "official-sizes" are those of DeepSeek-OCR,
            "official-sizes:NAME" those of another model of the family.
        repeats: timed samples per candidate; the median counts.
        config: a configuration instead of the checkpoint's.
        tell: called with the name of the next probe, for a progress bar.

    Raises ValueError for unknown names, DeviceError if the device is not available.
    """
    wanted = list(slots or SLOTS)
    for name in wanted:
        if name not in SLOTS:
            raise ValueError(f"no slot named {name!r}; choose one of {', '.join(SLOTS)}")
    config = config or config_of(checkpoint)
    dtypes = checked(dtypes)
    at = pick_device(device, quiet=True)
    every = [probe for probe in probes(Sizes.of(config)) if probe.slot in wanted]
    command = f"deskocr prove --device {device} --dtype {','.join(dtypes)} --checkpoint {checkpoint}"
    if slots:
        command += f" --slots {','.join(wanted)}"
    return _report(every, at, dtypes, repeats, tell, config, checkpoint, command)


def prove_module(
    module,
    run: Callable[[nn.Module], object],
    device,
    dtypes: Iterable[str] = ("fp16",),
    repeats: int = 7,
    name: str = "",
    tell: Callable[[str], object] = lambda text: None,
    hard: bool = True,
):
    """The same for any model: the convolutions and masked_scatter calls that `run(module)` makes, with their
    own activations, and the hard cases of those slots. The report's plan is for `adapt`.

    Args:
        module: any nn.Module on the CPU, where it runs as its author intended.
        run: calls the module once.
        device: a name, see device.pick_device, or a torch.device that was picked already.
        hard: try the hard cases too. They do not depend on the model, so once per device is enough.

    A model without such a call, such as a language model, gives a report without rows and a plan without
    choices. `report.notes` lists the calls that cannot be exchanged, such as those of TorchScript.
    """
    dtypes = checked(dtypes)
    at = pick_device(device, quiet=True) if isinstance(device, str) else device
    every, notes = probes_of(module, run, hard)
    label = name or type(module).__name__
    command = f"deskocr_kit.operators.prove.prove_module({label}, …, {str(at)!r}, {list(dtypes)})"
    report = _report(every, at, dtypes, repeats, tell, describe(module), label, command)
    if not every:
        notes = ["the model makes no call of conv2d or masked_scatter_: nothing to exchange", *notes]
    return replace(report, notes=notes)


def checked(dtypes: Iterable[str]) -> list[str]:
    """The names as a list. Raises ValueError for a name that is not in DTYPES."""
    dtypes = list(dtypes)
    for name in dtypes:
        if name not in DTYPES:
            raise ValueError(f"unknown dtype {name!r}: use {', '.join(DTYPES)}")
    return dtypes


def _report(every, at, dtypes, repeats, tell, config, label, command):
    import torch

    rows = runner.run(every, at, [getattr(torch, DTYPES[name]) for name in dtypes], repeats, tell)
    told = describe_device(at)
    # The time of an interpreted kernel says nothing about a compiled one, so it is proved and not planned.
    planned = [row for row in rows if row.candidate != KERNEL or not interpreted()]
    choices = {DTYPES[name]: choose(planned, DTYPES[name], told["simulated"]) for name in dtypes}
    about = {"command": command, "device": told, "checkpoint": label}
    return Report(told, label, command, rows, Plan(fingerprint(at, config), choices, about))
