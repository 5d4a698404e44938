"""How many streams a route uses at once. Between two bounds the number is found by trying, and said why in words.

More streams help where each is bound by something else than the machines: SSH has at most some 2 MiB under way in a
stream, so that with a long round trip one stream is slow however wide the link. They harm where the far side refuses
connections (sshd's MaxStartups), or where processors or disks are what is short. So: begin with what the round trip
suggests, go up while it pays, go back when it does not, halve when the far side is congested.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

FIRST = 2  # where a round trip says nothing: both sides' processors are used, and one stream's waits are filled
ROUND_TRIP_S = 0.010  # of round trip that one stream more is begun for
PAYS = 1.15  # as much faster must more streams be, to be kept
WINDOW_S = 1.0  # of transfer that a rate is taken over...
STARTING_S = 0.5  # ...after the time that new streams need to get going
NEAR_S = 10.0  # of work before more are tried where a round trip is short
SETTLED_S = 60.0  # after which a number that was the best is put to the test again
TOGETHER_S = 2.0  # refusals so close to each other are of the same burst, and count once
CONGESTED_S = 300.0  # for which a number that was too much for the far side is not tried again


class Streams:
    """The number for one route, kept from batch to batch. Used by several threads; time comes in as an argument."""

    def __init__(self, least: int, most: int) -> None:
        self._lock = threading.Lock()
        self._now = 0  # 0: no batch yet
        self._before: tuple[int, float] | None = None  # the number that was left for a greater one, and its rate
        self._window: tuple[float, int] | None = None  # when it begins, and the bytes by then
        self._settled_until = 0.0
        self._ceiling = most
        self._ceiling_until = 0.0
        self._refused_at = -TOGETHER_S  # when streams were last refused
        self.rate_bytes_per_s: float | None = None  # as last measured
        self.why = "no transfer yet"
        self.bound(least, most)

    def bound(self, least: int, most: int) -> None:
        """Set the bounds, anew where the configuration changed."""
        if not 1 <= least <= most:
            raise ValueError(f"streams from {least} to {most} make no sense")
        with self._lock:
            self.least, self.most = least, most
            self._ceiling = min(self._ceiling, most) if self._ceiling_until else most
            self._before = None  # its number may be outside
            if self._now and not (least < most and least <= self._now <= most):
                self._go(min(max(self._now, least), most), "the configuration says so")

    @property
    def is_new(self) -> bool:
        """Whether nothing is known yet, so that the round trip is worth asking for."""
        return not self._now and self.least < self.most

    def allowed(self) -> int:
        """How many streams may work now."""
        return self._now or self.least

    def begin(self, round_trip_s: float, now: float) -> int:
        """A batch begins, to or from a host so far away; returns how many streams to begin with."""
        with self._lock:
            self._window = None
            if self.least == self.most:
                self._go(self.least, "the configuration says so")
            elif not self._now:
                wanted = FIRST + round(round_trip_s / ROUND_TRIP_S)
                if wanted == FIRST:  # near: the first number is likely right, and a try costs a connection
                    self._settled_until = now + NEAR_S
                self._go(min(max(wanted, self.least), self.most), self._first_reason(round_trip_s))
            elif self._now < self.least:
                self._go(self.least, "the configuration asks for no fewer")
            return self._now

    def sample(self, total: int, now: float) -> None:
        """So many bytes have flowed in this batch by now. Called as they flow; decides once a window is full."""
        with self._lock:
            if self._window is None:
                self._window = (now + STARTING_S, -1)
            begun, before = self._window
            if now < begun:
                return
            if before < 0:
                self._window = (now, total)
            elif now - begun >= WINDOW_S:
                self.rate_bytes_per_s = (total - before) / (now - begun)
                self._window = (now, total)
                self._decide(self.rate_bytes_per_s, now)

    def congested(self, now: float) -> None:
        """The far side refused a stream, for the time being: use fewer."""
        with self._lock:
            if self._now and now - self._refused_at < TOGETHER_S:
                return
            self._refused_at = now
            fewer = max(self.least, (self._now or self.least) // 2)
            self._ceiling, self._ceiling_until = fewer, now + CONGESTED_S
            self._before = None
            self._go(fewer, "the far side refused more connections at once (MaxStartups or a limit of sessions)")

    # Within the lock.

    def _decide(self, rate: float, now: float) -> None:
        if self.least == self.most or not self._now:
            return
        if now >= self._ceiling_until:
            self._ceiling = self.most
        if self._before is not None:
            self._judge(rate, now)
        elif now >= self._settled_until:
            self._try_more(rate)

    def _judge(self, rate: float, now: float) -> None:
        """More streams were begun a window ago: keep them, and try still more, or go back."""
        assert self._before is not None
        number, before = self._before
        if rate >= before * PAYS:
            self._say(f"{self._now} move {_mb(rate)}, {number} moved {_mb(before)}")
            self._before = None
            self._try_more(rate)
            return
        self._before = None
        self._settled_until = now + SETTLED_S
        self._go(number, f"{self._now} move no more than {number} ({_mb(rate)}, {_mb(before)})")

    def _try_more(self, rate: float) -> None:
        more = min(self._ceiling, self._now + max(1, self._now // 2))
        if more > self._now:
            self._before = (self._now, rate)
            self._go(more, f"trying whether more than {self._now} pay")

    def _go(self, number: int, why: str) -> None:
        if number != self._now:
            self._window = None
        self._now = number
        self._say(why)

    def _say(self, why: str) -> None:
        self.why = why

    def _first_reason(self, round_trip_s: float) -> str:
        return f"a round trip takes {round_trip_s * 1000:.0f} ms; more are tried while they pay"


def _mb(rate: float) -> str:
    return f"{rate / 1e6:.0f} MB/s"


class Counted:
    """Counts bytes of a batch for a route's streams, and passes them on to whoever wants to know."""

    def __init__(self, streams: Streams, on_bytes: Callable[[int], None] | None, clock: Callable[[], float]) -> None:
        self._streams = streams
        self._on_bytes = on_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._total = 0

    def __call__(self, count: int) -> None:
        with self._lock:
            self._total += count
            total = self._total
        self._streams.sample(total, self._clock())
        if self._on_bytes is not None:
            self._on_bytes(count)
