"""A route: the hours in which it works, the bytes a second that it may take, and what it does. Time comes in as an
argument or from the monotonic clock; hours are those of the daemon's own time zone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import sqlalchemy as sa

from stager import config as configuration
from stager.database import Database, again
from transfers.streams import Streams

IN_A_BUNDLE = "what goes in a bundle goes in one"  # why a route has one stream
LONGEST_WAIT_S = 0.5  # between two looks at whether to stop


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


class Traffic:
    """What one route does in this process, from batch to batch: its streams, how quick it is, how it fails."""

    def __init__(self, source: str, destination: str, least: int, most: int) -> None:
        self.source = source
        self.destination = destination
        self.streams = Streams(least, most)
        self.failures = 0  # tries that failed since one went well
        self.brought = 0  # items of this batch
        self.busy = False
        self.bundled = False  # whether this batch, or the one that ended last, goes in a bundle
        self.told = 0  # the number of streams that was last told of
        self._lock = threading.Lock()
        self._begun = 0.0
        self._moved = 0
        self._rate: float | None = None  # of the batch that ended last

    def begin(self, now: float, *, bundled: bool = False) -> None:
        """A batch begins, `bundled` or file by file; `now` is of the monotonic clock, as for all of these."""
        with self._lock:
            self._begun, self._moved = now, 0
        self.brought = 0
        self.bundled = bundled
        self.busy = True

    def moved(self, count: int) -> None:
        """So many bytes flowed; told by several threads."""
        with self._lock:
            self._moved += count

    def finished(self, well: bool) -> None:
        """An item had its result."""
        self.failures = 0 if well else self.failures + 1
        self.brought += well

    def end(self, now: float) -> None:
        self._rate = self.rate(now)
        self.busy = False

    def side_by_side(self) -> tuple[int, str]:
        """How many streams it uses, or last did, and why so many."""
        return (1, IN_A_BUNDLE) if self.bundled else (self.streams.allowed(), self.streams.why)

    def rate(self, now: float) -> float | None:
        """Bytes a second of the batch so far, or of the one that ended last; None before anything flowed."""
        with self._lock:
            if not self.busy or not self._moved:
                return self._rate
            return self._moved / max(0.001, now - self._begun)


@again
def tell_limits(database: Database, config: configuration.Config) -> None:
    """Write the limits that the configuration sets, of routes too that have not worked yet."""
    statement = sa.text("""
        INSERT INTO routes (source, destination, streams, why, failures, busy, bytes_per_s, hours)
        VALUES (:source, :destination, :streams, 'no transfer yet', 0, :no, :bytes_per_s, :hours)
        ON CONFLICT (source, destination) DO UPDATE SET bytes_per_s = excluded.bytes_per_s, hours = excluded.hours""")
    with database.write() as connection:
        connection.execute(sa.text("UPDATE routes SET bytes_per_s = NULL, hours = NULL, busy = :no"), {"no": False})
        for name, limits in config.routes.items():
            source, destination = (end.strip() for end in name.split(">"))
            least, _ = config.streams(source, destination)
            values = {"source": source, "destination": destination, "streams": least, "no": False}
            connection.execute(statement, values | {"bytes_per_s": limits.bytes_per_s, "hours": limits.hours})


@again
def tell(database: Database, traffic: Traffic, limits: configuration.Route, now: float) -> None:
    """Write what a route does, for `stager status --why`."""
    columns = ("streams", "why", "rate_bytes_per_s", "failures", "busy", "bytes_per_s", "hours")
    statement = sa.text(f"""
        INSERT INTO routes (source, destination, {", ".join(columns)}, at)
        VALUES (:source, :destination, {", ".join(f":{name}" for name in columns)}, {database.now})
        ON CONFLICT (source, destination) DO UPDATE SET
            {", ".join(f"{name} = excluded.{name}" for name in (*columns, "at"))}""")
    streams, why = traffic.side_by_side()
    values = {
        "source": traffic.source,
        "destination": traffic.destination,
        "streams": streams,
        "why": why,
        "rate_bytes_per_s": traffic.rate(now),
        "failures": traffic.failures,
        "busy": traffic.busy,
        "bytes_per_s": limits.bytes_per_s,
        "hours": limits.hours,
    }
    with database.write() as connection:
        connection.execute(statement, values)
