"""Machine code for CUDA cards of every official form, made by Triton's own compiler without a card.

    python -m deskocr_kit.kernel_evidence.assembled FILE    # with Triton for x86-64 Linux; two minutes

The wheel of Triton contains the assembler of NVIDIA (ptxas) and its reader (cuobjdump). So this shows, on
any machine, that a kernel compiles, and what it takes: shared memory, registers, and the stack, to which a
compiler moves the numbers that find no register. It shows no result and no speed: nothing runs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..operators.digests import kernel_digest
from .forms import Form, official_forms

#: Bytes of shared memory that one program may take, by compute capability: A100, H100 and H200.
#: Source: CUDA C++ Programming Guide, table "Technical Specifications per Compute Capability".
SHARED = {80: 163 * 1024, 90: 227 * 1024}
_USE = re.compile(r"REG:(\d+) STACK:(\d+)")


@dataclass
class Assembled:
    """One form for one card. shared_bytes: of one program; stack_bytes: of one thread, 0 without spills."""

    kernel: str
    dtype: str
    constants: dict[str, Any]
    capability: int
    shared_bytes: int
    registers: int
    stack_bytes: int
    refused: str = ""

    @property
    def fits(self) -> bool:
        return not self.refused and self.shared_bytes <= SHARED[self.capability]


def assemble(form: Form, capability: int) -> Assembled:
    """Compile one form to machine code. A refusal is a result."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    about = (form.name, form.dtype, form.constants, capability)
    source = ASTSource(form.kernel, dict(form.types), dict(form.constants))
    try:
        made = compile(source, target=GPUTarget("cuda", capability, 32))
    except Exception as error:  # whatever a compiler raises for a program that it does not take
        return Assembled(*about, 0, 0, 0, f"{type(error).__name__}: {error}"[:400])
    registers, stack = resources(made.asm["cubin"])
    return Assembled(*about, made.metadata.shared, registers, stack)


def resources(cubin: bytes) -> tuple[int, int]:
    """(registers, bytes of stack) of one thread of the program in a cubin."""
    import triton

    reader = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        said = subprocess.run(
            [reader, "--dump-resource-usage", path], capture_output=True, text=True, check=True
        ).stdout
    found = _USE.search(said)
    if found is None:
        raise ValueError(f"cuobjdump named no registers: {said[:200]!r}")
    return int(found[1]), int(found[2])


def main() -> int:
    """Write the record to the file named on the command line; exit status 1 if a form does not fit."""
    import triton

    warnings.filterwarnings("ignore", message="TRITON_DEFAULT_FP_FUSION")
    found = []
    with tempfile.TemporaryDirectory() as cache:  # compiled anew, whatever was compiled before
        os.environ["TRITON_CACHE_DIR"] = cache
        for form in official_forms():
            for capability in SHARED:
                made = assemble(form, capability)
                found.append(made)
                print(
                    f"{made.kernel:28} {made.dtype:5} sm_{capability} {made.shared_bytes:7} "
                    f"{made.registers:4} {made.stack_bytes:5} {made.refused}",
                    flush=True,
                )
    record = {
        "compiler": f"triton {triton.__version__}",
        "kernels": kernel_digest(),
        "forms": [asdict(each) for each in found],
    }
    Path(sys.argv[1]).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return int(any(not each.fits for each in found))


if __name__ == "__main__":
    sys.exit(main())
