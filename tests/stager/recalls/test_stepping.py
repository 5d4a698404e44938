"""Recalls come whatever the store does with them, each file is asked for once, and nothing holds up the rest."""

from __future__ import annotations

import multiprocessing
import random
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from stager import breakers, intents, items
from stager.recalls import choosing, sorting, stepping, table
from tests.stager.recalls.tapes import Tapes, step_and_die
from tests.stager.site import Site
from tests.waiting import LATE_S, until
from transfers.errors import HostDown, NoSpace, Transient

NEVER = 3600.0


def test_files_come_from_tape_and_are_brought(tapes: Tapes) -> None:
    tapes.put("raw/a")
    for number in range(3):
        tapes.put(f"raw/b{number}", "V1", number)
    tapes.restore()
    tapes.work()
    assert tapes.site.states() == {"raw/a": "done", "raw/b0": "waiting", "raw/b1": "waiting", "raw/b2": "waiting"}
    assert tapes.step() == 3
    assert [row[1] for row in tapes.rows()] == ["asked"] * 3
    tapes.settle()
    assert tapes.requests() == ["raw/b0", "raw/b1", "raw/b2"]
    assert tapes.site.value("SELECT count(*) FROM items WHERE recall_id IS NOT NULL") == 0
    tapes.step()
    assert table.stores(tapes.site.database) == []
    assert tapes.lines() == []


def test_the_store_is_asked_in_the_order_of_its_tapes(tapes: Tapes) -> None:
    places = [(f"V{volume}", position) for volume in (1, 2, 3) for position in range(4)]
    for volume, position in random.Random(5).sample(places, len(places)):
        tapes.put(f"raw/{volume}-{position}", volume, position)
    tapes.restore()
    tapes.work()
    tapes.step()
    assert tapes.requests() == [f"raw/{volume}-{position}" for volume, position in places]


def test_what_is_wanted_together_is_gathered_before_it_is_asked_for(
    sqlite_tapes: Tapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "QUIET_S", 1000.0)  # what the test itself takes is no matter then
    monkeypatch.setattr(choosing, "GATHER_S", 10_000.0)
    tapes = sqlite_tapes
    tapes.put("raw/a", "V1", 2)
    tapes.restore("m", destination="b:m")
    tapes.work()
    assert tapes.step(gathered=False) == 0
    tapes.put("raw/b", "V1", 1)
    tapes.restore("n", destination="b:n")
    tapes.work()
    assert tapes.step(gathered=False) == 0
    tapes.age(choosing.QUIET_S)
    assert tapes.step(gathered=False) == 2
    assert tapes.requests() == ["raw/b", "raw/a"]


def test_two_manifests_that_want_a_file_have_it_recalled_once(tapes: Tapes) -> None:
    tapes.put("raw/a", "V1")
    tapes.restore("m", destination="b:m")
    tapes.restore("n", destination="c:n")
    tapes.settle("m")
    tapes.settle("n")
    assert tapes.requests() == ["raw/a"]


def test_no_more_are_outstanding_than_the_store_allows(tapes: Tapes) -> None:
    tapes.configure(recalls=4)
    tapes.set(latency=0.5, drives=4)
    for number in range(12):
        tapes.put(f"raw/{number:02d}", f"V{number % 3}", number)
    seen: list[int] = []
    tapes.tape.after_stage = lambda: seen.append(len(tapes.outstanding()))
    tapes.restore()
    tapes.settle()
    assert 1 <= max(seen) <= 4
    assert sorted(tapes.requests()) == [f"raw/{number:02d}" for number in range(12)]


def test_a_request_that_the_store_forgot_is_made_again(tapes: Tapes) -> None:
    tapes.configure(recall_s=1000.0)
    tapes.put("raw/a", "V1")
    tapes.restore()
    tapes.forget(2)
    tapes.work()
    tapes.step()
    for asks, seconds in ((1, 400.0), (1, 1000.0), (2, 1000.0)):
        assert [row[2] for row in tapes.rows()] == [asks]
        assert tapes.requests() == []
        tapes.age(seconds)
        tapes.step(gathered=False)
    assert tapes.requests() == ["raw/a"]
    tapes.settle()


def test_a_recall_that_never_comes_stays_to_be_seen_and_holds_up_no_other(tapes: Tapes) -> None:
    tapes.configure(recalls=4, recall_s=1000.0)
    tapes.bad("V1")
    for number in range(8):
        tapes.put(f"raw/bad{number}", "V1", number)
        tapes.put(f"raw/good{number}", "V2", number)
    tapes.restore("bad", source="mss:raw/bad*", destination="b:bad")
    tapes.restore("good", source="mss:raw/good*", destination="b:good")
    tapes.settle("good")
    assert set(tapes.site.states("bad").values()) == {"waiting"}
    assert len(tapes.outstanding()) == 3
    for _ in range(2):
        tapes.age(1000.0)
        tapes.step()
    (first, second, *_) = tapes.lines()
    assert first.startswith("mss: recalls: 3 asked, 5 wanted, the oldest for ")
    assert second.startswith("mss:raw/bad0 (volume V1) wanted for ")
    assert re.search(r", asked [3-9] times, still not online$", second)
    tapes.bad("V1", "good")
    for number in range(8):
        tapes.mark(f"raw/bad{number}", state="migrated")
    tapes.age(1000.0)
    tapes.settle("bad")


def test_a_refused_request_is_shown_and_made_again_until_it_is_taken(tapes: Tapes) -> None:
    for number in range(4):
        tapes.put(f"raw/{number}", "V1", number)
    tapes.mark("raw/1", refused=1)
    tapes.restore()
    tapes.work()
    tapes.step()
    tapes.step()
    tapes.work()
    assert tapes.site.states() == {"raw/0": "done", "raw/1": "waiting", "raw/2": "done", "raw/3": "done"}
    tapes.step()
    (asked, refused) = tapes.lines()
    assert asked.startswith("mss: recalls: 1 refused, the oldest for ")
    assert re.search("asked 1 time, refused, asked again in [12]?[0-9] s", refused)
    assert refused.endswith(": /raw/1: stage refused - refused")
    tapes.age(30.0)
    tapes.step()
    assert [row[:3] for row in tapes.rows() if row[1] != "online"] == [("raw/1", "refused", 2)]
    assert tapes.site.value("SELECT not_before - asked_at FROM recalls WHERE state = 'refused'") == pytest.approx(60)
    tapes.mark("raw/1", refused=0)
    tapes.age(60.0)
    tapes.settle()


def test_a_file_that_the_store_loses_meanwhile_is_held_and_the_others_come(tapes: Tapes) -> None:
    tapes.bad("V1", "lost")
    tapes.put("raw/a", "V1")
    tapes.put("raw/b", "V2")
    tapes.restore()

    def comes() -> bool:
        tapes.work()
        tapes.step()
        return "waiting" not in tapes.site.states().values()

    until(comes, tapes.rows, pause_s=0.0)
    assert tapes.site.states() == {"raw/a": "held", "raw/b": "done"}
    ((reason,),) = tapes.site.rows("SELECT reason FROM items WHERE state = 'held'")
    assert reason.startswith("mss:raw/a: the file is lost on the store")
    assert [row[0] for row in tapes.rows()] == ["raw/b"]


def test_a_file_that_is_online_before_it_was_asked_for_is_not_asked_for(tapes: Tapes) -> None:
    tapes.put("raw/a", "V1")
    tapes.restore()
    tapes.work()
    tapes.mark("raw/a", state="resident")
    tapes.settle()
    assert tapes.requests() == []


@pytest.mark.parametrize("how", ["cancel", "hold"])
def test_what_nobody_waits_for_any_more_is_not_asked_for(tapes: Tapes, how: str) -> None:
    tapes.configure(recalls=2)
    tapes.set(latency=NEVER)
    for number in range(5):
        tapes.put(f"raw/{number}", "V1", number)
    tapes.restore()
    tapes.work()
    tapes.step()
    asked = tapes.requests()
    assert len(asked) == 1
    (intents.cancel if how == "cancel" else intents.hold)(tapes.site.database, "m")
    tapes.step()
    assert tapes.rows() == []
    assert table.stores(tapes.site.database) == []
    assert tapes.requests() == asked
    tapes.set(latency=0)
    intents.release(tapes.site.database, "m")
    tapes.mark("raw/0", state="migrated")
    tapes.settle()


def test_of_two_manifests_the_one_that_is_cancelled_takes_no_file_from_the_other(tapes: Tapes) -> None:
    tapes.put("raw/a", "V1")
    tapes.restore("m", destination="b:m")
    tapes.restore("n", destination="c:n")
    tapes.work()
    intents.cancel(tapes.site.database, "m")
    tapes.settle("n")
    assert tapes.requests() == ["raw/a"]


def test_a_store_that_is_down_is_told_of_as_a_whole_and_its_recalls_go_on_later(tapes: Tapes) -> None:
    tapes.put("raw/a", "V1")
    tapes.restore()
    tapes.work()
    tapes.set(down="yes")
    with pytest.raises(HostDown):
        tapes.step()
    assert [row[1:] for row in tapes.rows()] == [("wanted", 0, None)]
    tapes.set(down="no")
    tapes.step()
    tapes.set(down="yes")
    tapes.age(1.0)
    with pytest.raises(HostDown):
        tapes.step()
    assert [row[1:] for row in tapes.rows()] == [("asked", 1, None)]
    tapes.set(down="no")
    tapes.settle()
    assert tapes.requests() == ["raw/a"]


def test_a_request_that_fails_as_a_whole_is_made_again_for_each_file_alone(tapes: Tapes) -> None:
    for number in range(3):
        tapes.put(f"raw/{number}", "V1", number)
    tapes.restore()
    tapes.work()

    def fail() -> None:
        raise Transient("stage ended with 72", host="mss", side="store", phase="stage")

    tapes.tape.before_stage = fail
    tapes.step()
    assert {row[1:] for row in tapes.rows()} == {("refused", 1, "stage ended with 72 - transient")}
    tapes.tape.before_stage = bool
    tapes.age(30.0)
    for _ in range(4):
        tapes.step()
    tapes.settle()
    assert tapes.tape.calls == [["raw/0", "raw/1", "raw/2"], ["raw/0"], ["raw/1"], ["raw/2"]]


def test_a_store_that_is_down_while_it_is_asked_has_refused_nothing(tapes: Tapes) -> None:
    tapes.put("raw/a", "V1")
    tapes.restore()
    tapes.work()

    def fail() -> None:
        raise HostDown("connection lost", host="mss", side="store", phase="stage")

    tapes.tape.before_stage = fail
    with pytest.raises(HostDown):
        tapes.step()
    assert [row[1:] for row in tapes.rows()] == [("wanted", 0, None)]


def test_a_worker_that_is_killed_after_it_asked_asks_again_and_nothing_is_lost(tapes: Tapes) -> None:
    site = tapes.site
    tapes.set(latency=NEVER)
    for number in range(3):
        tapes.put(f"raw/{number}", "V1", number)
    tapes.restore()
    tapes.work()
    tapes.age(2.0)
    worker = multiprocessing.get_context("spawn").Process(
        target=step_and_die,
        args=(site.database.url.render_as_string(hide_password=False), site.config, tapes.tape.state),
    )
    worker.start()
    worker.join(LATE_S)
    assert worker.exitcode == -signal.SIGKILL
    assert {row[1] for row in tapes.rows()} == {"wanted"}
    assert tapes.requests() == ["raw/0", "raw/1", "raw/2"]
    tapes.set(latency=0)
    tapes.step()
    assert tapes.requests() == ["raw/0", "raw/1", "raw/2"]  # a store is asked twice for what it has queued: no matter
    for number in range(3):
        tapes.mark(f"raw/{number}", state="migrated")
    tapes.age(NEVER)
    tapes.settle()


def with_floor(tapes: Tapes, floor: int) -> None:
    """From now on so many bytes are kept free at b."""
    hosts = tapes.site.config.hosts
    b = hosts["b"].model_copy(update={"floor": floor})
    tapes.site.config = tapes.site.config.model_copy(update={"hosts": hosts | {"b": b}})
    tapes.configure()


def test_a_destination_without_room_is_sent_for_one_file_and_holds_up_no_other(tapes: Tapes) -> None:
    for number in range(3):
        tapes.put(f"raw/b{number}", "V1", number)
        tapes.put(f"raw/c{number}", "V2", number)
    tapes.restore("b", source="mss:raw/b*", destination="b:new")
    tapes.restore("c", source="mss:raw/c*", destination="c:new")
    tapes.work()
    with_floor(tapes, 1 << 60)
    tapes.settle("c")
    assert [path for path in tapes.requests() if "/b" in path] == ["raw/b0"]
    waits = [row[3] for row in tapes.rows() if row[1] == "wanted"]
    assert waits == ["waits for room at b, or for what comes there before it"] * 2
    assert any(", to be asked for: waits for room at b" in line for line in tapes.lines())
    with_floor(tapes, 0)
    tapes.site.change("UPDATE items SET not_before = 0 WHERE kind = 'no space'")
    tapes.age(stepping.NO_ROOM_S)
    tapes.settle("b")


def test_a_store_that_takes_no_more_files_is_restored_from(sqlite_tapes: Tapes) -> None:
    tapes = sqlite_tapes
    tapes.put("raw/a", "V1")
    tapes.restore()
    tapes.work()
    breakers.trip(tapes.site.database, "mss", NoSpace("it is full", host="mss", side="store"))
    assert table.stores(tapes.site.database) == ["mss"]
    tapes.settle()


def test_a_store_whose_destinations_are_all_full_is_not_thought_of_without_end(sqlite_tapes: Tapes) -> None:
    tapes = sqlite_tapes
    tapes.configure(recalls=2)
    for number in range(12):
        tapes.put(f"raw/{number:02d}", "V1", number)
    tapes.restore()
    tapes.work()
    with_floor(tapes, 1 << 60)
    tapes.configure(recalls=2)
    assert tapes.step() == 1  # one is sent for, however full it is there
    until(tapes.step)  # it came
    assert tapes.step() == 0
    put_off = [row for row in tapes.rows() if row[1] == "wanted" and row[3]]
    assert 1 <= len(put_off) <= 6, put_off
    with_floor(tapes, 0)
    tapes.site.change("UPDATE items SET not_before = 0 WHERE kind = 'no space'")
    tapes.age(stepping.NO_ROOM_S)
    tapes.settle()


def test_files_for_a_destination_that_is_paused_stay_on_tape(sqlite_tapes: Tapes) -> None:
    tapes = sqlite_tapes
    tapes.put("raw/a", "V1")
    tapes.restore()
    tapes.work()
    intents.pause(tapes.site.database, "b", "disk swap")
    tapes.step()
    assert tapes.rows() == [("raw/a", "wanted", 0, "b cannot be used now")]
    intents.resume(tapes.site.database, "b")
    tapes.age(stepping.NO_ROOM_S)
    tapes.settle()


def test_recalls_that_are_over_are_remembered_but_not_without_end(
    tapes: Tapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "KEPT", 2)
    for number in range(4):
        tapes.put(f"raw/{number}", "V1", number)
    tapes.restore()
    tapes.settle()
    tapes.step()
    assert len(tapes.rows()) == 2
    assert tapes.site.value("SELECT count(*) FROM recalls WHERE online_at IS NOT NULL AND not_before IS NULL") == 2
    tapes.put("raw/0", data=b"other")
    tapes.migrate("raw/0")
    tapes.restore("again", destination="c:again")
    tapes.settle("again")


def test_who_begins_to_wait_while_a_recall_is_dropped_is_not_forgotten(postgres_site: Site) -> None:
    tapes = Tapes(postgres_site)
    tapes.put("raw/a", "V1")
    tapes.restore()
    (item,) = sorting.sort_out(tapes.site.database, tapes.site.hosts["mss"], tapes.site.claim()).waits
    ends = time.monotonic() + 3.0
    rounds = 0

    def is_over() -> bool:
        return time.monotonic() > ends and rounds > 5

    def drop() -> None:
        while not is_over() and time.monotonic() < ends + LATE_S:
            table.drop_unwanted(tapes.site.database, "mss")

    with ThreadPoolExecutor(1) as pool:
        dropping = pool.submit(drop)
        while not is_over():
            assert sorting.postpone(tapes.site.database, "mss", [item]) == 1
            found = tapes.site.value("SELECT count(*) FROM recalls r JOIN items i ON i.recall_id = r.id")
            assert found == 1
            tapes.site.change("UPDATE items SET state = 'running', kind = NULL, recall_id = NULL")
            rounds += 1
        dropping.result()


def test_any_order_of_work_and_intents_loses_no_item(sqlite_tapes: Tapes) -> None:
    tapes = sqlite_tapes
    tapes.configure(recalls=3, recall_s=20.0)
    rng = random.Random(20100621)
    names = [f"raw/{number}" for number in range(9)]
    for number, name in enumerate(names):
        tapes.put(name, f"V{number % 3}", number)
    for name in ("m", "n"):
        tapes.restore(name, destination=f"b:{name}")
    acts: list[Callable[[], object]] = [
        tapes.work,
        tapes.work,
        tapes.step,
        tapes.step,
        lambda: tapes.age(rng.choice([5.0, 25.0])),
        lambda: tapes.forget(1),
        lambda: tapes.mark(rng.choice(names), refused=rng.randrange(2)),
        lambda: tapes.bad(f"V{rng.randrange(3)}", rng.choice(["good", "stuck", "offline"])),
        lambda: tapes.mark(rng.choice(names), state="migrated"),
        lambda: intents.hold(tapes.site.database, "n"),
        lambda: intents.release(tapes.site.database, "n"),
        lambda: intents.retry(tapes.site.database, "m"),
        lambda: tapes.site.claim(most=2, lease_s=-1),
        lambda: items.take_back(tapes.site.database),
    ]
    for _ in range(150):
        rng.choice(acts)()
        wrong = "SELECT count(*) FROM items i WHERE kind = 'recall' AND not_before > :now AND NOT EXISTS (SELECT 1 FROM"
        assert not tapes.site.value(
            f"{wrong} recalls r WHERE r.id = i.recall_id AND r.state <> 'online')", now=time.time()
        )
    for number, name in enumerate(names):
        tapes.bad(f"V{number % 3}", "good")
        tapes.mark(name, refused=0, state="migrated")
    items.take_back(tapes.site.database)
    intents.release(tapes.site.database, "n")
    tapes.age(NEVER)
    tapes.settle("m")
    tapes.settle("n")
