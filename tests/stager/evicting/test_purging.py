"""Quarantine: what is removed for good is proven elsewhere at that moment; all else stays, or comes back."""

from __future__ import annotations

import os

import pytest

from manifests.parts import Location
from stager import intents
from stager.evicting import purging
from stager.evicting.candidates import Named
from stager.evicting.purging import Emptied
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
    plane,
    quarantined,
    spread,
    three,
    tombstones,
)
from tests.stager.site import Site, recount, tallies
from transfers.errors import HostDown


def purge(site: Site, hosts: Disks | None = None) -> Emptied:
    return purging.purge(site.database, hosts or disks(site))


def put_back(site: Site, path: str = "") -> Emptied:
    return purging.put_back(site.database, disks(site), Named("b", Location("b", path)))


def test_nothing_is_removed_before_its_time(site: Site) -> None:
    three(site, "1", "2")
    evict(site, KB)
    evict(site, KB, grace_s=0.0)
    emptied = purge(site)
    assert (emptied.removed, emptied.removed_bytes) == (1, KB)
    assert tombstones(site) == [("new/1", "quarantined"), ("new/2", "removed")]
    assert quarantined(site) == ["1-1"]
    site.change("UPDATE evictions SET purge_after = purge_after - 86401 WHERE state = 'quarantined'")
    assert purge(site).removed == 1
    assert quarantined(site) == []
    check_all(site)


def test_the_others_are_proven_once_more_when_it_is_removed(site: Site) -> None:
    three(site, "1")
    evict(site, KB, grace_s=0.0)
    site.change("UPDATE copies SET proven_at = 1")
    purge(site)
    assert site.value("SELECT min(proven_at) FROM copies") > 1e9


@pytest.mark.parametrize("other", ["c:also/1", "mss:kept/1"])
def test_a_flipped_bit_in_another_copy_brings_the_evicted_one_back(site: Site, other: str) -> None:
    spread(site, "1")
    before = site.rows("SELECT host, path, size, digest, mtime_ns, proof, proven_at FROM copies WHERE host = 'b'")
    evict(site, KB, grace_s=0.0)
    rotten = bytearray(content("1"))
    rotten[999] ^= 128
    site.path(other).write_bytes(rotten)
    emptied = purge(site)
    assert (emptied.removed, emptied.waiting) == (0, [])
    assert emptied.put_back == [("b:new/1", f"{other} is corrupt")]
    assert site.path("b:new/1").read_bytes() == content("1")
    assert site.value("SELECT trouble FROM copies WHERE host = :host", host=other[:-7]) == "corrupt"
    now = site.rows("SELECT host, path, size, digest, mtime_ns, proof, proven_at FROM copies WHERE host = 'b'")
    assert now == before  # with the proof that it had
    assert (quarantined(site), tombstones(site)) == ([], [("new/1", "returned")])
    assert site.states("first") == {"raw/1": "done"}


def test_a_copy_that_is_listed_no_more_brings_the_evicted_one_back(site: Site) -> None:
    three(site, "1")
    evict(site, KB, grace_s=0.0)
    site.change("DELETE FROM copies WHERE host = 'c'")
    assert [place for place, _ in purge(site).put_back] == ["b:new/1"]
    assert copies(site) == ["new/1"]


def test_as_many_others_are_needed_as_there_were(site: Site) -> None:
    three(site, "1", "2")
    evict(site, KB, grace_s=0.0)
    evict(site, KB, grace_s=0.0, least=1)
    site.change("DELETE FROM copies WHERE host = 'c'")
    emptied = purge(site)
    assert ([place for place, _ in emptied.put_back], emptied.removed) == (["b:new/1"], 1)


def test_another_copy_may_have_taken_the_place_of_one_it_was_evicted_against(site: Site) -> None:
    three(site, "1")
    evict(site, KB, grace_s=0.0)
    known(site, "a:1", data=content("1"))
    site.path("c:also/1").unlink()
    assert purge(site).removed == 1


def test_a_host_that_is_down_lets_it_lie_there(site: Site) -> None:
    three(site, "1")
    evict(site, KB, grace_s=0.0)
    hosts = disks(site)
    hosts.instead["c"] = HostDown("it does not answer", host="c", side="destination", phase="open")
    emptied = purge(site, hosts)
    assert (emptied.removed, emptied.put_back, len(emptied.waiting)) == (0, [], 1)
    assert "it does not answer" in emptied.waiting[0][1]
    assert quarantined(site) == ["1-1"]
    hosts.instead["b"] = HostDown("it does not answer", host="b", side="destination", phase="open")
    assert purge(site, hosts).waiting[0][0] == "b"
    assert purge(site).removed == 1


def test_a_host_that_is_paused_is_left_alone(site: Site) -> None:
    three(site, "1")
    evict(site, KB, grace_s=0.0)
    intents.pause(site.database, "b", None)
    assert purge(site).waiting == [("b", "it is paused")]
    intents.resume(site.database, "b")
    intents.pause(site.database, "mss", None)
    assert purge(site).waiting == [("b:new/1", "mss is paused")]
    assert quarantined(site) == ["1-1"]


def test_what_was_written_to_in_quarantine_comes_back_and_is_found_corrupt(site: Site) -> None:
    """Whoever had it open when it was moved may write to it still: it is then no copy of the others any more."""
    spread(site, "1")
    with open(site.path("b:new/1"), "r+b") as file:
        evict(site, KB, grace_s=0.0)
        file.write(b"what nobody else has")
    emptied = purge(site)
    assert emptied.put_back == [("b:new/1", "it was written to in quarantine")]
    assert site.path("b:new/1").read_bytes().startswith(b"what nobody else has")
    assert site.value("SELECT trouble FROM copies WHERE host = 'b'") == "corrupt"
    assert site.states("first") == {"raw/1": "held"}


def test_what_was_removed_from_quarantine_by_hand_counts_as_removed(site: Site) -> None:
    three(site, "1")
    evict(site, KB, grace_s=0.0)
    site.path("b:.stager/quarantine/evicted/1-1").unlink()
    assert purge(site).put_back == []
    assert tombstones(site) == [("new/1", "removed")]


def test_only_the_hosts_that_are_named_are_purged(site: Site) -> None:
    three(site, "1")
    evict(site, KB, grace_s=0.0)
    assert purging.purge(site.database, disks(site), ["c"]).removed == 0
    assert purging.purge(site.database, disks(site), ["b"]).removed == 1


# ------------------------------------------------------------------------------------------------ put back


def test_what_is_put_back_is_as_it_was_in_every_table(site: Site) -> None:
    spread(site, "1", "2")
    site.change(
        """INSERT INTO images (dataset, host, path, camera, layout, visit, ids, mjd, scale, exptime, registered_at)
           VALUES ('d', 'b', 'new/1', 'cfht', 'raw', 7, '{"visit": 7}', 5.5, 'utc', 30.0, 9.0)"""
    )
    everything = (
        """SELECT host, path, size, digest, mtime_ns, proof, proven_at, trouble, piece_of FROM copies
           WHERE host = 'b' ORDER BY path""",
        "SELECT dataset, host, path, camera, layout, visit, ids, mjd, scale, exptime FROM images",
        "SELECT source, destination, state, kind, reason, files, bytes FROM items ORDER BY id",
    )
    before = [site.rows(query) for query in everything]
    evict(site, 2 * KB)
    assert [site.rows(query) for query in everything] != before
    emptied = put_back(site)
    assert (emptied.returned, emptied.returned_bytes, emptied.waiting) == (2, 2 * KB, [])
    assert [site.rows(query) for query in everything] == before
    assert left(site, "b:new") == ["1", "2"]
    assert quarantined(site) == []
    assert {state for _, state in tombstones(site)} == {"returned"}
    assert tallies(site.database) == recount(site.database)
    check_all(site)


def test_only_what_is_named_is_put_back(site: Site) -> None:
    three(site, "1", "2")
    evict(site, 2 * KB)
    assert put_back(site, "new/2").returned == 1
    assert copies(site) == ["new/2"]
    assert put_back(site, "nowhere").returned == 0


def test_what_was_put_back_may_go_again(site: Site) -> None:
    three(site, "1")
    evict(site, KB)
    put_back(site)
    assert evict(site, KB).enough
    assert purge(site).removed == 0
    check_all(site)


def test_another_file_in_its_place_is_left_there(site: Site) -> None:
    three(site, "1")
    evict(site, KB)
    site.file("b:new/1", "another")
    emptied = put_back(site)
    assert (emptied.returned, emptied.waiting) == (0, [("b:new/1", "another file has its place")])
    assert (site.path("b:new/1").read_text(), quarantined(site)) == ("another", ["1-1"])
    assert (copies(site), tombstones(site)) == ([], [("new/1", "quarantined")])


def test_a_file_that_must_come_back_and_has_no_place_stays_in_quarantine(site: Site) -> None:
    three(site, "1")
    evict(site, KB, grace_s=0.0)
    site.file("b:new/1", "another")
    site.path("c:also/1").unlink()
    for _ in range(2):
        emptied = purge(site)
        assert (emptied.removed, emptied.put_back) == (0, [])
        assert emptied.waiting[0][1].endswith("; another file has its place")
    assert quarantined(site) == ["1-1"]


def test_what_is_gone_from_quarantine_cannot_be_put_back(site: Site) -> None:
    three(site, "1")
    evict(site, KB)
    site.path("b:.stager/quarantine/evicted/1-1").unlink()
    assert put_back(site).waiting == [("b:new/1", "it is in quarantine no more")]
    assert copies(site) == []


def test_folders_that_were_removed_meanwhile_are_made_again(site: Site) -> None:
    three(site, "1")
    evict(site, KB)
    site.path("b:new").rmdir()
    assert put_back(site).returned == 1
    assert site.path("b:new/1").read_bytes() == content("1")


def test_what_was_changed_in_quarantine_is_read_when_it_is_put_back(site: Site) -> None:
    three(site, "1")
    evict(site, KB)
    file = site.path("b:.stager/quarantine/evicted/1-1")
    time = file.stat().st_mtime_ns
    file.write_bytes(b"x" * KB)
    os.utime(file, ns=(time, time + 5))
    put_back(site)
    assert site.value("SELECT trouble FROM copies WHERE host = 'b'") == "corrupt"


# ------------------------------------------------------------------------------------------ focal planes


def test_one_piece_that_must_come_back_brings_all_of_its_focal_plane(site: Site) -> None:
    plane(site, "1", "2", "3")
    evict(site, KB, grace_s=0.0)
    site.path("c:also/2").write_bytes(b"rotten")
    emptied = purge(site)
    assert (emptied.removed, len(emptied.put_back)) == (0, 3)
    assert left(site, "b:new") == ["1", "2", "3"]
    assert site.states("first") == {"raw/plane": "done"}


def test_a_focal_plane_of_which_a_piece_is_gone_is_not_done_again(site: Site) -> None:
    """By hand, or by a removal that was killed: what is left comes back, and the rest with a retry."""
    plane(site, "1", "2", "3")
    evict(site, KB, grace_s=0.0)
    site.path("b:.stager/quarantine/evicted/1-1").unlink()
    site.path("c:also/2").write_bytes(b"rotten")
    assert len(purge(site).put_back) == 2
    assert (left(site, "b:new"), copies(site)) == (["2", "3"], ["new/2", "new/3"])
    assert site.states("first") == {"raw/plane": "excluded"}
    assert intents.retry(site.database, "first") == 1
