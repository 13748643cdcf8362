"""Checks for notebooks: one line for a claim that is true, an AssertionError for one that is false.

Text to the right of `≈` is measured: it is shown, and nbval never compares it (tests/nbval.cfg). Text to the
left is a contract: it must be the same in every run, on every device.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from ..device.tolerances import relative_error
from ..display.palette import GREEN
from ..display.table import LEFT, Cell, html_table


@dataclass(frozen=True)
class Verdict:
    """A claim that is true. `shown` is part of the contract, `measured` is not."""

    name: str
    shown: str = ""
    measured: str = ""

    def __repr__(self) -> str:
        left = f"PASS  {self.name:<28}  {self.shown}".rstrip()
        return f"{left}  ≈ {self.measured}" if self.measured else left

    def _repr_html_(self) -> str:
        left, _, right = repr(self).partition("≈")
        right = f'<span style="opacity:.7">≈{escape(right)}</span>' if right else ""
        return f'<pre style="margin:0"><b style="color:{GREEN}">{escape(left)}</b>{right}</pre>'


VERDICTS: list[Verdict] = []  # of this process; `verdicts` shows them


def passed(name: str, shown: Any = "", measured: Any = "") -> Verdict:
    verdict = Verdict(name, str(shown), str(measured))
    VERDICTS.append(verdict)
    return verdict


def check(name: str, claim: bool, shown: Any = "", measured: Any = "") -> Verdict:
    """Check that `claim` is true. Otherwise raises AssertionError with `shown` and `measured`."""
    if not claim:
        details = "; ".join(str(part) for part in (shown, measured) if str(part))
        raise AssertionError(f"FAIL  {name}" + (f": {details}" if details else ""))
    return passed(name, shown, measured)


def check_equal(name: str, ours: Any, expected: Any, measured: Any = "") -> Verdict:
    """Check that `ours == expected`. Otherwise raises AssertionError with both sides."""
    if ours != expected:
        raise AssertionError(f"FAIL  {name}\n  ours      {ours!r}\n  expected  {expected!r}")
    return passed(name, ours, measured)


def check_below(name: str, value: float, bound: float, shown: Any = "", unit: str = "") -> Verdict:
    """Check that `value <= bound`; raises AssertionError otherwise. The bound is part of the contract."""
    if not value <= bound:  # so that NaN fails
        raise AssertionError(f"FAIL  {name}: {value:.4g}{unit} exceeds {bound:g}{unit}")
    return passed(name, f"{shown} at most {bound:g}{unit}".strip(), f"{value:.4g}{unit}")


def check_close(name: str, ours, expected, budget: float) -> Verdict:
    """Check that the relative error (device/tolerances.py) of two tensors of one shape is within `budget`.

    Otherwise raises AssertionError with dtypes, devices, the largest difference and the first index where a
    value is over the budget.
    """
    if ours.shape != expected.shape:
        raise AssertionError(f"FAIL  {name}: shape {tuple(ours.shape)}, expected {tuple(expected.shape)}")
    error = relative_error(ours, expected)
    if not error <= budget:
        a, b = ours.detach().double().cpu(), expected.detach().double().cpu()
        away = (a - b).abs()
        beyond = ~(away <= budget * b.abs().max())
        first = tuple(beyond.nonzero()[0].tolist()) if beyond.any() else ()
        raise AssertionError(
            f"FAIL  {name}: relative error {error:.2e} exceeds {budget:g}\n"
            f"  ours      {ours.dtype} on {ours.device}, {a[first]:.6g} at {list(first)}\n"
            f"  expected  {expected.dtype} on {expected.device}, {b[first]:.6g}\n"
            f"  largest difference {away.max():.3e}"
        )
    return passed(name, tuple(expected.shape), f"{error:.1e} of {budget:g} on {ours.device}")


class VerdictTable:
    """The verdicts of a notebook, one row each."""

    def __init__(self, verdicts: list[Verdict] | None = None):
        self.verdicts = list(VERDICTS if verdicts is None else verdicts)

    def __repr__(self) -> str:
        return "\n".join([*map(repr, self.verdicts), f"{len(self.verdicts)} claims, all hold"])

    def _repr_html_(self) -> str:
        rows: list[list[str | Cell]] = [
            [
                Cell("PASS", f"{LEFT};color:{GREEN}", "b"),
                v.name,
                v.shown,
                Cell(v.measured and "≈ " + v.measured, f"{LEFT};opacity:.7"),
            ]
            for v in self.verdicts
        ]
        return html_table(("verdict", "claim", "contract", "measured"), rows)


def verdicts() -> VerdictTable:
    """The table of all verdicts so far, which ends a notebook."""
    return VerdictTable()
