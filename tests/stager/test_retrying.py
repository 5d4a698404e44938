"""The decision table: what time may mend waits, what it cannot is held."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stager.models import ItemState
from stager.retrying import MOST_DELAY_S, MOST_TRIES, decide
from stager.working import Unexpected
from transfers.errors import BY_KIND, Conflict, SourceChanged, TransferError, Transient

WAITING, HELD = ItemState.WAITING, ItemState.HELD


@pytest.mark.parametrize(
    ("kind", "state", "delay_s", "counts", "missing"),
    [
        ("transient", WAITING, 1.0, True, False),
        ("corrupted on the way", WAITING, 1.0, True, False),
        ("source changed", WAITING, 1.0, True, False),
        ("congested", WAITING, 5.0, False, False),
        ("host down", WAITING, 30.0, False, False),
        ("no space", WAITING, 30.0, False, False),
        ("read-only", WAITING, 30.0, False, False),
        ("source missing", WAITING, 0.0, False, True),
        ("refused", HELD, 0.0, True, False),
        ("source corrupt", HELD, 0.0, True, False),
        ("conflict", HELD, 0.0, True, False),
        ("unsupported", HELD, 0.0, True, False),
    ],
)
def test_each_kind_of_error_has_its_decision(
    kind: str, state: ItemState, delay_s: float, counts: bool, missing: bool
) -> None:
    decision = decide(BY_KIND[kind]("x"), 0)
    assert (decision.state, decision.delay_s, decision.counts, decision.missing) == (state, delay_s, counts, missing)
    assert not decision.released


def test_the_table_has_every_kind_there_is() -> None:
    assert len(BY_KIND) == 12


def test_a_fault_of_our_own_is_held() -> None:
    assert decide(Unexpected("KeyError"), 0).state == HELD


def test_what_is_told_of_a_members_place_can_be_done() -> None:
    decision = decide(Conflict("x", facts={"lies_in": "v.000000000000.stager.tar"}), 0)
    assert decision.state == HELD
    assert "`below`" in (decision.advice or "")
    assert decide(Conflict("x"), 0).advice is None


def test_work_given_back_is_released_whatever_its_kind() -> None:
    decision = decide(Transient("stopping", phase="stopped"), 7)
    assert (decision.state, decision.released, decision.counts, decision.delay_s) == (WAITING, True, False, 0.0)


@pytest.mark.parametrize("kind", ["host down", "refused", "transient"])
def test_what_a_breaker_guards_is_due_when_that_closes(kind: str) -> None:
    decision = decide(BY_KIND[kind]("x"), MOST_TRIES - 1, guarded=True)
    assert (decision.state, decision.delay_s, decision.counts, decision.released) == (WAITING, 0.0, False, False)


def test_what_was_on_a_connection_that_broke_uses_up_no_try_where_others_came() -> None:
    decision = decide(Transient("reset", phase="connect"), MOST_TRIES - 1, excused=True)
    assert (decision.state, decision.delay_s, decision.counts) == (WAITING, 1.0, False)


def test_tries_wait_twice_as_long_each_time_and_end() -> None:
    delays = [decide(Transient("x"), tries).delay_s for tries in range(MOST_TRIES - 1)]
    assert delays == [2.0**tries for tries in range(MOST_TRIES - 1)]
    assert decide(Transient("x"), MOST_TRIES - 1).state == HELD
    assert decide(Transient("x"), 0, most=1).state == HELD


@given(st.sampled_from(sorted(BY_KIND)), st.integers(0, 999), st.booleans())
def test_no_wait_is_longer_than_an_hour_and_no_error_is_retried_for_ever(kind: str, tries: int, pinned: bool) -> None:
    error: TransferError = BY_KIND[kind]("x")
    decision = decide(error, tries, pinned=pinned, most=1000)
    assert 0 <= decision.delay_s <= MOST_DELAY_S
    if decision.counts and decision.state == WAITING:
        assert tries + 1 < 1000


def test_a_changed_source_is_the_new_expectation_unless_a_list_says_otherwise() -> None:
    error = SourceChanged("x", facts={"size": 5, "mtime_ns": 6})
    assert (decide(error, 0).size, decide(error, 0).mtime_ns) == (5, 6)
    assert decide(error, 0, pinned=True).size is None
