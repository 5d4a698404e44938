"""Room that is made without being asked for: only where the configuration says so, and only of what is transient."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from stager import breakers, intents, reserving
from stager.evicting import making_room, purging, saying
from stager.evicting.making_room import make_room
from tests.stager.evicting.places import KB, Disks, content, disks, known, left, paths, quarantined, tombstones
from tests.stager.site import Site
from transfers.errors import NoSpace
from transfers.hosts import Host

FREE = 10 * KB


class Small:
    """A host on a small disk: what is free there is what its files leave, those in quarantine too."""

    def __init__(self, site: Site, host: Host, size: int) -> None:
        self.site = site
        self.host = host
        self.size = size

    def space(self) -> Any:
        used = sum(path.stat().st_size for path in self.site.path("b:").rglob("*") if path.is_file())
        return self.host.space()._replace(free=self.size - used)

    def __getattr__(self, what: str) -> Any:
        return getattr(self.host, what)


def prepare(site: Site, *, transient: bool = True, **said: Any) -> Disks:
    """Three files of a manifest at b, their others elsewhere, and a disk of 3.5 kB."""
    for name in "123":
        site.file(f"a:raw/{name}", content(name))
        known(site, f"mss:kept/{name}", f"c:also/{name}", data=content(name))
    site.run("first", transient=transient, trigger=None)
    site.change("UPDATE items SET progressed_at = id")
    hosts = dict(site.config.hosts)
    hosts["b"] = hosts["b"].model_copy(update={"make_room": True, "floor": 2 * KB} | said)
    config = site.config.model_copy(update={"hosts": hosts})
    made = Disks(site.database, config)
    made.instead["b"] = Small(site, disks(site)["b"], 3500)
    return made


def test_a_host_below_its_floor_gets_room_of_what_is_transient(site: Site) -> None:
    hosts = prepare(site)
    (report,) = make_room(site.database, hosts, hosts.config)
    assert (report.host, report.enough, len(report.evicted)) == ("b", True, 2)
    assert make_room(site.database, hosts, hosts.config) == []  # what is in quarantine counts already
    assert purging.purge(site.database, hosts).removed == 0  # its grace is the host's
    site.change("UPDATE evictions SET purge_after = purge_after - 86401")
    assert purging.purge(site.database, hosts).removed == 2
    assert hosts["b"].space().free >= 2 * KB
    assert make_room(site.database, hosts, hosts.config) == []


@pytest.mark.parametrize("said", [{"make_room": False}, {"floor": 0}, {"floor": 300}])
def test_nothing_goes_where_the_configuration_does_not_ask_for_it(site: Site, said: dict[str, Any]) -> None:
    hosts = prepare(site, **said)
    assert make_room(site.database, hosts, hosts.config) == []
    assert (left(site, "b:new"), tombstones(site)) == (["1", "2", "3"], [])


def test_nothing_goes_that_is_not_transient(site: Site) -> None:
    hosts = prepare(site, transient=False)
    (report,) = make_room(site.database, hosts, hosts.config)
    assert (report.enough, report.evicted) == (False, [])
    assert left(site, "b:new") == ["1", "2", "3"]


def test_what_no_manifest_speaks_for_does_not_go(site: Site) -> None:
    hosts = prepare(site)
    site.change("UPDATE manifests SET intent = 'superseded'")
    assert make_room(site.database, hosts, hosts.config)[0].evicted == []


def test_a_host_that_is_paused_or_in_trouble_is_left_alone(site: Site) -> None:
    hosts = prepare(site)
    intents.pause(site.database, "b", None)
    assert make_room(site.database, hosts, hosts.config) == []


def test_a_host_that_another_worker_serves_is_left_to_it(site: Site) -> None:
    hosts = prepare(site)
    serving = hosts.config.stager.model_copy(update={"serves": ("a", "c", "mss")})
    assert make_room(site.database, hosts, hosts.config.model_copy(update={"stager": serving})) == []


def test_a_host_that_was_never_used_is_not_used_first_to_make_room(site: Site) -> None:
    described = site.config.hosts["c"].model_copy(update={"make_room": True, "floor": 1 << 60})
    config = site.config.model_copy(update={"hosts": {**site.config.hosts, "c": described}})
    assert make_room(site.database, Disks(site.database, config), config) == []
    assert left(site, "c:") == []


def test_the_log_says_what_was_done_and_once_what_could_not_be(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = prepare(site)
    saying._said.clear()
    structlog.reset_defaults()  # whatever a command that ran in this process made of the log
    for module in (making_room, saying):
        monkeypatch.setattr(module, "log", structlog.get_logger("stager"))
    site.path("c:also/2").unlink()
    site.path("c:also/3").unlink()
    with capture_logs() as said:
        for _ in range(4):
            making_room.make_room(site.database, hosts, hosts.config)
    assert [one["event"] for one in said] == ["made room", *["not enough room could be made"] * 2]
    assert (said[0]["host"], said[0]["files"], said[0]["bytes"]) == ("b", 1, KB)
    assert "2 stay: too few of its other copies could be proven now" in said[1]["problem"]
    assert "2 stay: too few other copies of it are known" in said[2]["problem"]  # once it is known of them
    assert quarantined(site) == ["1-1"]


def waiting(site: Site, *sizes: int) -> None:
    """Items that a batch found no room for at b."""
    for number, size in enumerate(sizes):
        site.file(f"a:more/{number}", content(f"more {number}", size)[:size])
    site.submit("more", source="a:more/**", destination="b:more", trigger=None)
    site.change("UPDATE items SET kind = 'no space', reason = 'no room' WHERE source LIKE 'more/%'")


@pytest.mark.parametrize(
    ("sizes", "gone"),
    [
        ((400,), []),  # it fits
        ((2 * KB,), ["new/1", "new/2"]),
        ((400, KB), ["new/1"]),  # the two together
        ((KB, 50 * KB), ["new/1"]),  # nothing more goes for what would not fit even so
        ((50 * KB,), []),
    ],
)
def test_work_that_waits_for_room_gets_as_much_as_it_needs(
    site: Site, sizes: tuple[int, ...], gone: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserving, "SPARE_BYTES", 0)
    hosts = prepare(site, floor=96 * KB)
    hosts.instead["b"] = Small(site, disks(site)["b"], 99 * KB + 600)  # of which 600 bytes are left, or a few less
    waiting(site, *sizes)
    assert [path for report in make_room(site.database, hosts, hosts.config) for path in paths(report)] == gone
    assert make_room(site.database, hosts, hosts.config) == []  # what is in quarantine counts already


def test_room_is_made_for_all_of_a_manifest_when_one_of_its_files_had_none(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserving, "SPARE_BYTES", 0)
    hosts = prepare(site, floor=96 * KB)
    hosts.instead["b"] = Small(site, disks(site)["b"], 99 * KB + 600)
    waiting(site, 400, KB)
    site.change("UPDATE items SET kind = NULL, reason = NULL WHERE source = 'more/1'")
    (report,) = make_room(site.database, hosts, hosts.config)
    assert paths(report) == ["new/1"]  # of the two together, as one alone would fit


def test_a_host_that_is_full_whatever_it_says_makes_room_for_what_waits(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserving, "SPARE_BYTES", 0)
    hosts = prepare(site, floor=0)
    waiting(site, 400)
    assert make_room(site.database, hosts, hosts.config) == []
    breakers.trip(site.database, "b", NoSpace("Disk quota exceeded", host="b", side="destination"))
    (report,) = make_room(site.database, hosts, hosts.config)
    assert paths(report) == ["new/1"]
    assert make_room(site.database, hosts, hosts.config) == []


def test_what_does_not_wait_for_room_is_no_reason_to_evict(site: Site) -> None:
    hosts = prepare(site, floor=0)
    waiting(site, 2 * KB)
    site.change("UPDATE items SET kind = NULL, reason = NULL WHERE kind = 'no space'")
    assert make_room(site.database, hosts, hosts.config) == []


def test_a_store_never_makes_room(site: Site) -> None:
    hosts = prepare(site)
    described = dict(hosts.config.hosts)
    described["mss"] = described["mss"].model_copy(update={"make_room": True, "floor": 1 << 62})
    described["b"] = site.config.hosts["b"]
    config = hosts.config.model_copy(update={"hosts": described})
    assert make_room(site.database, hosts, config) == []


def test_paths_of_a_report_are_those_that_went(site: Site) -> None:
    hosts = prepare(site)
    (report,) = make_room(site.database, hosts, hosts.config)
    assert paths(report) == ["new/1", "new/2"]
