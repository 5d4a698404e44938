"""Evictions at once: of what two count on of each other, one stays."""

from __future__ import annotations

import multiprocessing
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from manifests.parts import Location
from stager import scrubbing
from stager.config import Config
from stager.database import Database, open_database
from stager.evicting import purging, tombstones
from stager.evicting.candidates import Named, slots
from stager.evicting.choosing import Slot
from stager.evicting.judging import Judge
from stager.evicting.reasons import Why
from tests.stager.evicting.places import (
    KB,
    Disks,
    check_all,
    content,
    copies,
    disks,
    evict,
    known,
    left,
    quarantined,
    three,
    why,
)
from tests.stager.site import Site
from tests.waiting import LATE_S

CLAIMS = 1000
MEETINGS = 20  # so often the two begin at the same moment, for one may be let go on for long
ROUNDS = 40


@contextmanager
def databases(site: Site, count: int) -> Iterator[list[Database]]:
    """So many openings of the site's database, as so many daemons have."""
    url = site.database.url.render_as_string(hide_password=False)
    opened = [open_database(url) for _ in range(count)]
    yield opened
    for one in opened:
        one.close()


def at_once(*actions: Callable[[], object]) -> None:
    """Do these in threads that begin at the same moment."""
    barrier = threading.Barrier(len(actions))
    errors: list[BaseException] = []

    def run(action: Callable[[], object]) -> None:
        try:
            barrier.wait()
            action()
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def slots_of(site: Site, host: str) -> list[Slot]:
    return slots(site.database, Named(host, Location(host, "")))


def test_of_two_that_count_on_each_other_one_is_claimed_a_thousand_times(site: Site) -> None:
    """Each file has copies at b, at c and at the store, and two others are needed: b's may go, or c's, and not both.
    All of it but the disks: `claim` is where it is decided."""
    with site.database.write() as connection:
        for host in ("b", "c", "mss"):
            rows = [{"host": host, "path": f"{number}", "digest": f"sha256:{number}"} for number in range(CLAIMS)]
            insert = """INSERT INTO copies (host, path, size, digest, mtime_ns, proof, proven_at)
                        VALUES (:host, :path, 10, :digest, 5, 'reread', 1.0)"""
            connection.execute(sa.text(insert), rows)
    sides = {host: slots_of(site, host) for host in ("b", "c")}
    got: dict[str, set[str]] = {"b": set(), "c": set()}

    together = threading.Barrier(2)

    def claim_all(database: Database, host: str) -> None:
        judge = Judge(site.config, host, 2)
        chance = random.Random(host)
        for begin in range(0, CLAIMS, CLAIMS // MEETINGS):
            together.wait(LATE_S)
            rest = sides[host][begin : begin + CLAIMS // MEETINGS]
            while rest:  # in lots that overlap with those of the other side
                size = chance.randrange(1, 6)
                claims, _ = tombstones.claim(database, judge, rest[:size])
                got[host] |= {one.path for claim in claims for one in claim.tombstones}
                rest = rest[size:]

    with databases(site, 2) as (first, second):
        at_once(lambda: claim_all(first, "b"), lambda: claim_all(second, "c"))
    assert got["b"] & got["c"] == set()
    assert got["b"] | got["c"] == {f"{number}" for number in range(CLAIMS)}
    print(f"{len(got['b'])} of {CLAIMS} went to b, {len(got['c'])} to c")
    assert min(len(got["b"]), len(got["c"])) > 0, "the two never met"


def left_of(site: Site, name: str) -> list[str]:
    """The hosts at whose place the file still is."""
    folders = {"b": "new", "c": "also", "mss": "kept"}
    return [host for host, folder in folders.items() if site.path(f"{host}:{folder}/{name}").exists()]


def test_two_evictions_at_once_leave_as_many_copies_as_were_promised(site: Site) -> None:
    """Whole evictions, of the same files at two hosts, again and again."""
    names = [f"{number:03}" for number in range(ROUNDS)]
    three(site, *names, size=40)
    config = site.config
    both = 0
    with databases(site, 2) as (first, second):
        for name in names:
            reports: dict[str, bool] = {}

            def go(database: Database, host: str, path: str, reports: dict[str, bool] = reports) -> None:
                hosts = Disks(database, config)
                reports[host] = evict(site_of(site, database), 40, f"{host}:{path}", hosts=hosts).enough

            at_once(lambda name=name: go(first, "b", f"new/{name}"), lambda name=name: go(second, "c", f"also/{name}"))
            assert sorted(reports.values()) == [False, True], "one went and one stayed"
            both += len(reports)
            assert len(left_of(site, name)) == 2
    assert both == 2 * ROUNDS
    check_all(site)


def site_of(site: Site, database: Database) -> Site:
    """The same site, by another opening of its database."""
    return Site(site.folder, database, site.config)


def test_two_evictions_at_once_at_one_host_take_turns(site: Site) -> None:
    """Each frees what it was asked for, of different files, and nothing goes twice."""
    three(site, *(f"{number:02}" for number in range(40)), size=100)
    with databases(site, 2) as opened:
        reports = {}

        def go(number: int) -> None:
            mine = site_of(site, opened[number])
            reports[number] = evict(mine, 1000, hosts=Disks(opened[number], site.config))

        at_once(lambda: go(0), lambda: go(1))
    gone = [one.path for report in reports.values() for one in report.evicted]
    assert len(set(gone)) == len(gone) == 20
    assert len(left(site, "b:new")) == len(copies(site)) == 20
    check_all(site)


def test_a_removal_and_an_eviction_at_once_leave_as_many_as_were_promised(site: Site) -> None:
    """What lies in quarantine at b is removed while c's copy, which it counts on, is evicted with only one other."""
    names = [f"{number:02}" for number in range(30)]
    three(site, *names, size=40)
    for name in names:
        known(site, f"a:{name}", data=content(name, 40))
    with databases(site, 2) as (first, second):
        for name in names:
            evict(site, 40, f"b:new/{name}", grace_s=0.0)
            at_once(
                lambda: purging.purge(first, Disks(first, site.config)),
                lambda name=name: evict(site_of(site, second), 40, f"c:also/{name}", hosts=Disks(second, site.config)),
            )
            there = [*left_of(site, name), *(["a"] if site.path(f"a:{name}").exists() else [])]
            assert len(there) >= 2
            assert "mss" in there
    check_all(site)


def _evict_in_a_process(url: str, config: Config, host: str, path: str, begin: object, told: object) -> None:
    database = open_database(url)
    site = Site(config.path.parent, database, config)
    begin.wait()  # type: ignore[attr-defined]
    report = evict(site, KB, f"{host}:{path}", hosts=Disks(database, config))
    told.put((host, report.enough))  # type: ignore[attr-defined]
    database.close()


def test_two_processes_at_once_leave_as_many_copies_as_were_promised(site: Site) -> None:
    names = [f"{number}" for number in range(6)]
    three(site, *names)
    url = site.database.url.render_as_string(hide_password=False)
    context = multiprocessing.get_context("fork")
    for name in names:
        begin, told = context.Barrier(2), context.Queue()
        sides = (("b", f"new/{name}"), ("c", f"also/{name}"))
        processes = [
            context.Process(target=_evict_in_a_process, args=(url, site.config, *side, begin, told)) for side in sides
        ]
        for process in processes:
            process.start()
        said = dict(told.get(timeout=LATE_S) for _ in sides)
        for process in processes:
            process.join(LATE_S)
            assert process.exitcode == 0
        assert sorted(said.values()) == [False, True]
        assert len(left_of(site, name)) == 2
    check_all(site)


def test_the_second_of_two_is_told_why_its_copy_stays(site: Site) -> None:
    three(site, "1")
    assert evict(site, KB, "b:new/1").enough
    report = evict(site, KB, "c:also/1")
    assert why(report) == {Why.FEW: 1}
    assert (left(site, "c:also"), quarantined(site, "c")) == (["1"], [])


def test_a_copy_on_its_way_out_counts_no_more_before_it_is_moved(site: Site) -> None:
    three(site, "1")
    claims, _ = tombstones.claim(site.database, Judge(site.config, "b", 2), slots_of(site, "b"))
    assert len(claims) == 1
    assert why(evict(site, KB, "c:also/1")) == {Why.FEW: 1}
    with site.database.read() as connection:
        (again,) = Judge(site.config, "b", 2).judge(connection, slots_of(site, "b"))
    assert again.refusal is not None
    assert again.refusal.why is Why.LEAVING
    evict(site, 1, "b:nothing")  # whoever comes next to b ends what is nobody's work any more
    assert evict(site, KB, "c:also/1").enough


def test_a_copy_that_another_eviction_took_meanwhile_is_not_called_missing_or_corrupt(site: Site) -> None:
    three(site, "1")
    chosen = slots_of(site, "b")
    assert evict(site, KB, "b:new/1").enough
    with site.database.read() as connection:
        (judged,) = Judge(site.config, "b", 2).judge(connection, chosen)
    assert judged.refusal is not None
    assert judged.refusal.why is Why.GONE


@pytest.mark.parametrize("seed", range(2))
def test_evictions_at_three_hosts_at_once_leave_what_was_promised(site: Site, seed: int) -> None:
    """Of four copies, at a, b, c and the store, two others are needed: at the most two of the three at disks go."""
    names = [f"{number:02}" for number in range(12)]
    three(site, *names, size=40)
    for name in names:
        known(site, f"a:{name}", data=content(name, 40))
    chance = random.Random(seed)
    with databases(site, 3) as opened:

        def go(number: int, host: str) -> None:
            for name in chance.sample(names, len(names)):
                path = {"a": name, "b": f"new/{name}", "c": f"also/{name}"}[host]
                evict(site_of(site, opened[number]), 40, f"{host}:{path}", hosts=Disks(opened[number], site.config))

        at_once(*(lambda number=number, host=host: go(number, host) for number, host in enumerate("abc")))
    for name in names:
        there = [*left_of(site, name), *(["a"] if site.path(f"a:{name}").exists() else [])]
        assert len(there) in (2, 3)  # three where the other that one counted on had left before it was read
        assert "mss" in there
    assert site.rows("SELECT host, path, trouble FROM copies WHERE trouble IS NOT NULL") == []
    check_all(site)


def test_a_copy_on_its_way_out_is_not_taken_for_a_missing_one(site: Site) -> None:
    """By whoever reads it just then: `stager verify`, or another eviction."""
    three(site, "1")
    hosts = disks(site)
    found: list[str | None] = []

    class Looked:
        """A host whose copies somebody verifies while they are moved."""

        def move(self, pairs: Iterable[tuple[str, str]]) -> list[Any]:
            moved = list(real.move(pairs))
            (copy,) = scrubbing.copies_at(site.database, Location("b", "new/1"))
            found.extend(one.trouble for one in scrubbing.check(site.database, site.hosts, [copy]))
            return moved

        def __getattr__(self, what: str) -> Any:
            return getattr(real, what)

    real = hosts["b"]
    hosts.instead["b"] = Looked()
    assert evict(site, KB, hosts=hosts).enough
    assert found == ["missing"]
    assert (quarantined(site), copies(site)) == (["1-1"], [])
