"""Evict: as much as is needed goes into quarantine, and only what others are proven for at that moment."""

from __future__ import annotations

import os

import pytest

from stager import doctor, intents, scrubbing
from stager.evicting.reasons import Why
from tests.stager.evicting.places import (
    KB,
    check_all,
    content,
    copies,
    disks,
    evict,
    known,
    left,
    paths,
    quarantined,
    spread,
    three,
    tombstones,
    why,
)
from tests.stager.site import Site, recount, tallies


def test_copies_go_into_quarantine_and_are_listed_no_more(site: Site) -> None:
    spread(site, "1", "2", "3")
    report = evict(site, 2 * KB)
    assert (report.enough, paths(report)) == (True, ["new/1", "new/2"])
    assert report.evicted[0].others == ("mss:kept/1", "c:also/1")
    assert (left(site, "b:new"), copies(site)) == (["3"], ["new/3"])
    assert quarantined(site) == ["1-1", "2-2"]
    assert tombstones(site) == [("new/1", "quarantined"), ("new/2", "quarantined")]
    assert site.states("first") == {"raw/1": "excluded", "raw/2": "excluded", "raw/3": "done"}
    reasons = site.rows("SELECT DISTINCT kind, reason FROM items WHERE state = 'excluded'")
    assert reasons == [("evicted", "evicted to make room; proven at mss, c")]
    assert tallies(site.database) == recount(site.database)
    check_all(site)


def test_what_is_in_quarantine_is_as_it_was(site: Site) -> None:
    three(site, "1")
    before = site.path("b:new/1").stat()
    evict(site, KB)
    file = site.path("b:.stager/quarantine/evicted/1-1")
    assert file.read_bytes() == content("1")
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_the_others_are_read_again_and_proven_anew(site: Site) -> None:
    three(site, "1", "2")
    site.change("UPDATE copies SET proven_at = 1")
    evict(site, KB)
    anew = site.rows("SELECT path FROM copies WHERE proven_at > 1e9 ORDER BY path")
    assert anew == [("also/1",), ("kept/1",)]  # and no more is read than is needed


def test_the_oldest_goes_first_and_no_more_than_is_needed(site: Site) -> None:
    for number, size in enumerate((3, 4, 5, 6)):
        data = content(str(number), size * KB)
        known(site, f"b:{number}", f"mss:{number}", f"c:{number}", data=data, arrived_at=10.0 - number)
    assert paths(evict(site, 6 * KB)) == ["3"]
    assert paths(evict(site, 1 * KB)) == ["0"]  # the smallest that is enough
    assert paths(evict(site, 8 * KB)) == ["2", "1"]


def test_what_is_transient_goes_before_the_rest(site: Site) -> None:
    three(site, "old")
    for name in "12":
        site.file(f"a:raw/{name}", content(name))
        known(site, f"mss:kept/{name}", f"c:also/{name}", data=content(name))
    site.run("first", transient=True, trigger=None)
    assert paths(evict(site, 2 * KB)) in (["new/1", "new/2"], ["new/2", "new/1"])
    assert paths(evict(site, KB)) == ["new/old"]


def test_a_copy_that_a_manifest_also_keeps_is_not_transient(site: Site) -> None:
    site.file("a:raw/1", content("1"))
    known(site, "mss:kept/1", "c:also/1", data=content("1"))
    site.run("first", transient=True, trigger=None)
    site.run("second", trigger=None)
    assert why(evict(site, KB, transient=True)) == {Why.KEPT: 1}
    site.change("UPDATE manifests SET intent = 'superseded' WHERE name = 'second'")
    assert paths(evict(site, KB, transient=True)) == ["new/1"]


def test_need_counts_what_is_free_and_what_is_on_its_way_out(site: Site) -> None:
    three(site, "1", "2", "3")
    free = disks(site)["b"].space().free
    hosts = disks(site)
    hosts.instead["b"] = Roomy(disks(site)["b"], free)
    report = evict(site, free + 2 * KB, more=False, hosts=hosts)
    assert (report.wanted, report.free, report.leaving) == (2 * KB, free, 0)
    assert paths(report) == ["new/1", "new/2"]
    again = evict(site, free + 2 * KB, more=False, hosts=hosts)
    assert (again.wanted, again.leaving, again.enough, again.evicted) == (0, 2 * KB, True, [])
    assert paths(evict(site, free + 2 * KB + 1, more=False, hosts=hosts)) == ["new/3"]


class Roomy:
    """A host with as much room as a test says, whatever else happens on its disk."""

    def __init__(self, host: object, free: int) -> None:
        self.host = host
        self.free = free

    def space(self) -> object:
        return self.host.space()._replace(free=self.free)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> object:
        return getattr(self.host, name)


def test_a_dry_run_says_what_would_go_and_changes_nothing(site: Site) -> None:
    three(site, "1", "2")
    before = site.rows("SELECT * FROM copies ORDER BY id")
    report = evict(site, KB, dry_run=True)
    assert (report.enough, paths(report)) == (True, ["new/1"])
    assert report.evicted[0].others == ("mss:kept/1", "c:also/1")
    assert left(site, "b:new") == ["1", "2"]
    assert (site.rows("SELECT * FROM copies ORDER BY id"), tombstones(site)) == (before, [])
    assert not evict(site, 9 * KB, dry_run=True).enough


@pytest.mark.parametrize(("what", "gone"), [("b:new/1", ["1"]), ("b:new/[12]", ["1", "2"]), ("b:new", ["1", "2", "3"])])
def test_only_what_is_named_goes(site: Site, what: str, gone: list[str]) -> None:
    three(site, "1", "2", "3")
    report = evict(site, 9 * KB, what)
    assert (report.enough, sorted(paths(report))) == (False, [f"new/{name}" for name in gone])


def test_names_of_every_kind_go_and_come_back_in_the_database(site: Site) -> None:
    odd = [
        "with blank",
        "new\nline",
        "\udcff\udcfe",
        "back\\slash",
        "ü" * 120,
        "'; DROP TABLE copies",
        "-rf",
        "x" * 255,
    ]
    three(site, *odd)
    report = evict(site, len(odd) * KB)
    assert sorted(paths(report)) == sorted(f"new/{name}" for name in odd)
    assert left(site, "b:new") == []
    assert {path for path, _ in tombstones(site)} == {f"new/{name}" for name in odd}
    assert all(len(os.fsencode(name)) <= 255 for name in quarantined(site))
    check_all(site)


def test_the_registry_lists_an_evicted_image_no_more(site: Site) -> None:
    three(site, "1", "2")
    for name in "12":
        site.change(
            """INSERT INTO images (dataset, host, path, camera, layout, visit, ids, mjd)
               VALUES ('d', 'b', :path, 'cfht', 'raw', 7, '{"visit": 7}', 5.5)""",
            path=f"new/{name}",
        )
    evict(site, KB)
    assert site.rows("SELECT path FROM images") == [("new/2",)]


def test_a_retry_brings_an_evicted_file_again(site: Site) -> None:
    spread(site, "1", "2")
    evict(site, 2 * KB)
    assert intents.retry(site.database, "first", "raw/1") == 1
    site.work()
    assert site.states("first") == {"raw/1": "done", "raw/2": "excluded"}
    assert site.path("b:new/1").read_bytes() == content("1")
    assert intents.retry(site.database, "first") == 1
    site.work()
    assert set(site.states("first").values()) == {"done"}
    assert tallies(site.database) == recount(site.database)
    assert len(quarantined(site)) == 2  # until their time is up, which they have until then


def test_what_was_brought_again_may_be_evicted_again(site: Site) -> None:
    spread(site, "1")
    evict(site, KB)
    intents.retry(site.database, "first")
    site.work()
    assert paths(evict(site, KB)) == ["new/1"]
    assert quarantined(site) == ["1-1", "2-1"]
    check_all(site)


def test_release_and_cancel_leave_what_was_evicted_alone(site: Site) -> None:
    spread(site, "1")
    evict(site, KB)
    assert intents.release(site.database, "first") == intents.cancel(site.database, "first", "*") == 0
    assert site.states("first") == {"raw/1": "excluded"}


def test_the_same_manifest_submitted_again_brings_nothing_back(site: Site) -> None:
    spread(site, "1", "2")
    evict(site, KB)
    assert not site.submit("first", trigger=None).changed
    site.work()
    assert site.states("first") == {"raw/1": "excluded", "raw/2": "done"}


def test_what_a_cancelled_manifest_brought_is_excluded_too(site: Site) -> None:
    spread(site, "1")
    intents.cancel(site.database, "first")
    evict(site, KB)
    assert site.states("first") == {"raw/1": "excluded"}
    check_all(site)


def test_what_verify_brings_to_light_before_is_heeded(site: Site) -> None:
    three(site, "1", "2")
    site.path("c:also/1").write_bytes(b"x" * KB)
    known_copies = scrubbing.copies_of_dataset(site.database, "x")
    assert known_copies == []
    list(scrubbing.check(site.database, site.hosts, [_known(site, "also/1")]))
    report = evict(site, 2 * KB)
    assert (paths(report), why(report)) == (["new/2"], {Why.FEW: 1})


def _known(site: Site, path: str) -> scrubbing.Known:
    (row,) = site.rows("SELECT id, host, path, size, digest FROM copies WHERE path = :path", path=path)
    return scrubbing.Known(*row)


def test_a_thousand_files_go_in_lots_and_no_more_of_them_than_are_needed(sqlite_site: Site) -> None:
    site = sqlite_site
    three(site, *(f"{number:03}" for number in range(450)), size=40)
    report = evict(site, 430 * 40)
    assert (report.enough, len(report.evicted), len(left(site, "b:new"))) == (True, 430, 20)
    assert left(site, "b:new")[0] == "430"
    assert all(one.sound for one in doctor.examine(site.database, site.hosts, deep=True))
