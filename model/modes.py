"""The modes by name: how a page becomes views. No torch here: help texts name the modes without it."""

from __future__ import annotations

from dataclasses import dataclass

from .official import DEEPSEEK_OCR


@dataclass(frozen=True)
class Mode:
    """How a page is cut into views. Sizes in pixels.

    With crop_mode, base_size is the side of the global view and image_size that of a tile. Without it there
    is a single view with side image_size.
    """

    name: str
    base_size: int
    image_size: int
    crop_mode: bool

    def __post_init__(self):
        for key in ("base_size", "image_size"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int) or value < 64:
                raise ValueError(
                    f"{key}={value!r}: must be an integer number of pixels, at least 64 (official: 512-1280)"
                )


MODES = {name: Mode(name, *sizes) for name, sizes in DEEPSEEK_OCR.modes.items()}


def get_mode(mode: str | Mode) -> Mode:
    """The mode of that name; a Mode is returned unchanged. Raises ValueError with the known names."""
    if isinstance(mode, Mode):
        return mode
    key = str(mode).strip().lower()
    if key not in MODES:
        raise ValueError(f"unknown mode {mode!r}; choose one of {', '.join(MODES)}")
    return MODES[key]


def find_mode(base_size: int, image_size: int, crop_mode: bool) -> Mode:
    """The named mode with these sizes, otherwise a Mode called "custom". Used by `infer`."""
    for mode in MODES.values():
        if (mode.base_size, mode.image_size, mode.crop_mode) == (base_size, image_size, bool(crop_mode)):
            return mode
    return Mode("custom", base_size, image_size, bool(crop_mode))
