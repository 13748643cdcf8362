"""Which operators does a model really run, how often, from which line, and what does an NPU do with each?

    from deskocr_kit.operator_census import census, census_ocr

    census(any_module, inputs)                   # any nn.Module, any inputs, any device, "meta" included
    census_ocr()                                 # the official size, dry: vision, prefill, one decode step
    result.rows(), result.launches("decode"), result.worst(), result.save("reports/…")
    result.judged_by("2.6.0.post5")              # the same calls, another torch_npu

recorder.py sees, assume.py stands in for values in a dry run, verdicts.py judges, result.py and picture.py
show, ocr.py knows our network's phases.
"""

from ..ascend.dispatch import VERDICTS, Verdict, judge, nearest_wheel, wheel_versions
from ..opcount.assume import Assume, DryRunError
from ..opcount.recorder import Call, Recorder
from .any_module import census
from .ocr_model import census_ocr
from .result import Census, Entry

__all__ = [
    "VERDICTS",
    "Assume",
    "Call",
    "Census",
    "DryRunError",
    "Entry",
    "Recorder",
    "Verdict",
    "census",
    "census_ocr",
    "judge",
    "nearest_wheel",
    "wheel_versions",
]
