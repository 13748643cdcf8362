"""A device of a run that is a connection to a serving engine. As many devices as requests at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..reading.engines.answers import BadAnswer
from ..reading.engines.failures import ServerFailed, TooSlow, Unusable
from ..reading.engines.reader import Connection, EngineReader
from ..reading.engines.requests import text_of
from ..reading.fingerprint import settings_of
from ..reading.options import PageOptions
from .attempts import Item
from .devices import About
from .faults import CannotContinue, Fault, fault_of

if TYPE_CHECKING:
    from model.inference import Reading


class EngineDevice:
    """Sends one page at a time to the server that all devices of a run share."""

    prepares = False  # the pages go to the server as pictures

    def __init__(self, connection: Connection, options: PageOptions, number: int = 1):
        self.connection, self.options = connection, options.only(PageOptions)
        self.name = f"connection {number}"
        self.settings: dict = {}
        self.read_pages = self.restarts = 0

    def start(self) -> About:
        """Ask the server what it is, and try it. Raises CannotContinue with the reason."""
        try:
            reader = self.connection.open()
        except Unusable as error:
            raise CannotContinue(str(error)) from error
        _, prompt, _ = reader._how("", None, None, None, self.options)
        text_of(prompt, reader.served)  # raises ValueError before the first page
        self.settings = dict(reader.settings)
        return About(reader, settings_of(reader, self.options), "")

    def read(self, items: Sequence[Item], guard: dict | None = None) -> list[Reading]:
        reader = self.connection.open()
        readings = [self._read(reader, item, guard or {}) for item in items]
        self.read_pages += sum(not any("tokens" in each for each in item.tries) for item in items)
        return readings

    def _read(self, reader: EngineReader, item: Item, other: dict) -> Reading:
        mode, prompt, how = reader._how("", None, None, None, self.options)
        how |= other
        try:
            reading, _ = reader.ask([item.page.image], prompt, how.pop("mode", mode), how, waits=item.waits)
        except Unusable as error:
            raise CannotContinue(f"{error}; run the same command again") from error
        except TooSlow as error:
            raise Fault("deadline", str(error)) from error
        except ServerFailed as error:
            raise Fault("server", str(error)) from error
        except BadAnswer as error:
            raise Fault("answer", str(error)) from error
        except Exception as error:
            raise fault_of(error) from error
        return reading

    def otherwise(self, items: Sequence[Item]) -> list[dict]:
        """Settings for further attempts at these pages, see EngineReader.otherwise."""
        reader = self.connection.open()
        tiles = any(reader.has_tiles(item.page.image, self.options.mode) for item in items)
        return reader.otherwise(tiles)

    def close(self) -> None:
        """End all waiting, of all connections."""
        self.connection.client.close()

    kill = close
