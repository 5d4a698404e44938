"""A worker does what is its own, at the hours it may, and ends when nothing of that is left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from stager import breakers, intents, status
from stager.config import Config
from stager.daemon import Daemon, standing
from tests.stager.site import Site, configuration
from transfers.errors import HostDown


def ends(site: Site, config: Config) -> int:
    """Run a worker until nothing is left that it can do now; the exit code that says how it stands."""
    Daemon(site.database, config, spool=False).run(once=True)
    return standing(site.database)


def with_route(site: Site, **said: Any) -> Config:
    route = site.config.route("a", "b").model_copy(update=said)
    return site.config.model_copy(update={"routes": {"a > b": route}})


def test_a_worker_leaves_alone_what_hosts_it_does_not_serve(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.submit()
    url = site.config.stager.database
    assert ends(site, configuration(site.folder, url, serves=("a", "c"))) == 3
    assert set(site.states().values()) == {"waiting"}
    assert ends(site, configuration(site.folder, url, serves=("a", "b"))) == 0


def test_a_route_out_of_its_hours_waits_and_another_does_not_notice(site: Site) -> None:
    site.files("a:raw/1", "c:raw/1")
    site.submit("closed")
    site.submit("open", source="c:raw/**", destination="b:c", trigger=None)
    now = datetime.now().astimezone()
    begin, end = now + timedelta(hours=2), now + timedelta(hours=4)
    assert ends(site, with_route(site, hours=f"{begin:%H:%M}-{end:%H:%M}")) == 3
    assert (site.states("closed"), site.states("open")) == ({"raw/1": "waiting"}, {"raw/1": "done"})
    begin, end = now - timedelta(hours=2), now + timedelta(hours=2)
    assert ends(site, with_route(site, hours=f"{begin:%H:%M}-{end:%H:%M}")) == 0


def test_a_slow_route_brings_the_same_bytes(site: Site) -> None:
    site.file("a:raw/1", b"x" * 300_000)
    site.submit()
    assert ends(site, with_route(site, bytes_per_s=1_000_000)) == 0
    assert site.path("b:new/1").read_bytes() == b"x" * 300_000


@pytest.mark.parametrize("state", ["held", "missing"])
def test_what_only_a_person_or_the_source_can_mend_does_not_keep_a_worker(site: Site, state: str) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.submit()
    if state == "held":
        site.file("b:new/1", b"other bytes")
    else:
        site.path("a:raw/1").unlink()
    assert ends(site, site.config) == (1 if state == "held" else 3)
    assert sorted(site.states().values()) == sorted(["done", state])


# ------------------------------------------------------------------------------------- hosts in trouble


@contextmanager
def running(site: Site, config: Config | None = None) -> Iterator[Daemon]:
    """A daemon at work, until the end of the block."""
    daemon = Daemon(site.database, config or site.config, spool=False)
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        yield daemon
    finally:
        daemon.stop()
        thread.join(60)
        assert not thread.is_alive()
        assert daemon.hung == []


def until(done: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.05)


def trouble(site: Site, host: str) -> str | None:
    known = breakers.known(site.database).get(host)
    return known.breaker.kind if known else None


def remembered(site: Site, *hosts: str) -> None:
    """Have the roots of these hosts known, so that an empty folder is no new one."""
    for host in hosts:
        assert site.hosts[host].root


def test_a_host_that_is_down_is_left_alone_until_it_is_back(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2", "c:raw/1")
    remembered(site, "a", "b", "c")
    site.submit("down")
    site.submit("up", source="c:raw/**", destination="mss:up", kind="archive")
    away = site.path("b:").rename(site.folder / "away")
    site.path("b:").mkdir()
    with running(site):
        until(lambda: site.states("up") == {"raw/1": "done"})
        until(lambda: trouble(site, "b") == "host down")
        time.sleep(0.5)
        assert site.value("SELECT count(*) FROM attempts WHERE outcome <> 'done'") == 0, "an item paid for its host"
        assert site.value("SELECT max(epoch) FROM items WHERE state = 'waiting'") == 0, "something was claimed"
        assert not list(site.path("b:").iterdir())
        site.path("b:").rmdir()
        away.rename(site.path("b:"))
        until(lambda: set(site.states("down").values()) == {"done"})  # by itself, after the first look
    assert trouble(site, "b") is None
    assert breakers.known(site.database)["b"].breaker.looks == 0


def test_an_operator_need_not_wait_for_the_next_look(site: Site) -> None:
    site.files("a:raw/1")
    remembered(site, "a", "b")
    site.submit()
    away = site.path("b:").rename(site.folder / "away")
    with running(site):
        until(lambda: trouble(site, "b"))
        site.change("UPDATE hosts SET next_look = next_look + 1000 WHERE name = 'b'")
        away.rename(site.path("b:"))
        intents.resume(site.database, "b")
        until(lambda: site.states() == {"raw/1": "done"}, 3.0)


def test_a_daemon_that_starts_looks_at_once(site: Site) -> None:
    site.files("a:raw/1")
    remembered(site, "a", "b")
    site.submit()
    away = site.path("b:").rename(site.folder / "away")
    assert ends(site, site.config) == 1
    site.change("UPDATE hosts SET next_look = next_look + 1000 WHERE name = 'b'")
    away.rename(site.path("b:"))
    assert ends(site, site.config) == 0
    assert site.states() == {"raw/1": "done"}


def test_with_once_a_host_that_comes_back_soon_is_waited_for(site: Site) -> None:
    site.files("a:raw/1")
    remembered(site, "a", "b")
    site.submit()
    away = site.path("b:").rename(site.folder / "away")
    timer = threading.Timer(2.0, lambda: away.rename(site.path("b:")))
    timer.start()
    assert ends(site, site.config) == 0
    timer.join()


def test_trouble_of_a_host_that_nothing_waits_for_keeps_nobody(site: Site) -> None:
    site.files("a:raw/1")
    site.submit()
    breakers.trip(site.database, "c", HostDown("down", host="c"))
    begun = time.monotonic()
    assert ends(site, site.config) == 0
    assert time.monotonic() - begun < 4


def test_a_trigger_waits_for_its_host_and_is_told_of(site: Site) -> None:
    site.files("a:raw/1")
    site.submit()
    assert ends(site, site.config) == 0
    site.change("UPDATE triggers SET state = 'pending', inventory = NULL")
    away = site.path("b:").rename(site.folder / "away")
    assert ends(site, site.config) == 1
    assert trouble(site, "b") == "host down"
    away.rename(site.path("b:"))
    assert ends(site, site.config) == 0
    assert site.triggers()[0][3] == "ready"


def test_a_pause_ends_what_is_under_way_and_begins_no_more(site: Site) -> None:
    for number in range(300):
        site.file(f"a:raw/{number:03d}", b"x" * 60_000)
    site.submit()
    with running(site, with_route(site, bytes_per_s=2_000_000)):
        until(lambda: "done" in site.states().values())
        intents.pause(site.database, "b", "disks")
        until(lambda: "running" not in site.states().values())
        paused = site.states()
        assert 0 < list(paused.values()).count("waiting") < 300
        time.sleep(1.5)
        assert site.states() == paused
        assert site.value("SELECT count(*) FROM attempts WHERE outcome <> 'done'") == 0
        intents.resume(site.database, "b")
        until(lambda: set(site.states().values()) == {"done"})


def test_a_configuration_that_is_read_again_changes_hosts_and_bounds(site: Site) -> None:
    site.files("a:raw/1")
    remembered(site, "a")
    site.submit()
    moved = site.folder / "moved"
    site.path("b:").rename(moved)
    hosts = dict(site.config.hosts)
    hosts["b"] = hosts["b"].model_copy(update={"root": str(moved)})
    changed = site.config.model_copy(update={"hosts": hosts})
    daemon = Daemon(site.database, site.config, spool=False, read_again=lambda: changed)
    thread = threading.Thread(target=daemon.run)
    thread.start()
    until(lambda: trouble(site, "b"))
    daemon._on_reload(1, None)
    until(lambda: site.states() == {"raw/1": "done"}, 5.0)
    daemon.stop()
    thread.join(60)
    assert (moved / "new/1").is_file()


def test_the_daemon_tells_what_its_routes_do_and_may(site: Site) -> None:
    site.files("a:raw/1")
    site.submit()
    now = datetime.now().astimezone()
    shut = f"{now + timedelta(hours=2):%H:%M}-{now + timedelta(hours=4):%H:%M}"
    routes = {"a > b": site.config.route("a", "b").model_copy(update={"hours": shut, "bytes_per_s": 5_000_000})}
    assert ends(site, site.config.model_copy(update={"routes": routes})) == 3
    with status.reading(site.config.database_url) as connection:
        (route,) = status.snapshot(connection).routes
    assert (route.source, route.destination, route.waiting, route.bytes_per_s) == ("a", "b", 1, 5_000_000)
    assert route.closed_until == shut[:5]
    assert ends(site, site.config) == 0
    with status.reading(site.config.database_url) as connection:
        (route,) = status.snapshot(connection).routes
    assert (route.closed_until, route.bytes_per_s, route.busy, route.failures) == (None, None, False, 0)
    assert route.streams == 2
    assert route.ago_s is not None
