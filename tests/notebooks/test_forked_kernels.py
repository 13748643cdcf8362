"""A forked kernel is what `python -m ipykernel_launcher` is to a notebook; see helpers/forked_kernels.py."""

from __future__ import annotations

import os
import time

import pytest
from jupyter_client.manager import start_new_kernel

from tests.helpers import forked_kernels

pytestmark = pytest.mark.skipif(not forked_kernels.POSSIBLE, reason="kernels fork on Linux")


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    monkeypatch.setenv("DESKOCR_TEST_WORD", "a word")
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def value(client, expression: str) -> str:
    return client.execute_interactive(
        "", user_expressions={"value": expression}, silent=True, timeout=20, allow_stdin=False
    )["content"]["user_expressions"]["value"]["data"]["text/plain"]


def error(client, code: str) -> str | None:
    return client.execute_interactive(code, timeout=20, allow_stdin=False, output_hook=lambda _: None)[
        "content"
    ].get("ename")


def test_it_is_a_process_with_variables_a_folder_and_a_group_of_its_own(kernel, tmp_path):
    manager, client = kernel
    assert isinstance(manager.provisioner.process, forked_kernels.Kernel)
    assert error(client, "import os, sys") is None
    assert int(value(client, "os.getpid()")) == manager.provisioner.pid != os.getpid()
    assert value(client, "os.getpgrp() == os.getpid()") == "True"
    assert value(client, "os.environ['DESKOCR_TEST_WORD']") == "'a word'"
    assert value(client, "os.getcwd()") == repr(str(tmp_path))


def test_what_the_server_imported_is_no_name_there(kernel):
    _, client = kernel
    assert error(client, "torch") == "NameError"
    assert error(client, "import sys; assert 'transformers' in sys.modules") is None
    # Triton reads TRITON_INTERPRET when it is imported: notebook 11 sets the variable first.
    assert error(client, "assert 'triton' not in sys.modules") is None


def test_it_can_be_interrupted_and_ends_when_it_is_told(kernel):
    manager, client = kernel
    asked = client.execute("import time\nprint('here')\ntime.sleep(60)")
    while client.get_iopub_msg(timeout=20)["msg_type"] != "stream":
        pass
    manager.interrupt_kernel()
    reply = client.get_shell_msg(timeout=20)
    assert reply["parent_header"]["msg_id"] == asked and reply["content"]["ename"] == "KeyboardInterrupt"

    process = manager.provisioner.process
    manager.shutdown_kernel(now=True)
    for _ in range(100):
        if process.poll() is not None:
            break
        time.sleep(0.05)
    assert process.poll() is not None and not manager.is_alive()
