"""Files that strangers made: what is refused, in time, and with one line."""

from __future__ import annotations

import json
import os
import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.untrusted import (
    UntrustedFile,
    is_regular,
    open_regular,
    parse_json,
    read_bytes,
    read_json,
    read_json_object,
    read_text,
    shown,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="FIFOs and devices as on Linux")


@linux
@pytest.mark.parametrize("make", ["fifo", "device", "folder", "socket", "link to a FIFO", "link to a device"])
def test_only_regular_files_are_opened(tmp_path, make):
    path = tmp_path / "file"
    if make == "fifo":
        os.mkfifo(path)
    elif make == "device":
        path = "/dev/zero"
    elif make == "folder":
        path.mkdir()
    elif make == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif make == "link to a FIFO":
        os.mkfifo(tmp_path / "target")
        path.symlink_to(tmp_path / "target")
    else:
        path.symlink_to("/dev/zero")
    assert not is_regular(path)
    for read in (open_regular, read_bytes, read_text, read_json):
        with pytest.raises(UntrustedFile, match="not a regular file"):
            read(path)


def test_a_link_to_a_regular_file_is_followed(tmp_path):
    (tmp_path / "target").write_text("text")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert read_text(tmp_path / "link") == "text"


def test_a_missing_file_stays_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "absent")


def test_a_nul_in_a_path_is_refused():
    with pytest.raises(UntrustedFile):
        read_text("a\0b")


def test_the_size_is_limited_before_the_content_is_read(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse: a terabyte that takes no disk
    with pytest.raises(UntrustedFile, match="1,099,511,627,776 bytes, more than the 100"):
        read_bytes(path, 100)


@linux
def test_a_pseudo_file_that_states_no_size_is_limited():
    with pytest.raises(UntrustedFile, match="more than the 10 bytes"):
        read_bytes("/proc/self/status", 10)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "nested deeper than 64"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested deeper than 64"),
        ('{"a": ' + "9" * 5000 + "}", "a number of 5,000 digits"),
        ('{"a": 1' + "0" * 5000 + ".5}", "a number of 5,003 digits"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": 1, "a": 2}', "the key a appears twice"),
        ('{"a": 1', "not valid JSON"),
        ("", "not valid JSON"),
        ("\0", "not valid JSON"),
    ],
)
def test_json_that_is_refused(text, reason):
    with pytest.raises(UntrustedFile, match=reason) as caught:
        parse_json(text, "config.json")
    assert str(caught.value).startswith("config.json: ")
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_brackets_in_strings_do_not_count():
    value = {"a": "[" * 1000 + '\\"{', "b": "\\"}
    assert parse_json(json.dumps(value)) == value


def test_an_object_is_expected(tmp_path):
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UntrustedFile, match="a JSON list, expected an object"):
        read_json_object(tmp_path / "list.json")


def test_a_byte_order_mark_is_removed_and_other_encodings_are_refused(tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}
    path.write_bytes('{"a": 1}'.encode("utf-16"))
    with pytest.raises(UntrustedFile, match="not text in UTF-8"):
        read_json(path)


_leaves = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.text()
_values = st.recursive(
    _leaves | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.fuzz
@given(_values)
def test_ordinary_json_is_read_as_the_standard_library_reads_it(value):
    assert parse_json(json.dumps(value)) == value


@pytest.mark.fuzz
@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        parse_json(text)
    except UntrustedFile as error:
        assert "\n" not in str(error)


def test_a_name_is_shown_on_one_short_line():
    name = shown("a\nb\x1b[31m" + "c" * 1000)
    assert "\n" not in name and "\x1b" not in name and len(name) == 200
