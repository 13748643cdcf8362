"""Generated safetensors headers: every one is read or refused with one exception class."""

from __future__ import annotations

import json
import struct
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.weight_files import DTYPES, CheckpointError, find_tensors, read_header
from tests.helpers.weight_folders import INDEX

NUMBERS = st.integers(-3, 40) | st.sampled_from([10**18, 10**40, -1, 0, 1.5, True, None, "1"])
ITEM = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from([*DTYPES, "F8_E4M3", "x", None, 3]),
        "shape": st.lists(NUMBERS, max_size=4) | NUMBERS,
        "data_offsets": st.lists(NUMBERS, max_size=3) | NUMBERS,
        "more": NUMBERS,
    },
)
HEADER = st.dictionaries(st.text(max_size=6) | st.just("__metadata__"), ITEM | NUMBERS, max_size=4)


def file_with(path, header: object, data: int, extra: int = 0):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "surrogatepass")
    path.write_bytes(struct.pack("<Q", max(0, len(raw) + extra)) + raw + bytes(data))
    return path


def answered(read) -> dict | None:
    try:
        return read()
    except CheckpointError as error:
        assert str(error) and all(line.isprintable() for line in str(error).splitlines())
        assert len(str(error)) < 3000
        return None


@pytest.mark.fuzz
@given(HEADER, st.integers(0, 64), st.integers(-5, 5))
@example({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}, 24, 0)
@example({"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}, 0, 0)
def test_any_header_is_read_or_refused(tmp_path_factory, header, data, extra):
    path = file_with(tmp_path_factory.mktemp("w") / "model.safetensors", header, data, extra)
    entries = answered(lambda: read_header(path))
    if entries is not None:
        places = sorted((entry.start, entry.start + entry.size) for entry in entries.values())
        total = path.stat().st_size
        assert all(0 <= start <= end <= total for start, end in places)
        assert all(end == start for (_, end), (start, _) in pairwise(places))
        assert not places or places[-1][1] == total


@pytest.mark.fuzz
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("w") / "model.safetensors"
    path.write_bytes(content)
    answered(lambda: read_header(path))
    file_with(path, content, 8)
    answered(lambda: read_header(path))


GOOD = {"a": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}}


@pytest.mark.fuzz
@given(
    st.recursive(
        st.none()
        | st.integers()
        | st.text(max_size=5)
        | st.sampled_from(["model.safetensors", "../x", "/dev/zero"]),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        ),
        max_leaves=6,
    )
)
@example({"a": "model.safetensors"})
def test_any_index_is_read_or_refused(tmp_path_factory, weight_map):
    folder = tmp_path_factory.mktemp("w")
    file_with(folder / "model.safetensors", GOOD, 8)
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    entries = answered(lambda: find_tensors(folder))
    assert entries is None or set(entries) == {"a"}


def test_the_good_file_is_read(tmp_path):
    (entry,) = read_header(file_with(tmp_path / "model.safetensors", GOOD, 8)).values()
    assert (entry.dtype, entry.shape, entry.size, entry.is_floating) == ("float16", (4,), 8, True)
