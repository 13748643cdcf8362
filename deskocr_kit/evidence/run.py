"""Run the steps, each in its own process with a time limit; a run that was stopped continues where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path

from model.files import write_json
from model.limited import ROOT
from model.untrusted import UntrustedFile, read_json_object

from ..benchmark.stamp import revision, versions
from ..device import default_dtype, describe_device, is_simulated, pick_device
from ..device.dtypes import DTYPES, dtype_name
from ..reading.checkpoints import find_checkpoint
from .steps import STEPS, Setting, Step

STATE = "state.json"
DONE, FAILED, LATE, SKIPPED = "done", "failed", "stopped at its time limit", "skipped"
MINUTES = 30.0
TAIL = 20_000  # characters of a step's output that are kept


@dataclass
class Outcome:
    """The outcome of one step. status: DONE, FAILED, LATE or SKIPPED; reason: why it is not DONE."""

    status: str
    seconds: float = 0.0
    reason: str = ""


def setting_of(device: str, checkpoint: str, folder: Path) -> tuple[Setting, dict]:
    """The setting, and the facts that a resumed run must share. Raises DeviceError, ValueError."""
    where = pick_device(device, quiet=True)
    place = find_checkpoint(checkpoint)
    if not (place / "config.json").exists():
        raise ValueError(f"{checkpoint}: no config.json there; model/README.md says how to get the weights")
    facts = {
        "device": describe_device(where),
        "label": label_of(device, where),
        "simulated": is_simulated(where),
        "checkpoint": place.name,
        "versions": versions(),
        "kit": revision(),
    }
    dtype = next(short for short, long in DTYPES.items() if long == dtype_name(default_dtype(where)))
    named = str(place.resolve()) if Path(checkpoint).is_dir() else checkpoint
    return Setting(device, named, folder.resolve(), dtype), facts


def label_of(device: str, where) -> str:
    """The device in the names of folders: "npu", "cuda", "cpu", "npu-sim-as-published"."""
    told = describe_device(where)
    return f"npu-sim-{told['profile']}" if told["simulated"] else where.type


def estimate(setting: Setting, skip: Collection[str]) -> list[tuple[Step, float]]:
    """(step, estimated minutes) of the steps that will run."""
    official = 1 if Path(setting.checkpoint).name != "nano" else 0
    return [(step, step.minutes[official]) for step in STEPS if step.name not in skip]


def collect(
    setting: Setting,
    facts: dict,
    skip: Collection[str] = (),
    minutes: float = MINUTES,
    fresh: bool = False,
    tell: Callable[[str], object] = print,
) -> dict[str, Outcome]:
    """Run what is not done yet; returns the outcome of every step.

    Args:
        facts: from `setting_of`. If the folder's earlier run had others, everything runs again.
        skip: names of steps to leave out.
        minutes: for all steps; a step that would start later is skipped, and the last one is stopped.
        fresh: run finished steps again.
        tell: called with one line per step.
    """
    folder = setting.folder
    folder.mkdir(parents=True, exist_ok=True)
    done = {} if fresh else _earlier(folder, facts)
    outcomes: dict[str, Outcome] = {}
    ends = time.monotonic() + 60 * minutes
    for step in STEPS:
        left = ends - time.monotonic()
        if step.name in skip:
            outcomes[step.name] = Outcome(SKIPPED, reason="left out with --skip")
        elif step.name in done:
            outcomes[step.name] = done[step.name]
            tell(f"{step.name}: done before ({done[step.name].seconds:.0f} s)")
            continue
        elif left < 5:
            outcomes[step.name] = Outcome(SKIPPED, reason=f"no time left of {minutes:g} minutes")
        else:
            tell(f"{step.name}: {step.about} …")
            outcomes[step.name] = _run(step, setting, min(left, 60 * step.limit))
        found = outcomes[step.name]
        tell(
            f"{step.name}: {found.status}"
            + (f", {found.reason}" if found.reason else f" ({found.seconds:.0f} s)")
        )
        _remember(folder, facts, outcomes)
    _remember(folder, facts, outcomes)
    return outcomes


def _run(step: Step, setting: Setting, seconds: float) -> Outcome:
    """Run one step; its output goes to logs/, what it made to where pack.py expects it."""
    logs = setting.folder / "logs"
    logs.mkdir(exist_ok=True)
    start = time.monotonic()
    path = (str(ROOT), os.environ.get("PYTHONPATH"))  # also where the kit is not installed
    process = subprocess.Popen(
        step.command(setting),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={**os.environ, "TQDM_DISABLE": "1", "PYTHONPATH": os.pathsep.join(filter(None, path))},
    )
    late = False
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        late = True
        _stop(process)
        output, _ = process.communicate()
    except BaseException:  # Ctrl-C: the step must not go on alone
        _stop(process)
        raise
    took = time.monotonic() - start
    (logs / f"{step.name}.txt").write_text(output[-TAIL:], encoding="utf-8")
    if late:
        return Outcome(LATE, took, f"stopped after {took:.0f} s")
    if process.returncode not in step.accept:
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
        return Outcome(FAILED, took, f"exit status {process.returncode}: {last[:200]}")
    try:
        _settle(step.name, setting, output)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        return Outcome(FAILED, took, f"its result cannot be used: {error}")
    return Outcome(DONE, took)


def _stop(process: subprocess.Popen) -> None:
    """End a step and what it started: it leads a session of its own."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(timeout=5)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _settle(name: str, setting: Setting, output: str) -> None:
    """Put the result of a step where pack.py looks for it. Raises OSError or ValueError."""
    folder = setting.folder
    if name == "doctor":
        with zipfile.ZipFile(folder / "doctor.zip") as found:
            for member in found.namelist():
                target = folder / "doctor" / Path(member).name
                target.parent.mkdir(exist_ok=True)
                target.write_bytes(found.read(member))
        (folder / "doctor.zip").unlink()
    elif name == "weights":
        write_json(folder / "weights.json", _json_in(output))
    elif name == "prove":
        (made,) = {path.parent for path in (folder / "prove").glob("*/operators.json")}
        for each in ("operators.json", "operators.md", "plan.json"):
            (folder / each).write_bytes((made / each).read_bytes())
    elif name == "bench":
        (folder / "bench.json").write_bytes((folder / "bench" / "bench.json").read_bytes())
    elif name == "profile":
        write_json(folder / "trace.json", _json_in(output))
    elif name == "notebooks":
        write_json(folder / "notebooks.json", _notebooks(output))


def _json_in(output: str) -> dict:
    """The JSON object in the output of a command, which may have notes around it."""
    at = output.find("{\n")
    if at < 0:
        raise ValueError("no JSON in its output")
    return json.JSONDecoder().raw_decode(output[at:])[0]


def _notebooks(output: str) -> dict:
    """{notebook: "passed" or the error of a cell} from the lines of `deskocr notebooks run`."""
    found = {}
    for line in output.splitlines():
        word, _, rest = line.partition(" ")
        if word == "wrote" and rest.endswith(".ipynb and .html"):
            found[Path(rest.removesuffix(" and .html")).name] = "passed"
        elif word == "FAILED":
            path, _, problem = rest.partition(": ")
            found[Path(path).name] = problem
    if not found:
        raise ValueError("no notebook ran")
    return found


def _earlier(folder: Path, facts: dict) -> dict[str, Outcome]:
    """The finished steps of an earlier run with the same facts."""
    try:
        stored = read_json_object(folder / STATE)
    except (OSError, UntrustedFile):
        return {}
    if stored.get("facts") != json.loads(json.dumps(facts)):
        return {}
    return {name: Outcome(**each) for name, each in stored["steps"].items() if each["status"] == DONE}


def _remember(folder: Path, facts: dict, outcomes: dict[str, Outcome]) -> None:
    write_json(folder / STATE, {"facts": facts, "steps": {k: asdict(v) for k, v in outcomes.items()}})
