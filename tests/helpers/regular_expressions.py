"""Every regular expression of the packages, and the worst texts that can be made of its own parts."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path

try:
    import re._constants as constants  # Python 3.11 and newer
    import re._parser as parser
except ImportError:  # Python 3.10
    import sre_constants as constants
    import sre_parse as parser

#: Seconds that a search may take: a fixed part, and a part for each character of the text.
FLOOR, PER_CHARACTER = 1e-3, 4e-6
SIZES = (16, 24, 36, 54, 81, 122, 192, 1536, 16384)  # small steps first: an exponential search never ends
PARTS, LONGEST = 60, 5  # texts tried for one expression, and elements of one repeated part


_REPEATS = (constants.MAX_REPEAT, constants.MIN_REPEAT, getattr(constants, "POSSESSIVE_REPEAT", None))


@dataclasses.dataclass(frozen=True)
class Expression:
    """A regular expression. `anchored`: it is only used with `match` or `fullmatch`, so it has one start."""

    where: str
    pattern: str
    flags: int
    anchored: bool


# ---- collect ----


def collected(modules: dict[str, Path]) -> list[Expression]:
    """The expressions in the source of the modules, and the compiled ones among their attributes."""
    sources = {name: path.read_text("utf-8") for name, path in modules.items()}
    trees = {name: ast.parse(text) for name, text in sources.items() if "import re\n" in text}
    methods = _methods(trees.values())
    found: dict[tuple, Expression] = {}
    for name, tree in trees.items():
        for each in itertools.chain(_in_source(name, tree, methods), _in_attributes(name, methods)):
            key = each.pattern, each.flags
            if key not in found or not each.anchored:  # the use with more starts decides
                found[key] = each
    return sorted(found.values(), key=lambda each: (each.where, each.pattern))


def _methods(trees) -> dict[str, set[str]]:
    """{name: the methods that are called on it}: `_LINE.match(x)` gives {"_LINE": {"match"}}."""
    out: dict[str, set[str]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value
                name = getattr(owner, "id", None) or getattr(owner, "attr", None)
                out.setdefault(name, set()).add(node.func.attr)
    return out


def _anchored(used: set[str]) -> bool:
    return bool(used) and used <= {"match", "fullmatch"}


def _in_source(module: str, tree: ast.Module, methods: dict[str, set[str]]) -> Iterator[Expression]:
    texts = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _text(node.value, texts)
            if value is not None:
                texts[node.targets[0].id] = value
    names = {
        id(node.value): node.targets[0].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        function = node.func.attr
        if getattr(node.func.value, "id", "") != "re" or function in ("escape", "purge"):
            continue
        pattern = _text(node.args[0], texts)
        if pattern is None:
            continue
        used = methods.get(names.get(id(node), ""), set()) if function == "compile" else {function}
        flags = _flags(node, {"compile": 1, "sub": 4, "subn": 4, "split": 3}.get(function, 2))
        yield Expression(module, pattern, re.compile(pattern, flags).flags, _anchored(used))


def _text(node: ast.expr, texts: dict[str, str]) -> str | None:
    """The value of a string in the source; "x" for a value inserted into it that is not constant."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.Name):
        return texts.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text(node.left, texts), _text(node.right, texts)
        return None if left is None or right is None else left + right
    if isinstance(node, ast.JoinedStr):
        parts = []
        for part in node.values:
            inner = part.value if isinstance(part, ast.FormattedValue) else part
            text = _text(inner, texts)
            number = isinstance(inner, ast.Name) and text is None
            parts.append("9" if number else "x" if text is None else text)
        return "".join(parts)
    return None


def _flags(call: ast.Call, position: int) -> int:
    given = [keyword.value for keyword in call.keywords if keyword.arg == "flags"]
    given += [call.args[position]] if len(call.args) > position else []
    value = 0
    for node in given:
        for part in ast.walk(node):
            if isinstance(part, ast.Attribute):
                value |= getattr(re, part.attr)
    return value


def _in_attributes(module: str, methods: dict[str, set[str]]) -> Iterator[Expression]:
    if module.endswith("__main__"):
        return
    try:
        loaded = importlib.import_module(module)
    except ImportError:  # an optional dependency; its source was read
        return
    for name, value in vars(loaded).items():
        for pattern in _patterns(value):
            used = methods.get(name, set()) if pattern is value else set()
            yield Expression(module, pattern.pattern, pattern.flags, _anchored(used))


def _patterns(value: object, depth: int = 3) -> Iterator[re.Pattern]:
    if isinstance(value, re.Pattern):
        if isinstance(value.pattern, str):
            yield value
    elif depth and isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            yield from _patterns(each, depth - 1)
    elif depth and isinstance(value, dict):
        for each in value.values():
            yield from _patterns(each, depth - 1)
    elif depth and dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from _patterns(tuple(vars(value).values()) if hasattr(value, "__dict__") else (), depth - 1)


# ---- attack ----


def attacks(pattern: str, flags: int, most: int = PARTS) -> list[tuple[str, str, str]]:
    """(beginning, repeated part, end) of texts that make a search try again and again."""
    tree = parser.parse(pattern, flags & ~re.DEBUG)
    out: dict[tuple[str, str, str], None] = {}
    for before, sequence in _sequences(list(tree), ""):
        units = _units(sequence)
        for i in range(len(units)):
            for j in range(i + 1, min(i + LONGEST, len(units)) + 1):
                start = before + _sample(_flat(units[:i]))
                for part in _variants(_flat(units[i:j])):
                    if part:
                        out[start, part, "\0"] = None
                        out["", part, ""] = None
    for part in (*' \n\ta0-._|<[("\\', "a ", "\n ", "\x1b]"):
        out["", part, "\0"] = None
    ordered = list(out)
    step = -(-len(ordered) // most)
    return ordered[::step]


def _sequences(sequence: list, before: str) -> Iterator[tuple[str, list]]:
    """(a text that matches what stands before, the elements), for each sequence inside the expression."""
    yield before, sequence
    for i, (operator, argument) in enumerate(sequence):
        start = before + _sample(sequence[:i])
        for inner in _inner(operator, argument):
            yield from _sequences(inner, start)


def _units(sequence: list) -> list[list]:
    """The elements, with each run of plain characters as one."""
    out: list[list] = []
    for plain, run in itertools.groupby(sequence, key=lambda element: element[0] is constants.LITERAL):
        elements = list(run)
        out += [elements] if plain else [[each] for each in elements]
    return out


def _flat(units: list[list]) -> list:
    return list(itertools.chain.from_iterable(units))


def _inner(operator, argument) -> list[list]:
    if operator in _REPEATS:
        return [list(argument[2])]
    if operator is constants.SUBPATTERN:
        return [list(argument[3])]
    if operator is getattr(constants, "ATOMIC_GROUP", None):
        return [list(argument)]
    if operator is constants.BRANCH:
        return [list(each) for each in argument[1]]
    if operator in (constants.ASSERT, constants.ASSERT_NOT):
        return [list(argument[1])]
    return []


def _variants(sequence: list) -> Iterator[str]:
    """Texts that match the elements: with the first choice of each class, and with others."""
    yield _sample(sequence)
    for choice in (1, 2, 3):
        yield _sample(sequence, choice)
    yield _sample(sequence, 0, times=1)


def _sample(sequence, choice: int = 0, times: int = 2) -> str:
    return "".join(_one(operator, argument, choice, times) for operator, argument in sequence)


def _one(operator, argument, choice: int, times: int) -> str:
    if operator is constants.LITERAL:
        return chr(argument)
    if operator is constants.NOT_LITERAL:
        return next(c for c in "a0 \n" if ord(c) != argument)
    if operator is constants.ANY:
        return "a 0."[choice]
    if operator is constants.IN:
        members = _members(argument)
        return members[choice % len(members)] if members else ""
    if operator in _REPEATS:
        least, most, inner = argument
        return _sample(inner, choice, times) * min(max(int(least), times), int(most), 64)
    if operator is constants.BRANCH:
        return _sample(argument[1][choice % len(argument[1])], choice, times)
    if operator in (constants.ASSERT, constants.ASSERT_NOT):
        return ""
    inner = _inner(operator, argument)
    return _sample(inner[0], choice, times) if inner else ""


_PROBES = "a0 _.-/:=\n\tZ,;|<>[]()\"'\\\x1b│é"


def _members(argument) -> list[str]:
    """Characters of a class, of several kinds."""
    source = "".join(_class_text(operator, value) for operator, value in argument)
    try:
        test = re.compile(f"[{source}]")
    except re.error:
        return []
    members = [c for c in _PROBES if test.match(c)]
    members += [chr(value) for operator, value in argument if operator is constants.LITERAL]
    members += [chr(value[0]) for operator, value in argument if operator is constants.RANGE]
    return list(dict.fromkeys(members))


def _class_text(operator, value) -> str:
    if operator is constants.NEGATE:
        return "^"
    if operator is constants.LITERAL:
        return re.escape(chr(value))
    if operator is constants.RANGE:
        return f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}"
    names = {
        constants.CATEGORY_DIGIT: r"\d", constants.CATEGORY_NOT_DIGIT: r"\D",
        constants.CATEGORY_SPACE: r"\s", constants.CATEGORY_NOT_SPACE: r"\S",
        constants.CATEGORY_WORD: r"\w", constants.CATEGORY_NOT_WORD: r"\W",
    }  # fmt: skip
    return names.get(value, "")


def slow_text(expression: Expression, most: int = PARTS) -> tuple[str, int, float] | None:
    """(repeated part, characters, seconds) of the first text that takes longer than linear, or None."""
    compiled = re.compile(expression.pattern, expression.flags)

    def seconds(text: str) -> float:
        started = time.process_time()  # other load on the machine does not count
        if expression.anchored:
            compiled.match(text)
            compiled.fullmatch(text)
        else:
            for _ in compiled.finditer(text):
                pass
        return time.process_time() - started

    for start, part, end in attacks(expression.pattern, expression.flags, most):
        for size in SIZES:
            text = (start + part * (size // len(part) + 1))[:size] + end
            budget = FLOOR + PER_CHARACTER * len(text)
            spent = seconds(text)
            if budget / 8 < spent <= budget and size == SIZES[-1]:
                # Four times the text takes four times as long, or sixteen times if the time is a square.
                budget = 8 * min(spent, *(seconds(text) for _ in range(2)))
                text = start + part * (4 * size // len(part) + 1) + end
                spent = seconds(text)
            if budget < spent <= 5 * budget:  # close enough for a busy machine: measure again
                spent = min(seconds(text) for _ in range(3))
            if spent > budget:
                return part, len(text), spent
    return None
