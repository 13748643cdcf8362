"""The public names of the kit, each loaded on first use.

    from deskocr_kit import Reader, census, prove, climb

`import deskocr_kit` is fast and needs no torch, because `deskocr doctor` must work if torch is broken.
Two more documented submodules are `deskocr_kit.simulator` and `deskocr_kit.course`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("deskocr-kit")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

#: The modules of this package and the public names that each one defines.
_NAMES = {
    "ascend.dispatch": "VERDICTS dispatch_table judge wheel_versions",
    "ascend.errors": "explain",
    "benchmark.child": "bench",
    "benchmark.compare": "compare_benchmarks load_benchmark timing_verdict",
    "benchmark.frame": "bench_frame",
    "benchmark.report": "report_heading",
    "benchmark.spec": "BenchSpec",
    "benchmark.summary": "spread success_share tpot",
    "compare": "climb closeness compare_caches compare_decisions compare_weights decisions headroom replay "
    "teacher_forced traced",
    "compare.headroom": "islands",
    "compare.trace": "move_to",
    "course.port_report": "Port missing",
    "device": "DeviceError Timer default_dtype device_memory is_simulated pick_device synchronize",
    "device.dtypes": "find_dtype",
    "doctor.examination": "examine examine_files",
    "porting.generated": "compare_generated",
    "porting.inputs": "make_run shapes",
    "porting.move": "port_module",
    "operator_census.any_module": "census",
    "operator_census.ocr_model": "census_ocr page_inputs",
    "prediction.original_loop": "census_original",
    "operators.adapt.module": "adapt",
    "operators.plan": "Plan PlanError",
    "operators.prove.proof": "prove prove_module",
    "operators.prove.runner": "budgets",
    "operators.substitutes.mismatch": "Mismatch",
    "operators.substitutes.registry": "candidate candidates",
    "device.counting": "counted",
    "prediction.checked": "cpu_check",
    "prediction.estimate": "predict",
    "prediction.work": "fused_plan original_plan portable_plan",
    "reading.batch": "read_batch",
    "reading.options": "LoadOptions PageOptions ReadingOptions",
    "reading.pages": "iter_pages",
    "reading.reader": "Reader",
    "reading.repetition": "loops",
    "reading.sample_pages": "sample_pages",
    "reading.text_distance": "cer edits ned",
}

_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value  # the next access does not call this function
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
