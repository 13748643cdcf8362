"""The official size: make, save, load, encode a page, decode.

    python -m tests.official_size.measure [--model unlimited-ocr]

The weights are random (seeded): the text has no meaning, but every byte moves as with the official ones. Each
half runs in a separate process, so that the memory of one is not counted in the other.
Needs Linux (it reads /proc), 7 GB of disk and 9 GB of free memory; takes minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.golden_pages import GoldenTokenizer
from tests.helpers.paths import ROOT

NEW_TOKENS, GRID = 16, (2, 3)
MODEL = "deepseek-ocr"
DISK_BYTES, MEMORY_BYTES = 7_500_000_000, 9_000_000_000
# Allowed memory of load in addition to the weights and one layer's experts: parsed headers, 2710 entries, the
# skeletons, and pages that the C allocator has not returned.
SLACK = 64_000_000

PIECE = 1 << 24  # bytes per read when only the file is timed


class Figures(dict):
    """Named figures, each printed when it is set."""

    def note(self, name: str, value: float, unit: str, remark: str = "") -> None:
        self[name] = value
        shown = f"{value:,.3f}" if value < 100 else f"{value:,.0f}"
        print(f"{name:<28} {shown:>14} {unit:<9} {remark}".rstrip(), flush=True)

    @contextmanager
    def timed(self, name: str, remark: str = "") -> Iterator[None]:
        start, used = time.perf_counter(), time.process_time()
        yield
        self[f"{name} cpu"] = time.process_time() - used
        remark = f"{self[f'{name} cpu']:.1f} s of CPU time; {remark}"
        self.note(f"{name} seconds", time.perf_counter() - start, "s", remark)


def status(key: str, where: str = "/proc/self/status") -> int:
    """Bytes in a line of a /proc file: VmRSS now, VmHWM the peak so far."""
    for line in Path(where).read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def forget_peak() -> None:
    """Reset VmHWM to the memory that is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def digests(config, model) -> dict[str, str]:
    """{official name: SHA-256 of its bytes}."""
    from model.loading import official_tensors
    from model.safetensors_io import as_bytes

    return {
        name: hashlib.sha256(as_bytes(tensor.contiguous())).hexdigest()
        for name, tensor in official_tensors(config, model)
    }


def make(folder: Path, name: str = MODEL) -> Figures:
    """Random weights of the official size in bf16, saved to `folder` in shards."""
    import torch

    from model import DeepseekOCRConfig, DeepseekOCRForCausalLM

    figures, config = Figures(), DeepseekOCRConfig.official(name)
    with figures.timed("random", "billions of numbers drawn, one thread"):
        model = DeepseekOCRForCausalLM.random(config, dtype=torch.bfloat16, seed=0)
    with figures.timed("save", "to the page cache, in shards"):
        model.save_pretrained(folder)
    figures["digests"] = digests(config, model)
    return figures


def read_alone(folder: Path) -> None:
    """Seconds to read the files through one small buffer: the rate of the disk or the page cache."""
    buffer = memoryview(bytearray(PIECE))
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def read_to_new_memory(folder: Path) -> None:
    """The lower bound of loading into memory: the system also has to find and clear the pages."""
    for path in sorted(folder.glob("*.safetensors")):
        kept = memoryview(mmap.mmap(-1, path.stat().st_size))
        with path.open("rb", buffering=0) as file:
            at = 0
            while size := file.readinto(kept[at : at + PIECE]):
                at += size


def read(folder: Path) -> Figures:
    """Load `folder`, encode a page, decode. The peak of each step is measured separately."""
    from model import DeepseekOCRForCausalLM
    from tests.helpers.golden import CHECKPOINT

    figures = Figures()
    files = sorted(folder.glob("*.safetensors"))
    DeepseekOCRForCausalLM.from_pretrained(CHECKPOINT)  # warms up libraries and allocator
    read_alone(folder)  # so that both times below are with the files in memory, or both without
    with figures.timed("file read", f"{len(files)} files of {sum(p.stat().st_size for p in files):,} bytes"):
        read_alone(folder)
    with figures.timed("read to new memory", "no less than this can load them"):
        read_to_new_memory(folder)
    before = status("VmRSS")
    forget_peak()
    with figures.timed("load", "from_pretrained, to bf16 on the CPU"):
        model = DeepseekOCRForCausalLM.from_pretrained(folder)
    peak = status("VmHWM")
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    experts = model.model.layers[-1].mlp.experts
    figures["weights"], figures["dtype"] = weights, str(model.dtype)
    figures["layer experts"] = sum(p.numel() * p.element_size() for p in experts.parameters())
    for other in ("file read", "read to new memory"):
        figures.note(f"load / {other}", figures["load cpu"] / figures[f"{other} cpu"], "x", "of CPU time")
    figures.note("weights bytes", weights, "B")
    figures.note("load peak (VmHWM)", peak, "B", f"of which {before:,} before: python, torch, this program")
    figures.note("load peak growth", peak - before, "B")
    figures.note("load growth / weights", (peak - before) / weights, "x")
    figures["digests"] = digests(model.config, model)
    see_and_decode(model, figures)
    return figures


def see_and_decode(model, figures: Figures) -> None:
    """One page with 2x3 tiles through `generate`, with its phases timed from outside."""
    from PIL import Image

    from model.processing import build_inputs
    from tests.helpers.recipes import synth_image

    page = Image.fromarray(synth_image(1280, 1920, 1))
    with figures.timed("page to tensors", "1280 x 1920 pixels"):
        official = model.config.checkpoint
        given = build_inputs(GoldenTokenizer(), "<image>\nFree OCR.", page, checkpoint=official)
    figures["grid"] = tuple(given["images_spatial_crop"][0].tolist())
    figures["vision tokens"] = int(given["images_seq_mask"].sum())
    figures["prompt tokens"] = given["input_ids"].shape[1]

    embed, ticks = model.embed, []

    def tick(_=None):
        ticks.append((time.perf_counter(), time.process_time()))

    def timed_embed(*args):
        with figures.timed("vision", f"one 1024 view, six {model.config.checkpoint.tile} tiles"):
            embeds = embed(*args)
        figures.note("vision peak (VmHWM)", status("VmHWM"), "B")
        tick()
        return embeds

    model.embed = timed_embed
    forget_peak()
    ids = model.generate(**given, max_new_tokens=NEW_TOKENS, eos_token_id=None, on_tokens=tick)
    figures["new tokens"] = ids[0, figures["prompt tokens"] :].tolist()
    (wall, used), (span, work) = (
        [later - earlier for earlier, later in zip(ticks[i], ticks[j], strict=True)]
        for i, j in ((0, 1), (1, -1))
    )
    remark = f"{used:.1f} s of CPU time; {figures['prompt tokens']} positions"
    figures.note("prefill seconds", wall, "s", remark)
    remark = f"{(NEW_TOKENS - 1) / work:.2f} per second of CPU time; the first of {NEW_TOKENS} is prefill's"
    figures.note("decode", (NEW_TOKENS - 1) / span, "tokens/s", remark)
    from deskocr_kit.benchmark.limits import active_bytes

    active = active_bytes(model)
    figures.note("read per token", active, "B", "weights that one decoded token needs")
    figures.note(
        "weights read", active * (NEW_TOKENS - 1) / span / 1e9, "GB/s", "while decoding, by the clock"
    )
    figures.note("whole peak (VmHWM)", status("VmHWM"), "B")
    figures.note("whole peak / weights", status("VmHWM") / figures["weights"], "x")


def enough_room(folder: Path) -> None:
    """Raise SystemExit, naming the missing resource, before gigabytes are written."""
    if platform.system() != "Linux":
        raise SystemExit(
            f"full_size reads memory figures from /proc: Linux only, this is {platform.system()}"
        )
    disk, memory = shutil.disk_usage(folder).free, status("MemAvailable", "/proc/meminfo")
    if disk < DISK_BYTES:
        raise SystemExit(
            f"{folder}: {disk:,} bytes free, {DISK_BYTES:,} needed. Set TMPDIR to a larger disk."
        )
    if memory < MEMORY_BYTES:
        raise SystemExit(f"{memory:,} bytes of memory free, {MEMORY_BYTES:,} needed. Close something large.")


def child(step: str, folder: Path, answer: Path, name: str = MODEL) -> Figures:
    command = [sys.executable, "-m", "tests.official_size.measure", "--model", name]
    command += ["--step", step, str(folder), str(answer)]
    subprocess.run(command, cwd=ROOT, check=True)
    return Figures(json.loads(answer.read_text()))


def run(name: str = MODEL) -> Figures:
    """Run both halves in a temporary folder; return the figures of the second and of the comparison."""
    with tempfile.TemporaryDirectory(prefix="deskocr-full-") as temporary:
        room = Path(temporary)
        enough_room(room)
        made = child("make", room / "weights", room / "made.json", name)
        seen = child("read", room / "weights", room / "seen.json")
    ours, theirs = made.pop("digests"), seen.pop("digests")
    seen["tensors"] = len(theirs)
    seen["different"] = sorted(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    )
    return Figures({**made, **seen})


def verify(figures: Figures, name: str = MODEL) -> None:
    """Everything that must hold at full size. Raises AssertionError."""
    from model.modes import get_mode
    from model.official import CHECKPOINTS
    from model.tiling import count_image_tokens

    official = CHECKPOINTS[name]
    assert (figures["tensors"], figures["weights"]) == (official.tensors, official.bytes)
    assert figures["dtype"] == "torch.bfloat16"
    assert not figures["different"], f"not bit-equal after save and load: {figures['different'][:5]}"
    bound = figures["weights"] + figures["layer experts"] + SLACK
    assert figures["load peak growth"] <= bound, (
        f"loading took {figures['load peak growth']:,} B, bound {bound:,}"
    )
    assert figures["load / read to new memory"] <= 1.3
    peak = figures["whole peak (VmHWM)"]
    assert peak <= 1.15 * figures["weights"], f"reading a page took {peak:,} B with Python and torch"
    expected = count_image_tokens(get_mode(official.mode, official), GRID)
    assert tuple(figures["grid"]) == GRID and figures["vision tokens"] == expected
    assert len(figures["new tokens"]) == NEW_TOKENS


def introduce() -> None:
    import torch

    print(
        f"# full size, RANDOM weights (seed 0): no text comes of them. cpu, bfloat16, "
        f"{torch.get_num_threads()} thread(s) of {os.cpu_count()} cores, torch {torch.__version__}, "
        f"python {platform.python_version()}, {platform.machine()}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--step", nargs=3, metavar=("STEP", "FOLDER", "ANSWER"), help=argparse.SUPPRESS)
    parser.add_argument("--model", default=MODEL, help="a name in model.official.CHECKPOINTS")
    asked = parser.parse_args()
    if asked.step:
        step, folder, answer = asked.step
        figures = make(Path(folder), asked.model) if step == "make" else read(Path(folder))
        Path(answer).write_text(json.dumps(figures))
        return
    introduce()
    figures = run(asked.model)
    verify(figures, asked.model)
    print(
        f"holds: {figures['tensors']} tensors bit-equal after save and load; load takes no more than weights "
        f"+ one layer's experts; {figures['vision tokens']} vision tokens; {NEW_TOKENS} tokens decoded."
    )


if __name__ == "__main__":
    main()
