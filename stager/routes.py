"""Limits of a route: the hours in which it works, and the bytes a second that it may take. Time comes in as an argument
or from the monotonic clock; hours are those of the daemon's own time zone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import time as Clock

LONGEST_WAIT_S = 0.5  # between two looks at whether to stop


def is_open(hours: str | None, now: Clock) -> bool:
    """Whether `now` is within hours such as "20:00-06:00" (from the first minute on, up to the last); None: always."""
    if hours is None:
        return True
    begin, end = (Clock.fromisoformat(text) for text in hours.split("-"))
    return begin <= now < end if begin < end else now >= begin or now < end


class Throttle:
    """Holds those up who report bytes, so that no more than `bytes_per_s` flow on the whole; for several threads."""

    def __init__(self, bytes_per_s: int | None, report: Callable[[int], None], stop: Callable[[], bool]) -> None:
        self._bytes_per_s = bytes_per_s
        self._report = report
        self._stop = stop
        self._lock = threading.Lock()
        self._free_at = time.monotonic()  # when what was reported so far may have flowed

    def __call__(self, count: int) -> None:
        """Report bytes that flowed, and wait until they may have."""
        self._report(count)
        if self._bytes_per_s is None:
            return
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic() - LONGEST_WAIT_S) + count / self._bytes_per_s
            until = self._free_at
        while (left := until - time.monotonic()) > 0 and not self._stop():
            time.sleep(min(left, LONGEST_WAIT_S))
