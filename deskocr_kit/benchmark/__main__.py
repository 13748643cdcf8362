"""The child process: it reads a BenchSpec as JSON from stdin and measures into the folder in its argument."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from ..device.messages import message
from .child import INTERRUPTED
from .measure import measure
from .spec import PARTIAL, BenchSpec


def main(out: Path) -> int:
    def once(*_):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, once)
    spec = BenchSpec.from_json(sys.stdin.read())
    try:
        measure(spec, out)
    except KeyboardInterrupt:
        print(f"interrupted: the results until then are in {PARTIAL}", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("DESKOCR_DEBUG"):
            raise
        print(message(error), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
