"""`deskocr predict`: the predicted time of a page on another chip, marked as a prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from model.modes import get_mode
from model.official import DEEPSEEK_OCR

from ..device.dtypes import DTYPES
from .options import GRID_HELP, MODE_HELP, SIZE_HELP, two_numbers
from .terminal import note


def predict(
    chip: Annotated[str, typer.Option(help="910B1 … 910B4, A100, H100, H200; cpu: measured here.")] = "910B2",
    model: Annotated[str, typer.Option(help=SIZE_HELP)] = "official",
    mode: Annotated[str, typer.Option(help=MODE_HELP)] = "gundam",
    grid: Annotated[str, typer.Option(help=GRID_HELP)] = "2x3",
    tokens: Annotated[int, typer.Option(min=1, help="Number of tokens generated for the page.")] = 256,
    dtype: Annotated[str, typer.Option(help=f"{', '.join(DTYPES)}.")] = "fp16",
    launch_us: Annotated[
        str | None, typer.Option(metavar="LOW..HIGH", help="Your own launch cost, in microseconds.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw a figure to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Predict the time of a page on another chip.

    Time to the first token (TTFT) and per further token (TPOT), from counted work and a table of chips:
    a lower bound, and an estimate limited by launches.
    """
    across, down = two_numbers(grid)
    mode = get_mode(mode).name
    # torch takes seconds to import, and the count of the operators some more.
    note(f"predicting: counting the operators of {model} in mode {mode}, which takes some seconds")
    from model import DeepseekOCRConfig

    from ..device.dtypes import find_dtype
    from ..prediction.chips import find, measured_cpu
    from ..prediction.estimate import predict as make
    from ..reading.checkpoints import find_checkpoint, official_size

    find_dtype(dtype)
    config, subject = None, "official size"
    if official := official_size(model):
        config = DeepseekOCRConfig.official(official)
        subject += "" if config.checkpoint is DEEPSEEK_OCR else f" of {config.checkpoint.title}"
    else:
        folder = find_checkpoint(model)
        config, subject = DeepseekOCRConfig.from_pretrained(folder), folder.name
    mode = get_mode(mode, config.checkpoint).name
    found = measured_cpu(dtype) if chip == "cpu" else find(chip)
    if launch_us is not None:
        try:
            low, _, high = launch_us.partition("..")
            found = found.with_launch(float(low), float(high or low))
        except ValueError as error:
            raise typer.BadParameter(
                f"--launch-us {launch_us}: expected two numbers, such as 5..20"
            ) from error
    made = make(found, config, mode, (across, down), tokens, dtype, subject)
    print(json.dumps(made.to_json(), indent=1, ensure_ascii=False) if as_json else repr(made))
    if out is not None:
        made.draw().savefig(out, dpi=120)
        typer.echo(f"wrote {out}", err=True)
