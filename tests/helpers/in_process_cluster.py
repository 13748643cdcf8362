"""A cluster without machines: the stages of a run in this process, each row pickled between them.

It loses and repeats rows as a real one does when a machine is lost.
"""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Callable

from deskocr_kit.batch.cluster import Cluster
from deskocr_kit.batch.devices import LocalDevice
from deskocr_kit.batch.stages import PageReader, decode, write
from deskocr_kit.reading.options import PageOptions
from tests.helpers.stub_reader import load


class InProcessCluster(Cluster):
    """loses, repeats: probabilities for a row, by stage and round. device: makes what reads the pages."""

    def __init__(self, loses: float = 0, repeats: float = 0, device: Callable | None = None, seed: int = 0):
        super().__init__()
        self.loses, self.repeats, self.rng = loses, repeats, random.Random(seed)
        self.device = device or (lambda: Views(load(), PageOptions()))
        self.rounds = 0

    def start(self):
        return LocalDevice(load(), PageOptions()).start()

    def sample(self):
        return Views(load(), PageOptions()), 2

    def round(self, setup, parts):
        self.rounds += 1
        reader = PageReader(pickle.loads(pickle.dumps(setup)), load, "cpu")
        reader.device = self.device()
        folder = os.getcwd()
        rows = self.sent(decode(setup, self.sent(parts)))
        rows = [row for at in range(0, len(rows), 3) for row in self.sent(reader(rows[at : at + 3]))]
        os.chdir(folder)
        yield from [event for row in rows for event in self.sent([write(setup, row)])[0].events]

    def sent(self, rows) -> list:
        """Rows as they arrive: pickled, sometimes lost or twice, in any order."""
        found = [pickle.loads(pickle.dumps(row)) for row in rows]
        if len(found) > 1 and self.rounds == 1:
            found = [row for row in found if self.rng.random() >= self.loses]
            found += [row for row in found if self.rng.random() < self.repeats]
            self.rng.shuffle(found)
        return [pickle.loads(pickle.dumps(row)) for row in found]

    def close(self):
        pass

    kill = close


class Views(LocalDevice):
    """Takes views, as a worker process does."""

    prepares = True

    def read(self, items, guard=None):
        assert all(item.views is not None for item in items)
        return super().read(items, guard)
