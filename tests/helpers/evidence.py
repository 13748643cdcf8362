"""A complete working folder of `deskocr evidence`, made from stored results, and changed bundles."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from deskocr_kit.claims.claim import FAILS, NEEDS, claims
from deskocr_kit.evidence.pack import MANIFEST, write_bundle
from deskocr_kit.traces.folder import read_trace
from tests.helpers.paths import ROOT

BENCH = ROOT / "reports" / "cpu-nano" / "bench.json"
TOKENS = 9


def working_folder(folder: Path) -> Path:
    """Every step done, on this CPU with nano; figures from the stored benchmark."""
    bench = json.loads(BENCH.read_text(encoding="utf-8"))
    stamp, phases = bench["stamp"], bench["counts"]["phases"]
    launches = phases["vision"]["launches"] + phases["prefill"]["launches"]
    launches = int(launches + (TOKENS - 1) * phases["token"]["launches"])
    profile = folder / "profile" / "ASCEND_PROFILER_OUTPUT"
    profile.mkdir(parents=True)
    (profile / "op_statistic.csv").write_text(
        "Device_id,OP Type,Core Type,Count,Total Time(us),Min Time(us),Avg Time(us),Max Time(us),Ratio(%)\n"
        f"0,aten::addmm,CPU,{launches - 5},5000.5,1,2,3,90.0\n0,aten::convolution,CPU,5,700.25,1,2,3,10.0\n"
    )
    about = {"device": stamp["device"], "simulated": False, "checkpoint": "nano", "tokens": TOKENS}
    write(folder / "profile" / "deskocr_profile.json", about)
    write(folder / "trace.json", read_trace(folder / "profile").to_json())
    write(folder / "bench.json", bench)
    for name in ("operators.json", "plan.json"):
        stored = json.loads((BENCH.parent / name).read_text(encoding="utf-8"))
        (stored if name == "operators.json" else stored["about"])["device"] = stamp["device"]
        write(folder / name, stored)
    rows = [{"operator": "gelu", "calls": 4, "installed": "kernel", "published": "slow kernel"}]
    token = phases["token"]["launches"]
    wheel = {"device": stamp["device"], "published_wheel": "2.13.0", "launches_per_token": token}
    write(folder / "kernels.json", {**wheel, "operators": rows})
    size = stamp["checkpoint"]["parameters"] * 2
    write(folder / "weights.json", {"folder": str(folder / "nano"), "dtypes": ["float16"], "bytes": size})
    write(
        folder / "claims.json",
        {"command": "python -m deskocr_kit.claims", "claims": outcomes(stamp["device"])},
    )
    write(folder / "notebooks.json", {"00_quickstart.ipynb": "passed"})
    (folder / "doctor").mkdir()
    write(folder / "doctor" / "report.json", {"verdict": "usable (cpu)"})
    (folder / "logs").mkdir()
    (folder / "logs" / "bench.txt").write_text("nano on CPU\n")
    names = ("doctor", "weights", "kernels", "prove", "bench", "profile", "claims", "notebooks")
    facts = {
        "device": stamp["device"],
        "label": "cpu",
        "simulated": False,
        "checkpoint": "nano",
        "versions": stamp["packages"],
        "kit": stamp["kit"],
    }
    steps = {name: {"status": "done", "seconds": 1.0, "reason": ""} for name in names}
    write(folder / "state.json", {"facts": facts, "steps": steps})
    return folder


def outcomes(device: dict) -> list[dict]:
    rows = []
    for claim in claims():
        here = claim.id == "unfold-as-printed"
        rows.append(
            {
                "id": claim.id,
                "claim": claim.claim,
                "outcome": FAILS if here else NEEDS,
                "evidence": "shape 1 | shape 2",
                "device": f"{device['name']} (torch {device['torch']})" if here else "no device: published",
            }
        )
    return rows


def write(path: Path, value) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def bundle(tmp_path: Path, name: str = "good") -> Path:
    """A bundle that is accepted."""
    folder = working_folder(tmp_path / name)
    write_bundle(folder, tmp_path / f"{name}.zip")
    return tmp_path / f"{name}.zip"


def changed(source: Path, target: Path, changes: dict[str, Callable], fix_checksums: bool = True) -> Path:
    """A copy of a bundle with other JSON files: {name: function that changes the value in place}.

    fix_checksums: as a careful forger does; the manifest's own change comes last.
    """
    with zipfile.ZipFile(source) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(files[MANIFEST])
    for name, change in changes.items():
        if name != MANIFEST:
            value = json.loads(files[name])
            change(value)
            files[name] = json.dumps(value).encode()
            if fix_checksums:
                entry = manifest["files"][name]
                entry["sha256"], entry["bytes"] = hashlib.sha256(files[name]).hexdigest(), len(files[name])
    if MANIFEST in changes:
        changes[MANIFEST](manifest)
    files[MANIFEST] = json.dumps(manifest).encode()
    return packed(target, files)


def packed(target: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target
