"""How a restore stands: what hinders it, what stopped it, and when nothing more will come by itself."""

from __future__ import annotations

import pytest

from stager import breakers, intents, retrying
from stager.restoring import standing
from stager.restoring.amounts import Amount
from stager.restoring.progress import Pace
from stager.restoring.standing import Able, Standing
from tests.stager.recalls.tapes import Tapes
from tests.stager.site import Site, done, failed
from transfers.errors import HostDown, NoSpace, ReadOnly, TransferError, Transient


@pytest.fixture
def submitted(site: Site) -> Site:
    site.files("a:raw/1", "a:raw/2")
    site.submit(trigger=None)
    return site


def look(site: Site, **able: object) -> Standing:
    ids = [row[0] for row in site.rows("SELECT id FROM manifests")]
    return standing.look(site.database, ids, Able(**able))  # type: ignore[arg-type]


def test_what_waits_for_its_turn_is_free_to_go_on(submitted: Site) -> None:
    stands = look(submitted)
    assert (stands.free, stands.hindered, stands.is_settled) == (True, [], False)
    assert (stands.open, stands.total, stands.percent) == (Amount(2, 384), Amount(2, 384), 0.0)
    submitted.work()
    stands = look(submitted)
    assert (stands.is_settled, stands.percent, stands.of("done").files) == (True, 100.0, 2)


def test_a_host_that_is_paused_or_down_hinders_all_that_is_left(submitted: Site) -> None:
    intents.pause(submitted.database, "b", None)
    stands = look(submitted)
    assert (stands.free, stands.is_settled) == (False, False)
    assert stands.hindered == ["b is paused by an operator: `stager hosts resume b` lets it work again"]
    intents.resume(submitted.database, "b")
    breakers.trip(submitted.database, "a", HostDown("no route", host="a"))
    (why,) = look(submitted).hindered
    assert why.startswith("a: no route - host down")


@pytest.mark.parametrize("trouble", [ReadOnly, NoSpace])
def test_a_source_that_takes_no_more_files_hinders_nothing(submitted: Site, trouble: type[TransferError]) -> None:
    breakers.trip(submitted.database, "a", trouble("nothing can be written", host="a"))
    assert look(submitted).free
    breakers.trip(submitted.database, "b", trouble("nothing can be written", host="b"))
    (why,) = look(submitted).hindered
    assert why.startswith(f"b: nothing can be written - {trouble.kind}")


def test_one_manifest_that_is_hindered_does_not_settle_another(submitted: Site) -> None:
    submitted.file("c:raw/1")
    submitted.submit("other", source="c:raw/**", destination="b:c", trigger=None)
    breakers.trip(submitted.database, "a", HostDown("no route", host="a"))
    stands = look(submitted)
    assert stands.free
    assert len(stands.hindered) == 1


def test_what_waits_for_its_next_try_is_free_and_what_waits_for_room_is_not(submitted: Site) -> None:
    first, second = submitted.claim()
    submitted.finish(failed(first, NoSpace("full", host="b")), failed(second, Transient("broke off", host="b")))
    assert look(submitted).free
    submitted.change("UPDATE items SET not_before = 0 WHERE id = :id", id=second.id)
    (again,) = submitted.claim()
    submitted.finish(failed(again, NoSpace("full", host="b"), retrying.decide(NoSpace("full"), 0)))
    stands = look(submitted)
    assert not stands.free
    assert stands.hindered[0].startswith("m: 2 files cannot come (no space): ")


def test_a_host_below_its_floor_hinders_unless_it_makes_room_by_itself(submitted: Site) -> None:
    now = submitted.database.now
    submitted.files("b:x")
    assert submitted.hosts["b"].name == "b"  # which makes it known
    submitted.change(f"UPDATE hosts SET no_room = 'b: below its floor', no_room_at = {now} WHERE name = 'b'")
    assert look(submitted).hindered == ["b: below its floor"]
    assert look(submitted, make_room=["b"]).free
    submitted.change(f"UPDATE hosts SET no_room_at = {now} - 1000 WHERE name = 'b'")  # nobody says so any more
    assert look(submitted).free


@pytest.mark.parametrize(("intend", "said"), [("hold", "m is held"), ("cancel", "m is cancelled")])
def test_what_an_operator_stopped_is_not_waited_for(submitted: Site, intend: str, said: str) -> None:
    getattr(intents, intend)(submitted.database, "m")
    stands = look(submitted)
    assert stands.is_settled
    assert stands.stopped == [f"{said} by an operator: `stager release m` lets it go on"]


def test_a_revision_that_another_took_the_place_of_is_not_waited_for(submitted: Site) -> None:
    submitted.submit(trigger=None, destination="b:other")
    (first, _) = submitted.rows("SELECT id FROM manifests ORDER BY id")
    stands = standing.look(submitted.database, first, Able())
    assert stands.is_settled
    assert stands.stopped == ["m: another revision took the place of revision 1; run this again"]


def test_what_no_worker_serves_is_not_waited_for(submitted: Site) -> None:
    stands = look(submitted, serves=["a"])
    assert stands.is_settled
    assert stands.stopped == ["m: no worker serves b: see `serves` in stager.toml, or start one that does"]


def test_triggers_are_waited_for_until_something_is_known_to_hinder_them(site: Site) -> None:
    site.files("a:raw/1")
    site.submit()
    (item,) = site.claim()
    site.finish(done(item))
    assert look(site).triggers == 1
    site.change("UPDATE triggers SET note = 'no such folder'")
    assert look(site).is_settled


def test_a_recall_that_is_under_way_is_waited_for_and_one_that_is_refused_is_not_for_ever(sqlite_site: Site) -> None:
    tapes = Tapes(sqlite_site)
    tapes.put("raw/a", "T1")
    tapes.put("raw/b", "T2")
    tapes.set(latency=1000)
    tapes.restore()
    tapes.work()
    ids = [row[0] for row in sqlite_site.rows("SELECT id FROM manifests")]
    assert standing.recalls(sqlite_site.database, ids) == 2
    assert look(sqlite_site).free
    sqlite_site.change("UPDATE recalls SET state = 'refused', asks = 2")
    assert look(sqlite_site).free
    sqlite_site.change("UPDATE recalls SET asks = 3 WHERE path = 'raw/a'")
    assert look(sqlite_site).free
    sqlite_site.change("UPDATE recalls SET asks = 3")
    stands = look(sqlite_site)
    assert not stands.free
    assert "m: 2 files cannot come (the store refused it 3 times): waits for mss" in stands.hindered[0]
    sqlite_site.change("UPDATE recalls SET reason = 'no drive is free'")
    assert look(sqlite_site).hindered == ["m: 2 files cannot come (the store refused it 3 times): no drive is free"]


def test_a_pace_is_that_of_the_last_while() -> None:
    pace = Pace(window_s=10)
    assert (pace.per_s, pace.left_s(5)) == (None, None)
    for second in range(0, 101, 5):
        pace.see(float(second), 0 if second < 50 else (second - 50) * 7)
    assert pace.per_s == 7
    assert pace.left_s(70) == 10
    assert pace.left_s(0) == 0
    pace.see(200.0, 350)  # nothing came since
    pace.see(300.0, 350)
    assert pace.left_s(70) is None
