"""`deskocr prove`: compare every substitute on this device with the reference, and make a plan.

report = prove("npu-sim:as-believed", ["fp16"], "nano")
report                       # the verdict table
report.plan                  # which substitute to use for which calls
report.save("reports/npu-sim-as-believed-nano")

`prove_module` does the same for any other model, with the calls that the model makes.
"""

from .proof import config_of, folder_name, prove, prove_module

__all__ = ["config_of", "folder_name", "prove", "prove_module"]
