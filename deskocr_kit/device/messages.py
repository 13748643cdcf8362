"""The text that a user sees for an exception."""

from __future__ import annotations

from ..ascend.errors import explain_exception
from .torch_import import DeviceError


def message(error: BaseException) -> str:
    """The message of an error of this kit; for errors of a device, message and explanation."""
    if isinstance(error, (ValueError, FloatingPointError, OSError, DeviceError)):
        return f"error: {error}"
    return explain_exception(error)
