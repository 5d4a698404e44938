"""SIGKILL of either side at any moment, while files go up, down and between far hosts, and focal planes are chopped."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.system.checker import check, connection
from tests.system.far import Pt1, skipping_waits
from tests.system.test_ssh import CHOP, focal_planes

LARGE = 72 << 20  # cut over several streams
SMALL = 150  # files of a manifest


@pytest.fixture
def work(pt1: Pt1) -> Pt1:
    """A manifest each way, a large file up, one down and one between, and two focal planes to chop over there."""
    focal_planes(pt1, "lsst10")
    for host in ("here", "abe"):
        pt1.fill(host, "raw", SMALL, 15_000)
    for host, size in (("here", LARGE), ("abe", LARGE // 2)):
        pt1.write(host, "large/one.dat", random.Random(size).randbytes(size))
    pt1.submit("up", "here:raw/**", "lsst:up")
    pt1.submit("up-large", "here:large/**", "lsst10:large")
    pt1.submit("down", "abe:raw/**", "here:down")
    pt1.submit("between", "abe:raw/**", "mss:raw", kind="archive")
    pt1.submit("between-large", "abe:large/**", "lsst:large")
    pt1.submit("chop", "lsst10:D3/*", "lsst10:out", **CHOP)
    pt1.save()
    return pt1


def done_items(pt1: Pt1) -> set[int]:
    with connection(pt1) as query:
        return {row[0] for row in query("SELECT id FROM items WHERE state = 'done'")}


def done_twice(pt1: Pt1) -> Any:
    with connection(pt1) as query:
        return query("""
            SELECT i.source, count(*) FROM attempts a JOIN items i ON i.id = a.item_id
            WHERE a.outcome = 'done' GROUP BY i.id HAVING count(*) > 1""")


@pytest.mark.slow
def test_a_daemon_that_is_killed_at_any_moment_loses_nothing_over_there(work: Pt1, rounds: int) -> None:
    """Several kills one after the other, each in the recovery from the one before; then all is checked."""
    pt1, chance, within_s = work, random.Random(rounds), 3.0
    killed = unfinished = 0
    for _ in range(2 * rounds):
        pt1.restore()
        for _ in range(6):
            daemon = pt1.start("daemon")
            time.sleep(chance.uniform(0.3, within_s))
            daemon.kill()
            killed += daemon.end().code == -signal.SIGKILL
            hit = not pt1.complete()
            unfinished += hit
            within_s = min(6.0, max(1.0, within_s * (1.2 if hit else 0.7)))
        pt1.until_left()
        before = done_items(pt1)
        check(pt1)
        assert not done_twice(pt1), "what was proven was done again"
        assert before <= done_items(pt1)
    print(f"{killed} killed, {unfinished} times before all was done")
    assert killed == 12 * rounds
    assert unfinished >= 6 * rounds


def cut(pt1: Pt1) -> int:
    return sum(proxy.cut() for proxy in pt1.proxies.values())


KILLS: dict[str, list[Callable[[Pt1], int]]] = {
    "over there": [lambda pt1: pt1.server.kill_commands(), lambda pt1: pt1.server.kill_sessions()],
    "on the way": [Pt1.kill_clients, cut],
}


@pytest.mark.slow
@pytest.mark.parametrize("kills", KILLS.values(), ids=KILLS)
def test_far_sides_and_connections_that_are_killed_are_got_over(
    work: Pt1, rounds: int, kills: list[Callable[[Pt1], int]]
) -> None:
    """All on the far side, or on the way, dies again and again while one daemon works; nothing is held for it."""
    pt1, chance = work, random.Random(rounds)
    for _ in range(rounds):
        pt1.restore()
        killed = 0
        with pt1.daemon():
            for kill in kills * 3:
                pt1.until(lambda: pt1.complete() or len(pt1.server.commands()) >= 2)
                time.sleep(chance.uniform(0, 1.5))
                killed += kill(pt1)
            skipping_waits(pt1)
        assert killed >= 4, "too few faults fired"
        with connection(pt1) as query:
            assert not query("SELECT source, reason FROM items WHERE state = 'held'")
        check(pt1)
        assert not done_twice(pt1)


@pytest.mark.parametrize("who", ["daemon", "far sides", "both"])
def test_what_those_who_died_left_over_there_is_removed(pt1: Pt1, who: str) -> None:
    """Killed while a packed focal plane is unpacked on its host, and the parts of a large file and of small ones lie
    on theirs."""
    focal_planes(pt1, "lsst10", rows=1200)
    pt1.fill("here", "raw", 40, 100_000)
    pt1.write("here", "large/one.dat", random.Random(who).randbytes(LARGE))
    pt1.submit("large", "here:large/**", "lsst:large")
    pt1.submit("small", "here:raw/**", "abe:raw")
    pt1.proxies["lsst"].limit(500_000, "up")
    pt1.proxies["abe"].limit(300_000, "up")
    scratch = pt1.root("lsst10") / ".stager/scratch"
    daemon = pt1.start("daemon")
    pt1.until(lambda: any(pt1.root("lsst").rglob("*.part")))  # of some minutes' work
    pt1.submit("chop", "lsst10:D3/*.gz", "lsst10:out", **CHOP)
    pt1.until(lambda: any(scratch.glob("*")))
    daemon.kill(signal.SIGKILL if who == "daemon" else signal.SIGSTOP)  # so that none tidies up after the other
    if who != "daemon":
        assert pt1.server.kill_sessions() >= 2
        assert any(pt1.root("lsst").rglob("*.part")), "nothing was left: nothing was tested"
        daemon.kill(signal.SIGKILL if who == "both" else signal.SIGCONT)
    for proxy in pt1.proxies.values():
        proxy.limit(None)
    if who == "far sides":
        skipping_waits(pt1)
        daemon.kill(signal.SIGTERM)
        assert daemon.end().code == 0
    else:
        assert daemon.end().code == -signal.SIGKILL
    pt1.until_left()
    check(pt1)


def test_what_landed_before_a_kill_is_adopted_and_not_copied_again(pt1: Pt1) -> None:
    """The files are over there, and the database does not know it yet."""
    count, size = 60, 500_000
    pt1.fill("here", "raw", count, size)
    pt1.submit("job", "here:raw/**", "abe:new")
    new = pt1.root("abe") / "new"
    pt1.proxies["abe"].limit(6_000_000, "up")
    for more in range(10, count, 10):
        daemon = pt1.start("daemon", "--once")
        pt1.until(lambda more=more: len(list(new.rglob("f*.dat"))) >= more)
        daemon.kill()
        daemon.end()
        there = {file: file.stat().st_ino for file in new.rglob("f*.dat")}
        if len(there) > len(done_items(pt1)):
            break
    assert len(there) > len(done_items(pt1)), "the database knew of all that had landed: nothing was tested"
    pt1.proxies["abe"].limit(None)
    pt1.until_left()
    there = {file: file.stat().st_ino for file in new.rglob("f*.dat")}
    before = pt1.proxies["abe"].up
    assert pt1.run("daemon", "--once").code in (0, 3)
    pt1.until(lambda: pt1.run("daemon", "--once").code == 0)
    sent = pt1.proxies["abe"].up - before
    assert sent < (count - len(there)) * size + 3_000_000, f"{len(there)} of {count} were there, and {sent} bytes sent"
    assert {file: file.stat().st_ino for file in there} == there
    check(pt1)


def test_a_large_file_that_breaks_off_again_and_again_comes_in_the_end(pt1: Pt1) -> None:
    """Single connections die, of several that fill one file: it goes on, and what had come is not brought anew."""
    pt1.write("here", "large/one.dat", os.urandom(LARGE))
    pt1.submit("job", "here:large/**", "abe:large")
    proxy = pt1.proxies["abe"]
    proxy.limit(60_000_000, "up")
    fault = proxy.reset("up", 9 << 20, times=2)
    with pt1.daemon():
        skipping_waits(pt1)
    assert fault.fired == 2
    check(pt1)
    assert proxy.up < 2.5 * LARGE, f"{proxy.up} bytes for a file of {LARGE}"
