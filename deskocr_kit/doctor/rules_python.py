"""Rules for Python packages: each alone, and torch, torch-npu, numpy and CANN as a set."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator

from ..ascend import versions
from ..ascend.versions import key, minor
from .case import Case
from .report import Row

OLDEST = {"torch": "2.6", "transformers": "4.46", "numpy": "1.26"}  # as in pyproject.toml
NEWEST_TESTED = {"torch": "2.15", "transformers": "5.23"}
# Some x86-64 wheels of torch-npu pin "+cpu" builds of torch, which only the index of PyTorch has.
X86_INDEX = "   (on x86-64 add --extra-index-url https://download.pytorch.org/whl/cpu)"


def rules(case: Case) -> Iterator[Row]:
    yield from _python(case)
    yield from _packages(case)
    yield from _torch_and_npu(case)
    yield from _numpy(case)
    yield from _triton(case)


def _python(case: Case) -> Iterator[Row]:
    if not case.live:
        return
    version, where = platform.python_version(), sys.executable
    if sys.version_info[:2] >= (3, 14):
        yield Row(
            "Python",
            "python",
            "WARN",
            f"{version}: newer than tested (3.10 - 3.13)",
            "Use 3.11 if anything fails.",
        )
    else:
        yield Row("Python", "python", "OK", f"{version} ({where})")


def _on_npu(case: Case) -> bool:
    return case.hardware or case.package("torch-npu") is not None


def _numpy_range(cann: str | None) -> str:
    """What pip should install, so that the newest numpy does not break an older CANN."""
    old = cann is not None and key(cann) < key(versions.tables()["numpy2_since_cann"])
    return f"numpy>={OLDEST['numpy']}" + (",<2" if old else "")


def _set_command(case: Case) -> str:
    """One command for the whole set that fits this CANN; "" if nothing is documented for it."""
    torch, build = case.package("torch"), case.package("torch-npu")
    found = versions.package_set(case.cann, torch, build, OLDEST["torch"]) if case.cann else None
    if found is None:
        return ""
    command = (
        f"pip install torch=={found.torch} torch-npu=={found.torch_npu} "
        f'"transformers>={OLDEST["transformers"]}" "{_numpy_range(found.cann)}"{X86_INDEX}'
    )
    if key(versions.release(found.cann)) == key(versions.release(case.cann)):
        return command
    return (
        f"This kit needs torch {OLDEST['torch']}, which no torch-npu for CANN {case.cann} has. "
        f"Install CANN {found.cann} (toolkit and operator package), source its set_env.sh, then: {command}"
    )


def _install(case: Case, name: str) -> str:
    """The command that installs or upgrades one package without breaking the others."""
    if name == "numpy":
        return f'pip install "{_numpy_range(case.cann if _on_npu(case) else None)}"'
    if name == "torch" and _on_npu(case):
        if command := _set_command(case):
            return command
        if build := case.package("torch-npu"):
            base = versions.torch_of(build)
            if key(base) >= key(OLDEST["torch"]):
                return f"pip install torch=={base}"
            best = versions.tables()["recommended"]
            pair = f"torch=={best['torch']} torch-npu=={best['torch_npu']}"
            return f"pip install {pair}   (for CANN {best['cann']})"
    return f'pip install "{name}>={OLDEST[name]}"   (or: pip install -e .)'


def _packages(case: Case) -> Iterator[Row]:
    if "pip-list.txt" not in case.capture:
        why = case.capture.notes.get("pip-list.txt", "not captured")
        yield Row("Python", "packages", "SKIP", f"pip-list.txt: {why}")
        return
    for name in ("torch", "transformers", "numpy"):
        version = case.package(name)
        if version is None and (row := _perhaps_missing(case, name)):
            yield row
        elif version is None:
            yield Row("Python", name, "FAIL", "not installed", _install(case, name))
        elif key(version) < key(OLDEST[name]):
            seen = f"{version}: this kit needs {OLDEST[name]} or newer"
            yield Row("Python", name, "FAIL", seen, _install(case, name))
        elif name in NEWEST_TESTED and key(minor(version)) > key(NEWEST_TESTED[name]):
            yield Row("Python", name, "WARN", f"{version}: newer than tested ({NEWEST_TESTED[name]})")
        else:
            yield Row("Python", name, "OK", version)


def _perhaps_missing(case: Case, name: str) -> Row | None:
    """A warning instead of "not installed" where lines of the list were not understood."""
    strange = case.facts["package_lines_not_understood"]
    if not strange:
        return None
    seen = f"not among the packages of pip-list.txt, of which {strange} line(s) were not understood"
    how = "Capture it again: python -m pip list --format=freeze > pip-list.txt"
    return Row("Python", name, "WARN", seen, how)


def _torch_and_npu(case: Case) -> Iterator[Row]:
    if "pip-list.txt" not in case.capture:
        return
    torch, torch_npu = case.package("torch"), case.package("torch-npu")
    if torch_npu is None:
        if not case.hardware:
            yield Row("Python", "torch-npu", "SKIP", "not installed, and not needed: no NPU here")
        elif row := _perhaps_missing(case, "torch-npu"):
            yield row
        else:
            remedy = _set_command(case) or "pip install torch-npu   (the build for your CANN)"
            yield Row("Python", "torch-npu", "FAIL", "not installed, so torch cannot use the NPU", remedy)
        return
    yield _torch_pin(case, torch, torch_npu)
    yield _pair(case, torch_npu, case.cann)


def _torch_pin(case: Case, torch: str | None, torch_npu: str) -> Row:
    base = versions.torch_of(torch_npu)
    have = (torch or "").split("+")[0]
    remedy = _set_command(case) or f"pip install torch=={base}"
    if torch is None:
        return Row("Python", "torch-npu", "FAIL", f"{torch_npu} without torch", remedy)
    if minor(have) != minor(base):
        seen = f"torch {torch} with torch-npu {torch_npu}: the import fails with an undefined symbol"
        return Row("Python", "torch-npu", "FAIL", seen, remedy)
    if key(have) != key(base):
        seen = f"{torch_npu} is built for torch {base}; installed is {torch}"
        return Row("Python", "torch-npu", "WARN", seen, remedy)
    return Row("Python", "torch-npu", "OK", f"{torch_npu} with the matching torch {torch}")


def _can_upgrade(case: Case, cann: str, torch_npu: str) -> bool:
    """Whether a newer CANN for the installed torch_npu would help: the driver and this kit fit it too."""
    driver = case.facts["driver"]
    fits = not driver["version"] or versions.driver_fits({"version": cann}, driver)[0] == "OK"
    return fits and key(cann) > key(case.cann) and key(versions.torch_of(torch_npu)) >= key(OLDEST["torch"])


def _pair(case: Case, torch_npu: str, cann: str | None) -> Row:
    name, row = "torch-npu + CANN", versions.set_of(torch_npu)
    if cann is None:
        want = f", documented for CANN {row['cann']}" if row and row["cann"] else ""
        return Row("Python", name, "SKIP", f"torch-npu {torch_npu}{want}; the CANN version is unknown")
    fits = versions.documented(torch_npu, cann)
    if fits and row:
        patched = versions.documented_release(cann) if row["cann"] != versions.release(cann) else None
        note = f" (a patch of {patched})" if patched and patched == row["cann"] else ""
        return Row("Python", name, "OK", f"torch-npu {torch_npu} with CANN {cann}: a documented pair{note}")
    remedy = _set_command(case)
    if key(cann) < key(versions.tables()["torch_npu_sets"][0]["cann"]):
        return Row("Python", name, "WARN", f"CANN {cann} is older than every documented pair", remedy)
    if remedy and row and row["cann"] and _can_upgrade(case, row["cann"], torch_npu):
        remedy += f" ; or install CANN {row['cann']}"
    if fits is None or row is None:
        seen = f"torch-npu {torch_npu}: its CANN version is not documented; installed is {cann}"
        return Row("Python", name, "WARN", seen, remedy)
    seen = f"not a documented pair: torch-npu {torch_npu} is for CANN {row['cann']}, installed is CANN {cann}"
    return Row("Python", name, "WARN", seen, remedy)


def _numpy(case: Case) -> Iterator[Row]:
    numpy, limit = case.package("numpy"), versions.tables()["numpy2_since_cann"]
    if not numpy or not case.cann:
        return
    if key(numpy) >= key("2") and key(case.cann) < key(limit):
        seen = f"numpy {numpy} with CANN {case.cann}: device initialisation fails with code 500001"
        remedy = f'pip install "numpy<2"   (numpy 2 needs CANN {limit} or newer)'
        yield Row("Python", "numpy + CANN", "FAIL", seen, remedy)
    else:
        yield Row("Python", "numpy + CANN", "OK", f"numpy {numpy} with CANN {case.cann}")


def _triton(case: Case) -> Iterator[Row]:
    """triton and triton-ascend own the same folder: what was installed last has overwritten the other."""
    plain, ascend = case.package("triton"), case.package("triton-ascend")
    if plain is None or ascend is None:
        return
    keep = f"triton-ascend=={ascend}" if _on_npu(case) else f"triton=={plain}"
    seen = f"triton {plain} and triton-ascend {ascend} in one environment: both own the folder triton/"
    remedy = f"pip uninstall -y triton triton-ascend ; pip install {keep}"
    yield Row("Python", "triton", "FAIL", seen, remedy)
