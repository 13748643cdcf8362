"""Do the parts of a bundle agree with each other, and with what hardware can do?

Checksums show that nothing was changed after packing. These checks show figures that cannot all be true. They
do not prove that a bundle is honest.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import numpy as np

from ..benchmark.summary import tpot
from ..claims.claim import FAILS, HOLDS, NEEDS, claims
from ..prediction.chips import find, names
from ..traces.forms import read_table
from ..traces.kernels import Trace, TraceError
from .check import Bundle, BundleError
from .run import DONE

ROOM = 0.95  # of the limit of the hardware: clocks and rounding
SAME = ("name", "simulated", "torch", "torch_npu", "cann")
#: The file that a finished step has left.
LEFT = {
    "doctor": "doctor/report.json", "weights": "weights.json", "kernels": "kernels.json",
    "prove": "operators.json", "bench": "bench.json", "profile": "trace.json", "claims": "claims.json",
    "notebooks": "notebooks.json",
}  # fmt: skip


def check_bundle(bundle: Bundle) -> list[str]:
    """Remarks about a bundle that is accepted. Raises BundleError with the reason for one that is not."""
    if _simulated(bundle):
        raise BundleError("from the simulated NPU: a rehearsal, which says nothing about a device")
    try:
        for fault in _faults(bundle):
            raise BundleError(fault)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise BundleError(f"a part of the bundle is not in the expected form ({error!r})") from None
    return list(_remarks(bundle))


def _simulated(bundle: Bundle) -> bool:
    """Whether any part says so, whatever the manifest says."""
    bench, trace, kernels = (bundle.json(each) or {} for each in ("bench.json", "trace.json", "kernels.json"))
    parts = (bundle.manifest, bundle.manifest["device"], bench, trace, kernels.get("device") or {})
    said = any(isinstance(part, dict) and part.get("simulated") for part in parts)
    return (
        said
        or bundle.manifest["label"].startswith("npu-sim")
        or "profile/simulator_record.json" in bundle.files
    )


def _faults(bundle: Bundle) -> Iterator[str]:
    yield from _steps(bundle)
    yield from _devices(bundle)
    yield from _bench(bundle)
    yield from _profile(bundle)
    yield from _ledger(bundle)


def _steps(bundle: Bundle) -> Iterator[str]:
    for name, step in bundle.manifest["steps"].items():
        wanted = LEFT.get(name)
        if wanted is None:
            yield f"the manifest has a step {name!r}, which this kit does not know"
        elif step["status"] == DONE and wanted not in bundle.files:
            yield f"step {name} is done, but {wanted} is missing"


def _devices(bundle: Bundle) -> Iterator[str]:
    """The same device and versions in every part that states them."""
    ours = bundle.manifest["device"]
    kind = ours["device"].partition(":")[0]
    if bundle.manifest["label"] != kind:
        yield f"the manifest calls the device {bundle.manifest['label']} and {kind}"
    for part, theirs in _stated(bundle):
        for key in SAME:
            if key in theirs and theirs[key] != ours.get(key):
                yield f"{part} has {key} {theirs[key]}, the manifest {ours.get(key)}"
    versions = bundle.manifest["versions"]
    if versions.get("torch") not in (None, ours["torch"]):
        yield f"the manifest has torch {versions['torch']} and {ours['torch']}"


def _stated(bundle: Bundle) -> Iterator[tuple[str, dict]]:
    paths = {
        "bench.json": ("stamp", "device"), "kernels.json": ("device",), "operators.json": ("device",),
        "plan.json": ("about", "device"), "trace.json": ("about", "device"),
    }  # fmt: skip
    for name, path in paths.items():
        part = bundle.json(name)
        if part is not None:
            for key in path:
                part = part[key]
            yield name, part


def _bench(bundle: Bundle) -> Iterator[str]:
    bench = bundle.json("bench.json")
    if bench is None:
        return
    stamp = bench["stamp"]
    if stamp["kit"] != bundle.manifest["kit"]:
        yield "bench.json was made with another commit of the kit than the manifest says"
    for name, version in bundle.manifest["versions"].items():
        if stamp["packages"].get(name) != version:
            yield f"bench.json has {name} {stamp['packages'].get(name)}, the manifest {version}"
    for key in ("name", "sha256", "parameters"):
        if stamp["checkpoint"][key] != bundle.manifest["checkpoint"][key]:
            yield f"bench.json and the manifest differ in the {key} of the checkpoint"
    yield from _tpot(bench, bundle.manifest["device"]["name"])
    yield from _weights(bundle, stamp["checkpoint"]["parameters"])
    yield from _launches(bundle, bench)


def _tpot(bench: dict, device: str) -> Iterator[str]:
    """TPOT: as the runs say, and not below the time to read the active weights once."""
    runs = [
        tpot(run["e2e"], run["ttft"], page["new_tokens"]) for page in bench["pages"] for run in page["runs"]
    ]
    known = [each for each in runs if each is not None]
    stated = bench["summary"]["all"].get("tpot")
    if not known or stated is None:
        return
    measured = float(np.median(known))
    if abs(measured - stated["p50"]) > 0.01 * measured:
        yield f"bench.json states a TPOT of {stated['p50']:.3g} s, but its runs have {measured:.3g} s"
    active, rate = bench["limits"]["active_bytes_per_token"], bench["limits"].get("read_bytes_per_second")
    chip = next((name for name in names() if name.lower() in device.lower()), None)
    fastest = max(rate or 0, find(chip).bandwidth.high if chip else 0)
    if fastest and min(measured, stated["p50"]) < ROOM * active / fastest:
        yield (
            f"TPOT {min(measured, stated['p50']):.3g} s is below {active / fastest:.3g} s, the time to read "
            f"the {active:,} active bytes at {fastest / 1e9:.0f} GB/s"
        )


SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}


def _weights(bundle: Bundle, parameters: int) -> Iterator[str]:
    weights = bundle.json("weights.json")
    if weights is None or len(weights.get("dtypes", ())) != 1:
        return
    size = SIZES.get(weights["dtypes"][0])
    if size and weights["bytes"] != parameters * size:
        expected = f"{parameters:,} parameters of {size} bytes"
        yield f"weights.json has {weights['bytes']:,} bytes, bench.json {expected}"


def _launches(bundle: Bundle, bench: dict) -> Iterator[str]:
    """Launches per token as counted twice, and the kernels of the profile against both."""
    counted = bench["counts"]["phases"]
    kernels = bundle.json("kernels.json")
    if kernels is not None and bench["method"].get("plan") is None:  # both are of the defaults
        ours, theirs = kernels["launches_per_token"], counted["token"]["launches"]
        if abs(ours - theirs) > 1:
            yield f"kernels.json counts {ours} launches per token, bench.json {theirs:g}"
    trace = bundle.json("trace.json")
    if trace is None or not isinstance(trace["about"].get("tokens"), int):
        return
    expected = counted["vision"]["launches"] + counted["prefill"]["launches"]
    expected += (trace["about"]["tokens"] - 1) * counted["token"]["launches"]
    most = 1.3 if bundle.manifest["label"] == "cpu" else 30  # CANN may start several kernels for one launch
    if not 0.7 * expected <= trace["kernels"] <= most * expected:
        yield f"the profile has {trace['kernels']} kernels, the benchmark counts {expected:g} launches for it"


def _profile(bundle: Bundle) -> Iterator[str]:
    trace = bundle.json("trace.json")
    if trace is None:
        return
    rows = trace["by_type"]
    if sum(row["count"] for row in rows) != trace["kernels"]:
        yield "trace.json: the rows by type do not add up to its kernels"
    timed = [row["us"] for row in rows if row["us"] is not None]
    if trace["device_us"] is not None and abs(sum(timed) - trace["device_us"]) > 1e-6 * max(
        1, trace["device_us"]
    ):
        yield "trace.json: the times by type do not add up to its time of the device"
    busy = trace["busy_us"]
    if busy is not None and trace["device_us"] is not None and busy > trace["device_us"] * 1.0001 + 1:
        yield "trace.json: the device is busy longer than its kernels took"
    for name in ("kernel_details.csv", "op_statistic.csv"):
        if (raw := _table(bundle, f"profile/{name}")) is None:
            continue
        exact = name == "kernel_details.csv" or bundle.manifest["label"] == "cpu"
        if exact and raw.count != trace["kernels"]:
            yield f"{name} has {raw.count} kernels, trace.json {trace['kernels']}"
        if exact and abs((raw.device_us or Decimal(0)) - Decimal(str(trace["device_us"]))) > Decimal("0.5"):
            yield f"{name} and trace.json differ in the time of the device"


def _table(bundle: Bundle, name: str) -> Trace | None:
    if name not in bundle.files:
        return None
    try:
        return read_table(bundle.files[name].decode("utf-8", "replace"), name)
    except TraceError as error:
        raise BundleError(str(error)) from None


def _ledger(bundle: Bundle) -> Iterator[str]:
    rows = bundle.json("claims.json")
    if rows is None:
        return
    known = {claim.id for claim in claims()}
    device = bundle.manifest["device"]["name"]
    for row in rows["claims"]:
        if row["id"] not in known or row["outcome"] not in (HOLDS, FAILS, NEEDS):
            yield f"claims.json has an unknown claim or outcome: {row['id']}, {row['outcome']}"
        elif not row["device"].startswith(("no device", device)):
            yield f"claims.json: {row['id']} was tested on {row['device']}, the bundle is from {device}"
        elif "simulated" in row["device"]:
            yield f"claims.json: {row['id']} was tested on a simulated device"


def _remarks(bundle: Bundle) -> Iterator[str]:
    kit = bundle.manifest["kit"]
    if kit["commit"] is None:
        yield "made outside of a git checkout: its commit is not known"
    elif kit["changed"]:
        yield "made with changed code: the commit alone does not repeat it"
    for name, step in bundle.manifest["steps"].items():
        if step["status"] != DONE:
            yield f"step {name}: {step['status']}" + (f" ({step['reason']})" if step["reason"] else "")
    if bundle.manifest["includes_pages"]:
        yield "contains pictures of pages"
