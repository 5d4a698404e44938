"""Small files go to the store in bundles: proven there before anybody knows of them, and the same when made again."""

from __future__ import annotations

import os
import subprocess
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from manifests.errors import ManifestError
from stager import intents
from stager.bundling import choosing
from tests.stager.site import Site
from tests.waiting import LATE_S

BUNDLED = {"kind": "archive", "destination": "mss:kept", "bundle": {}}


def bundles(site: Site) -> list[Path]:
    return sorted(site.path("mss:").rglob("*.stager.tar"))


def members(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


def names(site: Site, count: int) -> list[str]:
    made = [f"raw/f{number:03d}.dat" for number in range(count)]
    site.files(*(f"a:{name}" for name in made))
    return made


def test_small_files_are_archived_in_one_bundle_and_large_ones_as_they_are(site: Site) -> None:
    kept = [name.replace("raw", "kept") for name in names(site, 5)]
    site.file("a:raw/large.dat", os.urandom(3000))
    site.run(**BUNDLED | {"bundle": {"below": 3000}})
    (bundle,) = bundles(site)
    assert members(bundle)[:-1] == kept
    assert members(bundle)[-1].startswith(".stager/index/")
    assert site.path("mss:kept/large.dat").read_bytes() == site.path("a:raw/large.dat").read_bytes()
    assert set(site.states().values()) == {"done"}
    rows = site.rows("SELECT path, bundle_id IS NOT NULL, proof FROM copies WHERE host = 'mss' ORDER BY path")
    assert [tuple(row) for row in rows] == [
        *((path, True, "reread") for path in kept),
        ("kept/large.dat", False, "reread"),
    ]
    assert site.value("SELECT state FROM bundles") == "stored"
    assert site.triggers() == [("m data", 1, "", "ready")]


def test_bundle_is_unpacked_by_any_tar(site: Site, tmp_path: Path) -> None:
    names(site, 3)
    site.run(**BUNDLED)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xf", bundles(site)[0], "-C", tmp_path / "out"], check=True)
    for number in range(3):
        there, source = tmp_path / f"out/kept/f{number:03d}.dat", site.path(f"a:raw/f{number:03d}.dat")
        assert there.read_bytes() == source.read_bytes()
        assert there.stat().st_mtime_ns == source.stat().st_mtime_ns


def test_what_was_bundled_is_restored_from_its_own_path(site: Site) -> None:
    names(site, 4)
    site.run(**BUNDLED)
    site.run("back", kind="restore", source="mss:kept/**", destination="b:again")
    for number in range(4):
        there = site.path(f"b:again/f{number:03d}.dat")
        assert there.read_bytes() == site.path(f"a:raw/f{number:03d}.dat").read_bytes()
        assert there.stat().st_mtime_ns == site.path(f"a:raw/f{number:03d}.dat").stat().st_mtime_ns
    assert set(site.states("back").values()) == {"done"}


def test_bundles_keep_to_bytes_and_files(site: Site) -> None:
    names(site, 7)
    site.run(**BUNDLED | {"bundle": {"files": 3}})
    assert [len(members(bundle)) - 1 for bundle in bundles(site)].count(3) == 2
    assert len(bundles(site)) == 3


def test_same_files_make_the_same_bundle(site: Site) -> None:
    names(site, 3)
    site.run(**BUNDLED)
    (bundle,) = bundles(site)
    before = bundle.read_bytes()
    for path in (bundle, bundle.with_name(bundle.name + ".index")):
        path.unlink()
    for table in ("copies", "bundles", "triggers", "attempts", "items", "groups", "tallies", "manifests"):
        site.change(f"DELETE FROM {table}")
    site.run(**BUNDLED)
    assert bundles(site) == [bundle]
    assert bundle.read_bytes() == before


def test_file_of_a_time_that_no_database_holds_is_archived_and_restored_with_the_others(site: Site) -> None:
    names(site, 2)
    far = 10_413_792_000  # 2300
    os.utime(site.path("a:raw/f001.dat"), (far, far))
    if site.path("a:raw/f001.dat").stat().st_mtime != far:
        pytest.skip("this file system does not hold such times")
    site.run(**BUNDLED | {"bundle": {"per": ["day"]}})
    assert set(site.states().values()) == {"done"}
    assert [path.name[:14] for path in bundles(site)][1] == "day=2262-04-11"
    site.run("back", kind="restore", source="mss:kept/**", destination="b:again")
    assert site.path("b:again/f001.dat").read_bytes() == site.path("a:raw/f001.dat").read_bytes()
    assert (set(site.states("back").values()), len(bundles(site))) == ({"done"}, 2)


def test_bundle_that_a_crash_cut_off_from_the_database_is_adopted(site: Site) -> None:
    names(site, 3)
    site.run(**BUNDLED)
    (bundle,) = bundles(site)
    before = bundle.stat().st_ino
    site.change("DELETE FROM copies")  # as if the last transaction had not come about
    site.change("UPDATE bundles SET state = 'packing'")
    site.change("UPDATE items SET state = 'waiting', bundle_id = (SELECT id FROM bundles)")
    site.work()
    assert bundles(site) == [bundle]
    assert bundle.stat().st_ino == before
    assert set(site.states().values()) == {"done"}
    assert site.value("SELECT count(*) FROM copies WHERE bundle_id IS NOT NULL") == 3


def test_member_that_changed_at_its_source_keeps_no_other_from_the_store(site: Site) -> None:
    names(site, 4)
    site.submit(**BUNDLED)
    site.file("a:raw/f002.dat", "other bytes now")
    site.work()
    states = site.states()
    assert states.pop("raw/f002.dat") == "waiting"
    assert set(states.values()) <= {"done", "waiting"}
    site.change("UPDATE items SET not_before = 0 WHERE state = 'waiting'")
    site.work()
    assert set(site.states().values()) == {"done"}
    packed = sorted(name for bundle in bundles(site) for name in members(bundle)[:-1])
    assert packed == [f"kept/f{number:03d}.dat" for number in range(4)]


def test_source_that_is_not_what_a_list_says_is_packed_into_nothing(site: Site) -> None:
    site.files("a:raw/good.dat", "a:raw/bad.dat")
    digests = subprocess.run(
        ["sha256sum", "good.dat", "bad.dat"], cwd=site.path("a:raw"), check=True, capture_output=True
    )
    (site.folder / "list.txt").write_bytes(digests.stdout)
    damaged = site.path("a:raw/bad.dat")
    state = damaged.stat()
    damaged.write_bytes(bytes(state.st_size))
    os.utime(damaged, ns=(state.st_mtime_ns, state.st_mtime_ns))
    site.run(**BUNDLED | {"source": "a:raw", "files": "list.txt", "bundle": {"age_s": 0}})
    assert site.states() == {"raw/good.dat": "done", "raw/bad.dat": "held"}
    (bundle,) = bundles(site)
    assert members(bundle)[:-1] == ["kept/good.dat"]


def test_bundle_is_known_to_nobody_before_it_is_proven(site: Site) -> None:
    names(site, 3)
    site.submit(**BUNDLED)
    chosen = choosing.choose(site.database, 1, site.manifest(**BUNDLED), "worker", lease_s=60)
    assert chosen is not None
    assert site.value("SELECT state FROM bundles") == "packing"
    assert list(site.hosts["mss"].scan("kept")) == []
    with pytest.raises(ManifestError, match="matches no file"):  # a restore finds nothing to bring
        assert site.submit("back", kind="restore", source="mss:kept/**", destination="b:x")


@pytest.mark.parametrize("age_s", [10.0, 7200.0])
def test_group_waits_for_what_is_missing_and_no_longer_than_it_may(site: Site, age_s: float) -> None:
    for name in names(site, 2):
        os.utime(site.path(f"a:{name}"), (time.time() - age_s,) * 2)
    (site.folder / "list.txt").write_text("f000.dat\nf001.dat\nlate.dat\n")
    site.run(**BUNDLED | {"source": "a:raw", "files": "list.txt", "bundle": {"age_s": 3600}})
    if age_s > 3600:
        assert [members(bundle)[:-1] for bundle in bundles(site)] == [["kept/f000.dat", "kept/f001.dat"]]
    else:
        assert bundles(site) == []
        assert "1 more" in site.value("SELECT max(reason) FROM items WHERE state = 'waiting' AND NOT missing")


def test_file_that_is_on_the_store_already_is_not_packed_again(site: Site) -> None:
    names(site, 3)
    site.file("mss:kept/f001.dat", site.path("a:raw/f001.dat").read_bytes())
    site.file("mss:kept/f002.dat", "not the same")
    site.run(**BUNDLED)
    assert site.states() == {"raw/f000.dat": "done", "raw/f001.dat": "done", "raw/f002.dat": "held"}
    (bundle,) = bundles(site)
    assert members(bundle)[:-1] == ["kept/f000.dat"]
    assert not site.value("SELECT bundle_id IS NOT NULL FROM copies WHERE path = 'kept/f001.dat'")


def test_cancelled_item_is_packed_into_no_bundle(site: Site) -> None:
    names(site, 3)
    site.submit(**BUNDLED)
    intents.cancel(site.database, "m", "*f001*")
    site.work()
    (bundle,) = bundles(site)
    assert members(bundle)[:-1] == ["kept/f000.dat", "kept/f002.dat"]


def test_new_files_of_a_group_that_was_packed_go_into_a_bundle_of_their_own(site: Site) -> None:
    names(site, 2)
    site.run(**BUNDLED)
    site.files("a:raw/g000.dat")
    site.run(**BUNDLED)
    assert sorted(members(bundle)[0] for bundle in bundles(site)) == ["kept/f000.dat", "kept/g000.dat"]
    assert set(site.states().values()) == {"done"}


def test_changed_file_is_packed_anew_only_with_replace(site: Site) -> None:
    names(site, 2)
    site.run(**BUNDLED)
    site.file("a:raw/f001.dat", "corrected")
    site.run(**BUNDLED)
    assert site.states() == {"raw/f000.dat": "done", "raw/f001.dat": "held"}
    site.run(**BUNDLED | {"replace": True})
    assert set(site.states().values()) == {"done"}
    site.run("back", kind="restore", source="mss:kept/**", destination="b:again")
    assert site.path("b:again/f001.dat").read_text() == "corrected"


def test_member_that_no_bundle_may_have_keeps_no_other_from_the_store(site: Site) -> None:
    composed, decomposed = "a:raw/\u00e9.dat", "a:raw/e\u0301.dat"
    site.files(composed, decomposed, "a:raw/plain.dat")
    site.run(**BUNDLED | {"bundle": {"age_s": 0}})
    states = site.states()
    assert states["raw/plain.dat"] == "done"
    assert sorted(states.values()) == ["done", "done", "held"]
    reason = site.value("SELECT reason FROM items WHERE state = 'held'")
    assert "two spellings" in reason


def test_bundle_whose_members_another_worker_just_touches_is_not_given_up(postgres_site: Site) -> None:
    site = postgres_site
    names(site, 3)
    site.submit(**BUNDLED)
    manifest = site.manifest(**BUNDLED)
    first = choosing.choose(site.database, 1, manifest, "worker", lease_s=60)
    assert first is not None
    site.change("UPDATE items SET state = 'waiting', worker = NULL, claimed_until = NULL")  # given back
    with ThreadPoolExecutor(1) as other:
        with site.database.write() as touching:
            touching.execute(sa.text("UPDATE items SET progressed_at = 1 WHERE destination LIKE '%f001%'"))
            choosing_now = other.submit(choosing.choose, site.database, 1, manifest, "other", lease_s=60)
            time.sleep(0.5)
            assert not choosing_now.done()
        again = choosing_now.result(LATE_S)
    assert again is not None
    assert (again.id, again.path, len(again.members)) == (first.id, first.path, 3)


def test_next_bundle_of_a_group_is_chosen_at_once_however_many_wait(site: Site) -> None:
    count, most = 100_000, 10_000
    names(site, 1)
    said = BUNDLED | {"bundle": {"files": most}}
    site.submit(**said)
    fields = "files, state, missing, epoch, tries, size, mtime_ns, not_before, bundle_key"
    numbers = f"WITH RECURSIVE n(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n <= {count})"
    values = f"SELECT i.manifest_id, 'raw/g' || n, 'kept/g' || n, {fields} FROM n, items i WHERE i.id = 1"
    site.change(f"INSERT INTO items (manifest_id, source, destination, {fields}) {numbers} {values}")
    begun = time.thread_time()
    chosen = [choosing.choose(site.database, 1, site.manifest(**said), "worker", lease_s=60) for _ in range(3)]
    assert time.thread_time() - begun < 10
    members = [one.id for bundle in chosen if bundle is not None for one in bundle.members]
    assert sorted(members) == list(range(1, 3 * most + 1))
