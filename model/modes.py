"""The modes by name: how a page becomes views. No torch here: help texts name the modes without it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mode:
    """How a page becomes views. Sizes in pixels.

    base_size: side of the global view when crop_mode is on. image_size: side of the only view when
    crop_mode is off, side of a tile when it is on.
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
                    f"{key}={value!r}: must be a whole number of pixels, at least 64 (official: 512-1280)"
                )


MODES = {
    "tiny": Mode("tiny", 512, 512, False),
    "small": Mode("small", 640, 640, False),
    "base": Mode("base", 1024, 1024, False),
    "large": Mode("large", 1280, 1280, False),
    "gundam": Mode("gundam", 1024, 640, True),
}


def get_mode(mode: str | Mode) -> Mode:
    """A Mode as it is, or the one of that name. Raises ValueError with the known names."""
    if isinstance(mode, Mode):
        return mode
    key = str(mode).strip().lower()
    if key not in MODES:
        raise ValueError(f"unknown mode {mode!r}; choose one of {', '.join(MODES)}")
    return MODES[key]


def find_mode(base_size: int, image_size: int, crop_mode: bool) -> Mode:
    """The named mode with these sizes, or a Mode called "custom" (what `infer` needs)."""
    for mode in MODES.values():
        if (mode.base_size, mode.image_size, mode.crop_mode) == (base_size, image_size, bool(crop_mode)):
            return mode
    return Mode("custom", base_size, image_size, bool(crop_mode))
