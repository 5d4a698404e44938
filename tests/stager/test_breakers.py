"""Breakers: a host that cannot be used is left alone until a look at it goes well; no item pays for it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from stager import breakers, intents, items
from stager.breakers import FIRST_LOOK_S, JITTER, LONGEST_S, Breaker, wait_s
from stager.status import READABLE, snapshot
from tests.stager.site import Site
from transfers.errors import BY_KIND, Congested, HostDown, NoSpace, ReadOnly, Refused, TransferError, Transient

MIDDLE = 0.5  # the chance that changes no wait


@pytest.mark.parametrize(
    ("kind", "waits"),
    [
        ("host down", [5, 10, 20, 40, 80, 160, 300, 300]),
        ("no space", [5, 10, 20, 40, 80, 160, 300, 300]),
        ("read-only", [5, 10, 20, 40, 80, 160, 300, 300]),
        ("transient", [5, 10, 20, 40, 80, 160, 300, 300]),
        ("refused", [60, 60, 60]),
        ("unsupported", [60, 60, 60]),
        ("congested", [5, 5, 5]),
    ],
)
def test_looks_are_ever_rarer_where_only_time_helps(kind: str, waits: list[int]) -> None:
    breaker, now, found = Breaker(), 1000.0, []
    for _ in waits:
        breaker = breaker.failed(kind, "why", now, MIDDLE)
        assert breaker.next_look is not None
        found.append(breaker.next_look - now)
        now = breaker.next_look
    assert found == waits
    assert (breaker.since, breaker.looks) == (1000.0, len(waits))


def test_a_breaker_that_is_open_is_not_tripped_again_by_others() -> None:
    first = Breaker().tripped("host down", "no route", 0.0, MIDDLE)
    assert first.tripped("refused", "other words", 1.0, MIDDLE) is first
    assert first.failed("refused", "other words", 6.0, MIDDLE).text == "other words"


@pytest.mark.parametrize("kind", breakers.READABLE)
def test_a_host_that_can_only_be_read_may_come_into_worse_trouble(kind: str) -> None:
    first = Breaker().tripped(kind, "nothing can be written", 0.0, MIDDLE)
    assert (first.is_open, first.is_readable) == (True, True)
    assert first.tripped("read-only", "other words", 1.0, MIDDLE) is first
    assert first.tripped("no space", "other words", 1.0, MIDDLE) is first
    second = first.tripped("host down", "no route", 1.0, MIDDLE)
    assert (second.kind, second.since, second.is_readable) == ("host down", 0.0, False)
    assert second.tripped("read-only", "the file system is read-only", 2.0, MIDDLE) is second


def test_a_host_that_answers_and_fails_at_once_waits_ever_longer() -> None:
    breaker = Breaker()
    waits = []
    for turn in range(4):
        breaker = breaker.tripped("host down", "it died", turn * 1000.0, MIDDLE)
        assert breaker.next_look is not None
        waits.append(breaker.next_look - turn * 1000.0)
        breaker = breaker.passed()
        assert not breaker.is_open
    assert waits == [5, 10, 20, 40]


def test_who_waits_for_the_end_has_it_looked_at_sooner() -> None:
    assert Breaker().failed("refused", "", 0.0, MIDDLE, longest_s=1.0).next_look == 1.0


@given(st.sampled_from(sorted(BY_KIND)), st.integers(1, 10_000), st.floats(0, 1))
def test_no_wait_is_without_bounds_nor_without_spread(kind: str, looks: int, chance: float) -> None:
    breaker = Breaker(looks - 1).failed(kind, "", 0.0, chance)
    assert breaker.next_look is not None
    plain = wait_s(kind, looks)
    assert FIRST_LOOK_S * (1 - JITTER) <= breaker.next_look <= LONGEST_S
    assert plain * (1 - JITTER) <= breaker.next_look + 1e-9 <= plain * (1 + JITTER) + 1e-6


class Machine(RuleBasedStateMachine):
    """Any order of failures and looks: open exactly after a failure, since the first of them."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.now = 0.0
        self.since: float | None = None

    @rule(seconds=st.floats(0, 1000))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(kind=st.sampled_from(sorted(BY_KIND)), chance=st.floats(0, 1))
    def work_fails(self, kind: str, chance: float) -> None:
        self.breaker = self.breaker.tripped(kind, "x", self.now, chance)
        self.since = self.now if self.since is None else self.since

    @rule(kind=st.sampled_from(sorted(BY_KIND)), chance=st.floats(0, 1))
    def a_look_fails(self, kind: str, chance: float) -> None:
        if self.breaker.is_open:
            self.breaker = self.breaker.failed(kind, "x", self.now, chance)
            assert self.breaker.next_look is not None
            assert self.breaker.next_look > self.now

    @rule()
    def a_look_goes_well(self) -> None:
        self.breaker = self.breaker.passed()
        self.since = None

    @invariant()
    def it_says_since_when(self) -> None:
        assert self.breaker.is_open is (self.since is not None)
        assert self.breaker.since == self.since
        assert (self.breaker.next_look is None) is (self.since is None)


TestMachine = Machine.TestCase


@pytest.mark.parametrize(
    ("error", "of_host"),
    [
        (HostDown("no route", phase="land"), True),
        (Refused("another key", phase="connect"), True),
        (Refused("permission denied", phase="open"), False),
        (ReadOnly("the file system is read-only", phase="open"), True),
        (NoSpace("Disk quota exceeded", side="destination", phase="write"), True),
        (NoSpace("`put` ended with exit status 28", side="store", phase="command"), True),
        (NoSpace("needs 2 GB; 1 GB are free there", side="destination", phase="reserve"), False),
        (NoSpace("the scratch folder has no room for it", side="local", phase="open"), False),
        (NoSpace("no space left on device", side="source", phase="unpack"), False),
        (NoSpace("no space left on device", side="destination", phase="write", facts={"mounted": True}), False),
        (Congested("MaxStartups", phase="connect"), False),
        (Transient("the connection broke off", phase="connect"), False),
        (Transient("the agent was killed", phase="channel"), False),
    ],
)
def test_a_host_is_blamed_only_for_what_concerns_all_of_it(error: TransferError, of_host: bool) -> None:
    assert breakers.is_of_host(error) is of_host
    assert breakers.is_of_connection(error) is (error.kind == "transient")


# ------------------------------------------------------------------------------------ in the database


def test_nothing_is_due_at_a_host_in_trouble_and_no_other_notices(site: Site) -> None:
    site.files("a:raw/1", "c:raw/1")
    site.submit("one")
    site.submit("two", source="c:raw/**", destination="mss:two", kind="archive")
    error = HostDown("no route to it", host="b", phase="connect", path="new/1")
    assert breakers.trip(site.database, "b", error) is not None
    assert breakers.trip(site.database, "b", error) is None
    assert [work.destination_host for work in items.claimable(site.database)] == ["mss"]
    assert [work.destination_host for work, _ in items.due(site.database, troubled=True)] == ["b"]
    assert breakers.unusable(site.database) == {"b"}
    known = breakers.known(site.database)["b"]
    assert (known.usable, known.breaker.kind, known.breaker.looks) == (False, "host down", 1)
    assert str(known.breaker.text).startswith("b: no route to it (connect)"), "a file is named for its host's trouble"
    assert known.breaker.next_look is not None
    assert known.breaker.since is not None
    assert 4 <= known.breaker.next_look - known.breaker.since <= 6
    assert known.due_in_s <= 6


@pytest.mark.parametrize("trouble", [ReadOnly, NoSpace])
def test_from_a_host_that_can_only_be_read_files_are_still_brought(site: Site, trouble: type[TransferError]) -> None:
    assert READABLE == breakers.READABLE
    site.files("a:raw/1", "b:raw/1")
    site.submit("to")
    site.submit("from", source="b:raw/**", destination="c:new")
    site.submit("within", source="b:raw/**", destination="b:new")
    breakers.trip(site.database, "b", trouble("nothing can be written", host="b"))
    assert [work.destination_host for work in items.claimable(site.database)] == ["c"]
    assert [work.destination_host for work, _ in items.due(site.database, troubled=True)] == ["b", "b"]
    assert (breakers.unusable(site.database), breakers.unreadable(site.database)) == ({"b"}, set())
    told = snapshot(site.database.engine.raw_connection().driver_connection)
    assert {row.manifest: row.last_error is not None for row in told.datasets} == {
        "to": True, "from": False, "within": True,
    }  # fmt: skip
    assert [(host.host, host.kind, host.files) for host in told.hosts if host.kind] == [("b", trouble.kind, 2)]
    breakers.trip(site.database, "b", HostDown("no route to it", host="b"))
    assert items.claimable(site.database) == []
    assert breakers.unreadable(site.database) == {"b"}


def test_a_look_belongs_to_one_worker_and_is_due_only_in_its_time(site: Site) -> None:
    assert not breakers.begin_look(site.database, "b")
    breakers.trip(site.database, "b", HostDown("down", host="b"))
    site.change("UPDATE hosts SET next_look = next_look + 1000 WHERE name = 'b'")
    assert not breakers.begin_look(site.database, "b")
    breakers.look_soon(site.database)
    assert breakers.begin_look(site.database, "b")
    assert not breakers.begin_look(site.database, "b"), "two looked at the same time"
    before = time.time()
    assert breakers.look_failed(site.database, "b", Refused("key", host="b")).looks == 2
    known = breakers.known(site.database)["b"]
    assert known.due_in_s <= 72
    assert (known.breaker.next_look or 0.0) - before > 47
    assert breakers.look_passed(site.database, "b") is not None
    assert breakers.look_passed(site.database, "b") is None
    assert breakers.known(site.database)["b"].usable
    assert breakers.known(site.database)["b"].breaker.looks == 2
    breakers.worked(site.database, ["b"])
    assert breakers.known(site.database)["b"].breaker == Breaker()


def test_an_operator_closes_it_at_once_and_a_pause_is_another_thing(site: Site) -> None:
    breakers.trip(site.database, "b", Congested("too many", host="b"))
    intents.pause(site.database, "b", "disks")
    assert not breakers.known(site.database)["b"].usable
    intents.resume(site.database, "b")
    assert breakers.known(site.database)["b"].usable
    assert breakers.known(site.database)["b"].breaker == Breaker()


def test_what_is_remembered_of_a_host_outlasts_its_trouble(site: Site) -> None:
    site.files("a:raw/1")
    site.run()
    marker = site.value("SELECT marker FROM hosts WHERE name = 'b'")
    breakers.trip(site.database, "b", HostDown("down", host="b"))
    breakers.look_passed(site.database, "b")
    assert site.value("SELECT marker FROM hosts WHERE name = 'b'") == marker
