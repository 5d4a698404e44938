"""PostgreSQL: any number of daemons share the work, and none is missed when it goes."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.checker import check, connection
from tests.system.preloaded import Preloaded
from tests.system.sites import Running, Site
from tests.system.test_stopping import Supervisor, counts, many_files, supervisor
from tests.system.tracing import traced
from tests.waiting import LATE_S, until

__all__ = ["supervisor"]  # a fixture


@pytest.fixture
def shared_site(tmp_path: Path, preloaded: Preloaded, postgres_url: str) -> Iterator[Site]:
    made = Site(tmp_path / "site", preloaded, postgres_url)
    yield made
    made.close()


def started(site: Site) -> Running:
    daemon = site.start("daemon")
    site.until(lambda: "event=started" in daemon.err)
    return daemon


def stop(*daemons: Running) -> None:
    for daemon in daemons:
        daemon.kill(signal.SIGTERM)
    for daemon in daemons:
        assert daemon.end().code == 0


def complete(site: Site) -> bool:
    return bool(site.status("job")["state"] == "complete")


def attempts(site: Site) -> list[Any]:
    with connection(site) as reading:
        return list(reading("SELECT item_id, worker, outcome FROM attempts"))


def test_two_daemons_share_the_work_and_copy_nothing_twice(shared_site: Site) -> None:
    site = shared_site
    for number in range(1500):
        file = site.root("lsst10") / f"raw/v{number % 10}/f{number}.dat"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([number % 251]) * 500)
        site.remember(file)
    site.manifest("job", source="lsst10:raw/**", destination="abe:new", trigger={"queue": "pipeline"})
    first, second = started(site), started(site)
    assert site.run("submit", "job.toml").code == 0
    site.until(lambda: complete(site))
    stop(first, second)
    tried = attempts(site)
    assert len({worker for _, worker, _ in tried}) == 2
    assert len(tried) == len({item for item, _, _ in tried}) == 1500, "something was done twice"
    assert {outcome for _, _, outcome in tried} == {"done"}
    check(site)


@pytest.mark.usefixtures("strace")
def test_what_a_killed_daemon_held_is_taken_over_soon(shared_site: Site, tmp_path: Path) -> None:
    site = shared_site
    site.configure(lease_s=3600.0)
    many_files(site, 100)
    assert site.run("hosts", "--check").code == 0  # roots are marked, which takes syncs too
    first = site.start("daemon", waits=True)
    with traced(first.pid, tmp_path / "log", "-e", "trace=fsync", "-e", "inject=fsync:delay_enter=30000000"):
        first.kill(signal.SIGUSR1)
        site.until(lambda: counts(site)["running"] == 100)
        second = started(site)
        first.kill(signal.SIGKILL)
    first.end()
    site.until(lambda: complete(site))  # the lease of an hour is not waited for
    stop(second)
    check(site)


def test_a_frozen_daemon_is_fenced_when_it_wakes(shared_site: Site) -> None:
    site = shared_site
    site.more = '[routes."lsst10 > abe"]\nbytes_per_s = 20_000\n'  # so that it is frozen in its work
    site.configure(lease_s=2.0)
    many_files(site, 300)
    first = site.start("daemon")
    with connection(site) as query:
        site.until(lambda: query("SELECT 1 FROM items WHERE state = 'running'"))
        first.kill(signal.SIGSTOP)
        (frozen,) = query("SELECT count(*) FROM items WHERE state = 'running'")[0]
    assert frozen
    site.more = ""
    site.configure(lease_s=2.0)
    second = started(site)
    site.until(lambda: complete(site))
    first.kill(signal.SIGCONT)
    site.until(lambda: "lost" in {outcome for _, _, outcome in attempts(site)})
    stop(first, second)
    done = [item for item, _, outcome in attempts(site) if outcome == "done"]
    assert len(done) == len(set(done)) == 300
    check(site)


def test_a_terminated_connection_is_got_over(shared_site: Site) -> None:
    site = shared_site
    many_files(site, 300)
    daemon = started(site)
    with connection(site) as query:
        for _ in range(10):
            site.until(
                lambda: query("""
                SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()""")
            )
            time.sleep(0.15)
    site.until(lambda: complete(site))
    stop(daemon)
    check(site)


def test_the_watchdog_is_not_fed_while_the_scheduler_stands(shared_site: Site, supervisor: Supervisor) -> None:
    site = shared_site
    site.configure(lease_s=4.0)
    daemon = site.start("daemon", NOTIFY_SOCKET=str(supervisor.address), WATCHDOG_USEC="1000000")
    supervisor.until("WATCHDOG=1")
    released, locked = threading.Event(), threading.Event()

    def lock() -> None:
        import psycopg

        with psycopg.connect(site.database.replace("+psycopg", "")) as opened:
            opened.execute(
                "LOCK TABLE triggers IN ACCESS EXCLUSIVE MODE"
            )  # of the scheduler's tables, not the renewer's
            locked.set()
            released.wait(10 * LATE_S)

    holding = threading.Thread(target=lock)
    holding.start()
    try:
        assert locked.wait(LATE_S)
        until(lambda: not supervisor.is_fed())  # the step that was begun ends
        assert not supervisor.is_fed()
    finally:
        released.set()
        holding.join()
    supervisor.unread = len(supervisor.messages)
    supervisor.until("WATCHDOG=1")
    stop(daemon)
