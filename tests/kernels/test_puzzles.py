"""The puzzles whose answers are kernels: blank is OPEN, the solution passes, wrong kernels are refused."""

from __future__ import annotations

import linecache

import pytest
import torch
import triton
import triton.language as tl

from deskocr_kit.course.check import Verdict
from deskocr_kit.course.interpreted_memory import watching
from deskocr_kit.course.puzzles.attempts import NAMES, attempt, blank, get
from deskocr_kit.course.puzzles.judge import Wrong
from deskocr_kit.course.puzzles.kernels import JIT
from deskocr_kit.course.puzzles.puzzle import Open

KERNELS = [name for name in NAMES if get(name).decorator]


def defined(text: str, name: str):
    """The function of a cell. The interpreter reads its source, so it is entered as a file."""
    file = f"<cell of {name}, {hash(text)}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    space = {"triton": triton, "tl": tl, "torch": torch, "attempt": attempt}
    exec(compile(text, file, "exec"), space)
    return space[name]


@pytest.mark.parametrize("name", KERNELS)
def test_the_blank_kernel_is_open_and_the_solution_passes(name):
    assert blank(name).startswith(f"{JIT}\ndef {name}(")
    assert isinstance(attempt(name, defined(blank(name), name)), Open)
    verdict = attempt(name, defined(get(name).source, name))
    assert isinstance(verdict, Verdict) and verdict.name == f"puzzle {name}" and "cases" in verdict.shown


#: (puzzle, a part of its solution, what a wrong answer has instead, words of the refusal)
WRONG = [
    ("masked_row_copy", JIT, "", "is no kernel; write @triton.jit above it"),
    ("masked_row_copy", "row * width + at", "row * BLOCK + at", "two rows.*writes outside|two rows.*differ"),
    ("masked_row_copy", ", mask=at < width)", ")", "shorter than its block.*writes outside of `out`"),
    ("masked_row_copy", "!= 0, width, 0", "!= 0, width, width", "not kept.*differ"),
    ("rms_norm_rows", " / width", " / BLOCK", "shorter than its block.*differ"),
    ("rms_norm_rows", " + eps", "", "small numbers.*differ"),
    ("rms_norm_rows", "mask=at < width, other=0.0).to(tl.float32)", "mask=at < width, other=0.0)", "65504"),
    ("tiled_product", "range(0, k, BK)", "range(0, BK, BK)", "two steps.*differ"),
    ("tiled_product", "column += tl.program_id(1) * BN", "pass", "three across.*"),
    ("tiled_product", "(row < m) & (across < k)", "row < m", "no multiples.*differ"),
    (
        "argmax_with_ban",
        "mask=no == 0, other=-float",
        "mask=at < vocabulary, other=-float",
        "forbidden.*differ",
    ),
    ("argmax_with_ban", "here > best", "here >= best", "three equal.*differ"),
    ("argmax_with_ban", 'other=-float("inf")', "other=0.0", "every logit is negative.*differ"),
    ("argmax_with_ban", "first + tl.argmax", "tl.argmax", "two rows.*differ|nothing is forbidden.*differ"),
]


@pytest.mark.parametrize(("name", "right", "wrong", "words"), WRONG)
def test_wrong_kernels_are_refused(name, right, wrong, words):
    source = get(name).source
    assert right in source
    with pytest.raises(Wrong, match=f"(?s)FAIL  puzzle {name}, case .*({words})"):
        attempt(name, defined(source.replace(right, wrong), name))


def test_every_kernel_puzzle_has_a_wrong_answer():
    assert {name for name, *_ in WRONG} == set(KERNELS)


def test_watching_sees_every_address():
    """Two programs copy six numbers in blocks of four; the second adds the first number to its own."""
    copy = defined(
        f"{JIT}\n"
        "def copy(x, out, n):\n"
        "    at = tl.program_id(0) * 4 + tl.arange(0, 4)\n"
        "    first = tl.load(x) * tl.program_id(0)\n"
        "    tl.store(out + at, tl.load(x + at, mask=at < n) + first, mask=at < n)\n",
        "copy",
    )
    x, out = torch.arange(1.0, 7.0), torch.zeros(6)
    with watching(x=x, out=out) as seen:
        copy[(2,)](x, out, 6)
    assert out.tolist() == [1, 2, 3, 4, 6, 7]
    assert [places.tolist() for places in seen.loads("x", (1, 0, 0))] == [[0], [4, 5]]
    assert [places.tolist() for places in seen.stores("out", (0, 0, 0))] == [[0, 1, 2, 3]]
    assert (seen.count("load", "x"), seen.count("store", "out"), seen.programs) == (8, 6, 2)
    copy[(2,)](x, out, 6)
    assert seen.count("load", "x") == 8, "what runs behind the context is not recorded"
    with pytest.raises(ValueError, match="x: a contiguous tensor on the CPU is needed"), watching(x=x[::2]):
        pass
