"""Selection, memory, events and out of memory on the device itself, through deskocr_kit.device."""

from __future__ import annotations

from collections.abc import Callable

import torch

from deskocr_kit.device import (
    DeviceError,
    Event,
    Timer,
    default_dtype,
    describe_device,
    device_count,
    device_memory,
    free_cache,
    is_out_of_memory,
    pick_device,
    reset_peak,
    synchronize,
)

SIZE = 256 << 20  # bytes of the tensor whose memory is looked for


def check_devices(device: torch.device) -> list[dict]:
    """One row per check: {"check", "holds", "found"}. An exception is a check that does not hold."""
    rows = []
    for check in CHECKS:
        try:
            holds, found = check(device)
        except Exception as error:
            holds, found = False, f"{type(error).__name__}: {error}".splitlines()[0]
        rows.append({"check": check.__name__.replace("_", " "), "holds": bool(holds), "found": str(found)})
    return rows


def it_is_picked_by_name(device: torch.device):
    return pick_device(str(device), quiet=True) == device, device


def a_card_that_is_not_there_is_refused(device: torch.device):
    absent = f"{device.type}:{device_count(device.type)}"
    try:
        pick_device(absent)
    except DeviceError as error:
        return "highest index" in str(error), str(error)
    return False, f"{absent} was accepted"


def it_is_described(device: torch.device):
    facts = describe_device(device)
    return bool(facts["name"]) and not facts["simulated"], f"{facts['name']}, torch {facts['torch']}"


def the_default_dtype_can_be_multiplied(device: torch.device):
    dtype = default_dtype(device)
    x = torch.ones(64, 64, dtype=dtype, device=device)
    return (x @ x).eq(64).all().item(), dtype


def memory_and_its_peak_follow_a_tensor(device: torch.device):
    free_cache(device)
    before, peaks = device_memory(device).allocated, reset_peak(device)
    x = torch.ones(SIZE // 4, device=device)
    during = device_memory(device).allocated - before
    del x
    free_cache(device)
    after = device_memory(device)
    held = 0.9 * SIZE <= during <= 1.2 * SIZE
    freed = after.allocated - before <= 0.2 * SIZE
    kept = not peaks or (after.peak or 0) - before >= 0.9 * SIZE
    return held and freed and kept, f"{during:,} bytes for {SIZE:,}; {after.allocated - before:,} afterwards"


def events_measure_the_device(device: torch.device):
    x = torch.ones(1024, 1024, device=device)
    x @ x  # libraries load at the first product
    with Timer(device) as timer:
        begin = Event(device).record()
        for _ in range(20):
            y = x @ x
        end = Event(device).record()
        synchronize(device)
    seconds = begin.seconds_to(end)
    same = y[0, 0].item() == 1024
    return same and 0 < seconds <= 1.2 * timer.seconds + 1e-3, "events and clock agree"


def out_of_memory_is_recognised_and_leaves_the_device_usable(device: torch.device):
    total = device_memory(device).total or (1 << 40)
    asked = 4 * total if device.type != "cpu" else 1 << 55  # a CPU promises more than it has
    try:
        torch.empty(asked, dtype=torch.uint8, device=device)
    except Exception as error:
        recognised, name = is_out_of_memory(error), type(error).__name__
    else:
        return False, f"{asked:,} bytes were granted"
    free_cache(device)
    return recognised and torch.ones(8, device=device).sum().item() == 8, name


CHECKS: tuple[Callable, ...] = (
    it_is_picked_by_name,
    a_card_that_is_not_there_is_refused,
    it_is_described,
    the_default_dtype_can_be_multiplied,
    memory_and_its_peak_follow_a_tensor,
    events_measure_the_device,
    out_of_memory_is_recognised_and_leaves_the_device_usable,
)
