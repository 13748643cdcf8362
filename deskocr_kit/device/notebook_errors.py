"""In a notebook: a device's error is shown with its explanation, below the usual traceback.

`device.pick_device` calls `install`. On the command line `cli.message` does the same work.
"""

from __future__ import annotations

import sys

from ..ascend import errors
from .torch_import import DeviceError


def explanation(error: BaseException) -> str:
    """What the kit's table knows of an exception, at most two rows; "" where it knows nothing, or where the
    error says it itself (a DeviceError does)."""
    if isinstance(error, DeviceError):
        return ""
    return "\n".join(str(match) for match in errors.explain(errors.exception_text(error))[:2])


def _show(shell, kind, error, trace, tb_offset=None) -> None:
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
    told = explanation(error)
    if told:
        print(f"deskocr explain:\n{told}", file=sys.stderr)


def install() -> bool:
    """Explain uncaught errors of this IPython session from now on. False where there is none, or where
    somebody else handles its errors already."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or (shell.custom_exceptions and shell.CustomTB is not None):
        return False
    shell.set_custom_exc((Exception,), _show)
    return True
