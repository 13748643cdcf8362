"""Do-nothing CANN libraries, so that the real torch-npu wheel imports on a machine without CANN.

    python stubs.py .venv/lib/python3.11/site-packages stubs        (gcc and binutils; no Python packages)
    LD_LIBRARY_PATH=stubs STUB_NPU_COUNT=1 TASK_QUEUE_ENABLE=0 python script.py

The required names are read from the wheel itself, so they fit its version. The functions do nothing, except
those in host_memory.c. The libraries contain only names: build them, never commit them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

BEHAVIOUR = Path(__file__).with_name("host_memory.c")
SYSTEM = ("libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6")
_NOT_CANN = re.compile(r"(ld-linux|lib(stdc\+\+|m|gcc_s|c|pthread|dl|rt))[-.]")
# Arguments of aclnn calls; each needs a distinct address, whose content is never read.
_HANDLES = ("Tensor", "Scalar", "IntArray", "FloatArray", "BoolArray", "TensorList", "ScalarList")


def _output(*command: str | Path) -> str:
    return subprocess.run([str(each) for each in command], capture_output=True, text=True, check=True).stdout


def _names(library: Path, which: str) -> set[str]:
    """Dynamic symbols: `which` is "defined" or "undefined". Weak undefined ones need no definition."""
    rows = [line.split() for line in _output("nm", "-D", f"--{which}-only", library).splitlines()]
    return {row[-1].split("@")[0] for row in rows if not (which == "undefined" and row[-2] in "wv")}


def _needed(library: Path) -> set[str]:
    return set(re.findall(r"\(NEEDED\).*\[(.*)\]", _output("readelf", "-d", library)))


def _asked_by_name(library: Path) -> set[str]:
    """C strings that look like functions of CANN, which the wheel looks up with dlsym at run time."""
    words = re.findall(rb"(?<=\0)(?:acl|Hccl)\w+(?=\0)", library.read_bytes())
    return {word.decode() for word in words if re.fullmatch(rb"(acl[a-z]*|Hccl)[A-Z][A-Za-z0-9]+", word)}


class Wanted:
    """The names that the torch-npu wheel in `site_packages` needs from CANN."""

    def __init__(self, site_packages: Path):
        wheel = sorted((site_packages / "torch_npu").rglob("*.so"))
        if not wheel:
            raise FileNotFoundError(f"{site_packages}: no torch_npu with shared libraries here")
        torch = sorted((site_packages / "torch" / "lib").glob("*.so*"))
        system = [Path(_output("gcc", f"-print-file-name={name}").strip()) for name in SYSTEM]
        have = set().union(*(_names(each, "defined") for each in [*wheel, *torch, *system]))
        linked = set().union(*(_names(each, "undefined") for each in wheel)) - have
        by_name = _asked_by_name(site_packages / "torch_npu" / "lib" / "libtorch_npu.so")
        files = {each.name for each in [*wheel, *torch]}
        needed = set().union(*(_needed(each) for each in wheel))
        self.libraries = sorted(name for name in needed - files if not _NOT_CANN.match(name))
        # "aclnnX" launches an operator; its twin "aclnnXGetWorkspaceSize" prepares the launch
        self.operators = sorted(name for name in by_name if name.startswith("aclnn"))
        self.functions = sorted(
            name
            for name in linked | by_name
            if not name.startswith(("Py", "_Py", "aclnn")) and name not in _handle_functions()
        )


def _handle_functions() -> dict[str, str]:
    made = {f"aclCreate{each}": "return malloc(64);" for each in _HANDLES}
    return made | {f"aclDestroy{each}": "free(handle); return 0;" for each in _HANDLES}


def _functions_c(names: list[str]) -> str:
    """Functions that return 0, and the tables of C++ classes (vtables, typeinfo) as empty memory."""
    lines = ["#include <stdint.h>"]
    for number, name in enumerate(names):
        if name.startswith(("_ZTV", "_ZTI", "_ZTS")):
            lines.append(f'char d{number}[4096] __asm__("{name}");')
        else:
            lines.append(
                f'uint64_t f{number}(void) __asm__("{name}"); uint64_t f{number}(void) {{ return 0; }}'
            )
    return "\n".join(lines) + "\n"


def _operators_c(names: list[str]) -> str:
    lines = ["#include <stdlib.h>", "void stub_note(const char *kind, const char *name);"]
    for name, body in _handle_functions().items():
        lines.append(f"void *{name}(void *handle) {{ {body} }}")
    for name in names:
        note = "" if name.endswith("GetWorkspaceSize") else f'stub_note("", "{name}"); '
        lines.append(f"int {name}(void) {{ {note}return 0; }}")
    return "\n".join(lines) + "\n"


def build(site_packages: str | Path, out: str | Path) -> Wanted:
    """Write and compile the libraries for the wheel in `site_packages` into `out`. Needs gcc, nm, readelf.

    Raises FileNotFoundError without the wheel or the tools, subprocess.CalledProcessError if one fails.
    """
    out = Path(out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    wanted = Wanted(Path(site_packages))
    with_behaviour = out / "host_memory.o"
    _output("gcc", "-O1", "-Wall", "-fPIC", "-c", BEHAVIOUR, "-o", with_behaviour)
    written = _output("nm", "--defined-only", with_behaviour)
    by_hand = {line.split()[-1] for line in written.splitlines()}
    (out / "functions.c").write_text(_functions_c([each for each in wanted.functions if each not in by_hand]))
    (out / "operators.c").write_text(_operators_c(wanted.operators))
    (out / "nothing.c").write_text("")

    def link(library: str, *sources: str | Path) -> None:
        options = ["-w", "-fPIC", "-shared", f"-Wl,-soname,{library}", "-Wl,--no-as-needed"]
        _output("gcc", *options, "-o", out / library, *sources)

    core = "libascendcl.so"
    link(core, with_behaviour, out / "functions.c")
    behind = [f"-L{out}", "-lascendcl", "-Wl,-rpath,$ORIGIN"]
    link("libopapi.so", out / "operators.c", *behind)
    for library in [*wanted.libraries, "libcust_opapi.so"]:
        if library != core:
            link(library, out / "nothing.c", *behind)
    return wanted


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    made = build(*sys.argv[1:])
    print(f"{len(made.functions)} functions, {len(made.operators)} aclnn names, {', '.join(made.libraries)}")
