"""Evidence from a device: collected by one command, packed without private data, checked, and reported."""

from __future__ import annotations

from .check import Bundle, BundleError, read_bundle
from .run import collect
from .steps import STEPS

__all__ = ["STEPS", "Bundle", "BundleError", "collect", "read_bundle"]
