"""Every puzzle: blank is OPEN, the solution passes, wrong answers are refused with the right message."""

from __future__ import annotations

import importlib
import inspect

import pytest
import torch
import torch.nn.functional as F

from deskocr_kit.course.check import Verdict
from deskocr_kit.course.puzzles.attempts import NAMES, attempt, blank, get, hint, solution
from deskocr_kit.course.puzzles.judge import Wrong, compare
from deskocr_kit.course.puzzles.puzzle import Open
from deskocr_kit.course.puzzles.text_map import draw, text_map
from deskocr_kit.course.puzzles.top_k_without_sync import loop

# The other answers are kernels; tests/kernels/test_puzzles.py has them, in a process that interprets.
PLAIN = [name for name in NAMES if not get(name).decorator]


def run_cell(text):
    """The value of the last line of a notebook cell, in a namespace like that of a notebook."""
    space = {"torch": torch, "F": F, "attempt": attempt}
    *_, last = text.strip().splitlines()
    exec(text.rpartition(last)[0], space)
    return eval(last, space)


@pytest.mark.parametrize("which", ["exercise", "solution"])
@pytest.mark.parametrize("name", PLAIN)
def test_the_blank_is_open_and_the_solution_passes(name, which):
    call = f'attempt("{name}", {name})'
    if which == "exercise":
        result = run_cell(blank(name))
        assert isinstance(result, Open) and repr(result).startswith(f"OPEN  puzzle {name}")
        assert f"{get(name).lines} lines" in repr(result) and f'solution("{name}")' in repr(result)
    else:
        result = run_cell(solution(name) + "\n\n" + call)
        assert isinstance(result, Verdict) and result.name == f"puzzle {name}" and "cases" in result.shown


def interleaved(x, cos, sin):
    left, right = x[..., ::2], x[..., 1::2]
    return torch.stack((left * cos - right * sin, right * cos + left * sin), -1).flatten(-2)


def all_operators(call):
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counter(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += 1
            return func(*args, **(kwargs or {}))

    with Counter() as counter:
        call()
    return counter.count


def rows_and_columns_exchanged(q, table_h, table_w):
    return get("windowed_relative_positions").solution(q, table_w, table_h)


def rows_reversed(q, table_h, table_w):
    return get("windowed_relative_positions").solution(q, table_h.flip(0), table_w)


WRONG = [
    ("unfold_by_hand", lambda x, k, s, p: F.unfold(x, k, padding=p, stride=s), "im2col.*by hand"),
    ("unfold_by_hand", lambda x, k, s, p: x, r"wrong shape\n +yours .*\n +expected .*\(1, 4, 9\)"),
    (
        "unfold_by_hand",
        lambda x, k, s, p: get("unfold_by_hand").solution(x.flip(1), k, s, p),
        "'two channels'.*numbers differ, first at",
    ),
    ("patchify", lambda x, w, s: F.conv2d(x, w, stride=s), "convolution: the device lacks it"),
    (
        "patchify",
        lambda x, w, s: (
            x[:, :, : x.shape[2] // s * s, : x.shape[3] // s * s].reshape(
                len(x), x.shape[2] // s, x.shape[3] // s, -1
            )
            @ w.flatten(1).T
        ).permute(0, 3, 1, 2),
        "'a row of patches'.*differ.*first at",
    ),
    ("dilation_trap", lambda side, k, s, p: ((side + 2 * p - k) // s + 1,) * 2, r"\(4, 10\)"),
    (
        "scatter_on_a_view",
        lambda row, mask, source: row.masked_scatter_(mask, source),
        "masked_scatter_: the device lacks",
    ),
    (
        "scatter_on_a_view",
        lambda row, mask, source: row.cpu().masked_scatter(mask.cpu(), source.cpu()),
        "numbers differ",
    ),
    (
        "cumsum_where",
        lambda e, m, s: e.index_copy(0, m.nonzero()[:, 0], s[: int(m.sum())]),
        "waits for the device",
    ),
    (
        "cumsum_where",
        lambda e, m, s: torch.where(m[:, None], s[(m.int().cumsum(0) - 2).clamp(min=0)], e),
        "numbers differ",
    ),
    ("windowed_relative_positions", rows_and_columns_exchanged, "'a window of 2 x 2'.*differ"),
    ("windowed_relative_positions", rows_reversed, "'a window of 2 x 2'.*differ"),
    ("rotary_half", interleaved, "'four pairs'.*differ"),
    ("rotary_half", lambda x, c, s: print(end=""), "returned None; is a `return` missing"),
    ("top_k_without_sync", loop, r"waits for the device \d+ times"),
    (
        "top_k_without_sync",
        lambda x, e, s, top: torch.einsum("nd,ntod->no", x, e[s.topk(top).indices]),
        "differ",
    ),
    (
        "fp16_overflow",
        lambda x, w, eps: w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)),
        "'a few hundred: squares overflow'.*differ|inf or NaN",
    ),
    (
        "fp16_overflow",
        lambda x, w, eps: get("fp16_overflow").solution(x, w, eps).float(),
        r"wrong dtype\n +yours +float32.*\n +expected +float16",
    ),
    ("launches_of_a_loop", all_operators, r"not equal\n +yours +3\n +expected +0"),
    ("launches_of_a_loop", lambda call: 0, r"not equal\n +yours +0\n +expected +2"),
]


@pytest.mark.parametrize(("name", "function", "words"), WRONG)
def test_wrong_answers_are_refused_with_both_sides(name, function, words):
    with pytest.raises(Wrong, match=f"(?s)FAIL  puzzle {name}, case .*{words}"):
        attempt(name, function)


def test_every_puzzle_has_a_wrong_answer():
    assert {name for name, *_ in WRONG} == set(PLAIN)


def test_an_error_in_the_answer_comes_through():
    with pytest.raises(ZeroDivisionError):
        attempt("rotary_half", lambda x, cos, sin: 1 / 0)


@pytest.mark.parametrize("name", NAMES)
def test_header_and_text(name):
    puzzle = get(name)
    assert 1 <= puzzle.difficulty <= 5 and 1 <= puzzle.importance <= 5 and 1 <= puzzle.minutes <= 30
    assert 2 <= puzzle.lines <= 12 and puzzle.title and any("一" <= c <= "鿿" for c in puzzle.chinese)
    assert len(hint(name)) > 40 and max(map(len, puzzle.source.splitlines())) <= 96
    assert len(list(puzzle.cases())) >= 4
    module = importlib.import_module(f"deskocr_kit.course.puzzles.{name}")
    assert inspect.getsource(puzzle.solution) in inspect.getsource(module)


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(ValueError, match="patchify"):
        attempt("patchfy", lambda: None)


def test_the_difference_is_drawn_and_written(capsys):
    ours, expected = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    ours[1, 2, 3] = 7
    text, map = compare(ours, expected, 1e-5)
    assert "1 of 24 numbers differ, first at [1, 2, 3]" in text and "yours     7" in text
    assert text_map(map).splitlines()[1:] == ["....", "....", "...x"]
    assert draw(map)[:4] == b"\x89PNG"
    for shape in ((), (3,), (0, 2), (2, 2, 2, 2), (40, 50)):
        text, map = compare(torch.ones(shape), torch.zeros(shape), 1e-5)
        assert not text if 0 in shape else draw(map) and "x" in text_map(map)
    text, map = compare(torch.zeros(2, 2), torch.zeros(3), 1e-5)
    assert "wrong shape" in text and draw(map) and "(2, 2)" in text_map(map)
    with pytest.raises(Wrong):
        attempt("rotary_half", interleaved)
    assert "x = differs" in capsys.readouterr().out


def test_nan_is_a_difference():
    assert compare(torch.full((2,), float("nan")), torch.zeros(2), 1.0)[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_puzzle_says_what_its_answer_must_not_use(name):
    names = {"im2col": "F.unfold"}  # the function that calls the operator
    for operator in get(name).forbidden:
        plain = operator.removesuffix(" on the device").rstrip("_")
        assert names.get(plain, plain) in blank(name), f"{name}: the docstring does not forbid {operator}"
