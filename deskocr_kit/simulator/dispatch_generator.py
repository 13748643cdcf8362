"""Make the dispatch table of the installed torch_npu wheel.

    python -m deskocr_kit.simulator.dispatch_generator OUT      write OUT/torch_npu_<version>.tsv
    python -m deskocr_kit.simulator.dispatch_generator --check  exit status 0: as stored, 1: not

This needs no NPU and no CANN: it only queries the dispatcher. `import torch_npu` must work, for instance in
the environment that tests/real_wheel builds, with stub libraries instead of CANN.

How to add the table of another wheel:
    1. Make a temporary environment with that torch_npu and the torch it is built for. Either set TORCH_NPU in
       tests/real_wheel/environment.py and call `build()`, or install the two packages and build the stub
       libraries: python tests/real_wheel/stubs.py <its site-packages> stubs
    2. In it: LD_LIBRARY_PATH=stubs STUB_NPU_COUNT=1 PYTHONPATH=<this repository> python -m
       deskocr_kit.simulator.dispatch_generator deskocr_kit/ascend/data/dispatch
    3. Add the version to WHEELS in profile_generator.py if a simulated device should have its operators.

For each ATen operator the table has the dispatch keys with a kernel, and a verdict that follows from them.
"""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

from ..ascend.dispatch import FOLDER

#: {column of the table: dispatch key}
KEYS = {
    "PrivateUse1": "PrivateUse1",
    "AutogradPrivateUse1": "AutogradPrivateUse1",
    "CompositeImplicit": "CompositeImplicitAutograd",
    "CompositeExplicit": "CompositeExplicitAutograd",
    "CompositeExplicitNonFunctional": "CompositeExplicitAutogradNonFunctional",
    "CPU": "CPU",
}


def verdict(row: dict[str, str]) -> str:
    """The verdict: how the dispatcher of a device runs an operator, given the existing kernels."""
    if row["PrivateUse1"] == "1":
        return "NPU kernel"
    if any(row[key] == "1" for key in KEYS if key.startswith("Composite")):
        return "composite (decomposes into other ops)"
    return "no NPU kernel: CPU fallback with warning" if row["CPU"] == "1" else "other"


def rows() -> list[dict[str, str]]:
    """One row per ATen operator in the dispatcher of this process, sorted by name."""
    import torch

    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    made = []
    for name in sorted(torch._C._dispatch_get_all_op_names()):
        if not name.startswith("aten::"):
            continue
        row = {"op": name} | {column: str(int(has_kernel(name, key))) for column, key in KEYS.items()}
        made.append({**row, "verdict": verdict(row)})
    return made


def to_text(made: list[dict[str, str]]) -> str:
    """The rows as tab-separated values with a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, ["op", *KEYS, "verdict"], delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(made)
    return out.getvalue()


def wheel_version() -> str:
    """The version of the imported torch_npu, without the commit."""
    import torch_npu

    return torch_npu.__version__.partition("+")[0]


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    version = wheel_version()
    name, text = f"torch_npu_{version}.tsv", to_text(rows())
    if arguments == ["--check"]:
        stored = FOLDER / name
        if not stored.is_file():
            print(f"no table of torch_npu {version} in {FOLDER}", file=sys.stderr)
            return 1
        before, now = (set(each.splitlines()) for each in (stored.read_text(encoding="utf-8"), text))
        for line in sorted(before ^ now):
            print(("- " if line in before else "+ ") + line)
        return int(before != now)
    path = Path(arguments[0]) / name
    path.write_text(text, encoding="utf-8")
    print(f"{path}: {len(text.splitlines()) - 1} operators")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
