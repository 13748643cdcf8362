"""`deskocr shell`: the interactive loop. Load once, then read page after page."""

from __future__ import annotations

import cmd
import shlex
from dataclasses import replace
from pathlib import Path

from model.modes import MODES, get_mode
from model.prompts import resolve_prompt

from ..reading.options import PageOptions, ReadingOptions
from ..reading.sample_pages import sample_pages
from .options import takes
from .terminal import note, note_prompt


@takes(ReadingOptions)
def shell(options: ReadingOptions) -> None:
    """Read pages one after the other: test, all, a path, mode, prompt, help, quit."""
    from ..reading.reader import Reader

    Shell(Reader.load(options), options.only(PageOptions)).cmdloop()


class Shell(cmd.Cmd):
    """Commands: test (one sample page), all (every one), a path, mode [NAME], prompt [NAME or text], quit."""

    prompt = "deskocr> "

    def __init__(self, reader, options: PageOptions | None = None, **streams):
        super().__init__(**streams)
        self.reader, self.options = reader, options or PageOptions()
        where = f"{reader.name} on {reader.model.device}"
        self.intro = f"{where}. Type test, all, or the path of a page; help lists the rest."

    def do_test(self, _):
        """test: read the first sample page, and show the truth."""
        self.sample(*sample_pages()[0])

    def do_all(self, _):
        """all: read every sample page, and show the character error rate of each."""
        for path, truth in sample_pages():
            self.sample(path, truth)

    def do_mode(self, name):
        try:
            if name:
                self.options = replace(
                    self.options, mode=get_mode(name, self.reader.model.config.checkpoint).name
                )
        except ValueError as error:
            return self.say(f"error: {error}")
        self.say(f"mode {self.options.mode or self.reader.settings['mode']}")

    do_mode.__doc__ = f"mode [NAME]: show or set the mode: {', '.join(MODES)}."

    def do_prompt(self, words):
        """prompt [NAME or text]: show or set the prompt; `prompt locate WHAT` finds WHAT on the page."""
        name, _, rest = words.partition(" ")
        try:
            if name == "locate":
                self.options = replace(self.options, prompt=name, target=rest.strip())
            elif words:
                self.options = replace(self.options, prompt=words, target=None)
        except ValueError as error:
            return self.say(f"error: {error}")
        checkpoint = self.reader.model.config.checkpoint
        self.say(f"prompt {resolve_prompt(self.options.prompt, self.options.target, checkpoint)!r}")
        note_prompt(self.options)

    def do_quit(self, _):
        """quit: leave."""
        return True

    do_exit = do_q = do_quit

    def do_EOF(self, _):
        """Ctrl-D: leave."""
        self.say("")
        return True

    def emptyline(self):
        """Do nothing for an empty line."""

    def default(self, line):
        """Take any other line as the path of a page."""
        try:
            path = " ".join(shlex.split(line))
        except ValueError:
            path = line
        self.read(path)

    def sample(self, path, truth):
        from ..reading.text_distance import cer

        if (text := self.read(path)) is not None:
            self.say(f"truth:\n{truth.strip()}\nCER {cer(text, truth):.3f}")

    def read(self, path) -> str | None:
        """Stream the text of each page of a file; return the last page's text, or None after an error."""
        from ..display.printable import printable
        from ..reading.doubt import one_line
        from ..reading.pages import iter_pages

        text = None
        try:
            for page in iter_pages(path, password=self.options.password):
                reading = self.reader.read(page.image, on_text=self.stream, options=self.options)
                text = reading.text
                cut = ", cut off at the token limit" if reading.truncated else ""
                where = printable(f"{Path(page.file).name} page {page.number}")
                sure = "" if reading.confidence is None else f", confidence {reading.confidence:.2f}"
                self.say(f"\n[{where}: {len(reading.ids)} tokens, {reading.seconds:.1f} s{sure}{cut}]")
                doubts = self.reader.doubts(page.image, reading, options=self.options)
                if doubts:
                    note(one_line(page.file, page.number, doubts))
        except KeyboardInterrupt:
            self.say("\n(stopped)")
        except Exception as error:  # one bad page must not end the session
            from ..device.messages import message

            self.say(printable(message(error)))
        return text

    def stream(self, piece: str) -> None:
        from ..display.printable import printable

        self.stdout.write(printable(piece, None))
        self.stdout.flush()

    def say(self, text: str) -> None:
        self.stdout.write(text + "\n")
