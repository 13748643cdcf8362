"""`infer`, with the arguments and the printed lines of the original; inference.py has what it calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .inference import Reading, read_page
from .observer import Observer
from .processing import Mode, find_mode, get_mode, load_image, valid_image_tokens
from .results import clean_text, write_results
from .several_pages import by_page
from .tokenizer import check_round_trip


def infer(
    model,
    tokenizer,
    prompt: str = "",
    image_file: str | Path | Sequence[str | Path] = "",
    output_path: str | Path = "",
    base_size: int | None = None,
    image_size: int | None = None,
    crop_mode: bool | None = None,
    test_compress: bool = False,
    save_results: bool = False,
    eval_mode: bool = False,
    *,
    max_new_tokens: int | None = None,
    on_text: Callable[[str], object] | None = None,
    observer: Observer | None = None,
) -> str:
    """Read one page with the arguments of the original's `infer`; always returns the text.

    base_size, image_size, crop_mode, max_new_tokens: None takes those of the model (official.py).
    image_file: a list reads several pages in one prompt, if the model does. The text then has `<PAGE>`
    between pages (several_pages.split_pages), and results go to page-1, page-2, … in output_path.

    Differences: nothing is printed except the ratio for `test_compress` (stream with `on_text`); a prompt
    without an image works; results are written only with `save_results`, which needs `output_path`.

    Raises:
        ImageError: the page cannot be read.
        ValueError: no prompt; save_results without output_path; several pages for a model that reads one; a
            tokenizer that loses text.
    """
    if not prompt.strip():
        raise ValueError("infer: the prompt is empty, for example '<image>\\nFree OCR.'")
    if save_results and not str(output_path):
        raise ValueError("infer: save_results needs output_path, a folder for the results")
    check_round_trip(tokenizer)
    official = model.config.checkpoint
    own = official.modes[official.mode]
    mode = find_mode(
        own[0] if base_size is None else base_size,
        own[1] if image_size is None else image_size,
        own[2] if crop_mode is None else crop_mode,
        official,
    )
    page: Any
    if isinstance(image_file, (list, tuple)):
        page = [load_image(file) for file in image_file]
        page = page[0] if len(page) == 1 else page
    else:
        page = load_image(image_file) if str(image_file) else None
    reading = read_page(
        model,
        tokenizer,
        page,
        prompt,
        mode,
        max_new_tokens=max_new_tokens,
        no_repeat_ngram_size=(
            official.no_repeat_ngram_size_eval if eval_mode else official.no_repeat_ngram_size
        ),
        ngram_window=official.ngram_window,
        on_text=on_text,
        observer=observer,
    )
    if isinstance(page, list):
        if save_results:
            for k, part in enumerate(by_page(reading, tokenizer, len(page))):
                folder = Path(output_path) / f"page-{k + 1}"
                write_results(folder, page[k], part.text, scores=part.scores)
        return clean_text(reading.text)
    if test_compress and page is not None:
        print(compression(reading, page.size, mode))
    if save_results:
        write_results(output_path, page, reading.text, scores=reading.scores)
    return clean_text(reading.text)


def compression(reading: Reading, size: tuple[int, int], mode: str | Mode) -> str:
    """The original's statistics line: text tokens per vision token that shows the page, not padding."""
    valid = valid_image_tokens(get_mode(mode), size, reading.grid)
    ratio = (
        f"{len(reading.ids) / valid:.2f}" if valid else "undefined (the original counts 0 valid tokens here)"
    )
    return f"valid image tokens {valid}, text tokens {len(reading.ids)}, compression ratio {ratio}"
