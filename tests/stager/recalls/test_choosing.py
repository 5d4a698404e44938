"""What a store is asked for next: few mounts, no bad tape in the way, no more than there is room for."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from stager.models import RecallState
from stager.recalls import choosing
from stager.recalls.choosing import Limits, Recall

NOW = 1_000_000.0
LONG_AGO = NOW - 100.0
NUMBERS = itertools.count(1)
LIMITS = Limits(8, 3600.0)
ROOMS = {"b": 1 << 40, "c": 1 << 40}


def recall(
    volume: str | None = "V1",
    position: int | None = 1,
    state: str = RecallState.WANTED,
    *,
    asks: int | None = None,
    asked_s: float = 10.0,
    wanted_at: float = LONG_AGO,
    due: bool = True,
    priority: int | None = 0,
) -> Recall:
    number = next(NUMBERS)
    begun = state in (RecallState.ASKED, RecallState.REFUSED)
    return Recall(
        number,
        f"f{number:04d}.tar",
        state,
        volume,
        position,
        int(begun) if asks is None else asks,
        wanted_at,
        NOW - asked_s if begun else None,
        NOW - 1 if due else NOW + 60,
        priority,
        wanted_at,
        wanted_at,
    )


def asked(volume: str | None = "V1", position: int = 1, *, asks: int = 1, asked_s: float = 10.0) -> Recall:
    return recall(volume, position, RecallState.ASKED, asks=asks, asked_s=asked_s, due=False)


def refused(volume: str | None = "V1", position: int = 1, *, due: bool = True, asked_s: float = 100.0) -> Recall:
    return recall(volume, position, RecallState.REFUSED, asked_s=asked_s, due=due)


def next_up(*rows: Recall, limits: Limits = LIMITS) -> list[tuple[str | None, int | None]]:
    return [(row.volume, row.position) for row in choosing.next_up(rows, limits, NOW)]


# -------------------------------------------------------------------------------------------- order


def test_recalls_go_by_volume_and_by_position_on_it() -> None:
    rows = [recall(volume, position) for position in (30, 2, 11) for volume in ("V2", "V1")]
    assert next_up(*rows) == [("V1", 2), ("V1", 11), ("V1", 30), ("V2", 2), ("V2", 11), ("V2", 30)]


def test_a_volume_that_is_being_read_is_read_on_before_another_is_mounted() -> None:
    rows = [asked("V2", 1), recall("V1", 5), recall("V2", 7), recall("V2", 3)]
    assert next_up(*rows) == [("V2", 3), ("V2", 7), ("V1", 5)]


def test_a_volume_that_others_were_read_before_for_an_hour_has_its_turn() -> None:
    old = recall("V1", 5, wanted_at=NOW - 5000)
    assert next_up(asked("V2", 1), recall("V2", 3, wanted_at=NOW - 100), old) == [("V1", 5), ("V2", 3)]


def test_the_volume_that_an_urgent_manifest_waits_for_comes_first() -> None:
    rows = [asked("V1"), recall("V1", 1), recall("V2", 9, priority=5), recall("V2", 1)]
    assert next_up(*rows) == [("V2", 9), ("V2", 1), ("V1", 1)]


def test_files_whose_place_on_tape_the_store_does_not_tell_go_by_their_paths() -> None:
    rows = [recall(None, None) for _ in range(3)]
    assert [row.path for row in choosing.next_up(rows[::-1], LIMITS, NOW)] == [row.path for row in rows]


def test_recalls_that_are_being_added_are_waited_for_but_not_long() -> None:
    fresh = recall("V1", 1, wanted_at=NOW - 0.2)
    assert next_up(fresh, recall("V1", 2, wanted_at=NOW - 5)) == []
    assert next_up(fresh, recall("V1", 2, wanted_at=NOW - choosing.GATHER_S)) == [("V1", 1), ("V1", 2)]
    assert next_up(recall("V1", 1, wanted_at=NOW - choosing.QUIET_S)) == [("V1", 1)]


def test_what_waits_for_its_next_try_is_left_alone() -> None:
    assert next_up(recall(due=False), refused(due=False)) == []


# --------------------------------------------------------------------------------------- bad tapes


def test_one_volume_leaves_room_for_the_others() -> None:
    rows = [recall("V1", position) for position in range(20)]
    assert len(next_up(*rows)) == 6
    assert Counter(volume for volume, _ in next_up(*rows, recall("V2"), recall("V3"))) == {"V1": 6, "V2": 1, "V3": 1}


def test_a_volume_whose_recalls_do_not_come_takes_up_a_share_at_most() -> None:
    stuck = [asked("V1", position, asked_s=4000) for position in range(8)]
    well = [recall("V2", position) for position in range(20)]
    chosen = Counter(volume for volume, _ in next_up(*stuck, *well))
    assert chosen == {"V1": 8, "V2": 6}  # those that are late are asked for again, and 2 of 8 count
    more = [asked("V2", position) for position in range(6)]
    assert Counter(next_up(*stuck, *more, *well)) == Counter(("V1", position) for position in range(8))


def test_a_store_that_takes_one_recall_at_a_time_goes_on_beside_one_that_does_not_come() -> None:
    limits = Limits(1, 3600.0)
    assert next_up(asked("V1", 1), recall("V2", 1), limits=limits) == []
    assert next_up(asked("V1", 1, asks=2), recall("V2", 1), limits=limits) == [("V2", 1)]


def test_a_file_that_does_not_come_holds_up_no_other_where_the_store_tells_no_volumes() -> None:
    stuck = [asked(None, 0, asks=3) for _ in range(8)]
    assert len(next_up(*stuck, *(recall(None, None) for _ in range(20)))) == 6


def test_of_sick_volumes_one_file_is_tried_whatever_else_there_is_to_do() -> None:
    well = [recall(volume, position) for volume in ("V1", "V3") for position in range(20)]
    chosen = next_up(*well, asked("V1", 99), refused("V2", 1), recall("V2", 2))
    assert Counter(volume for volume, _ in chosen) == {"V1": 5, "V2": 1, "V3": 1}


def test_one_refused_file_does_not_make_its_volume_sick() -> None:
    rows = [refused("V1", 1, due=False), asked("V1", 2), asked("V1", 3), *(recall("V1", 4 + n) for n in range(9))]
    assert len(next_up(*rows)) == 4


def test_a_store_that_refuses_everything_is_asked_for_one_file_at_a_time() -> None:
    rows = [refused(f"V{number}", asked_s=1.0) for number in range(8)]
    assert next_up(*rows, recall("V9")) == []
    rows = [refused(f"V{number}", asked_s=choosing.TRICKLE_S) for number in range(8)]
    assert next_up(*rows, recall("V9"), recall("V9", 2)) == [("V9", 1)]
    taken = [asked(f"W{number}") for number in range(4)]
    assert len(next_up(*rows[:4], *taken, recall("V9"), recall("V9", 2))) == 4  # it takes as many as it refuses


def test_a_recall_that_did_not_come_is_asked_for_again_and_no_sooner() -> None:
    assert next_up(asked("V1", 7, asked_s=3600)) == [("V1", 7)]
    assert next_up(asked("V1", 7, asked_s=3599)) == []


def test_a_refused_request_is_made_again_with_growing_patience_and_alone() -> None:
    waits = [choosing.refused_s(asks) for asks in range(1, 20)]
    assert waits[:3] == [30.0, 60.0, 120.0]
    assert max(waits) == 3600.0
    one, other, third = refused(), recall(), recall()
    assert choosing.lots([other, one, third]) == [[other, third], [one]]


# ------------------------------------------------------------------------------------------ looking


def test_looks_become_rarer_and_are_shared() -> None:
    assert choosing.look_after_s(NOW - 2, NOW) == 0.5
    assert choosing.look_after_s(NOW - 100, NOW) == 5.0
    assert choosing.look_after_s(NOW - 9e5, NOW) == 30.0
    old = asked(asked_s=9e5)
    soon, later, due = (
        Recall(number, "f", RecallState.ASKED, "V", 1, 1, LONG_AGO, old.asked_at, NOW + wait)
        for number, wait in enumerate((14.0, 16.0, 0.0))
    )
    assert choosing.to_look_at([soon, later, recall()], NOW) == []
    assert choosing.to_look_at([soon, later, due, recall()], NOW) == [soon, due]


# --------------------------------------------------------------------------------------------- room


def fit(chosen: Sequence[Recall], known: Sequence[Recall], needs: dict[int, dict[str, int]], **rooms: int) -> list[int]:
    return [row.id for row in choosing.fitting(chosen, known, needs, rooms, LIMITS, NOW).chosen]


def test_no_more_is_asked_for_than_the_destination_has_room_for() -> None:
    rows = [recall() for _ in range(4)]
    needs = {row.id: {"b": 40} for row in rows}
    assert fit(rows, [], needs, b=100) == [row.id for row in rows[:2]]
    on_its_way, online = asked("V7"), recall("V8", state=RecallState.ONLINE)
    needs |= {on_its_way.id: {"b": 30}, online.id: {"b": 30}}
    assert fit(rows, [on_its_way], needs, b=100) == [rows[0].id]
    assert fit(rows, [on_its_way, online], needs, b=100) == [rows[0].id]
    assert fit(rows, [on_its_way, online], needs, b=99) == []


def test_a_destination_with_no_room_gets_one_file_at_a_time() -> None:
    rows = [recall(), recall()]
    needs = {row.id: {"b": 40} for row in rows}
    assert fit(rows, [], needs, b=0) == [rows[0].id]
    on_its_way = asked("V7")
    assert fit(rows, [on_its_way], needs | {on_its_way.id: {"b": 1}}, b=0) == []


def test_a_small_file_does_not_go_before_a_large_one_that_waits_for_room() -> None:
    large, small, on_its_way = recall(), recall(), asked("V7")
    needs = {large.id: {"b": 100}, small.id: {"b": 1}, on_its_way.id: {"b": 10}}
    assert fit([large, small], [on_its_way], needs, b=50) == []
    assert fit([small, large], [on_its_way], needs, b=50) == [small.id]


def test_a_full_destination_holds_up_no_other() -> None:
    to_b, to_both, to_c, on_its_way = recall(), recall(), recall(), asked("V7")
    needs = {to_b.id: {"b": 10}, to_both.id: {"b": 10, "c": 10}, to_c.id: {"c": 10}, on_its_way.id: {"b": 1}}
    assert fit([to_b, to_both, to_c], [on_its_way], needs, b=0, c=20) == [to_both.id, to_c.id]
    found = choosing.fitting([to_b, to_c], [on_its_way], needs, {"b": 0, "c": 20}, LIMITS, NOW)
    assert [(row.id, names) for row, names in found.waiting] == [(to_b.id, ["b"])]


def test_a_destination_that_cannot_be_used_is_not_brought_anything() -> None:
    row = recall()
    assert fit([row], [], {row.id: {"b": 1}}, c=1000) == []


def test_what_does_not_come_takes_up_no_room() -> None:
    stuck, row = asked("V1", asks=3), recall("V2")
    assert fit([row], [stuck], {row.id: {"b": 60}, stuck.id: {"b": 60}}, b=100) == [row.id]


def test_files_that_are_online_and_not_brought_are_not_added_to_without_end() -> None:
    online = [recall(state=RecallState.ONLINE) for _ in range(LIMITS.most)]
    row = recall("V2")
    needs = {one.id: {"b": 1} for one in (*online, row)}
    assert fit([row], online[1:], needs, b=100) == [row.id]
    assert fit([row], online, needs, b=100) == []


# --------------------------------------------------------------------------------------- properties

VOLUMES = st.sampled_from(["V1", "V2", "V3", None])
ROWS = st.lists(
    st.builds(
        recall,
        VOLUMES,
        st.integers(0, 50),
        st.sampled_from(list(RecallState)),
        asked_s=st.sampled_from([0.5, 10.0, 4000.0]),
        wanted_at=st.sampled_from([NOW - 0.1, LONG_AGO, NOW - 9000]),
        due=st.booleans(),
        priority=st.integers(0, 2),
    ),
    max_size=60,
)
MOST = st.integers(1, 20)


def well_and_sick(rows: Sequence[Recall], limits: Limits) -> tuple[list[Recall], list[Recall]]:
    sick = choosing.sick_tapes([row for row in rows if row.state != RecallState.WANTED], limits, NOW)
    return [row for row in rows if row.tape not in sick], [row for row in rows if row.tape in sick]


@given(ROWS, MOST)
def test_never_more_than_the_most_are_outstanding_but_for_what_does_not_come(rows: list[Recall], most: int) -> None:
    limits = Limits(most, 3600.0)
    chosen = choosing.next_up(rows, limits, NOW)
    well, sick = well_and_sick(rows, limits)
    new = [row for row in chosen if row.state != RecallState.ASKED]
    of_well = sum(row.state == RecallState.ASKED or row in new for row in well)
    of_sick = sum(row.state == RecallState.ASKED or row in new for row in sick)
    before = sum(row.state == RecallState.ASKED for row in well)
    assert of_well <= max(most, before)
    if any(row in new for row in sick):
        assert of_sick <= limits.share
    if not choosing.refuses_most([row for row in rows if row.state != RecallState.WANTED]):
        for tape in {row.tape for row in new if row in well}:
            assert sum(row.tape == tape and (row in new or row.state == "asked") for row in well) <= max(
                1, most - limits.share
            )


@given(ROWS, MOST)
def test_only_what_is_due_is_asked_for_each_once_and_by_volume(rows: list[Recall], most: int) -> None:
    chosen = choosing.next_up(rows, Limits(most, 3600.0), NOW)
    assert len({row.id for row in chosen}) == len(chosen)
    for row in chosen:
        late = row.state == RecallState.ASKED and row.asked_at is not None and NOW - row.asked_at >= 3600
        assert late or (row.state in ("wanted", "refused") and row.not_before <= NOW)
    volumes = [volume for volume, _ in itertools.groupby(row.volume for row in chosen)]
    assert len(volumes) == len(set(volumes))
    for _, group in itertools.groupby(chosen, key=lambda row: (row.volume, row.priority)):
        positions = [row.position or 0 for row in group]
        assert positions == sorted(positions)


@given(ROWS, MOST)
def test_something_is_asked_for_whatever_does_not_come(rows: list[Recall], most: int) -> None:
    limits = Limits(most, 3600.0)
    stuck = [row for row in rows if row.state in (RecallState.ASKED, RecallState.REFUSED)]
    stuck = [row for row in stuck if choosing.is_bad(row, limits, NOW) and row.volume not in (None, "V3")]
    other = recall("V3")
    assert other in choosing.next_up([*stuck, other], limits, NOW) or any(
        row.asked_at is not None and NOW - row.asked_at < choosing.TRICKLE_S for row in stuck
    )


@given(ROWS, st.dictionaries(st.sampled_from("bcd"), st.integers(0, 500)), st.data())
def test_what_is_asked_for_fits_or_is_the_only_thing_on_its_way(
    rows: list[Recall], rooms: dict[str, int], data: st.DataObject
) -> None:
    need = st.dictionaries(st.sampled_from("bcd"), st.integers(1, 200), min_size=1)
    needs = {row.id: data.draw(need) for row in rows}
    chosen = choosing.next_up(rows, LIMITS, NOW)
    found = choosing.fitting(chosen, rows, needs, rooms, LIMITS, NOW)
    assert sorted(row.id for row in (*found.chosen, *(row for row, _ in found.waiting))) == sorted(r.id for r in chosen)
    well, _ = well_and_sick(rows, LIMITS)
    new = [row for row in found.chosen if row in well and row.state != RecallState.ASKED]
    coming = [row for row in well if row.state == RecallState.ASKED]
    coming += [row for row in rows if row.state == RecallState.ONLINE and row not in coming]
    for number, row in enumerate(new):
        before = [*coming, *new[:number]]
        assert any(
            name in rooms
            and (
                size + sum(needs[one.id].get(name, 0) for one in before) <= rooms[name]
                or not any(name in needs[one.id] for one in before)
            )
            for name, size in needs[row.id].items()
        )
