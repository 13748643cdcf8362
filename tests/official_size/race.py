"""Our model against transformers' implementation at the official size.

    python -m tests.official_size.race [--model deepseek-ocr-2]

Random weights in bf16, one thread, one process, in turns; the peer uses its fastest `experts_implementation`.
The device is this machine's CPU. Needs Linux, transformers 5, 7 GB of disk, 17 GB of free memory.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import statistics
import tempfile
import time
from pathlib import Path

from tests.helpers.golden_pages import GoldenTokenizer
from tests.official_size.measure import Figures, child, enough_room

ROUNDS, NEW_TOKENS = 5, 12
PAGE = (1280, 1920)  # pixels
TEXT = [0, *range(1000, 1200)]  # 201 positions: decoding is timed after a text, vision on a page
# Required ratios to the fastest implementation in transformers.
DECODE_GAIN = 1.5
VISION_GAIN = {"deepseek-ocr": 1.3, "deepseek-ocr-2": 1.15, "unlimited-ocr": 1.25}
READ_SHARE = 0.7  # printed, not asserted: the bandwidth varied from 20 to 32 GB/s in one run


def decode_times(generate) -> list[float]:
    """Seconds between the tokens of one request; generate(note) calls note() at each token."""
    at: list[float] = []
    generate(lambda *_: at.append(time.perf_counter()))
    return [later - earlier for earlier, later in itertools.pairwise(at)]


class Streamer:
    """A streamer for transformers. Its first call has the prompt, which is not a token."""

    def __init__(self, note):
        self.note, self.prompt = note, True

    def put(self, _) -> None:
        if not self.prompt:
            self.note()
        self.prompt = False

    def end(self) -> None:
        pass


def contestants(folder: Path, name: str):
    """Both models, with their functions for decoding and vision."""
    import torch
    from PIL import Image

    from deskocr_kit.baselines.transformers_model import load_peer, peer_inputs
    from model import DeepseekOCRForCausalLM, loading
    from model.processing import build_inputs
    from tests.helpers.recipes import synth_image

    # transformers needs more memory while it loads than afterwards, so it is loaded before our model
    config = loading.read_config(folder)
    assert config.checkpoint.name == name, f"{folder} holds {config.checkpoint.title}"
    peer = load_peer(folder, config, torch.bfloat16, "sdpa")
    gc.collect()
    model = DeepseekOCRForCausalLM.from_pretrained(folder)
    peer.generation_config.eos_token_id = None
    ids = torch.tensor([TEXT]) % config.decoder.vocab
    page = Image.fromarray(synth_image(*PAGE, 1))
    given = build_inputs(GoldenTokenizer(), "<image>\nFree OCR.", page, checkpoint=config.checkpoint)
    asked = peer_inputs(given, rows=config.clip is not None)
    grids = {key: asked[key] for key in ("num_local_patches", "patches_grid") if key in asked}
    views, crops = asked["pixel_values"].to(model.dtype), asked["pixel_values_local"].to(model.dtype)

    def ours(note):
        model.generate(ids, max_new_tokens=NEW_TOKENS, eos_token_id=None, on_tokens=note)

    def theirs(note):
        streamer = Streamer(note)
        mask = torch.ones_like(ids)
        peer.generate(ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, streamer=streamer)

    @torch.no_grad()
    def we_see():
        return [model.model.encode_views(crops), model.model.encode_views(views)]

    @torch.no_grad()
    def they_see():
        return peer.model.get_image_features(views, crops, **grids)

    return model, peer, (ours, theirs), (we_see, they_see)


def rounded(figures: list[float]) -> list[float]:
    return [round(figure, 2) for figure in figures]


def race(folder: Path, name: str) -> Figures:
    """Medians and ranges of ROUNDS, in turns. Wall-clock seconds, because reading from memory takes these."""
    import torch

    from deskocr_kit.benchmark.limits import active_bytes, read_bandwidth
    from deskocr_kit.benchmark.race import EXPERTS
    from deskocr_kit.device import Timer

    torch.set_num_threads(1)
    figures, cpu = Figures(), torch.device("cpu")
    model, peer, (ours, theirs), (we_see, they_see) = contestants(folder, name)
    active = active_bytes(model)
    peers, rates, shares = {name: [] for name in EXPERTS}, [], []
    for _ in range(ROUNDS):  # all in turns: other work of the machine then affects each of them equally
        read = read_bandwidth(cpu)
        rates.append(1 / statistics.median(decode_times(ours)))
        shares.append(active * rates[-1] / read)
        for experts, reached in peers.items():
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError, AttributeError):
                peer.set_experts_implementation(experts)
                reached.append(1 / statistics.median(decode_times(theirs)))
    for experts, reached in peers.items():
        if reached:
            figures.note(f"peer, {experts}", statistics.median(reached), "tokens/s", f"of {rounded(reached)}")
    best = max((reached for reached in peers.values() if reached), key=statistics.median)
    gains = [a / b for a, b in zip(rates, best, strict=True)]
    figures.note("decode", statistics.median(rates), "tokens/s", f"of {rounded(rates)}")
    figures.note("decode gain", statistics.median(gains), "x", f"of {rounded(gains)}")
    remark = f"{active:,} B a token; of {rounded(shares)}; expected {READ_SHARE}"
    figures.note("share of read bandwidth", statistics.median(shares), "", remark)
    seen = []
    for _ in range(ROUNDS):
        seconds = []
        for see in (we_see, they_see):
            with Timer(cpu) as timer:
                see()
            seconds.append(timer.seconds)
        seen.append(seconds[1] / seconds[0])
    figures.note("vision gain", statistics.median(seen), "x", f"of {rounded(seen)}")
    return figures


def verify(figures: Figures, name: str) -> None:
    """Check the required ratios. Raises AssertionError."""
    assert figures["decode gain"] >= DECODE_GAIN
    assert figures["vision gain"] >= VISION_GAIN[name]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="weights written by measure.make; default: new ones")
    parser.add_argument("--model", default="deepseek-ocr", choices=list(VISION_GAIN))
    asked = parser.parse_args()
    folder, name = asked.folder, asked.model
    with tempfile.TemporaryDirectory(prefix="deskocr-race-") as temporary:
        if folder is None:
            enough_room(Path(temporary))
            folder = Path(temporary) / "weights"
            child("make", folder, Path(temporary) / "made.json", name)
        figures = race(folder, name)
    verify(figures, name)


if __name__ == "__main__":
    main()
