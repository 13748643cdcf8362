"""Read thousands of documents, and lose nothing: see run.py."""

from .run import Plan, read_batch, run
from .sources import Source, sources
from .summary import Summary

__all__ = ["Plan", "Source", "Summary", "read_batch", "run", "sources"]
