"""What a user is shown of an exception."""

from __future__ import annotations

from ..ascend.errors import explain_exception
from .torch_import import DeviceError


def message(error: BaseException) -> str:
    """The kit's own errors in their own words, those of a device with their explanation."""
    if isinstance(error, (ValueError, FloatingPointError, OSError, DeviceError)):
        return f"error: {error}"
    return explain_exception(error)
