"""Measure whether `climb` names planted faults in models that are not ours, and write docs/porting_faults.md.

    python -m docs.porting_faults                          # measure this code; ten minutes on one core
    python -m docs.porting_faults --device npu-sim         # the same on the simulated NPU
    python -m docs.porting_faults --kit FOLDER --as before # measure the kit in another checkout
    python -m docs.porting_faults --write                  # only write the page from the stored results

The results are in docs/porting_faults.json.
"""

from __future__ import annotations

import argparse
import collections
import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
DATA, PAGE = HERE / "porting_faults.json", HERE / "porting_faults.md"
#: What the page shows. "before" is an earlier `climb`; with it a test checks that the faults are hard.
TITLES = {"after": "On a CPU", "after on npu-sim": "On the simulated NPU"}

INTRODUCTION = """# Faults planted in models that are not ours

`climb` compares a port with its reference and names the first divergence. This page shows how well it does so
on tiny models of transformers with random weights, and a CRNN. In each, one fault is planted at a time. The
fault counts as found if `climb` names the planted module and the kind of fault. A sound port counts as right
if nothing is named.

Each fault is tried in fp32, fp16 and bf16, with eager and SDPA attention, with and without left padding; six
settings contain every pair of these. A cell shows the settings that were right, of those that were tried. A
dash means that the model has no place for this fault. The last row makes each module wrong by 3 %, one after
the other, in fp16, if that changes the model's output at all. `docs/porting_faults.json` has every result.
Models and faults are in `tests/helpers/climb_guests.py` and `climb_faults.py`.

Outside of this measurement is a mistake of a few percent between blocks: in 16 bits it can hide behind the
rounding of the blocks. `climb` says so, and a first climb in fp32 finds it. No NPU was used; the simulated
one has its own tests, `tests/simulator/test_climb.py`.

`python -m docs.porting_faults` makes this page.
"""


def measure(name: str, device: str, guests: list[str] | None) -> None:
    """Run the battery and store its outcomes under `name`."""
    import torch

    from deskocr_kit import pick_device
    from tests.helpers.climb_battery import battery

    torch.set_num_threads(1)
    where = str(pick_device(device, quiet=True))
    start, outcomes = time.time(), []
    for outcome in battery(guests, device=where):
        found = outcome.to_json()
        outcomes.append(found if outcome.named != "right" else found | {"first": ""})
        if outcome.named != "right":
            print(*outcome.to_json().values(), sep=" | ", flush=True)
    stored = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
    command = "python -m docs.porting_faults" + (f" --device {device}" if device != "cpu" else "")
    stored[name] = {"command": command, "torch": torch.__version__, "outcomes": outcomes}
    store(stored)
    print(f"{len(outcomes)} trials in {time.time() - start:.0f} s")


def store(stored: dict) -> None:
    """Write the data, one outcome per line."""
    parts = []
    for name, each in sorted(stored.items()):
        lines = ",\n".join(json.dumps(o, ensure_ascii=False) for o in each["outcomes"])
        head = json.dumps({k: v for k, v in each.items() if k != "outcomes"})[:-1]
        parts.append(f'{json.dumps(name)}: {head}, "outcomes": [\n{lines}\n]}}')
    DATA.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")


def page(stored: dict) -> str:
    """The page as Markdown."""
    parts = [INTRODUCTION, _meanings(), _summary(stored)]
    for name, title in TITLES.items():
        if name in stored:
            parts.append(f"## {title}\n\n{_table(stored[name]['outcomes'])}")
    return "\n".join(parts)


def _meanings() -> str:
    """What each fault does: the first line of its docstring."""
    from tests.helpers.climb_battery import EVERY_MODULE
    from tests.helpers.climb_faults import FAULTS, SOUND

    lines = ["| fault | what is done |", "|---|---|"]
    for name, plant in {**SOUND, **FAULTS}.items():
        lines.append(f"| {name} | {plant.__doc__.partition(chr(10))[0]} |")
    lines.append(f"| {EVERY_MODULE} | Each module's output is multiplied by 1.03, one after the other. |")
    return "\n".join(lines) + "\n"


def _summary(stored: dict) -> str:
    words = ("right", "wrong", "missed", "false alarm", "raised")
    lines = ["| | trials | " + " | ".join(words) + " |", "|---" * (len(words) + 2) + "|"]
    for name, title in TITLES.items():
        if name in stored:
            found = collections.Counter(o["named"] for o in stored[name]["outcomes"])
            row = [title, sum(found.values()), *(found[word] for word in words)]
            lines.append(f"| {' | '.join(map(str, row))} |")
    legend = (
        "right: named, or nothing named in a sound port. wrong: another place is named. missed: nothing is "
        "named. false alarm: a sound port diverges. raised: `climb` stops with an exception."
    )
    return "\n".join(lines) + f"\n\n{legend}\n"


def _table(outcomes: list[dict]) -> str:
    guests = list(dict.fromkeys(o["guest"] for o in outcomes))
    faults = list(dict.fromkeys(o["fault"] for o in outcomes))
    cells: dict[tuple, list[bool]] = collections.defaultdict(list)
    for o in outcomes:
        cells[o["fault"], o["guest"]].append(o["named"] == "right")
    lines = ["| fault | " + " | ".join(guests) + " |", "|---" * (len(guests) + 1) + "|"]
    for fault in faults:
        row = [cells.get((fault, guest)) for guest in guests]
        shown = ["–" if tried is None else f"{sum(tried)}/{len(tried)}" for tried in row]
        lines.append(f"| {fault} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cpu", help="cpu, npu-sim, or another device of the kit")
    parser.add_argument("--kit", type=Path, help="folder of another checkout, whose kit is measured")
    parser.add_argument("--as", dest="name", help="name of the results; default: after")
    parser.add_argument("--guests", nargs="*", help="only these models")
    parser.add_argument("--write", action="store_true", help="only write the page")
    chosen = parser.parse_args()
    if chosen.kit:
        sys.path.insert(0, str(chosen.kit.resolve()))
    if not chosen.write:
        default = "after" if chosen.device == "cpu" else f"after on {chosen.device}"
        measure(chosen.name or default, chosen.device, chosen.guests)
    PAGE.write_text(page(json.loads(DATA.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
