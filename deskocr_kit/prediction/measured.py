"""Measured figures of chips, stored beside the sourced ranges: one JSON file for all chips of a user."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from model.files import write_json

from .chips import Chip, Quantity, find, names

FILE = Path("reports") / "chips.json"
UNITS = {"launch_us": 1e-6, "bandwidth_gbs": 1e9}
ABOUT = "Figures of chips measured by `deskocr trace --calibrate`, each beside the sourced range."


def store(measured: dict, file: Path | None = None) -> Path:
    """Add the measured figures of one chip to a file, atomically; returns its path.

    measured: {"chip": name, "launch_us" and "bandwidth_gbs": {"low", "high", "source"} or None}; see
    traces/calibration.py. Raises ValueError for an unknown chip or a file of another kind.
    """
    file = file or FILE
    sourced = find(measured["chip"])
    stored: dict = _read(file) if file.exists() else {"about": ABOUT, "chips": {}}
    row = stored["chips"].setdefault(sourced.name, {})
    for name, unit in UNITS.items():
        range_ = sourced.launch if name == "launch_us" else sourced.bandwidth
        row.setdefault(name, {})
        row[name]["sourced"] = range_ and _plain(range_, unit)
        if measured.get(name):
            row[name]["measured"] = {**measured[name], "confidence": "measured"}
    return write_json(file, stored)


def find_measured(name: str, file: Path | None = None) -> Chip:
    """A chip of the table, with the measured figures in place of the sourced ones where a file has them.

    Raises ValueError for an unknown chip, or a file without it.
    """
    file = file or FILE
    chip = find(name)
    row = _read(file)["chips"].get(chip.name)
    if not isinstance(row, dict):
        raise ValueError(
            f"{file}: no measured figures of {chip.name}; make them with deskocr trace --calibrate"
        )
    found = {}
    for key, unit in UNITS.items():
        here = row.get(key, {}).get("measured")
        if here is not None:
            sourced = chip.launch if key == "launch_us" else chip.bandwidth
            beside = f"; sourced: {sourced.low / unit:.4g}..{sourced.high / unit:.4g}" if sourced else ""
            found[key] = Quantity(
                float(here["low"]) * unit, float(here["high"]) * unit, f"{here['source']}{beside}", "measured"
            )
    return replace(
        chip,
        launch=found.get("launch_us", chip.launch),
        bandwidth=found.get("bandwidth_gbs", chip.bandwidth),
    )


def _read(file: Path) -> dict:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(
            f"{file}: {error.strerror or error}; deskocr trace DIR --calibrate CHIP writes it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON ({error})") from error
    if not isinstance(stored, dict) or not isinstance(stored.get("chips"), dict):
        raise ValueError(f"{file}: not a file of measured chips")
    known = {name for name in stored["chips"] if name in names()}
    return {**stored, "chips": {name: stored["chips"][name] for name in known}}


def _plain(quantity: Quantity, unit: float) -> dict:
    return {**asdict(quantity), "low": round(quantity.low / unit, 6), "high": round(quantity.high / unit, 6)}
