"""Run code in a new process that has torch and the kit imported already, so that a test need not wait for it.

A server process imports them once, and forks for each call. What a test gets is a process of its own: its own
arguments, variables, folder, streams, exit status, and nothing of what other tests did. Tests of the imports
themselves, of the start or of signals use `subprocess`.
"""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from tests.helpers.paths import ROOT

CODE = "from tests.helpers.fresh_process import serve; serve()"
COMMAND = "import runpy; runpy.run_module('deskocr_kit', run_name='__main__', alter_sys=True)"


def deskocr(*words: object, **how) -> subprocess.CompletedProcess:
    """`python -m deskocr_kit WORDS…`; how: see `python`."""
    return python(COMMAND, *words, **how)


def python(code: str, *words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """`python -c CODE WORDS…` in the root folder of the repository. env: default os.environ.

    The variables are set after the imports.
    """
    code, texts = textwrap.dedent(code), [str(word) for word in words]
    variables = dict(os.environ if env is None else env)
    if not hasattr(os, "fork"):
        command = [sys.executable, "-c", code, *texts]
        return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    with tempfile.TemporaryDirectory() as folder:
        asked = {"code": code, "words": texts, "env": variables, "folder": folder}
        server = _server()
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        out, err = (Path(folder, name).read_text("utf-8") for name in ("out", "err"))
    return subprocess.CompletedProcess([code, *texts], status, out, err)


@functools.cache
def _server() -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    server = subprocess.Popen(
        [sys.executable, "-c", CODE], cwd=ROOT, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    atexit.register(server.kill)
    return server


# ---------------------------------------------------------------------- in the server
def serve() -> None:
    """Answer each line of stdin, a call, with the exit status of its process."""
    from transformers import PreTrainedTokenizerFast  # noqa: F401
    from typer.testing import CliRunner

    import deskocr_kit.reading.reader  # noqa: F401
    from deskocr_kit.cli import app

    CliRunner().invoke(app, ["ocr", "--help"])  # typer imports more when it is used
    gc.freeze()  # no collection in a call's process visits what is imported here
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            _become(asked)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become(asked: dict) -> None:
    """Run the code of a call and end this process as Python does."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(Path(asked["folder"], name), os.O_WRONLY | os.O_CREAT, 0o600), number)
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.argv[:] = ["-c", *asked["words"]]
    status = 0
    try:
        exec(compile(asked["code"], "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status & 0xFF)
