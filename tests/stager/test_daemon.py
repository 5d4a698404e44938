"""A worker does what is its own, at the hours it may, and ends when nothing of that is left."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NoReturn

import pytest

from stager import breakers, drawing, intents, status, turns
from stager import daemon as module
from stager.config import Config
from stager.daemon import Daemon, standing
from tests.stager.site import Site, configuration
from tests.waiting import LATE_S, until
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


def test_a_host_below_its_floor_pauses_its_routes_and_goes_on_by_itself(site: Site) -> None:
    site.files("a:raw/1", "c:raw/1")
    site.submit()
    site.submit("elsewhere", source="c:raw/**", destination="a:c", trigger=None)
    full = site.config.hosts["b"].model_copy(update={"floor": 1 << 60})
    below = site.config.model_copy(update={"hosts": {**site.config.hosts, "b": full}})
    assert ends(site, below) == 3
    assert (site.states(), site.states("elsewhere")) == ({"raw/1": "waiting"}, {"raw/1": "done"})
    assert site.rows("SELECT tries, reason FROM items WHERE state = 'waiting'") == [(0, None)]
    with status.reading(site.config.stager.database) as connection:
        said = [host.no_room for host in status.snapshot(connection).hosts if host.host == "b"]
    assert "below its floor" in str(said[0])
    assert ends(site, site.config) == 0


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
def running(site: Site, config: Config | None = None, **more: Any) -> Iterator[Daemon]:
    """A daemon at work, until the end of the block."""
    daemon = Daemon(site.database, config or site.config, spool=False, **more)
    thread = threading.Thread(target=daemon.run)
    thread.start()
    try:
        yield daemon
    finally:
        daemon.stop()
        thread.join(LATE_S)
        assert not thread.is_alive()
        assert daemon.hung == []


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


@pytest.fixture
def disk(site: Site, require: Callable[[str], NoReturn]) -> Iterator[Callable[[str], None]]:
    """The root of b as a file system of its own; what it gives mounts that as it is told ("ro", "rw")."""
    root = str(site.path("b:"))
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "stager-test", root]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        require("no file system can be mounted here")

    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", root], check=True)

    yield remount
    subprocess.run(["umount", "-l", root], check=True)


def looked_at(site: Site, host: str) -> breakers.Breaker:
    """A host in trouble, once it was looked at again in vain."""
    looks = breakers.known(site.database)[host].breaker.looks
    breakers.look_soon(site.database)
    until(lambda: breakers.known(site.database)[host].breaker.looks > looks)
    return breakers.known(site.database)[host].breaker


def test_a_file_system_that_became_read_only_is_waited_for(site: Site, disk: Callable[[str], None]) -> None:
    site.files(*(f"a:raw/{number}" for number in range(50)), "b:raw/1", "b:raw/2")
    remembered(site, "a", "b", "c")
    disk("ro")
    site.submit("to")
    site.submit("from", source="b:raw/**", destination="c:from", trigger=None)
    with running(site):
        until(lambda: trouble(site, "b") == "read-only")
        until(lambda: set(site.states("from").values()) == {"done"})  # what is there can be read all the same
        breaker = looked_at(site, "b")
        assert breaker.kind == "read-only", "that it can be read closed the breaker"
        assert breaker.text is not None
        assert breaker.text.startswith("b: the file system is read-only (open) - read-only; ")
        assert set(site.states("to").values()) == {"waiting"}
        assert site.value("SELECT max(tries) FROM items") == 0
        assert 1 <= site.value("SELECT count(*) FROM attempts WHERE outcome = 'failed'") <= 50, "all was tried again"
        disk("rw")
        breakers.look_soon(site.database)
        until(lambda: set(site.states("to").values()) == {"done"})
    assert trouble(site, "b") is None
    assert breakers.known(site.database)["b"].breaker.looks == 0
    assert [path.name for path in site.path("b:.stager").iterdir() if path.name.startswith(("look", ".look"))] == []


def test_with_once_a_file_system_that_stays_read_only_keeps_nobody(site: Site, disk: Callable[[str], None]) -> None:
    site.files("a:raw/1", "b:raw/1")
    remembered(site, "a", "b", "c")
    disk("ro")
    site.submit("to")
    site.submit("from", source="b:raw/**", destination="c:from", trigger=None)
    assert ends(site, site.config) == 1
    assert (site.states("to"), site.states("from")) == ({"raw/1": "waiting"}, {"raw/1": "done"})
    assert site.value("SELECT count(*) FROM attempts WHERE outcome = 'failed'") == 1
    disk("rw")
    assert ends(site, site.config) == 0
    assert site.states("to") == {"raw/1": "done"}


def test_a_file_system_that_is_full_though_room_was_promised_is_waited_for(
    site: Site, disk: Callable[[str], None]
) -> None:
    site.files(*(f"a:raw/{number:03}" for number in range(300)), "b:raw/1", "b:raw/2")
    remembered(site, "a", "b", "c")
    disk("nr_inodes=60")
    site.submit("to")
    site.submit("from", source="b:raw/**", destination="c:from", trigger=None)
    with running(site):
        until(lambda: trouble(site, "b") == "no space")
        until(lambda: set(site.states("from").values()) == {"done"})  # what is there can be read all the same
        breaker = looked_at(site, "b")
        assert breaker.kind == "no space", "nothing was written to see"
        (why,) = said(site, "b")
        assert why.startswith("the file system has no inodes left: it holds as many files as it can (open) - no space;")
        assert set(site.states("to").values()) == {"waiting", "done"}
        assert site.value("SELECT max(tries) FROM items") == 0
        assert 1 <= site.value("SELECT count(*) FROM attempts WHERE outcome = 'failed'") <= 3, (
            "more than was needed to see it"
        )
        disk("nr_inodes=1000")
        breakers.look_soon(site.database)
        site.change("UPDATE items SET not_before = 0 WHERE kind = 'no space'")
        until(lambda: set(site.states("to").values()) == {"done"})
    assert (trouble(site, "b"), said(site, "b")) == (None, [])
    assert breakers.known(site.database)["b"].breaker.looks == 0


def said(site: Site, host: str) -> list[str]:
    """What `stager status` says of a host below its table, but for how long it is so."""
    with status.reading(site.config.stager.database) as connection:
        lines = [line.plain for line in drawing.remarks(status.snapshot(connection))]
    return [line.rpartition(" s: ")[2] for line in lines if f"{host}:" in line]


def test_what_fits_goes_before_what_does_not_and_nothing_hammers(site: Site, disk: Callable[[str], None]) -> None:
    for number in range(12):
        with site.file(f"a:raw/{number:02}.big", b"").open("r+b") as file:
            file.truncate(5 << 20)
    site.files("a:raw/98.small", "a:raw/99.small")
    remembered(site, "a", "b")
    disk("size=4m")
    site.submit()
    begun = time.monotonic()
    with running(site):
        until(lambda: sorted(site.states().values())[:3] == ["done", "done", "waiting"])
        until(lambda: said(site, "b"))
        time.sleep(2.0)
        tried = site.value("SELECT count(*) FROM attempts WHERE outcome = 'failed'")
        assert 1 <= tried <= 2 + (time.monotonic() - begun) // turns.NO_ROOM_REST_S, "they were tried without a rest"
        (line,) = said(site, "b")
        assert line.startswith("b: needs 5.24 MB; ")
        assert line.endswith(" are free there (reserve) - no space at the destination; make room there; it goes on by "
                             "itself then")  # fmt: skip
        disk("size=400m")
        site.change("UPDATE items SET not_before = 0 WHERE kind = 'no space'")
        until(lambda: set(site.states().values()) == {"done"}, 60.0)
        assert said(site, "b") == []


def test_with_once_a_file_system_that_stays_full_keeps_nobody(site: Site, disk: Callable[[str], None]) -> None:
    site.files(*(f"a:raw/{number:03}" for number in range(100)))
    remembered(site, "a", "b")
    disk("nr_inodes=60")
    site.submit()
    assert ends(site, site.config) == 1
    assert set(site.states().values()) == {"waiting", "done"}
    assert 1 <= site.value("SELECT count(*) FROM attempts WHERE outcome = 'failed'") <= 10
    disk("nr_inodes=1000")
    site.change("UPDATE items SET not_before = 0 WHERE kind = 'no space'")
    assert ends(site, site.config) == 0


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
        until(lambda: site.states() == {"raw/1": "done"})  # the next look is a quarter of an hour away


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


def test_with_once_a_host_that_comes_back_soon_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ONCE_PATIENCE_S", LATE_S)  # how soon is soon is the machine's to say
    site.files("a:raw/1")
    remembered(site, "a", "b")
    site.submit()
    away = site.path("b:").rename(site.folder / "away")

    def come_back() -> None:
        until(lambda: trouble(site, "b"))
        away.rename(site.path("b:"))

    coming = threading.Thread(target=come_back)
    coming.start()
    assert ends(site, site.config) == 0
    coming.join()


def test_trouble_of_a_host_that_nothing_waits_for_keeps_nobody(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ONCE_PATIENCE_S", 10 * LATE_S)
    site.files("a:raw/1")
    site.submit()
    breakers.trip(site.database, "c", HostDown("down", host="c"))
    begun = time.monotonic()
    assert ends(site, site.config) == 0
    assert time.monotonic() - begun < LATE_S


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
    with running(site, with_route(site, bytes_per_s=1_000_000)):
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
    with running(site, read_again=lambda: changed) as daemon:
        until(lambda: trouble(site, "b"))
        daemon._on_reload(1, None)
        until(lambda: site.states() == {"raw/1": "done"})
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


def test_what_goes_in_bundles_is_told_to_go_in_one_stream(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.submit(kind="archive", destination="mss:kept", bundle={})
    assert ends(site, site.config) == 0
    with status.reading(site.config.database_url) as connection:
        (told,) = drawing.whys(status.snapshot(connection))
    assert told.plain.startswith("a > mss: 1 stream (what goes in a bundle goes in one), ")
    site.files("a:large/1")
    site.submit("large", kind="archive", source="a:large/**", destination="mss:large")
    assert ends(site, site.config) == 0
    with status.reading(site.config.database_url) as connection:
        (told,) = drawing.whys(status.snapshot(connection))
    assert told.plain.startswith("a > mss: 2 streams (the configuration says so), ")
