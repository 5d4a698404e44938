"""Submitting again: the same changes nothing, a change makes the next revision, and only what changed is done."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from manifests.errors import ManifestError
from stager import doctor, intents, revising
from stager.samples import Exposure, write_focal_plane
from stager.submitting import CHUNK, submit
from tests.stager.site import Site, done, failed, recount, tallies
from transfers.errors import HostDown, SourceCorrupt

PER_VISIT = {"queue": "pipeline", "per": ["visit"]}
CFHT = {"source": "a:D1/raw/**", "destination": "b:D1/raw", "camera": "cfht_megacam", "check": "none"}


def attempts(site: Site) -> int:
    return int(site.value("SELECT count(*) FROM attempts WHERE outcome = 'done'"))


def test_the_same_again_changes_nothing(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2")
    first = site.submit()
    assert (first.revision, first.changed, first.items) == (1, True, 2)
    for _ in range(2):  # before the work and after it
        again = site.submit()
        assert (again.revision, again.changed) == (1, False)
        site.work()
    assert site.value("SELECT count(*) FROM manifests") == 1
    assert site.value("SELECT count(*) FROM items") == 2
    assert len(site.triggers()) == 1


@pytest.mark.parametrize("change", ["lead", "priority", "destination", "dataset"])
def test_a_changed_document_is_the_next_revision(site: Site, change: str) -> None:
    site.files("a:raw/1")
    site.run()
    changed = {"lead": "DG", "priority": 3, "destination": "b:elsewhere", "dataset": "another"}[change]
    submitted = site.run(**{change: changed})
    assert (submitted.revision, submitted.changed) == (2, True)
    assert submitted.carried == (0 if change == "destination" else 1)
    assert attempts(site) == (2 if change == "destination" else 1)
    intent = [row[0] for row in site.rows("SELECT intent FROM manifests ORDER BY revision")]
    assert intent == ["superseded", "active"]


def test_a_new_file_makes_a_revision_in_which_only_it_is_done(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.run()
    site.file("a:raw/3")
    submitted = site.run()
    assert (submitted.revision, submitted.items, submitted.carried) == (2, 3, 2)
    assert attempts(site) == 3
    assert [row[:2] for row in site.triggers()] == [("m data", 1), ("m data", 2)]


def test_a_changed_file_is_done_again_and_its_old_copy_never_overwritten(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.run()
    site.file("a:raw/2", "other bytes")
    before = site.path("b:new/2").read_bytes()
    assert site.run().carried == 1
    assert site.path("b:new/2").read_bytes() == before
    assert site.states() == {"raw/1": "done", "raw/2": "held"}  # a conflict: a person must choose
    assert site.run(replace=True).revision == 3
    assert site.path("b:new/2").read_text() == "other bytes"
    assert set(site.states().values()) == {"done"}


def test_a_file_gone_from_the_source_stays_proven_and_is_no_change(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.run()
    site.path("a:raw/2").unlink()
    assert not site.submit().changed
    site.path("a:raw/1").unlink()
    assert not site.submit().changed  # nothing at all matches any more
    assert set(site.states().values()) == {"done"}


def test_a_changed_list_beside_the_manifest_is_a_change(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2")
    listed = site.folder / "list.txt"
    listed.write_text("1\n")
    site.run(source="a:raw", files="list.txt")
    assert not site.submit(source="a:raw", files="list.txt").changed
    listed.write_text("1\n2\n")
    assert site.run(source="a:raw", files="list.txt").carried == 1
    assert attempts(site) == 2


def test_unchanged_groups_trigger_no_second_time_through_any_number_of_revisions(site: Site) -> None:
    for visit in (1, 2):
        site.file(f"a:D1/raw/v{visit}-fr/s00/c00-a0.fits")
    site.run(**CFHT, trigger=PER_VISIT)
    for revision in (2, 3, 4):
        site.file(f"a:D1/raw/v{revision + 1}-fr/s00/c00-a0.fits")
        assert site.run(**CFHT, trigger=PER_VISIT).revision == revision
    assert [row[1:3] for row in site.triggers()] == [(max(1, v - 1), f"visit={v}") for v in (1, 2, 3, 4, 5)]


def test_a_changed_group_triggers_again_for_its_new_revision(site: Site) -> None:
    for visit in (1, 2):
        site.file(f"a:D1/raw/v{visit}-fr/s00/c00-a0.fits")
    site.run(**CFHT, trigger=PER_VISIT)
    site.file("a:D1/raw/v2-fr/s00/c01-a0.fits")
    site.run(**CFHT, trigger=PER_VISIT)
    assert [row[1:3] for row in site.triggers()] == [(1, "visit=1"), (1, "visit=2"), (2, "visit=2")]


def test_another_queue_is_told_of_what_is_whole_already(site: Site) -> None:
    site.files("a:raw/1")
    site.run()
    site.run(trigger={"queue": "other"})
    assert site.rows("SELECT queue, revision FROM triggers ORDER BY revision") == [("pipeline", 1), ("other", 2)]
    site.run(trigger={"queue": "other"}, lead="DG")
    assert len(site.triggers()) == 2


def test_an_excluded_bad_file_makes_its_held_group_whole_with_one_trigger(site: Site) -> None:
    site.files("a:raw/good", "a:raw/bad")
    site.submit()
    for item in site.claim():
        bad = failed(item, SourceCorrupt("short", side="source"))
        site.finish(bad if item.source.endswith("bad") else done(item))
    assert site.triggers() == []
    (site.folder / "except.txt").write_text("bad  # truncated at the telescope\n")
    site.submit(accept={"except": "except.txt"})
    assert site.states() == {"raw/good": "done", "raw/bad": "excluded"}
    assert site.triggers() == [("m data", 2, "", "pending")]
    site.submit(accept={"except": "except.txt"}, lead="DG")
    assert len(site.triggers()) == 1


def test_a_focal_plane_is_not_chopped_again_by_a_revision_that_adds_another(sqlite_site: Site) -> None:
    site = sqlite_site
    site.path("a:in").mkdir()
    said = {"kind": "chop", "source": "a:in/*.fits", "destination": "b:out", "camera": "cfht_megacam"}
    for number, obsid in enumerate((1038843, 1038844, 1038845), 1):
        write_focal_plane(site.path(f"a:in/{obsid}o.fits"), Exposure(obsid=obsid), rows=33)
        submitted = site.run(**said, trigger=PER_VISIT)
        assert (submitted.revision, submitted.carried) == (number, number - 1)
    assert attempts(site) == 3
    assert [row[1:] for row in site.triggers()] == [(n, f"visit={1038842 + n}", "ready") for n in (1, 2, 3)]
    newest = site.value("SELECT max(id) FROM manifests")
    pieces = site.rows("SELECT DISTINCT i.manifest_id FROM copies c JOIN items i ON i.id = c.piece_of")
    assert pieces == [(newest,)]


def test_two_files_for_one_destination_are_refused_by_name(site: Site) -> None:
    site.path("a:in").mkdir()
    plane = write_focal_plane(site.path("a:in/1038843o.fits"), rows=33)
    site.path("a:in/1038843p.fits").hardlink_to(plane)
    with pytest.raises(ManifestError, match=r"1038843o\.fits and in/1038843p\.fits would both become"):
        site.submit(kind="chop", source="a:in/*.fits", destination="b:out", camera="cfht_megacam")
    assert site.value("SELECT count(*) FROM manifests") == 0
    assert tallies(site.database) == recount(site.database) == {}


def test_a_list_that_names_a_file_twice_is_refused_however_far_apart(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stager.submitting.CHUNK", 2)
    assert CHUNK > 2
    site.files("a:raw/1", "a:raw/2", "a:raw/3")
    (site.folder / "list.txt").write_text("1\n2\n3\n1\n")
    with pytest.raises(ManifestError, match="two files would become one"):
        site.submit(source="a:raw", files="list.txt")
    assert site.value("SELECT count(*) FROM items") == 0


def test_what_matches_nothing_is_refused(site: Site) -> None:
    site.files("a:raw/1")
    with pytest.raises(ManifestError, match=r"a:row/\*\* matches no file"):
        site.submit(source="a:row/**")
    assert site.value("SELECT count(*) FROM manifests") == 0


def test_a_list_whose_files_would_be_copied_onto_themselves_is_refused(site: Site) -> None:
    site.files("a:raw/x/1")
    (site.folder / "list.txt").write_text("x/1\n")
    with pytest.raises(ManifestError, match="within the source"):
        site.submit(source="a:raw", destination="a:raw", files="list.txt")
    with pytest.raises(ManifestError, match=r"copied onto itself|within the source"):
        site.submit(source="a:raw/x/1", destination="a:raw/x")


def test_a_source_that_is_down_is_no_empty_one(site: Site) -> None:
    site.files("a:raw/1")
    site.run()
    site.path("a:").rename(site.folder / "unmounted")
    site.path("a:").mkdir()
    with pytest.raises(HostDown):
        site.submit()
    assert site.states() == {"raw/1": "done"}


def test_two_manifests_of_one_dataset_and_queue_give_one_trigger_and_are_told_so(site: Site) -> None:
    site.files("a:raw/1")
    assert site.run("first", dataset="d").notes == []
    second = site.run("second", dataset="d", destination="c:new")
    assert '"first" triggers the queue "pipeline" for this dataset too' in second.notes[0]
    assert site.triggers() == [("d", 1, "", "ready")]
    assert all(one.sound for one in doctor.examine(site.database, site.hosts))
    intents.cancel(site.database, "first")
    assert site.submit("third", dataset="d", destination="c:third", trigger={"queue": "other"}).notes == []


@pytest.mark.parametrize("said", [{"source": "nowhere:raw/**"}, {"trigger": {"queue": "nobody"}}, {"kind": "restore"}])
def test_what_does_not_fit_the_configuration_is_refused_and_nothing_written(
    site: Site, said: dict[str, object]
) -> None:
    site.files("a:raw/1")
    with pytest.raises(ManifestError):
        site.submit(**said)
    assert site.value("SELECT count(*) FROM manifests") == 0


def test_a_dry_run_says_what_would_be_and_changes_nothing(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2")
    would = site.submit(dry_run=True)
    assert (would.revision, would.changed, would.items, would.states) == (1, True, 2, {"waiting": 2})
    assert site.value("SELECT count(*) FROM manifests") == 0
    site.run()
    assert not site.submit(dry_run=True).changed
    site.file("a:raw/3")
    would = site.submit(dry_run=True)
    assert (would.revision, would.changed, would.items) == (2, True, 3)
    assert site.value("SELECT count(*) FROM manifests") == 1


def test_what_a_crash_left_half_planned_is_swept_by_the_next_submission(site: Site) -> None:
    site.files("a:raw/1")
    manifest = site.manifest()
    _, left = revising.begin(site.database, manifest)
    site.change(
        """INSERT INTO items (manifest_id, source, destination, files, state, missing, epoch, tries, not_before)
           VALUES (:id, 'raw/1', 'new/1', 1, 'waiting', :no, 0, 0, 0)""",
        id=left,
        no=False,
    )
    assert site.claim() == []  # nobody carries out what is only planned
    assert revising.latest(site.database, "m") is None
    site.submit()
    assert site.rows("SELECT id, revision, intent FROM manifests WHERE id = :id", id=left) in (
        [],
        [(left, 1, "active")],
    )
    assert site.value("SELECT count(*) FROM items") == 1
    assert tallies(site.database) == recount(site.database)


def test_a_million_lines_need_not_be_held_in_memory_but_a_list_that_changes_meanwhile_is_seen(site: Site) -> None:
    site.files("a:raw/1")
    listed: Path = site.folder / "list.txt"
    listed.write_text("1\n")
    manifest = site.manifest(source="a:raw", files="list.txt")
    listed.write_text("2\n")
    with pytest.raises(ManifestError, match="changed while it was read"):
        submit(site.database, site.config, manifest)


def test_two_submissions_of_one_name_at_once_leave_one_active_revision(site: Site) -> None:
    site.files("a:raw/1")
    one, two = site.manifest(lead="one"), site.manifest(lead="two")
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda manifest: submit(site.database, site.config, manifest), (one, two) * 3))
    assert any(submitted.changed for submitted in found)
    intended = [row[0] for row in site.rows("SELECT intent FROM manifests ORDER BY revision")]
    assert intended.count("active") == 1
    assert "planning" not in intended


def test_a_large_manifest_is_compared_with_what_it_was_at_once(sqlite_site: Site) -> None:
    site, count = sqlite_site, 20_000
    site.file("a:raw/1", "")
    site.submit("m")
    site.submit("n")
    fields = "size, mtime_ns, digest, files, bytes, ids, state, missing, epoch, tries, not_before"
    numbers = f"WITH RECURSIVE n(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n <= {count})"
    for manifest in (1, 2):
        values = f"SELECT {manifest}, 'raw/' || n, 'new/' || n, {fields} FROM n, items i WHERE i.id = {manifest}"
        site.change(f"INSERT INTO items (manifest_id, source, destination, {fields}) {numbers} {values}")
    site.change("UPDATE items SET state = 'done' WHERE manifest_id = 1")
    begun = time.thread_time()
    assert not revising.differs(site.database, 2, 1)
    site.change(f"UPDATE items SET size = 7 WHERE manifest_id = 2 AND source = 'raw/{count}'")
    assert revising.differs(site.database, 2, 1)
    assert time.thread_time() - begun < 10
