"""Probes of the vision towers, and of the step that puts a page into its prompt."""

from __future__ import annotations

import torch

from model import slots

from .probe import Probe, Sizes, rand


def conv2d(s: Sizes) -> list[Probe]:
    sam = s.config.sam
    grid, neck, (down, out) = s.view // sam.patch, sam.neck, sam.downsample_channels

    def layer(
        name, c_in, c_out, side, kernel, stride, padding, bias=False, pixels_inside=False, real=True, b=1
    ):
        def make(g):
            x = (
                rand(g, b, side, side, c_in).permute(0, 3, 1, 2)
                if pixels_inside
                else rand(g, b, c_in, side, side)
            )
            weight = rand(g, c_out, c_in, kernel, kernel, scale=(c_in * kernel**2) ** -0.5)
            return x, weight, rand(g, c_out) if bias else None, stride, padding

        return Probe("conv2d", name, make, real, wide=torch.float32 if real else torch.float64)

    def odd(g):
        return (
            rand(g, 2, 6, 17, 26)[:, ::2, :, 1:].transpose(2, 3),
            rand(g, 5, 3, 3, 3),
            rand(g, 5),
            (2, 1),
            (0, 1),
        )

    return [
        layer("patches of SAM", 3, sam.width, s.view, sam.patch, sam.patch, 0, bias=True),
        layer("neck 1x1", sam.width, neck, grid, 1, 1, 0, pixels_inside=True),
        layer("neck 3x3", neck, neck, grid, 3, 1, 1),
        layer("net_2 3x3 /2", neck, down, grid, 3, 2, 1),
        layer("net_3 3x3 /2", down, out, grid // 2, 3, 2, 1),
        layer("patches that do not fill the picture", 3, 8, 45, 14, 14, 0, bias=True, real=False),
        layer("1x1 with stride", 6, 4, 9, 1, 2, 0, real=False),
        layer("no picture at all", 3, 4, 16, 3, 1, 1, real=False, b=0),
        layer("a tuple of one, padding in words", 3, 4, 9, 3, (1,), "same", real=False),
        layer("a stride in a list of one", 3, 4, 9, 2, [2], "valid", real=False),
        Probe("conv2d", "slices, tuples, a transposed picture", odd),
        Probe(
            "conv2d", "dtypes that differ", raises=True,
            make=lambda g: (rand(g, 1, 3, 8, 8), rand(g, 4, 3, 3, 3), torch.zeros(4).double(), 1, 1),
        ),
    ]  # fmt: skip


def place_images(s: Sizes) -> list[Probe]:
    d = s.config.decoder.width

    def page(n, m, width, start=1, b=1, spare=0):
        def make(g):
            mask = torch.zeros(b, n, dtype=torch.bool)
            mask[:, start : start + m] = True
            return rand(g, b, n, width), mask, rand(g, b * m + spare, width)

        return make

    def scattered(g):
        mask = torch.rand(3, 19, generator=g) < 0.5
        return rand(g, 3, 38, 5)[:, ::2], mask, rand(g, int(mask.sum()), 10)[:, ::2]

    def other_dtype(g):
        embeds, mask, source = page(9, 4, 4)(g)
        return embeds, mask, source.double()

    def probe(name, make, **more):
        return Probe("place_images", name, make, **{"host": (1,), **more})

    return [
        probe("a page into its prompt", page(s.prompt, s.vision, d), real=True),
        probe("the mask on the device", page(s.prompt, s.vision, 8), host=()),
        probe("batch, slices, scattered places", scattered),
        probe("no place", page(9, 0, 4)),
        probe("all places", page(9, 9, 4, start=0)),
        probe("more than 2048 places", page(2100, 2100, 2, start=0)),
        probe("one row too few", page(9, 4, 4, spare=-1), raises=True),
        probe("one row too many", page(9, 4, 4, spare=1), raises=True),
        probe(
            "one row too many, allowed", page(9, 4, 4, spare=1), kwargs={"allow_extra": True}, call=_allowing
        ),
        probe("dtypes that differ", other_dtype, raises=True),
    ]


def _allowing(function, embeds, mask, source, allow_extra=True):
    """The model's own function does not have the keyword; a shorter source has the same effect."""
    if function is slots.place_images:
        return function(embeds, mask, source[: int(mask.sum())])
    return function(embeds, mask, source, allow_extra=allow_extra)


def masked_scatter(s: Sizes) -> list[Probe]:
    d = s.config.decoder.width

    def base(shape, mask_shape, share, extra=0):
        def make(g):
            mask = torch.rand(mask_shape, generator=g) < share
            view = torch.empty(shape)[0]
            return rand(g, *shape), mask, rand(g, int(mask.expand(view.shape).sum()) + extra)

        return make

    def probe(name, make, **more):
        return Probe("masked_scatter_", name, make, call=_into_row, writes=True, **more)

    def short(g):
        return rand(g, 2, 5, 4), torch.ones(5, 1, dtype=torch.bool), rand(g, 19)

    return [
        probe("a row view, as the original calls it", base((2, s.prompt, d), (s.prompt, 1), 0.9), real=True),
        probe("a mask of full shape", base((2, 7, 6), (7, 6), 0.4)),
        probe("a mask that broadcasts over rows", base((2, 7, 6), (6,), 0.5)),
        probe("source longer than needed", base((2, 7, 6), (7, 1), 0.5, extra=11)),
        probe("nothing is True", base((2, 7, 6), (7, 1), 0.0)),
        probe("everything is True", base((2, 7, 6), (7, 1), 1.0)),
        probe("source too short", short, raises=True, host=(1,)),
    ]


def _into_row(function, base, mask, source):
    """Write through a view; return the base."""
    function(base[0], mask, source)
    return base


def rel_pos_attention(s: Sizes) -> list[Probe]:
    sam = s.config.sam
    grid = s.view // sam.patch
    windows = (-(-grid // sam.window)) ** 2

    def scene(b, heads, side, width, scale=1.0):
        def make(g):
            qkv = rand(g, b, side * side, 3, heads, width, scale=scale).permute(2, 0, 3, 1, 4)
            return *qkv, rand(g, side, side, width, scale=0.3), rand(g, side, side, width, scale=0.3)

        return make

    def probe(name, make, **more):
        return Probe("rel_pos_attention", name, make, **more)

    return [
        probe("windows", scene(windows, sam.heads, sam.window, sam.head_dim), real=True),
        probe("whole map, 2 heads", scene(1, 2, grid, sam.head_dim), real=True, wide=torch.float32),
        probe("an odd map", scene(2, 1, 5, 8)),
        probe("sharp scores", scene(1, 2, 6, 16, scale=3.0)),
    ]


def tables(s: Sizes) -> list[Probe]:
    sam = s.config.sam

    def grid(side, stored, width):
        return lambda g: (rand(g, 1, stored, stored, width, scale=0.02), side)

    def relative(side, stored, width):
        return lambda g: (rand(g, stored, width, scale=0.02), side)

    other = 40 if s.view == 1024 else s.view // sam.patch  # the official tiles are 640 pixels
    return [
        Probe("resize_grid", "SAM", grid(other, sam.grid, sam.width), True, wide=torch.float32),
        Probe("resize_grid", "as it is", grid(6, 6, 8)),
        Probe("resize_grid", "larger", grid(9, 6, 8), wide=torch.float32),
        Probe(
            "relative_table", "SAM", relative(other, 2 * sam.grid - 1, sam.head_dim), True, wide=torch.float32
        ),
        Probe("relative_table", "as it is", relative(6, 11, 8)),
    ]
