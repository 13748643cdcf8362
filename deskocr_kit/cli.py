"""`deskocr`: the command line. Commands import packages when they run, so it starts without torch."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys

import typer

from .commands import (
    batch,
    bench,
    census,
    demo,
    doctor,
    evaluate,
    evidence,
    explain,
    kernels,
    msprobe,
    notebooks,
    ocr,
    predict,
    profile,
    prove,
    quantise,
    report,
    shell,
    trace,
    weights,
)

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)
app.command()(doctor.doctor)
app.command()(explain.explain)
app.command()(ocr.ocr)
app.command()(batch.batch)
app.command()(demo.demo)
app.command()(shell.shell)
app.command()(census.census)
app.command()(prove.prove)
app.command()(profile.profile)
app.command()(trace.trace)
app.command()(kernels.kernels)
app.command()(predict.predict)
app.command()(bench.bench)
app.command()(evaluate.evaluate)
app.command()(quantise.quantise)
app.command()(report.report)
app.add_typer(evidence.app, name="evidence")
app.add_typer(msprobe.app, name="msprobe")
app.add_typer(weights.app, name="weights")
app.add_typer(notebooks.app, name="notebooks")


@app.callback()
def deskocr() -> None:
    """DeepSeek-OCR on Ascend NPUs: read pages, and port, prove and measure the model."""


def _skip_garbage() -> None:
    """Python would search torch for garbage at exit, which takes 0.4 s. Triton reports it as a leak."""
    if "triton" not in sys.modules:
        gc.freeze()


def main() -> None:
    """Entry point. DESKOCR_DEBUG=1 shows tracebacks."""
    atexit.register(_skip_garbage)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # no half-written file stays behind
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `deskocr ocr … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("DESKOCR_DEBUG"):
            raise
        from .device.messages import message
        from .display.printable import printable

        print(printable(message(error)), file=sys.stderr)
        sys.exit(2)
