"""The front end of Huawei's released compiler, applied to every official form. Needs triton-ascend, no CANN.

    python -m deskocr_kit.kernel_evidence.lowering FILE    # in an environment with triton-ascend

`triton-adapter-opt` turns Triton's intermediate representation into linalg. Its text says whether a kernel
uses the vector cores only or the cube too, and which buffers it needs at least. bishengir-compile, which
makes the binary, belongs to CANN and is not run.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..operators.digests import kernel_digest
from ..operators.kernels.launch import GRID_LIMIT
from .before_mask import before_mask
from .forms import Form, official_forms

CHIP = "Ascend910B2"
BUFFER = 192 * 1024  # bytes of the unified buffer of one vector core, for one program
BITS = {"i1": 8, "i8": 8, "i16": 16, "f16": 16, "bf16": 16, "i32": 32, "f32": 32, "i64": 64, "f64": 64}
_ON_VECTOR = re.compile(r"\b(?:linalg\.(?!matmul)|arith\.|math\.)")
_BINARY = re.compile(r"arith\.(?:add|sub|mul|div|max|min|cmp|and|or|rem)\w* ")
_SHAPES = re.compile(r"(?:tensor|memref)<((?:\d+x)+)(\w+)")


@dataclass
class Lowered:
    """What the front end made of one form. core: "aiv" (vector cores only) or "mix" (with the cube).

    buffer_bytes: the largest sum of operands of one statement outside of the cube's products. The compiler
    may split a statement; without that, it is a lower bound.
    discrete: loads and stores of blocks that are made number by number, because the front end sees no pattern
    in their addresses.
    before_mask: loads and stores that are made before their mask is applied, see before_mask.py.
    """

    kernel: str
    dtype: str
    constants: dict[str, Any]
    grid: int  # programs of the largest launch
    core: str
    products: int
    buffer_bytes: int
    discrete: int = 0
    refused: str = ""
    before_mask: list[str] = field(default_factory=list)

    @property
    def fits(self) -> bool:
        return not self.refused and self.buffer_bytes <= BUFFER and self.grid <= GRID_LIMIT


def lower(form: Form, locations: bool = False) -> str:
    """The linalg text of one form, with locations in the source if asked for.

    Raises RuntimeError with the front end's words if it refuses.
    """
    from triton._C.libtriton import ir
    from triton.backends.ascend.compiler import AscendBackend, make_ttir, ttir_to_linalg
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    os.environ["TRITON_DISABLE_LINE_INFO"] = "0" if locations else "1"  # the backend reads it at each call
    target = GPUTarget("npu", CHIP, 0)
    backend = AscendBackend(target)
    options = backend.parse_options({})
    source = ASTSource(form.kernel, dict(form.types), dict(form.constants))
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    try:
        module = source.make_ir(
            options, backend.get_codegen_implementation(), backend.get_module_map(), context
        )
        metadata = {"target": target, **options.__dict__}
        return str(ttir_to_linalg(make_ttir(module, metadata, options), metadata, options, named_ops=True))
    except subprocess.CalledProcessError as error:
        raise RuntimeError((error.stderr or b"").decode("utf-8", "replace").strip()[:400]) from None


def buffer_bytes(text: str) -> int:
    """See `Lowered`."""
    sizes = (sum(_bytes(line)) for line in text.splitlines() if _ON_VECTOR.search(line))
    return max(sizes, default=0)


def _bytes(line: str) -> Iterator[int]:
    """The bytes of each operand of one statement; the result lies where the `outs` operand lies."""
    operands = line.split("->")[0]
    both = 2 if _BINARY.search(line) else 1  # the type of two operands is written once
    for dimensions, kind in _SHAPES.findall(operands):
        if kind in BITS:
            yield both * math.prod(int(n) for n in dimensions.split("x") if n) * BITS[kind] // 8


def examine(form: Form) -> Lowered:
    """Lower one form and read the result. A refusal is a result."""
    grid = max(map(math.prod, form.grids))
    try:
        text = lower(form, locations=True)
    except RuntimeError as error:
        return Lowered(form.name, form.dtype, form.constants, grid, "", 0, 0, 0, str(error) or "refused")
    core = re.search(r'mix_mode = "(\w+)"', text)
    return Lowered(
        form.name,
        form.dtype,
        form.constants,
        grid,
        core[1] if core else "",
        text.count("linalg.matmul"),
        buffer_bytes(text),
        text.count("DiscreteMemAccess"),
        before_mask=before_mask(text),
    )


def main() -> int:
    """Write the record to the file named on the command line; exit status 1 if a form is refused."""
    import triton

    found = [examine(form) for form in official_forms()]
    record = {
        "compiler": f"triton-ascend {triton.__version__}, front end only",
        "chip": CHIP,
        "kernels": kernel_digest(),
        "forms": [asdict(each) for each in found],
    }
    Path(sys.argv[1]).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for each in found:
        print(
            f"{each.kernel:28} {each.dtype:5} {each.core or each.refused:5} {each.buffer_bytes:7} {each.grid}"
        )
    return int(any(not each.fits for each in found))


if __name__ == "__main__":
    sys.exit(main())
