"""Items: claimed by one, fenced by epochs, counted by the database, and one trigger for each whole group."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from stager import intents, items
from stager.items import Claimed
from stager.models import ItemState
from stager.retrying import Decision, decide
from stager.working import Unexpected
from tests.stager.site import Site, done, failed, recount, tallies
from tests.waiting import LATE_S
from transfers.errors import NoSpace, Refused, SourceChanged, SourceMissing, Transient

STOPPED = Transient("the daemon is stopping", side="local", phase="stopped")
BROKEN = Transient("connection reset", host="b", side="route", phase="land")


def submitted(site: Site, count: int, **said: object) -> None:
    for number in range(count):
        site.file(f"a:raw/f{number:03d}.dat", bytes(number + 1))
    site.submit(**said)


def test_a_claim_is_a_lease_with_worker_epoch_and_end(site: Site) -> None:
    submitted(site, 3)
    claimed = site.claim(most=2, lease_s=3600)
    assert [item.epoch for item in claimed] == [1, 1]
    assert [item.source for item in claimed] == ["raw/f000.dat", "raw/f001.dat"]
    assert Counter(site.states().values()) == {"running": 2, "waiting": 1}
    now = site.database.now
    lasts = site.rows(f"SELECT worker, claimed_until - {now} FROM items WHERE state = 'running'")
    assert all(row[0] == "worker" and 3600 - LATE_S < row[1] <= 3600 for row in lasts)


def test_a_claim_stops_at_its_bytes_but_takes_at_least_one(site: Site) -> None:
    for name in "abc":
        site.file(f"a:raw/{name}", bytes(1000))
    site.submit()
    manifest = items.claimable(site.database)[0].manifest_id

    def claim(most_bytes: int) -> int:
        got = items.claim(site.database, manifest, "w", most=10, most_bytes=most_bytes, lease_s=60)
        return len(got)

    assert (claim(1), claim(2000), claim(1)) == (1, 2, 0)


def test_a_done_item_has_its_copy_attempt_and_bytes(site: Site) -> None:
    submitted(site, 1)
    (item,) = site.claim()
    written = site.finish(done(item))
    assert (written.done, written.lost, len(written.triggers)) == (1, [], 1)
    assert site.rows("SELECT host, path, size, proof, trouble FROM copies") == [
        ("b", "new/f000.dat", 1, "reread", None)
    ]
    assert site.rows("SELECT outcome, epoch, worker, bytes FROM attempts") == [("done", 1, "worker", 1)]
    row = site.rows("SELECT state, bytes, worker, claimed_until FROM items")
    assert row == [("done", 1, None, None)]


def test_a_failed_item_keeps_its_cause_and_side_and_waits(site: Site) -> None:
    submitted(site, 1)
    (item,) = site.claim()
    site.finish(failed(item, BROKEN))
    assert site.rows("SELECT state, tries, kind FROM items") == [("waiting", 1, "transient")]
    assert site.rows("SELECT outcome, kind, side, phase, host FROM attempts") == [
        ("failed", "transient", "route", "land", "b")
    ]
    assert site.claim() == []  # not before its delay is over
    ((_, seconds),) = items.due(site.database)
    assert 0 < seconds <= 1.0


def test_what_a_person_must_see_is_held_with_its_reason(site: Site) -> None:
    submitted(site, 1)
    (item,) = site.claim()
    site.finish(failed(item, Refused("permission denied", host="b", side="destination", phase="land")))
    ((state, reason),) = site.rows("SELECT state, reason FROM items")
    assert state == "held"
    assert "permission denied" in reason


def test_what_was_tried_too_often_is_held_and_no_reason_says_that_it_is_tried_again(site: Site) -> None:
    submitted(site, 1)
    (item,) = site.claim()
    site.finish(failed(item, BROKEN, decide(BROKEN, item.tries, most=1)))
    ((state, reason),) = site.rows("SELECT state, reason FROM items")
    assert (state, BROKEN.text in reason, "will be tried again" in reason) == ("held", True, False)
    assert "given up after 1 failed try; `stager retry`" in reason


def test_what_fits_is_claimed_before_what_does_not(site: Site) -> None:
    for name, size in (("a", 5000), ("b", 100), ("c", 5000), ("d", 100)):
        site.file(f"a:raw/{name}", bytes(size))
    site.submit()
    manifest = items.claimable(site.database)[0].manifest_id

    def claim(room: int) -> list[str]:
        got = items.claim(site.database, manifest, "w", most=10, most_bytes=room, lease_s=60, room=room)
        return [one.source for one in got]

    # One that is too large is claimed all the same where nothing else is left: it may be there already.
    assert (claim(4000), claim(4000), claim(9999), claim(9999)) == (["raw/b", "raw/d"], ["raw/a"], ["raw/c"], [])


def test_a_file_that_is_gone_is_missing_and_not_claimed_again(site: Site) -> None:
    submitted(site, 1)
    (item,) = site.claim()
    site.finish(failed(item, SourceMissing("gone", host="a", side="source")))
    assert list(site.states().values()) == ["missing"]
    assert items.claimable(site.database) == []
    assert items.due(site.database) == []


def test_a_changed_source_is_what_the_next_try_expects(site: Site) -> None:
    submitted(site, 1)
    (item,) = site.claim()
    news = SourceChanged("it grew", side="source", facts={"size": 77, "mtime_ns": 5})
    site.finish(failed(item, news, Decision(ItemState.WAITING, size=77, mtime_ns=5)))
    (again,) = site.claim()
    assert (again.size, again.mtime_ns, again.epoch, again.tries) == (77, 5, 2, 1)


def test_work_given_back_burns_no_try_and_leaves_no_attempt(site: Site) -> None:
    submitted(site, 1)
    for epoch in (1, 2, 3):
        (item,) = site.claim()
        assert (item.epoch, item.tries) == (epoch, 0)
        site.finish(failed(item, STOPPED))
    assert site.rows("SELECT tries, reason FROM items") == [(0, None)]
    assert site.value("SELECT count(*) FROM attempts") == 0


def test_what_waits_for_room_leaves_one_attempt_however_long_that_takes(site: Site) -> None:
    site.files("a:raw/1")
    site.submit()
    for number in range(3):
        (item,) = site.claim()
        site.finish(failed(item, NoSpace(f"needs 1 MB; {number} B are free", host="b", phase="reserve")))
        site.change("UPDATE items SET not_before = 0")
    assert site.rows("SELECT outcome, kind FROM attempts") == [("failed", "no space")]
    assert "2 B are free" in site.value("SELECT reason FROM items")
    (item,) = site.claim()
    site.finish(failed(item, NoSpace("the disk is full", host="b", phase="write")))
    assert site.value("SELECT count(*) FROM attempts") == 2


def test_an_expired_lease_is_taken_back_and_its_loss_kept(site: Site) -> None:
    submitted(site, 2)
    site.claim(most=1, lease_s=-1)
    site.claim(most=1, lease_s=60)
    assert items.take_back(site.database) == 1
    assert Counter(site.states().values()) == {"waiting": 1, "running": 1}
    assert site.rows("SELECT outcome, epoch, worker, kind FROM attempts") == [("lost", 1, "worker", "transient")]
    assert site.rows("SELECT tries FROM items") == [(0,), (0,)]


def test_what_a_dead_worker_held_is_taken_back_at_once(site: Site) -> None:
    submitted(site, 3)
    site.claim(most=2)
    site.worker = "alive"
    site.claim(most=1)
    assert items.take_back(site.database, dead=["worker"]) == 2
    assert site.rows("SELECT worker FROM items WHERE state = 'running'") == [("alive",)]


def test_a_renewed_lease_is_not_taken_back(site: Site) -> None:
    submitted(site, 1)
    site.claim(lease_s=-1)
    assert items.renew(site.database, "worker", 60) == 1
    assert items.take_back(site.database) == 0


@pytest.mark.parametrize("late", ["done", "failed"])
def test_the_epoch_fences_a_holder_that_lost_its_lease(site: Site, late: str) -> None:
    submitted(site, 1)
    (old,) = site.claim(lease_s=-1)
    items.take_back(site.database)
    (new,) = site.claim()
    assert new.epoch == old.epoch + 1
    written = site.finish(done(old) if late == "done" else failed(old, BROKEN))
    assert (written.done, written.lost, written.triggers) == (0, [old.id], [])
    assert site.value("SELECT count(*) FROM copies") == 0
    assert site.rows("SELECT state, epoch FROM items") == [("running", 2)]
    assert site.finish(done(new)).done == 1
    outcomes = [row[0] for row in site.rows("SELECT outcome FROM attempts ORDER BY id")]
    assert outcomes == ["lost", "lost", "done"]


def test_only_leases_still_held_are_alive(site: Site) -> None:
    submitted(site, 2)
    first, second = site.claim()
    site.finish(done(first))
    pairs = {(first.id, 1), (second.id, 1), (second.id, 2), (second.id + 99, 1)}
    assert items.alive(site.database, pairs) == {(second.id, 1)}


def test_the_most_urgent_manifest_comes_first_and_paused_hosts_not_at_all(site: Site) -> None:
    site.files("a:raw/x", "c:raw/x")
    site.submit("low", trigger=None)
    site.submit("high", priority=5, trigger=None, destination="b:high")
    site.submit("other", source="c:raw/**", destination="b:other", trigger=None)
    assert [work.priority for work in items.claimable(site.database)] == [5, 0, 0]
    intents.pause(site.database, "a", "disk swap")
    assert [work.source_host for work in items.claimable(site.database)] == ["c"]
    intents.resume(site.database, "a")
    assert len(items.claimable(site.database)) == 3


def test_a_manifest_held_after_it_was_seen_is_not_claimed(site: Site) -> None:
    submitted(site, 1)
    work = items.claimable(site.database)[0]
    intents.hold(site.database, "m")
    assert site.claim(work.manifest_id) == []


def test_counts_equal_a_recount_after_any_number_of_writes(site: Site) -> None:
    submitted(site, 30)
    rng = random.Random(20100610)
    for _ in range(40):
        for item in site.claim(most=rng.randrange(1, 6), lease_s=rng.choice([60, -1])):
            outcome = rng.choice(["done", "fail", "hold", "missing", "keep", "back"])
            if outcome == "done":
                site.finish(done(item))
            elif outcome != "keep":
                error = {"hold": Refused("no"), "missing": SourceMissing("gone"), "back": STOPPED}.get(outcome, BROKEN)
                site.finish(failed(item, error))
        items.take_back(site.database)
        assert tallies(site.database) == recount(site.database)
    site.change("DELETE FROM attempts")
    site.change("DELETE FROM items WHERE state IN ('waiting', 'held')")
    assert tallies(site.database) == recount(site.database)


def test_racing_workers_never_claim_one_item_twice(site: Site) -> None:
    submitted(site, 120, trigger=None)
    manifest = items.claimable(site.database)[0].manifest_id

    def work(number: int) -> list[Claimed]:
        rng, name, got = random.Random(number), f"w{number}", list[Claimed]()
        while claimed := items.claim(site.database, manifest, name, most=7, most_bytes=1 << 30, lease_s=60):
            got.extend(claimed)
            finished = [done(one) if rng.random() < 0.7 else failed(one, Refused("no")) for one in claimed]
            items.finish(site.database, name, finished)
        return got

    with ThreadPoolExecutor(4) as pool:
        got = [item for mine in pool.map(work, range(4)) for item in mine]
    assert sorted(item.id for item in got) == [row[0] for row in site.rows("SELECT id FROM items ORDER BY id")]
    assert {item.epoch for item in got} == {1}
    assert tallies(site.database) == recount(site.database)


def test_a_fault_of_our_own_is_held_with_its_traceback(site: Site) -> None:
    submitted(site, 1)
    (item,) = site.claim()
    site.finish(failed(item, Unexpected("KeyError: 'x'\nTraceback ...", side="local")))
    ((state, kind, reason),) = site.rows("SELECT state, kind, reason FROM items")
    assert (state, kind) == ("held", "unexpected")
    assert "\n" not in reason
