"""The modes by name: how a page becomes views. No torch here: help texts name the modes without it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .official import CHECKPOINTS, DEEPSEEK_OCR, Checkpoint


@dataclass(frozen=True)
class Mode:
    """How a page is cut into views. Sizes in pixels.

    With crop_mode, base_size is the side of the global view and image_size that of a tile. Without it there
    is a single view with side image_size. `checkpoint` is the model that reads the views: tiles, rounding and
    the number of tokens depend on it.
    """

    name: str
    base_size: int
    image_size: int
    crop_mode: bool
    checkpoint: Checkpoint = field(default=DEEPSEEK_OCR, repr=False)

    def __post_init__(self):
        for key in ("base_size", "image_size"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < 64:
                raise ValueError(
                    f"{key}={value!r}: must be an integer number of pixels, at least 64 (official: 512-1280)"
                )


_ALL = {
    checkpoint.name: {name: Mode(name, *sizes, checkpoint) for name, sizes in checkpoint.modes.items()}
    for checkpoint in CHECKPOINTS.values()
}
MODES = _ALL[DEEPSEEK_OCR.name]


def modes_of(checkpoint: Checkpoint) -> dict[str, Mode]:
    """The modes of a model of the family, by name."""
    return _ALL[checkpoint.name]


def get_mode(mode: str | Mode, checkpoint: Checkpoint = DEEPSEEK_OCR) -> Mode:
    """The mode of that name; a Mode is returned as one of `checkpoint`.

    Raises ValueError with the known names.
    """
    if isinstance(mode, Mode):
        other = mode.checkpoint is DEEPSEEK_OCR and checkpoint is not DEEPSEEK_OCR
        return replace(mode, checkpoint=checkpoint) if other else mode
    key, modes = str(mode).strip().lower(), modes_of(checkpoint)
    if key not in modes:
        where = "" if checkpoint is DEEPSEEK_OCR else f" of {checkpoint.title}"
        raise ValueError(f"unknown mode {mode!r}{where}; choose one of {', '.join(modes)}")
    return modes[key]


def find_mode(
    base_size: int, image_size: int, crop_mode: bool, checkpoint: Checkpoint = DEEPSEEK_OCR
) -> Mode:
    """The named mode with these sizes, otherwise a Mode called "custom". Used by `infer`."""
    for mode in modes_of(checkpoint).values():
        if (mode.base_size, mode.image_size, mode.crop_mode) == (base_size, image_size, bool(crop_mode)):
            return mode
    return Mode("custom", base_size, image_size, bool(crop_mode), checkpoint)
