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


def _packages(case: Case) -> Iterator[Row]:
    if "pip-list.txt" not in case.capture:
        yield Row(
            "Python",
            "packages",
            "SKIP",
            f"pip-list.txt: {case.capture.notes.get('pip-list.txt', 'not captured')}",
        )
        return
    for name in ("torch", "transformers", "numpy"):
        version = case.package(name)
        if version is None:
            yield Row(
                "Python",
                name,
                "FAIL",
                "not installed",
                f'pip install "{name}>={OLDEST[name]}"   (or: pip install -e .)',
            )
        elif key(version) < key(OLDEST[name]):
            needed = f'pip install "{name}>={OLDEST[name]}"'
            yield Row("Python", name, "FAIL", f"{version}: this kit needs {OLDEST[name]} or newer", needed)
        elif name in NEWEST_TESTED and key(minor(version)) > key(NEWEST_TESTED[name]):
            yield Row("Python", name, "WARN", f"{version}: newer than tested ({NEWEST_TESTED[name]})")
        else:
            yield Row("Python", name, "OK", version)


def _torch_and_npu(case: Case) -> Iterator[Row]:
    if "pip-list.txt" not in case.capture:
        return
    torch, torch_npu, cann = case.package("torch"), case.package("torch-npu"), case.cann
    if torch_npu is None:
        if case.hardware:
            builds = versions.builds_for(cann, torch) if cann else []
            wanted = f"torch-npu=={builds[0]}" if builds else "torch-npu   (the build for your CANN)"
            base = f"torch=={builds[0].split('.post')[0]} " if builds else ""
            yield Row(
                "Python",
                "torch-npu",
                "FAIL",
                "not installed, so torch cannot use the NPU",
                f"pip install {base}{wanted}",
            )
        else:
            yield Row("Python", "torch-npu", "SKIP", "not installed, and not needed: no NPU here")
        return
    yield _torch_pin(torch, torch_npu)
    yield _pair(torch, torch_npu, cann)


def _torch_pin(torch: str | None, torch_npu: str) -> Row:
    base = torch_npu.split("+")[0].split(".post")[0].split("rc")[0]
    have = (torch or "").split("+")[0]
    if torch is None:
        return Row("Python", "torch-npu", "FAIL", f"{torch_npu} without torch", f"pip install torch=={base}")
    if minor(have) != minor(base):
        seen = f"torch {torch} with torch-npu {torch_npu}: the import fails with an undefined symbol"
        return Row(
            "Python",
            "torch-npu",
            "FAIL",
            seen,
            f"pip install torch=={base}   (or the torch-npu for torch {minor(have)})",
        )
    if key(have) != key(base):
        seen = f"{torch_npu} is built for torch {base}; installed is {torch}"
        return Row("Python", "torch-npu", "WARN", seen, f"pip install torch=={base}")
    return Row("Python", "torch-npu", "OK", f"{torch_npu} with the matching torch {torch}")


def _pair(torch: str | None, torch_npu: str, cann: str | None) -> Row:
    name, row = "torch-npu + CANN", versions.set_of(torch_npu)
    if cann is None:
        want = f", documented for CANN {row['cann']}" if row and row["cann"] else ""
        return Row("Python", name, "SKIP", f"torch-npu {torch_npu}{want}; the CANN version is unknown")
    fits = versions.documented(torch_npu, cann)
    if fits:
        return Row("Python", name, "OK", f"torch-npu {torch_npu} with CANN {cann}: a documented pair")
    if key(cann) < key("8.0.RC3"):
        best = versions.tables()["recommended"]
        remedy = f"Upgrade to CANN {best['cann']} with torch-npu=={best['torch_npu']}."
        return Row("Python", name, "WARN", f"CANN {cann} is older than every documented pair", remedy)
    builds = versions.builds_for(cann, torch)
    here = [build for build in builds if torch and minor(build) == minor(torch)]
    way = f"pip install torch-npu=={here[0]}" if here else ""
    if not here and builds:
        way = f"pip install torch=={builds[0].split('.post')[0]} torch-npu=={builds[0]}{X86_INDEX}"
    upgrade = f"install CANN {row['cann']}" if row and row["cann"] else ""
    remedy = " ; or ".join(part for part in (way, upgrade) if part)
    if fits is None:
        return Row(
            "Python",
            name,
            "WARN",
            f"torch-npu {torch_npu}: its CANN version is not documented; installed is {cann}",
            remedy,
        )
    want = row["cann"] if row else "?"
    seen = f"not a documented pair: torch-npu {torch_npu} is for CANN {want}, installed is CANN {cann}"
    return Row("Python", name, "WARN", seen, remedy)


def _numpy(case: Case) -> Iterator[Row]:
    numpy, limit = case.package("numpy"), versions.tables()["numpy2_since_cann"]
    if not numpy or not case.cann:
        return
    if key(numpy) >= key("2") and key(case.cann) < key(limit):
        seen = f"numpy {numpy} with CANN {case.cann}: device initialisation fails with code 500001"
        yield Row(
            "Python",
            "numpy + CANN",
            "FAIL",
            seen,
            f'pip install "numpy<2"   (numpy 2 needs CANN {limit} or newer)',
        )
    else:
        yield Row("Python", "numpy + CANN", "OK", f"numpy {numpy} with CANN {case.cann}")
