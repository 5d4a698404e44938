"""How many streams a route uses: a state machine, with the time and the bytes as arguments."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from transfers.streams import CONGESTED_S, NEAR_S, SETTLED_S, STARTING_S, TOGETHER_S, WINDOW_S, Counted, Streams


class Route:
    """A route whose rate is a function of the number of streams, for which time is made to pass."""

    def __init__(self, streams: Streams, rate: dict[int, float] | float, round_trip_s: float = 0.0) -> None:
        self.streams, self.rate, self.now, self.total = streams, rate, 1000.0, 0.0
        self.seen = [streams.begin(round_trip_s, self.now)]

    def flow(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.05
            number = self.streams.allowed()
            rate = self.rate[number] if isinstance(self.rate, dict) else self.rate
            self.total += rate * 0.05
            self.streams.sample(int(self.total), self.now)
            if self.streams.allowed() != self.seen[-1]:
                self.seen.append(self.streams.allowed())


def growing(most: int, best: int) -> dict[int, float]:
    """A rate that grows with the streams up to the best number, and falls a little after it."""
    return {number: 10e6 * min(number, best) - 1e5 * max(0, number - best) for number in range(1, most + 1)}


def test_exact_number_is_kept_whatever_happens() -> None:
    streams = Streams(4, 4)
    route = Route(streams, 1e6)
    route.flow(30)
    streams.congested(route.now)
    assert route.seen == [4]
    assert streams.allowed() == 4
    assert not streams.is_new


@pytest.mark.parametrize(("round_trip_s", "first"), [(0.0, 2), (0.001, 2), (0.05, 7), (0.3, 8)])
def test_first_number_is_what_the_round_trip_suggests(round_trip_s: float, first: int) -> None:
    streams = Streams(1, 8)
    assert streams.is_new
    assert streams.begin(round_trip_s, 0.0) == first
    assert f"{round_trip_s * 1000:.0f} ms" in streams.why
    assert not streams.is_new


@pytest.mark.parametrize("best", [2, 3, 5, 8, 12])
def test_it_ends_near_the_best_number(best: int) -> None:
    streams = Streams(1, 16)
    route = Route(streams, growing(16, best))
    route.flow(40)
    assert route.streams.rate_bytes_per_s is not None
    assert route.rate[streams.allowed()] >= 0.66 * 10e6 * best  # type: ignore[index] # it is by number here
    assert streams.allowed() <= 1.5 * best + 1


def test_streams_that_do_not_pay_are_given_up_and_tried_again_after_a_while() -> None:
    streams = Streams(1, 8)
    route = Route(streams, 50e6)
    route.flow(NEAR_S + 6)
    assert route.seen == [2, 3, 2]
    assert streams.why == "3 move no more than 2 (50 MB/s, 50 MB/s)"
    route.flow(SETTLED_S - 10)
    assert route.seen == [2, 3, 2]
    route.flow(15)
    assert route.seen == [2, 3, 2, 3, 2]


def test_streams_that_pay_say_so() -> None:
    streams = Streams(1, 8)
    Route(streams, growing(8, 8)).flow(NEAR_S + 12)
    assert streams.allowed() == 8
    assert "8 move 80 MB/s" in streams.why


def test_nothing_is_decided_before_new_streams_have_got_going() -> None:
    streams = Streams(1, 8)
    route = Route(streams, 1e6)
    route.flow(STARTING_S + WINDOW_S - 0.2)
    assert route.seen == [2]


def test_refusal_halves_and_is_remembered() -> None:
    streams = Streams(1, 16)
    route = Route(streams, growing(16, 16))
    route.flow(20)
    assert streams.allowed() == 16
    streams.congested(route.now)
    assert streams.allowed() == 8
    assert "MaxStartups" in streams.why
    route.seen = [8]
    route.flow(CONGESTED_S - 5)
    assert max(route.seen) == 8
    route.flow(SETTLED_S + 20)
    assert streams.allowed() > 8


def test_refusals_of_one_burst_count_once() -> None:
    """sshd drops several of the connections that come at the same moment: each says so."""
    streams = Streams(1, 8)
    streams.begin(0.3, 0.0)
    for late in (0.0, 0.1, 0.5, TOGETHER_S - 0.1):
        streams.congested(100.0 + late)
    assert streams.allowed() == 4
    streams.congested(100.0 + TOGETHER_S + 0.1)
    assert streams.allowed() == 2
    streams.congested(200.0)
    streams.congested(300.0)
    assert streams.allowed() == 1


def test_new_bounds_hold_at_once() -> None:
    streams = Streams(1, 8)
    streams.begin(0.3, 0.0)
    streams.bound(1, 3)
    assert streams.allowed() == 3
    streams.bound(5, 6)
    assert streams.allowed() == 5
    for least, most in ((0, 1), (3, 2), (-1, -1)):
        with pytest.raises(ValueError, match="make no sense"):
            streams.bound(least, most)


def test_number_is_kept_from_batch_to_batch() -> None:
    streams = Streams(1, 8)
    Route(streams, growing(8, 8)).flow(NEAR_S + 12)
    assert streams.begin(0.0, 5000.0) == 8


def test_bytes_are_counted_and_passed_on() -> None:
    streams, seen, now = Streams(1, 8), list[int](), [0.0]
    streams.begin(0.0, 0.0)
    counted = Counted(streams, seen.append, lambda: now[0])
    for _ in range(100):
        now[0] += 0.1
        counted(1_000_000)
    assert seen == [1_000_000] * 100
    assert streams.rate_bytes_per_s == pytest.approx(10e6, rel=0.15)


class Anything(RuleBasedStateMachine):
    """Whatever is told it, in whatever order: within the bounds, with a reason, and never stuck."""

    @initialize(least=st.integers(1, 6), more=st.integers(0, 12))
    def begun(self, least: int, more: int) -> None:
        self.now, self.total = 0.0, 0
        self.streams = Streams(least, least + more)

    @rule(round_trip_s=st.floats(0, 10))
    def begin(self, round_trip_s: float) -> None:
        assert self.streams.begin(round_trip_s, self.now) == self.streams.allowed()
        self.total = 0

    @rule(seconds=st.floats(0, 400), count=st.integers(0, 1 << 40))
    def sample(self, seconds: float, count: int) -> None:
        self.now += seconds
        self.total += count
        self.streams.sample(self.total, self.now)

    @rule()
    def congested(self) -> None:
        before = self.streams.allowed()
        self.streams.congested(self.now)
        assert self.streams.allowed() <= max(before, self.streams.least)

    @rule(least=st.integers(1, 6), more=st.integers(0, 12))
    def bound(self, least: int, more: int) -> None:
        self.streams.bound(least, least + more)

    @invariant()
    def is_within_bounds(self) -> None:
        streams = self.streams
        assert streams.least <= streams.allowed() <= streams.most
        assert streams.why
        assert streams.rate_bytes_per_s is None or math.isfinite(streams.rate_bytes_per_s)


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
