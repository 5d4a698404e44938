"""What counts as another copy: one that is read again and proven now, and that would not be lost together with it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from stager import intents
from stager.evicting.reasons import Why
from tests.stager.evicting.places import KB, content, disks, evict, known, left, paths, stays, three, tombstones, why
from tests.stager.site import Site
from transfers.errors import HostDown, TransferError, Unsupported
from transfers.hosts import Host, Identity


@pytest.fixture
def url(made_sqlite: str) -> str:
    """On SQLite alone: what the disks say has nothing to do with the database."""
    return made_sqlite


# --------------------------------------------------------------------------------- what would be lost together


@pytest.mark.parametrize("shared", [{"c": "b"}, {"mss": "b"}, {"c": "mss"}, {"b": "x", "c": "x", "mss": "x"}])
def test_copies_on_one_file_system_are_one(site: Site, shared: dict[str, str]) -> None:
    three(site, "1")
    stays(site, Why.TOGETHER, hosts=disks(site, **shared))
    assert left(site, "b:new") == ["1"]


def test_all_hosts_of_this_test_lie_on_one_file_system_really(site: Site) -> None:
    three(site, "1")
    said = stays(site, Why.TOGETHER, hosts=site.hosts)
    assert said == "new/1: on the file system that it lies on itself: mss:kept/1, c:also/1"


def test_a_hard_link_is_no_copy(site: Site) -> None:
    three(site, "1")
    other = site.path("c:also/1")
    other.unlink()
    os.link(site.path("b:new/1"), other)
    assert stays(site, Why.LINKED, hosts=disks(site, c="b")) == "new/1: c:also/1"


def one_root(site: Site, *names: str) -> None:
    """The root of the first of these hosts is that of the others too, as with a mount under another name."""
    first, *others = names
    site.hosts[first].space()
    for other in others:
        site.path(f"{other}:").rename(site.folder / f"away-{other}")
        site.path(f"{other}:").symlink_to(site.path(f"{first}:"))
        site.hosts[other].space()


def test_another_host_with_the_same_root_is_no_other(site: Site) -> None:
    one_root(site, "mss", "c")
    known(site, "b:new/1", "mss:kept/1", "c:kept/1")
    stays(site, Why.FEW)


def test_what_is_listed_at_another_host_with_the_same_root_stays(site: Site) -> None:
    """It would go from there as well, though a manifest pins it there or reads it from there."""
    one_root(site, "b", "c")
    three(site, "1", "2")
    known(site, "a:1", data=content("1"))
    site.change("UPDATE copies SET path = 'new/1' WHERE path = 'also/1'")
    assert stays(site, Why.SHARED, what="b:new/1") == "new/1: at c"


def test_what_an_item_reads_by_another_name_of_the_root_stays(site: Site) -> None:
    one_root(site, "b", "c")
    known(site, "b:new/1", "mss:kept/1", "a:1")
    site.submit("onward", source="c:new/1", destination="mss:onward", kind="archive", trigger=None)
    assert stays(site, Why.NEEDED) == "new/1: manifest onward"


def test_of_two_hosts_on_one_disk_one_is_counted_and_another_beside_it(site: Site) -> None:
    three(site, "1")
    known(site, "a:1", data=content("1"))
    report = evict(site, KB, hosts=disks(site, c="mss"))
    assert report.evicted[0].others == ("mss:kept/1", "a:1")


class Speechless:
    """A host that cannot tell on which file system its files lie, as over SFTP."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def identify(self, paths: Iterable[str]) -> Iterator[Identity | TransferError | None]:
        raise Unsupported("SFTP tells no file system from another", host=self.host.name, phase="identify")

    def __getattr__(self, what: str) -> Any:
        return getattr(self.host, what)


def test_a_host_that_cannot_tell_its_file_system_is_not_counted(site: Site) -> None:
    three(site, "1")
    hosts = disks(site)
    hosts.instead["c"] = Speechless(hosts["c"])
    assert stays(site, Why.UNPROVEN, hosts=hosts) == (
        "new/1: c cannot tell on which file system it lies, and is not counted"
    )
    known(site, "a:1", data=content("1"))
    assert evict(site, KB, hosts=hosts).evicted[0].others == ("mss:kept/1", "a:1")


def test_nothing_goes_from_a_host_that_cannot_tell_its_file_system(site: Site) -> None:
    three(site, "1")
    hosts = disks(site)
    hosts.instead["b"] = Speechless(hosts["b"])
    stays(site, Why.UNTELLABLE, hosts=hosts)


# -------------------------------------------------------------------------------------- what is proven just now


def test_a_flipped_bit_in_another_copy_is_found_before_anything_goes(site: Site) -> None:
    three(site, "1", "2")
    rotten = bytearray(content("1"))
    rotten[500] ^= 1
    file = site.path("c:also/1")
    time = file.stat()
    file.write_bytes(rotten)
    os.utime(file, ns=(time.st_atime_ns, time.st_mtime_ns))  # nothing but reading shows it
    report = evict(site, 2 * KB)
    assert (paths(report), why(report)) == (["new/2"], {Why.UNPROVEN: 1})
    assert report.refused[Why.UNPROVEN].examples == ["new/1: c:also/1 is corrupt"]
    assert left(site, "b:new") == ["1"]
    assert site.rows("SELECT host, path, trouble FROM copies WHERE trouble IS NOT NULL") == [("c", "also/1", "corrupt")]
    assert tombstones(site) == [("new/2", "quarantined")]


def test_another_proven_copy_takes_the_place_of_a_rotten_one(site: Site) -> None:
    three(site, "1")
    known(site, "a:1", data=content("1"))
    site.path("a:1").write_bytes(b"rotten")
    report = evict(site, KB)
    assert report.evicted[0].others == ("mss:kept/1", "c:also/1")
    assert site.rows("SELECT host, trouble FROM copies WHERE trouble IS NOT NULL") in ([], [("a", "corrupt")])


def test_another_copy_that_is_gone_is_remembered_as_missing(site: Site) -> None:
    three(site, "1")
    site.path("mss:kept/1").unlink()
    stays(site, Why.UNPROVEN)
    assert site.value("SELECT trouble FROM copies WHERE host = 'mss'") == "missing"


def test_a_host_that_is_down_is_not_counted_and_nothing_is_known_of_its_copies(site: Site) -> None:
    three(site, "1")
    hosts = disks(site)
    hosts.instead["c"] = HostDown("it does not answer", host="c", side="destination", phase="open")
    assert "it does not answer" in stays(site, Why.UNPROVEN, hosts=hosts)
    assert site.value("SELECT count(*) FROM copies WHERE trouble IS NOT NULL") == 0


def test_a_host_that_is_paused_is_not_read(site: Site) -> None:
    three(site, "1")
    intents.pause(site.database, "c", None)
    assert stays(site, Why.UNPROVEN) == "new/1: c is paused"


def test_what_was_written_to_since_it_was_proven_is_no_copy_and_stays(site: Site) -> None:
    three(site, "1", "2", "3")
    site.path("b:new/1").write_bytes(b"x" * KB)
    site.path("b:new/2").write_bytes(b"x" * 20)
    site.path("b:new/3").unlink()
    report = evict(site, 3 * KB)
    assert (report.evicted, why(report)) == ([], {Why.CHANGED: 3})
    assert site.path("b:new/1").read_bytes() == b"x" * KB


def test_a_copy_whose_time_is_not_known_is_read_itself(site: Site) -> None:
    three(site, "1", "2")
    site.change("UPDATE copies SET mtime_ns = NULL WHERE host = 'b'")
    site.path("b:new/1").write_bytes(b"x" * KB)
    report = evict(site, 2 * KB)
    assert (paths(report), why(report)) == (["new/2"], {Why.CHANGED: 1})
