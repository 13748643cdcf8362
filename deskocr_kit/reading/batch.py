"""Read many pages: finished pages are kept, failures are reported, and nothing is read twice.

The folder of a page is complete or does not count (`write_results` writes result.json last), so a run may be
interrupted at any time and started again with the same command. A page counts as done if its result.json was
made from a file of the same content with the same settings.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from model.files import write_json
from model.prompts import resolve_prompt
from model.results import RESULT_BYTES, write_results
from model.untrusted import UntrustedFile, open_regular, read_json_object

from ..device.dtypes import dtype_name
from .doubt import FILE as CONFIDENCE_FILE
from .doubt import one_line
from .options import PageOptions
from .page_record import cut_lines, failure, output_folder, page_record
from .pages import Page, iter_pages

SUMMARY = "summary.json"
PIECE = 1 << 20  # bytes read at a time
SAMPLE = 1 << 16  # bytes read at each of SAMPLES places of a weight file
SAMPLES = 16
MEASURED = ("evaluation.json", CONFIDENCE_FILE)  # measurements of the weights; they do not change the text


@dataclass
class Summary:
    """The outcome of every page. read, skipped, …: folders under `out`; failed: {file, page, error}."""

    settings: dict
    read: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[dict] = field(default_factory=list)
    truncated: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)  # see doubt.py
    tokens: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def done(self) -> int:
        return len(self.read) + len(self.skipped) + len(self.failed)

    def counts(self) -> dict[str, int]:
        return {
            name: len(getattr(self, name)) for name in ("read", "failed", "skipped", "truncated", "loops")
        }

    def record(self) -> dict:
        rate = self.tokens / self.seconds if self.seconds else None
        return {**vars(self), "counts": self.counts(), "tokens_per_second": rate}

    def __repr__(self) -> str:
        lines = [f"{name:<10} {count:>6}" for name, count in self.counts().items()]
        lines += [f"failed: {each['error']}" for each in self.failed]
        lines += [
            f"{what}: {name}" for what in ("truncated", "loops", "warned") for name in getattr(self, what)
        ]
        return "\n".join(
            [*lines, *["interrupted: run the same command again to continue"][: self.interrupted]]
        )

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


def read_batch(
    files: Iterable[Path],
    reader,
    out: Path,
    *,
    prompt: str = "free",
    target: str | None = None,
    mode: str | None = None,
    max_tokens: int | None = None,
    batch_size: int = 1,
    progress=None,
    options: PageOptions | None = None,
) -> Summary:
    """Read every page of `files` into folders under `out`; batch_size pages are decoded together.

    A page that cannot be read or written is reported in the summary and does not affect other pages.
    KeyboardInterrupt ends the run and keeps the finished pages. The summary is also written to
    `out`/summary.json. progress: see progress.py. options: replace prompt, target, mode and max_tokens.

    Raises OSError if `out` cannot be created, ValueError for unknown names.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    options = options or PageOptions(prompt=prompt, target=target, mode=mode, max_tokens=max_tokens)
    summary = Summary(settings_of(reader, options))
    folders = OutputFolders(out, summary.settings)
    start = time.perf_counter()

    def tell(pages: int = 1) -> None:
        if progress is not None:
            progress.update(pages)
            rate = summary.tokens / max(time.perf_counter() - start, 1e-9)
            progress.set_postfix_str(f"{rate:.1f} tokens/s, {len(summary.failed)} failed", refresh=False)

    def fail(page: Page, error: Exception) -> None:
        what = failure(page, error)
        summary.failed.append({"file": page.file, "page": page.number, "error": what})
        if progress is not None:
            progress.write(f"error: {what}")

    def store(page: Page, digest: str, reading) -> None:
        folder = folders.folder(page)
        extra = {
            **page_record(page, reading, reader, options),
            "source": folders.key(page.file, page.number)[0],
            "sha256": digest,
            "settings": summary.settings,
        }
        stored = write_results(folder, page.image, reading.text, extra=extra, scores=reading.scores)
        for line in cut_lines(page, stored["cut"]) if progress is not None else ():
            progress.write(line)
        summary.tokens += len(reading.ids)
        summary.read.append(folder.name)
        if reading.truncated:
            summary.truncated.append(folder.name)
        if loops(reading.ids):
            summary.loops.append(folder.name)
        if extra["warnings"]:
            summary.warned.append(folder.name)
            if progress is not None:
                progress.write(one_line(page.file, page.number, extra["warnings"]))

    def finish(group: list[tuple[Page, str]]) -> None:
        """Read a group together; if that fails, read each page alone, so that one cannot spoil the others."""
        try:
            readings = reader.read_batch([page.image for page, _ in group], options=options)
        except Exception as error:
            if len(group) > 1:
                for each in group:
                    finish([each])
                return
            fail(group[0][0], error)
            return tell()
        for (page, digest), reading in zip(group, readings, strict=True):
            try:
                store(page, digest, reading)
            except Exception as error:  # of this page only: memory, disk, what the model wrote
                fail(page, error)
            tell()

    try:
        group: list[tuple[Page, str]] = []
        for page, digest in folders.wanted(files, summary, tell, options.password):
            if page.error is not None:
                fail(page, page.error)
                tell()
                continue
            group.append((page, digest))
            if len(group) == batch_size:
                finish(group)
                group = []
        if group:
            finish(group)
    except KeyboardInterrupt:
        summary.interrupted = True
    summary.seconds = time.perf_counter() - start
    try:
        write_json(out / SUMMARY, summary.record())
    except OSError as error:  # the disk is full; the caller shows the failures all the same
        why = f"{out / SUMMARY}: cannot be written ({error.strerror or error})"
        summary.failed.append({"file": str(out / SUMMARY), "page": 1, "error": why})
    return summary


class OutputFolders:
    """The folders under `out`: which page each holds, and whether it is up to date."""

    def __init__(self, out: Path, settings: dict):
        self.out, self.settings = out, settings
        self.taken = {SUMMARY}
        self.held: dict[tuple[str, int], tuple[Path, dict]] = {}  # page -> its folder and result.json
        self.places: dict[tuple[str, int], Path] = {}  # page -> folder chosen in this run
        for path in sorted(out.iterdir()):
            self.taken.add(path.name.lower())
            if path.is_dir() and not path.is_symlink() and (stored := stored_in(path)) is not None:
                self.held[stored["source"], stored["page"]] = path, stored

    @staticmethod
    def key(file: str, number: int) -> tuple[str, int]:
        return str(Path(file).absolute()), number

    def folder(self, page: Page) -> Path:
        """The folder of a page: the one that already holds it, else a new one."""
        key = self.key(page.file, page.number)
        if key in self.held:
            return self.held[key][0]
        if key not in self.places:
            self.places[key] = output_folder(self.out, page, self.taken)
        return self.places[key]

    def wanted(
        self, files: Iterable[Path], summary: Summary, tell, password: str | None = None
    ) -> Iterator[tuple[Page, str]]:
        """Each page that must be read, with the digest of its file; finished pages go to the summary."""
        seen = set()
        for file in map(str, files):
            source = self.key(file, 1)[0]
            if source in seen:  # named twice, as a file and in a folder: read once
                tell()
                continue
            seen.add(source)
            digest = sha256(file)
            done = {
                number: folder
                for (held, number), (folder, stored) in self.held.items()
                if held == source
                and (stored.get("sha256"), stored["settings"]) == (digest, self.settings)
                and all((folder / name).is_file() for name in stored["files"])
            }
            summary.skipped += [folder.name for _, folder in sorted(done.items())]
            if done:
                tell(len(done))
            for page in iter_pages(file, collect_errors=True, skip=done, password=password):
                yield page, digest


def stored_in(folder: Path) -> dict | None:
    """The content of a folder's result.json; None if it was not written by a batch."""
    try:
        stored = read_json_object(folder / "result.json", RESULT_BYTES)
        kinds = {"source": str, "page": int, "settings": dict, "files": list}
        whole = all(isinstance(stored[name], kind) for name, kind in kinds.items())
        return stored if whole and all(isinstance(name, str) for name in stored["files"]) else None
    except (OSError, UntrustedFile, KeyError):
        return None


def settings_of(reader, options: PageOptions) -> dict:
    """All settings that affect the text of a page, as plain data. The batch size does not.

    Options that are not listed here come from their fingerprint, so a new option cannot be forgotten.
    """
    own = dict(reader.settings)
    return {
        **reader.options.fingerprint(),
        **options.only(PageOptions).fingerprint(),
        **own,
        "mode": options.mode or own["mode"],
        "max_new_tokens": options.max_tokens or own["max_new_tokens"],
        "prompt": resolve_prompt(options.prompt, options.target),
        "model": reader.name,
        "weights": weights_digest(reader.folder),
        "device": reader.model.device.type,
        "dtype": dtype_name(reader.model.dtype),
    }


def weights_digest(folder: Path) -> str:
    """A digest of a checkpoint that does not need to read gigabytes.

    It covers all small files completely, and of each weight file its size and SAMPLES pieces spread over it.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        if path.suffix == ".safetensors":
            size = path.stat().st_size
            digest.update(f"{path.name} {size}".encode())
            with open_regular(path) as file:
                for i in range(SAMPLES):
                    file.seek(max(0, size - SAMPLE) * i // (SAMPLES - 1))
                    digest.update(file.read(SAMPLE))
        elif path.suffix == ".json" and path.name not in MEASURED:
            digest.update(path.name.encode())
            with open_regular(path) as file:
                while piece := file.read(PIECE):
                    digest.update(piece)
    return digest.hexdigest()[:16]


def sha256(file: str) -> str:
    """The digest of the content; "" for a file that cannot be opened (reading its pages reports why)."""
    digest = hashlib.sha256()
    try:
        with open_regular(file) as stream:
            while piece := stream.read(PIECE):
                digest.update(piece)
    except (OSError, ValueError):
        return ""
    return digest.hexdigest()


def loops(ids: list[int], longest: int = 64, times: int = 4, least: int = 24) -> bool:
    """Whether a reading ends in a loop.

    A loop is one piece of 1 to `longest` tokens, at least `times` times in a row, over at least `least`
    tokens. The end token does not count. Shorter repetitions are allowed: a page may contain them.
    """
    ids = ids[:-1]
    for period in range(1, longest + 1):
        span = max(times * period, least)
        tail = ids[-span:]
        if len(tail) == span and tail[period:] == tail[:-period]:
            return True
    return False
