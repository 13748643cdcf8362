"""Load shared libraries one after the other; a line before and after each names the cause of a crash.

    python -m deskocr_kit.doctor.trials.libraries libascendcl.so libhccl.so

Prints "try NAME", then "ok NAME" or "no NAME REASON".
"""

from __future__ import annotations

import ctypes
import sys


def main(names: list[str]) -> None:
    for name in names:
        print("try", name, flush=True)
        try:
            ctypes.CDLL(name)
            print("ok", name, flush=True)
        except OSError as error:
            print("no", name, str(error).replace("\n", " "), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
