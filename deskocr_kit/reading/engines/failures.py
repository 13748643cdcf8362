"""What can go wrong with a request, as classes that decide what happens next; how long to wait."""

from __future__ import annotations

import email.utils
import random
import time

from .answers import BadAnswer

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0  # seconds
LONGEST_ASKED = 300.0  # seconds of Retry-After that are believed


class Unusable(ValueError):
    """The server cannot be used, for any page."""


class Refused(BadAnswer):
    """The server refuses this request, and would refuse it again."""


class ServerFailed(RuntimeError):
    """The server failed ATTEMPTS times at this request."""


class TooSlow(TimeoutError):
    """No end of the answer within the deadline."""


class Again(Exception):
    """Try once more. busy: the server as a whole, not only this request. wait: as asked for, or None."""

    def __init__(self, why: str, busy: bool, wait: float | None = None):
        super().__init__(why)
        self.busy, self.wait = busy, wait


class NotThere(Exception):
    """Status 404 or 405."""


def wait_of(failures: int, asked: float | None = None) -> float:
    """Seconds until the next attempt: twice as long each time, with jitter, at least what was asked for."""
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(failures - 1, 16)) * random.uniform(0.5, 1.5)
    return max(wait, asked or 0.0)


def retry_after(text: str) -> float | None:
    """Seconds of a header Retry-After, a number or a date; None if it is neither. At most LONGEST_ASKED."""
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        seconds = float(text)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return min(LONGEST_ASKED, max(0.0, seconds))
