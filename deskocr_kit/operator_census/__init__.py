"""The operators that a model runs: how often, from which line, and what an NPU does with each.

    from deskocr_kit.operator_census import census, census_ocr

    census(any_module, inputs)                   # any nn.Module, any inputs, any device, also "meta"
    census_ocr()                                 # dry, at the official size: vision, prefill, one decode step
    result.rows(), result.launches("decode"), result.worst(), result.save("reports/…")
    result.judged_by("2.6.0.post5")              # the same calls, judged for another torch_npu

any_module.py and ocr_model.py make a census, result.py and figure.py show it. ../opcount/recorder.py records
the calls, ../opcount/assume.py replaces values in a dry run, ../ascend/dispatch.py has the verdicts.
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
