"""A module for `run_limited`: it does what its argument names."""

import sys
import time

from model.limited import child_bytes, limit_memory

if __name__ == "__main__":
    limit_memory(child_bytes())
    match_on = sys.argv[1]
    if match_on == "echo":
        sys.stdout.buffer.write(sys.stdin.buffer.read())
    elif match_on == "sleep":
        time.sleep(600)
    elif match_on == "memory":
        keep = bytearray(4 << 30)
        keep[::4096] = b"x" * len(keep[::4096])
    elif match_on == "flood":
        while True:
            sys.stdout.buffer.write(b"x" * (1 << 16))
    elif match_on == "crash":
        import os

        os.abort()
    elif match_on == "complain":
        sys.stderr.write("y" * 1_000_000 + "end")
        sys.exit(3)
