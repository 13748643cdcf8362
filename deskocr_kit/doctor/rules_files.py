"""Rules for the captured files themselves: what was not understood is no finding about a machine."""

from __future__ import annotations

from collections.abc import Iterator

from .case import Case
from .report import Row

HOW = {
    "npu-smi.txt": "npu-smi info > npu-smi.txt",
    "ascend_toolkit_install.info": 'cp "$ASCEND_HOME_PATH"/*-linux/ascend_toolkit_install.info .',
    "version.cfg": 'cp "$ASCEND_HOME_PATH"/version.cfg .',
    "driver_version.info": "cp /usr/local/Ascend/driver/version.info driver_version.info",
    "firmware_version.info": "cp /usr/local/Ascend/firmware/version.info firmware_version.info",
    "env.txt": "env > env.txt",
    "pip-list.txt": "python -m pip list --format=freeze > pip-list.txt",
}


def rules(case: Case) -> Iterator[Row]:
    for name, reason in case.capture.unread.items():
        yield Row("Files", name, "WARN", reason, f"Capture it again: {HOW[name]}")
