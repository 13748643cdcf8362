"""Paths of the project, in one place."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
DATA = TESTS / "data"
ASCEND = DATA / "ascend"  # captured files of Ascend machines
GOLDENS = TESTS / "goldens"  # outputs of the original code
NANO = ROOT / "model" / "nano"
