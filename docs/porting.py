"""Makes docs/porting.md, the table of models and steps: `python -m docs.porting`.

It runs notebook 09's steps on the models of tests/helpers/guest_models.py, on the simulated NPU, and stores
the results in docs/porting.json. `python -m docs.porting --page` makes the page from the stored results.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

STORED = Path(__file__).with_name("porting.json")
PAGE = Path(__file__).with_name("porting.md")
COMMAND = "python -m docs.porting"
DEVICE, DTYPE = "npu-sim:as-believed", "fp16"

HEAD = """# Porting a model that is not ours

[Notebook 09](../notebooks/09_port_your_own.ipynb) takes any `nn.Module` through these steps. In one call:

```python
from deskocr_kit import port_steps

steps = port_steps(model, inputs, "npu", "fp16")  # inputs: a dict, a tuple, a tensor or a BatchFeature
print(steps)  # what each step found
steps.port.save("reports/my-model")
```

| step | passes if |
|---|---|
"""

MIDDLE = """
The models below went through all steps unchanged, with tiny random weights. {words}

`{command}` makes this table. Device: {device}, {dtype}. {versions}.
The device is simulated: it has the operators and the messages of an NPU, and the numbers of the CPU. The
proof tries the model's own calls; the hard cases do not depend on a model, and `deskocr prove` tries them.

"""

TAIL = """
Launches and waits: of one forward of the port, with its substitutes. "-": the model generates no text.

## What works, and what does not

* `deskocr_kit.port_module(model, device, dtype)` moves a copy to a device and a dtype. Buffers that are not
  part of the state dict stay in fp32, as do the parts that transformers itself loads in fp32. Tensors that
  are plain attributes are moved and named, because `.to()` leaves them behind.
* `adapt` exchanges convolution layers, and `F.conv1d` and its relatives inside a forward of the model. It
  names what it leaves alone: transposed convolutions of volumes, and TorchScript, whose operators Python
  cannot replace.
* A model without convolutions and `masked_scatter_` gets an empty proof and a whole report.
* `compare_generated` compares the text of both models token by token. Where they differ, it tells a fault
  from a near tie: the reference's scores of the two tokens differ by at most six times the median error of
  the scores, so that rounding decides.
* [porting_faults.md](porting_faults.md): mistakes that were planted into models, and the instrument that
  names each of them.
"""


def record() -> dict:
    """Run the steps of every model. {"models": {name: {step: [passes, what]}}, …}."""
    import torch
    import transformers

    from deskocr_kit import pick_device, port_steps
    from tests.helpers.guest_models import models

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    where, found = pick_device(DEVICE, quiet=True), {}
    for name, each in models().items():
        steps = port_steps(each.build(), each.given(), where, DTYPE, hard=False)
        work = [steps.port.census.launches(), steps.port.census.syncs()] if steps.port else None
        found[name] = {"steps": {step: list(result) for step, result in steps.results.items()}, "work": work}
        print(f"{name}: {', '.join(steps.failed) or 'all steps pass'}", file=sys.stderr)
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"command": COMMAND, "device": DEVICE, "dtype": DTYPE, "versions": versions, "models": found}


def page(stored: dict) -> str:
    """The page of a record."""
    from deskocr_kit.course.port_steps import STEPS

    models = stored["models"]
    whole = sum(all(passes for passes, _ in each["steps"].values()) for each in models.values())
    words = f"{whole} of {len(models)} pass every step."
    versions = ", ".join(f"{name} {version}" for name, version in stored["versions"].items())
    lines = [HEAD.rstrip("\n")]
    lines += [f"| {step} | {what} |" for step, what in STEPS.items()]
    about = {name: stored[name] for name in ("command", "device", "dtype")}
    lines += [MIDDLE.format(words=words, versions=versions, **about).rstrip("\n"), ""]
    lines += [f"| model | {' | '.join(STEPS)} | launches | waits |", "|---" * (len(STEPS) + 3) + "|"]
    for name, each in models.items():
        cells = [_cell(each["steps"].get(step)) for step in STEPS]
        lines.append(f"| {name} | {' | '.join(cells)} | {' | '.join(map(str, each['work'] or '--'))} |")
    failures = [
        f"* {name}, {step}: {what}"
        for name, each in models.items()
        for step, (passes, what) in each["steps"].items()
        if not passes
    ]
    if failures:
        lines += ["", "What fails:", "", *failures]
    return "\n".join(lines) + "\n" + TAIL


def _cell(result) -> str:
    return "-" if result is None else "pass" if result[0] else "**FAIL**"


def main(arguments: list[str]) -> None:
    if "--page" not in arguments:
        STORED.write_text(json.dumps(record(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(STORED.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
