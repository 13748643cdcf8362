"""JupyterLab shows every notebook completely at the width of a small laptop, in a headless Chromium.

    make browser                      # screenshots in build/screenshots/

Needs Chromium (`apt-get install chromium`, or DESKOCR_CHROMIUM=/path) and the extra `browser`. Without them
these tests fail with a message, because `-m browser` requests them.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.helpers.stored import NOTEBOOKS, ROOT, SOLUTIONS, code_cells

pytestmark = pytest.mark.browser
SHOTS = ROOT / "build" / "screenshots"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

SETTINGS = {
    # all cells at once, not only those in view; no news dialog on top
    "notebook-extension/tracker.jupyterlab-settings": '{"windowingMode": "none"}',
    "apputils-extension/notification.jupyterlab-settings": '{"fetchNews": "false", "checkForUpdates": false}',
}
LOOK = """() => {
  const pane = document.querySelector('.jp-Notebook'), wide = pane.clientWidth;
  const outputs = [...document.querySelectorAll('.jp-OutputArea-output')];
  return {
    cells: document.querySelectorAll('.jp-Notebook .jp-CodeCell').length,
    broken: [...document.querySelectorAll('.jp-Notebook img')]
      .filter(i => !i.complete || !i.naturalWidth).map(i => i.alt || i.src.slice(0, 60)),
    silent: [...document.querySelectorAll('.jp-MarkdownCell img')].filter(i => !i.alt).length,
    wide: outputs.filter(o => o.scrollWidth > o.clientWidth + 2 && o.clientWidth > 0)
      .map(o => o.scrollWidth + ' of ' + o.clientWidth + ': ' + o.innerText.slice(0, 60)),
    page: pane.scrollWidth > wide + 2,
  };
}"""


def chromium() -> str:
    found = os.environ.get("DESKOCR_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.fail(
            "no browser: install Chromium (apt-get install chromium) or set DESKOCR_CHROMIUM=/path/to/it; "
            "nothing was looked at"
        )
    return found


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a separate JupyterLab on a copy, so that no stored file can change."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(
        ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )
    for name, text in SETTINGS.items():
        (folder / "@jupyterlab" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "@jupyterlab" / name).write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.port={port}",
        "--IdentityProvider.token=", "--ServerApp.password=", "--ServerApp.disable_check_xsrf=True",
        f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    address, log = f"http://127.0.0.1:{port}", (folder / "log").open("wb")
    own = {**os.environ, "JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTERLAB_SETTINGS_DIR": str(folder)}
    server = subprocess.Popen(command, stdout=log, stderr=log, env=own)
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=2)
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text()[-2000:]
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()
        log.close()


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail('no browser driver: pip install -e ".[browser]"; nothing was looked at')
    with sync_playwright() as play:
        chrome = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield chrome
        chrome.close()


@pytest.mark.parametrize("path", [*NOTEBOOKS, *SOLUTIONS], ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_notebook_is_whole_to_look_at(path, lab, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(180_000)
    place = path.relative_to(ROOT).as_posix()
    page.goto(f"{lab}/doc/tree/{place}?reset", wait_until="domcontentloaded")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_selector(".jp-MarkdownOutput h1")
    page.wait_for_timeout(1500)
    seen = _look(page, path)
    page.close()
    _stop_kernels(lab)
    assert seen["cells"] == len(code_cells(path))
    assert not seen["broken"] and not seen["silent"] and not seen["page"]
    assert not seen["wide"], "wider than the pane"


def _stop_kernels(lab: str) -> None:
    """JupyterLab starts a kernel for each opened notebook and keeps it."""
    for kernel in json.loads(urllib.request.urlopen(f"{lab}/api/kernels").read()):
        urllib.request.urlopen(urllib.request.Request(f"{lab}/api/kernels/{kernel['id']}", method="DELETE"))


def _look(page, path: Path) -> dict:
    """The whole notebook on one tall screen: the measured layout, and screenshots of 1400 pixels each."""
    tall = page.evaluate("() => Math.max(...[...document.querySelectorAll('*')].map(e => e.scrollHeight))")
    tall = min(tall + 100, 16_000)  # largest height that Chromium draws
    page.set_viewport_size({"width": 1280, "height": tall})
    page.wait_for_timeout(1500)
    SHOTS.mkdir(parents=True, exist_ok=True)
    for old in SHOTS.glob(f"{path.parent.name}-{path.stem}-*.png"):
        old.unlink()
    for number, top in enumerate(range(0, tall, 1400)):
        page.screenshot(
            path=SHOTS / f"{path.parent.name}-{path.stem}-{number:02}.png",
            clip={"x": 0, "y": top, "width": 1280, "height": min(1400, tall - top)},
        )
    return page.evaluate(LOOK)


def test_it_says_when_there_is_no_browser(monkeypatch):
    monkeypatch.delenv("DESKOCR_CHROMIUM", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(pytest.fail.Exception, match="nothing was looked at"):
        chromium()
