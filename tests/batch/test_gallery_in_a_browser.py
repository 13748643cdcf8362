"""index.html in a headless Chromium: the search shows what it should, and no text of a page runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from urllib.parse import quote

import pytest

from deskocr_kit.batch.gallery import write_gallery

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = "</pre><script>document.title = 'broken'</script><img src=x onerror=\"document.title='broken'\">"


def shown(path, folder, search="") -> tuple[list[str], str]:
    """(files of the articles that are not hidden, title) after the page's scripts have run.

    search: words behind the # of the address.
    """
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    done = subprocess.run(
        [BROWSER, *options, "--dump-dom", f"{path.as_uri()}#{quote(search)}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    articles = re.findall(r'<article class="([^"]*)">.*?</span>(.*?), page', done.stdout, re.DOTALL)
    title = re.search("<title>(.*?)</title>", done.stdout)
    return [file for classes, file in articles if "hidden" not in classes.split()], title[1] if title else ""


def written(folder):
    assert BROWSER, "make browser needs Chromium"
    done = {"state": "done", "page": 1, "tokens": 3, "seconds": 1.0, "attempts": 1, "folder": "a"}
    lines = [
        {
            "state": "failed",
            "page": 1,
            "file": "f.png",
            "error": "no such file",
            "kind": "file",
            "attempts": 0,
        },
        {**done, "file": "a.png", "text": f"apple pie {EVIL}"},
        {**done, "file": "b.png", "text": "pear pie"},
    ]
    return write_gallery(folder, lines, {"done": 2, "failed": 1}, title="fine")


@pytest.mark.browser
@pytest.mark.parametrize(
    "query, bad, files",
    [("", False, ["f.png", "a.png", "b.png"]), ("APPLE pie", False, ["a.png"]), ("pear", False, ["b.png"]),
     ("", True, ["f.png"]), ("no such file", False, ["f.png"]), ("zzz", False, [])],
)  # fmt: skip
def test_the_search_in_the_gallery(tmp_path, query, bad, files):
    path = written(tmp_path)
    typed = f"<script>query.value = '{query}'; bad.checked = {str(bad).lower()}; filter()</script></body>"
    path.write_text(path.read_text("utf-8").replace("</body>", typed), "utf-8")
    assert shown(path, tmp_path) == (files, "fine")


@pytest.mark.browser
@pytest.mark.parametrize(
    "search, files", [("apple pie", ["a.png"]), ("'];alert(1)", []), ("", ["f.png", "a.png", "b.png"])]
)
def test_an_address_may_have_a_search(tmp_path, search, files):
    assert shown(written(tmp_path), tmp_path, search) == (files, "fine")
