"""Texts that a model could write, of about 100,000 characters, that cost a careless parser minutes."""

from __future__ import annotations

N = 100_000


def _of(piece: str, before: str = "", after: str = "") -> str:
    return before + piece * ((N - len(before) - len(after)) // len(piece)) + after


def box(label: str, boxes: str) -> str:
    return f"<|ref|>{label}<|/ref|><|det|>{boxes}<|/det|>"


def _different_boxes(label: str, count: int) -> str:
    """Boxes of nearly the whole page, each of them different."""
    numbers = (f"[{i % 30}, {i // 30 % 30}, {999 - i // 900}, 999]" for i in range(count))
    return box(label, f"[{', '.join(numbers)}]")


def _shuffled_spans() -> str:
    return "".join(
        f"<td colspan={i % 7 + 1} rowspan={i % 5 + 1}>{i}" + "<tr>" * (i % 3 == 0) for i in range(3000)
    )


TEXTS = {
    # tables
    "wide and high spans": _of("<tr><td colspan=999 rowspan=999>x", "<table>"),
    "rows below a high row": _of("<tr>", "<table><tr><td colspan=999 rowspan=0>x"),
    "a long text in a wide cell": "<table><tr><td colspan=999 rowspan=999>" + "x" * 90_000 + "<tr>" * 2000,
    "many spans": "<table>" + _shuffled_spans(),
    "nested tables": _of("<table><tr><td>x"),
    "nested links in a cell": _of("<a href=x>", "<table><tr><td>"),
    "open tags": _of("<a "),
    "open table tags": _of("<table "),
    "less than": _of("<", "<table><tr><td>"),
    "one attribute": _of("a", "<table><tr><td ", ">x"),
    "many attributes": _of("a=b ", "<table><tr><td ", ">x"),
    "open quotes": _of("<td a='", "<table>"),
    "blanks in a tag": _of(" ", "<table><tr><td", ">x"),
    "comments": _of("<!--", "<table><tr><td>"),
    "a number of 100,000 digits": _of("1", "<table><tr><td>&#"),
    "ampersands": _of("&", "<table><tr><td>"),
    "entities without an end": _of("&copy", "<table><tr><td>"),
    "a wide pipe table": "|" * 20_000 + "\n" + "|-" * 19_999 + "|\n" + "|\n" * 20_000,
    "a pipe table of one column": _of("|a|\n", "|h|\n|-|\n"),
    "many pipe tables": _of("|a|\n|-|\n\n"),
    "a rule that is none": "|" + " " * 20_000 + "|\n" + "|-" * 40_000 + "x",
    "escaped pipes": "a|b\n-|-\n" + _of("\\|"),
    # grounding
    "open refs": _of("<|ref|>"),
    "refs without a box list": _of("<|ref|>a<|/ref|>"),
    "open box lists": _of("<|/ref|><|det|>", "<|ref|>"),
    "empty boxes": box("a", _of("[]")),
    "brackets": box("a", _of("[")),
    "commas": box("a", f"[{_of(',')}]"),
    "many small boxes": box("text", f"[{_of('[1,2,3,4],')}]"),
    "many empty refs": _of(box("", "")),
    "a label of 100,000 characters": box("a" * N, "[[1, 2, 300, 400]]"),
    "boxes of the whole page": _different_boxes("text", 4000),
    "figures of the whole page": _different_boxes("image", 4000),
    "one figure again and again": _of(box("image", "[[0, 0, 999, 999]]")),
    "small figures": box("image", f"[{','.join(f'[{i % 900},{i // 900},999,999]' for i in range(5000))}]"),
    # markdown
    "links": _of("]("),
    "coded links": _of("](&#1"),
    "pictures": _of("!["),
    "definitions": _of("]: javascript:"),
    "commands": _of("\\coloneqq"),
    "lines": _of("\n", "a", "a"),
    "one line": _of("x"),
    "controls": _of("\x1b[2J\x00\u202e"),
    "surrogates": _of("\ud800"),
    "geometry": _of("'line_type': 1 "),
}

#: One text of each kind.
TELLING = (
    "wide and high spans", "rows below a high row", "a long text in a wide cell", "nested tables",
    "a wide pipe table", "many pipe tables", "a number of 100,000 digits", "many small boxes",
    "figures of the whole page", "one figure again and again", "coded links", "controls",
)  # fmt: skip
