"""How recalls stand, in sentences; and whether it is worth waiting for them."""

from __future__ import annotations

import sqlite3

import pytest

from stager.recalls import table, telling
from stager.recalls.telling import OpenRecall, StoreRecalls
from tests.stager.recalls.tapes import Tapes
from tests.waiting import LATE_S, until


def test_a_store_is_told_of_in_a_line() -> None:
    store = StoreRecalls("mss", asked=12, wanted=40, refused=1, oldest_s=10800.0, troubles=["mss:x wanted for 3 h"])
    assert telling.lines([store]) == [
        "mss: recalls: 12 asked, 40 wanted, 1 refused, the oldest for 3 h 0 min",
        "mss:x wanted for 3 h",
    ]
    assert StoreRecalls("mss", online=3).sentence == "mss: recalls: 3 online"


@pytest.mark.parametrize(
    ("state", "asks", "reason", "told"),
    [
        ("wanted", 0, None, "to be asked for"),
        ("wanted", 0, "waits for room at b", "to be asked for: waits for room at b"),
        ("asked", 1, None, "asked 1 time, still not online"),
        ("asked", 5, None, "asked 5 times, still not online"),
        ("refused", 2, "tape \x1b[2J", r"asked 2 times, refused, asked again in 4 min: tape \x1b[2J"),
        ("online", 1, None, "asked 1 time, online"),
    ],
)
def test_a_recall_is_told_of_in_a_sentence(state: str, asks: int, reason: str | None, told: str) -> None:
    one = OpenRecall("mss", "b\n.tar", state, "V\x07", 3, 9, asks, 7200.0, 60.0, 240.0, reason)
    assert one.sentence == rf"mss:b\n.tar (volume V\x07) wanted for 2 h 0 min, {told}"


def test_what_items_of_a_manifest_wait_for_is_told_with_the_worst_first(tapes: Tapes) -> None:
    for number in range(3):
        tapes.put(f"raw/{number}", "V1", number)
    tapes.put("other/x", "V1", 9)
    tapes.control("refuse", "/raw/2")
    tapes.restore()
    tapes.restore("n", source="mss:other/**", destination="c:n")
    tapes.work()
    tapes.step()
    number = tapes.site.value("SELECT id FROM manifests WHERE name = 'm'")
    found = table.waited_for(tapes.site.database, number)
    assert [(one.path, one.state) for one in found] == [("raw/2", "refused"), ("raw/0", "asked"), ("raw/1", "asked")]
    assert [one.path for one in table.waited_for(tapes.site.database, number, 1)] == ["raw/2"]


def test_what_kept_a_recall_is_told_until_it_is_thought_of_again(tapes: Tapes) -> None:
    tapes.put("raw/a", "V1")
    tapes.restore()
    tapes.work()
    tapes.site.change("UPDATE recalls SET reason = 'waits for room at b', not_before = not_before + 60")
    (one,) = table.waited_for(tapes.site.database, 1)
    assert one.reason == "waits for room at b"

    def both_at_once() -> bool:  # they say for how many seconds it was wanted
        (one,) = table.waited_for(tapes.site.database, 1)
        return table.told(tapes.site.database)[0].troubles == [one.sentence]

    until(both_at_once, lambda: table.told(tapes.site.database))
    tapes.age(60)
    (one,) = table.waited_for(tapes.site.database, 1)
    assert one.reason is None
    assert table.told(tapes.site.database)[0].troubles == []


def test_status_asks_by_the_driver_alone(sqlite_tapes: Tapes) -> None:
    tapes = sqlite_tapes
    tapes.put("raw/1", "V1")
    tapes.restore()
    tapes.work()
    assert tapes.site.database.file
    connection = sqlite3.connect(tapes.site.database.file)
    (store,) = telling.snapshot(lambda query: connection.execute(query).fetchall(), tapes.site.database.now)
    connection.close()
    assert (store.store, store.wanted, store.asked) == ("mss", 1, 0)
    assert 0 <= (store.oldest_s or 0.0) < LATE_S


def test_what_waits_for_tape_is_coming_until_it_is_late_or_refused(tapes: Tapes) -> None:
    tapes.configure(recall_s=1000.0)
    tapes.set(latency=3600)
    tapes.put("raw/a", "V1")
    tapes.restore()
    assert not table.is_coming(tapes.site.database, 1)
    tapes.work()
    assert table.is_coming(tapes.site.database, 1)
    assert not table.is_coming(tapes.site.database, 2)
    tapes.step()
    assert table.is_coming(tapes.site.database, 1)
    tapes.age(1000.0)
    tapes.step()
    assert not table.is_coming(tapes.site.database, 1)
    tapes.site.change("UPDATE recalls SET state = 'refused', asks = 1")
    assert not table.is_coming(tapes.site.database, 1)


def test_what_must_wait_for_room_is_coming_as_long_as_others_come(tapes: Tapes) -> None:
    tapes.put("raw/a", "V1")
    tapes.put("other/b", "V1")
    tapes.restore()
    tapes.restore("n", source="mss:other/**", destination="c:n")
    tapes.work()
    tapes.site.change("UPDATE recalls SET reason = 'waits for room at b' WHERE path = 'raw/a'")
    assert not table.is_coming(tapes.site.database, 1)
    changes = "UPDATE recalls SET state = 'online', online_at = wanted_at WHERE path = 'other/b'"
    tapes.site.change(changes)
    assert table.is_coming(tapes.site.database, 1)
    tapes.site.change("UPDATE recalls SET online_at = online_at - 61 WHERE path = 'other/b'")
    assert not table.is_coming(tapes.site.database, 1)
