"""What the doctor asks of quarantine."""

from __future__ import annotations

from stager.evicting import checks
from stager.evicting.revisions import carry_evicted
from tests.stager.evicting.places import KB, evict, known, spread, three
from tests.stager.site import Site, recount, tallies

LOST = "every evicted file is in quarantine until it is removed"
UNKNOWN = "no file is in quarantine without its tombstone"


def broken(site: Site) -> dict[str, str]:
    return {invariant: detail for invariant, sound, detail in checks.examine(site.database, site.hosts) if not sound}


def test_a_sound_quarantine_breaks_nothing(site: Site) -> None:
    three(site, "1", "2")
    assert broken(site) == {}
    evict(site, KB)
    assert broken(site) == {}
    assert [detail for *_, detail in checks.examine(site.database, site.hosts)] == ["1 evicted", ""]


def test_a_file_that_is_in_quarantine_no_more_is_seen(site: Site) -> None:
    three(site, "1", "2")
    evict(site, 2 * KB)
    site.path("b:.stager/quarantine/evicted/1-1").unlink()
    site.path("b:.stager/quarantine/evicted/2-2").write_text("short")
    assert broken(site) == {LOST: "2 evicted, 2 are not: b:new/1, b:new/2"}


def test_a_file_without_a_tombstone_is_seen(site: Site) -> None:
    three(site, "1")
    evict(site, KB)
    site.file("b:.stager/quarantine/evicted/7-other")
    site.file("b:.stager/quarantine/12-1/set/aside")  # by `replace`: none of ours
    assert broken(site) == {UNKNOWN: "1 are not: b:.stager/quarantine/evicted/7-other"}


def test_a_host_that_was_never_used_is_not_looked_at(site: Site) -> None:
    known(site, "b:new/1")
    assert broken(site) == {}
    assert site.value("SELECT count(*) FROM hosts") == 0


def test_a_new_revision_leaves_out_what_was_evicted_and_is_the_same_still(site: Site) -> None:
    """As `revising` carries over what is done."""
    spread(site, "1", "2", "3")
    evict(site, 2 * KB)
    old = site.value("SELECT max(id) FROM manifests WHERE name = 'first'")
    site.file("a:raw/2", "other bytes")
    site.file("a:raw/4")
    site.submit("first", trigger=None)
    new = site.value("SELECT max(id) FROM manifests WHERE name = 'first'")
    with site.database.write() as connection:
        carry_evicted(connection, new, old)
    states = {"raw/1": "excluded", "raw/2": "waiting", "raw/3": "done", "raw/4": "waiting"}
    assert site.states("first") == states
    kept = site.rows("SELECT reason, carried_from FROM items WHERE manifest_id = :new AND kind = 'evicted'", new=new)
    before = site.value("SELECT id FROM items WHERE manifest_id = :old AND source = 'raw/1'", old=old)
    assert kept == [("evicted to make room; proven at mss, c", before)]
    assert tallies(site.database) == recount(site.database)
