"""`deskocr prove`: every substitute on the device at hand, against the reference; then a plan.

report = prove("npu-sim:as-believed", ["fp16"], "nano")
report                       # the verdict table
report.plan                  # what to use where
report.save("reports/npu-sim-as-believed-nano")

`prove_module` does the same for a model that is not ours, on the calls that it makes itself.
"""

from .proof import config_of, folder_name, prove, prove_module

__all__ = ["config_of", "folder_name", "prove", "prove_module"]
