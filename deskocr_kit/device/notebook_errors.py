"""Explain device errors in a notebook, below the usual traceback.

`device.pick_device` calls `install`. On the command line `messages.message` does the same.
"""

from __future__ import annotations

import sys

from ..ascend import errors
from .torch_import import DeviceError


def explanation(error: BaseException) -> str:
    """At most two rows of the error table for an exception.

    "" if no row matches, and for a DeviceError, whose message already has the remedy.
    """
    if isinstance(error, DeviceError):
        return ""
    return "\n".join(str(match) for match in errors.explain(errors.exception_text(error))[:2])


def _show(shell, kind, error, trace, tb_offset=None) -> None:
    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
    text = explanation(error)
    if text:
        print(f"deskocr explain:\n{text}", file=sys.stderr)


def install() -> bool:
    """Explain uncaught errors of this IPython session from now on.

    Returns False if there is no session, or if it already has a custom error handler.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or (shell.custom_exceptions and shell.CustomTB is not None):
        return False
    shell.set_custom_exc((Exception,), _show)
    return True
