"""What a run leaves: documents in several formats, and a page to look at; nothing in a text becomes code."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deskocr_kit.batch.formats import FORMATS, to_html
from deskocr_kit.batch.gallery import lines_of, write_gallery
from deskocr_kit.batch.manifest import Manifest
from model.results import to_markdown
from tests.helpers import stub_reader
from tests.helpers.batches import lines, stub_batch
from tests.helpers.stub_reader import GOOD, RAISES, page, save

EVIL = (
    "# Title <script>alert(1)</script>\n\ntext & more <img src=x onerror=alert(2)>\n\n"
    "<|ref|>image<|/ref|><|det|>[[100, 100, 800, 800]]<|/det|>\n"
    '<table><tr><td>=HYPERLINK("http://x")</td><td><b onclick="x">2</b></td></tr></table>\n'
    "</pre><script>alert(3)</script> {{ 7919*7907 }} ![](../../../etc/passwd) ![](javascript:alert(4))"
)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """A folder with a picture, a PDF of three pages, a failure, and texts that want to be code."""
    folder = tmp_path_factory.mktemp("outputs")
    save(folder / "in", [GOOD, RAISES])
    first, *rest = (page(GOOD, number, (96, 128)) for number in (3, 4, 5))
    first.save(folder / "in" / "a <b>.pdf", save_all=True, append_images=rest)
    (folder / "in" / "<img src=x onerror=alert(5)>.png").write_bytes(b"")
    real = stub_reader.reading

    def reading(kind, number, guarded):
        found = real(kind, number, guarded)
        if number not in (0, 4):
            return found
        spans = [(0, len(EVIL))] * len(found.ids)
        return type(found)(**{**vars(found), "text": EVIL, "raw": EVIL, "spans": spans})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stub_reader, "reading", reading)
        stub_batch([folder / "in"], folder / "out", formats=tuple(FORMATS), gallery=True)
    return folder / "out"


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.scripts, self.data, self.inside = [], [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.inside = tag

    def handle_data(self, data):
        (self.scripts if self.inside == "script" else self.data).append(data)

    def handle_endtag(self, tag):
        self.inside = ""


def is_harmless(text: str, scripts: int) -> Page:
    found = Page(text)
    assert found.tags.count("script") == scripts and not {"iframe", "object", "embed"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    for name, value in found.attributes:
        if name in ("src", "href"):
            assert value.startswith(("data:image/jpeg;base64,", "../")) or value.endswith(
                "/result_with_boxes.jpg"
            )
    assert "Content-Security-Policy" in text
    return found


def test_the_gallery_is_self_contained_searchable_and_shows_failures_first(out):
    text = (out / "index.html").read_text("utf-8")
    found = is_harmless(text, scripts=1)
    assert "alert(" not in "".join(found.scripts)
    assert text.count("<article") == len(lines(out)) == 6 and text.count("data:image/jpeg") == 4
    states = re.findall('<article class="([a-z]+)"', text)
    assert states == ["failed"] * 2 + ["doubt"] * 4, (
        "pages of one colour are blank, so their texts are doubtful"
    )
    assert "http" not in text.replace("http-equiv", "").replace("http://x", "")
    assert "62615533" not in "".join(found.data), "no template of the page's text is run"


def test_later_pictures_of_a_large_gallery_stay_in_their_folders(out):
    manifest = Manifest(out)
    path = write_gallery(out, lines_of(manifest), manifest.counts(), embedded=3)
    manifest.close()
    text = path.read_text("utf-8")
    assert text.count("data:image/jpeg") == 1 and text.count("/result_with_boxes.jpg") == 3


def test_a_document_as_markdown(out):
    (path,) = (out / "documents").glob("a*.md")
    text = path.read_text("utf-8")
    assert [text.index(f"<!-- page {n} -->") for n in (1, 2, 3)] == sorted(
        text.index(f"<!-- page {n} -->") for n in (1, 2, 3)
    )
    assert "/images/0.jpg)" in text and "](../a" in text
    failed = (out / "documents" / "0001.md").read_text("utf-8")
    assert failed.startswith("<!-- page 1 failed: ") and failed.rstrip().endswith("-->")


def test_a_document_as_html_and_json(out):
    for path in (out / "documents").glob("*.html"):
        is_harmless(path.read_text("utf-8"), scripts=0)
    (path,) = (out / "documents").glob("a*.html")
    found = Page(path.read_text("utf-8"))
    assert found.tags.count("section") == 3 and "table" in found.tags and found.tags.count("img") == 1
    (path,) = (out / "documents").glob("a*.json")
    record = json.loads(path.read_text("utf-8"))
    assert [each["page"] for each in record["pages"]] == [1, 2, 3] and record["pages"][1]["tables"]


def test_tables_as_csv_hold_no_formula(out):
    paths = list((out / "documents").glob("*.csv"))
    assert len(paths) == 2
    for path in paths:
        (row,) = csv.reader(path.read_text("utf-8").splitlines())
        assert row[0].startswith("'=")


def test_dolma(out):
    records = [json.loads(line) for line in (out / "dolma.jsonl").read_text("utf-8").splitlines()]
    by_file = {record["metadata"]["Source-File"].rsplit("/", 1)[1]: record for record in records}
    assert set(by_file) == {"0000.png", "a <b>.pdf"}, "a document without a page that was read has no text"
    record = by_file["a <b>.pdf"]
    assert record["id"] == hashlib.sha1(record["text"].encode()).hexdigest()
    spans = record["attributes"]["pdf_page_numbers"]
    assert (
        [page for *_, page in spans] == [1, 2, 3] and spans[0][0] == 0 and spans[-1][1] == len(record["text"])
    )
    assert [a[1] for a in spans[:-1]] == [b[0] for b in spans[1:]]
    assert record["text"][spans[0][0] : spans[0][1]] == "page 3\n"


def test_omnidocbench_has_one_file_per_picture(out):
    names = sorted(path.name for path in (out / "omnidocbench").iterdir())
    assert "0000.md" in names and "0001.md" in names and len(names) == 6
    assert (out / "omnidocbench" / "0001.md").read_text().strip() == ""


def test_nothing_is_written_outside_of_the_output_folder(out):
    assert sorted(path.name for path in out.parent.iterdir()) == ["in", "out"]


def test_entities_of_the_markdown_are_not_escaped_twice():
    shown = to_html(to_markdown("# a & b\n\n1 < 2 <script>x</script>"))
    assert shown == "<h3>a &amp; b</h3>\n<p>1 &lt; 2 &lt;script&gt;x&lt;/script&gt;</p>"


@given(st.text(st.sampled_from("<>/&\"'#|! []()\nabscript=table-onimg:.jd0"), max_size=200))
def test_no_text_becomes_a_tag_of_its_own(text):
    tags = Page(to_html(text)).tags
    assert set(tags) <= {"p", "h3", "h4", "h5", "h6", "table", "tr", "td", "img"}
