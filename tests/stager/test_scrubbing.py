"""Copies are read again: what is missing or rotten is seen, and brought back when asked for."""

from __future__ import annotations

import os

import pytest

from manifests.parts import Location
from stager import doctor, intents, scrubbing
from tests.stager.site import Site


def troubles(site: Site, dataset: str = "m data") -> dict[str, str | None]:
    copies = scrubbing.copies_of_dataset(site.database, dataset)
    return {one.copy.path: one.trouble for one in scrubbing.check(site.database, site.hosts, copies)}


@pytest.fixture
def landed(site: Site) -> Site:
    for name in "123":
        site.file(f"a:raw/{name}", name * 1000)
    site.run()
    return site


def test_copies_that_are_as_they_were_are_proven_anew(landed: Site) -> None:
    landed.change("UPDATE copies SET proven_at = 0")
    assert troubles(landed) == {"new/1": None, "new/2": None, "new/3": None}
    assert landed.value("SELECT min(proven_at) FROM copies") > 1e9


def test_what_is_missing_or_rotten_is_told_apart_and_remembered(landed: Site) -> None:
    landed.path("b:new/1").unlink()
    rotten = landed.path("b:new/2")
    rotten.write_bytes(b"2" * 999 + b"x")
    assert troubles(landed) == {"new/1": "missing", "new/2": "corrupt", "new/3": None}
    kept = landed.rows("SELECT path, trouble FROM copies ORDER BY path")
    assert kept == [("new/1", "missing"), ("new/2", "corrupt"), ("new/3", None)]
    assert rotten.exists()  # nothing is removed by looking


def test_a_retry_brings_back_what_is_missing_and_triggers_no_second_time(landed: Site) -> None:
    landed.path("b:new/1").unlink()
    troubles(landed)
    assert intents.retry(landed.database, "m") == 1
    landed.work()
    assert landed.path("b:new/1").read_text() == "1" * 1000
    assert troubles(landed) == {"new/1": None, "new/2": None, "new/3": None}
    assert landed.triggers() == [("m data", 1, "", "ready")]


def test_what_is_not_there_any_more_is_not_complete(landed: Site) -> None:
    landed.path("b:new/1").unlink()
    landed.path("b:new/2").write_bytes(b"rotten")
    troubles(landed)
    assert landed.states() == {"raw/1": "held", "raw/2": "held", "raw/3": "done"}
    assert all(one.sound for one in doctor.examine(landed.database, landed.hosts) if "copy at" not in one.invariant)


def test_what_was_put_back_is_done_again_once_it_is_proven(landed: Site) -> None:
    away = landed.path("b:new/1").rename(landed.folder / "away")
    troubles(landed)
    assert landed.states()["raw/1"] == "held"
    away.rename(landed.path("b:new/1"))
    troubles(landed)
    assert set(landed.states().values()) == {"done"}
    assert landed.triggers() == [("m data", 1, "", "ready")]


def test_another_manifest_that_brings_a_lost_file_back_mends_the_first(landed: Site) -> None:
    landed.path("b:new/1").unlink()
    troubles(landed)
    landed.run("again", trigger=None)
    assert set(landed.states().values()) == {"done"}
    assert landed.path("b:new/1").read_text() == "1" * 1000


def test_a_rotten_copy_is_never_overwritten_until_it_is_moved_away(landed: Site) -> None:
    rotten = landed.path("b:new/2")
    rotten.write_bytes(b"rotten")
    troubles(landed)
    intents.retry(landed.database, "m")
    landed.work()
    assert (rotten.read_bytes(), landed.states()["raw/2"]) == (b"rotten", "held")
    rotten.rename(landed.folder / "aside")
    intents.retry(landed.database, "m")
    landed.work()
    assert rotten.read_text() == "2" * 1000
    assert set(troubles(landed).values()) == {None}


def test_a_host_that_is_down_says_nothing_about_its_copies(landed: Site) -> None:
    landed.path("b:").rename(landed.folder / "away")
    landed.path("b:").mkdir()
    copies = scrubbing.copies_of_dataset(landed.database, "m data")
    checked = list(scrubbing.check(landed.database, landed.hosts, copies))
    assert all(one.unknown and one.trouble for one in checked)
    assert landed.rows("SELECT DISTINCT trouble FROM copies") == [(None,)]


@pytest.mark.parametrize(("path", "count"), [("", 3), ("new", 3), ("new/1", 1), ("new/[12]", 2), ("elsewhere", 0)])
def test_copies_are_named_by_location_or_pattern(landed: Site, path: str, count: int) -> None:
    assert len(scrubbing.copies_at(landed.database, Location("b", path))) == count
    assert scrubbing.copies_at(landed.database, Location("a", path)) == []


def examined(site: Site, *, deep: bool = False) -> dict[str, bool]:
    return {one.invariant: one.sound for one in doctor.examine(site.database, site.hosts, deep=deep)}


def broken(site: Site, *, deep: bool = False) -> list[str]:
    return [invariant for invariant, sound in examined(site, deep=deep).items() if not sound]


def test_a_sound_site_breaks_no_invariant(landed: Site) -> None:
    assert broken(landed) == broken(landed, deep=True) == []
    assert len(examined(landed)) >= 7


@pytest.mark.parametrize(
    ("damage", "invariant"),
    [
        ("UPDATE tallies SET files = files + 1", "counts equal a recount"),
        ("DELETE FROM copies WHERE path = 'new/1'", "every item that is done has its copy"),
        ("UPDATE items SET worker = 'w', claimed_until = 5 WHERE source = 'raw/1'", "only running items have a lease"),
        ("UPDATE items SET state = 'held' WHERE source = 'raw/1'", "every trigger's group is whole"),
        ("DELETE FROM triggers", "every whole group has its trigger"),
        ("UPDATE copies SET size = size + 1 WHERE path = 'new/1'", "every copy at b is there, with its size"),
    ],
)
def test_each_invariant_is_seen_broken(landed: Site, damage: str, invariant: str) -> None:
    landed.change(damage)
    assert broken(landed) == [invariant]


def test_what_only_reading_shows_is_seen_by_a_deep_look(landed: Site) -> None:
    landed.path("b:new/1").write_text("x" * 1000)
    assert broken(landed) == []
    assert broken(landed, deep=True) == ["every copy at b is as it was proven"]


def test_a_part_file_of_a_dead_lease_is_seen_and_one_of_a_live_lease_is_not(landed: Site) -> None:
    landed.file("a:raw/4")
    landed.submit()
    (item,) = landed.claim()
    instance = landed.database.instance
    part = landed.file(f"b:new/.4.{item.id}-{item.epoch}.{instance}.part", "half")
    assert broken(landed) == []
    landed.change("UPDATE items SET epoch = epoch + 1 WHERE state = 'running'")
    assert broken(landed) == ["no part file is left of a dead lease"]
    assert part.exists()


def test_a_bundle_that_disagrees_with_its_index_is_seen(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.run(kind="archive", destination="mss:kept", bundle={})
    invariant = "every bundle at mss agrees with its index and the database"
    assert examined(site)[invariant]
    (index,) = site.path("mss:kept").glob("*.index")
    index.unlink()
    assert broken(site) == [invariant]


def test_members_of_a_bundle_that_was_cut_short_are_corrupt(site: Site) -> None:
    site.file("a:raw/1", "1" * 3000)
    site.file("a:raw/2", "2" * 3000)
    site.run(kind="archive", destination="mss:kept", bundle={})
    (file,) = site.path("mss:kept").glob("*.tar")
    os.truncate(file, 5000)
    assert troubles(site) == {"kept/1": None, "kept/2": "corrupt"}
    assert site.states() == {"raw/1": "done", "raw/2": "held"}


def test_an_evicted_file_that_is_in_no_quarantine_is_seen(landed: Site) -> None:
    landed.change(f"""
        INSERT INTO evictions (host, path, size, digest, state, quarantine, others, kept, evicted_at, purge_after)
        VALUES ('b', 'new/9', 5, 'sha256:0', 'quarantined', '.stager/quarantine/evicted/9-9', '[]',
                '{{"unit": 9, "copy": 9, "mtime_ns": null, "image": null}}', 1.0, {landed.database.now} + 99)""")
    assert broken(landed) == ["every evicted file is in quarantine until it is removed"]
