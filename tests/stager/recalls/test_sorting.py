"""Items whose files are on tape wait, and use up nothing; the others are not held up."""

from __future__ import annotations

from stager import items
from stager.recalls import sorting, table
from tests.stager.recalls.tapes import Tapes
from tests.stager.site import recount, tallies
from transfers.errors import SourceCorrupt, SourceMissing


def claim_and_sort(tapes: Tapes) -> sorting.Sorted:
    return sorting.sort_out(tapes.site.database, tapes.site.hosts["mss"], tapes.site.claim())


def test_files_that_are_online_are_told_from_those_on_tape_and_those_that_are_lost(tapes: Tapes) -> None:
    for name in ("a", "b", "c", "d", "e"):
        tapes.put(f"raw/{name}")
    tapes.migrate("raw/b", "V7", 12)
    tapes.mark("raw/c", state="staging", volume="V8")
    tapes.mark("raw/d", state="lost")
    tapes.restore()
    (tapes.tape.state / "files/raw/e").unlink()
    told = claim_and_sort(tapes)
    assert [item.source for item in told.online] == ["raw/a"]
    assert [tuple(one.wanted) for one in told.waits] == [("raw/b", "V7", 12, 250), ("raw/c", "V8", None, 250)]
    assert [(item.source, type(error)) for item, error in told.failed] == [
        ("raw/d", SourceCorrupt),
        ("raw/e", SourceMissing),
    ]


def test_what_waits_for_tape_says_so_and_uses_up_no_try(tapes: Tapes) -> None:
    tapes.put("raw/a", "V7", 12)
    tapes.restore()
    told = claim_and_sort(tapes)
    assert sorting.postpone(tapes.site.database, "mss", told.waits) == 1
    rows = tapes.site.rows("SELECT state, kind, reason, tries, worker, claimed_until, recall_id FROM items")
    number = tapes.site.value("SELECT id FROM recalls")
    reason = "waits for mss to bring raw/a back from tape (volume V7)"
    assert rows == [("waiting", "recall", reason, 0, None, None, number)]
    assert tapes.site.rows("SELECT host, path, state, volume, position, bytes, asks FROM recalls") == [
        ("mss", "raw/a", "wanted", "V7", 12, 250, 0)
    ]
    assert tapes.site.value("SELECT count(*) FROM attempts") == 0
    assert tallies(tapes.site.database) == recount(tapes.site.database)
    ((_, seconds),) = items.due(tapes.site.database)
    assert 3600 < seconds <= sorting.PATIENCE_S


def test_a_name_that_could_draw_on_a_terminal_is_told_escaped(sqlite_tapes: Tapes) -> None:
    sqlite_tapes.put("raw/\x1b[31mred", "V\x07")
    sqlite_tapes.restore()
    (one,) = claim_and_sort(sqlite_tapes).waits
    assert one.sentence == r"waits for mss to bring raw/\x1b[31mred back from tape (volume V\x07)"


def test_a_lease_that_was_lost_meanwhile_is_left_alone(tapes: Tapes) -> None:
    tapes.put("raw/a", "V7")
    tapes.put("raw/b", "V7")
    tapes.restore()
    told = claim_and_sort(tapes)
    tapes.site.change("UPDATE items SET claimed_until = 0 WHERE source = 'raw/a'")
    items.take_back(tapes.site.database)
    tapes.site.claim()
    assert sorting.postpone(tapes.site.database, "mss", told.waits) == 1
    assert tapes.site.states() == {"raw/a": "running", "raw/b": "waiting"}


def test_a_file_is_wanted_once_however_many_want_it(tapes: Tapes) -> None:
    tapes.put("raw/a", "V7")
    for name in ("m", "n"):
        tapes.restore(name, destination=f"b:{name}")
    tapes.work()
    assert len(tapes.rows()) == 1
    assert tapes.site.value("SELECT count(DISTINCT recall_id) FROM items WHERE recall_id IS NOT NULL") == 1
    assert tapes.site.value("SELECT count(*) FROM items WHERE kind = 'recall'") == 2


def test_what_was_looked_at_a_moment_ago_is_not_looked_at_again(tapes: Tapes) -> None:
    tapes.put("raw/a", "V7")
    tapes.restore("m", destination="b:m")
    tapes.restore("n", destination="b:n")
    sorting.postpone(tapes.site.database, "mss", claim_and_sort(tapes).waits)
    tapes.mark("raw/a", state="resident")
    (one,) = claim_and_sort(tapes).waits  # as the job of the store will find out itself, at once
    assert one.wanted.volume == "V7"
    tapes.site.change("UPDATE items SET state = 'waiting', not_before = 0")
    tapes.age(table.LATELY_S)
    assert len(claim_and_sort(tapes).online) == 1


def test_a_file_that_left_the_disk_again_is_wanted_anew(tapes: Tapes) -> None:
    tapes.put("raw/a", "V7")
    tapes.restore()
    tapes.work()
    tapes.step()
    tapes.step()
    assert [row[1] for row in tapes.rows()] == ["online"]
    tapes.migrate("raw/a")
    tapes.work()
    assert tapes.rows() == [("raw/a", "wanted", 0, None)]
    tapes.settle()
    assert tapes.requests() == ["raw/a", "raw/a"]


def test_all_members_of_a_bundle_are_one_recall_of_it(tapes: Tapes) -> None:
    site = tapes.site
    for number in range(5):
        site.file(f"a:raw/{number}")
    site.submit(
        "kept", kind="archive", source="a:raw/**", destination="mss:raw", trigger=None, bundle={"per": [], "age_s": 0}
    )
    site.work()
    ((bundle, size),) = site.rows("SELECT path, size FROM bundles WHERE state = 'stored'")
    tapes.migrate(bundle, "V3", 4)
    tapes.restore()
    tapes.work()
    assert site.rows("SELECT path, volume, position, bytes FROM recalls") == [(bundle, "V3", 4, size)]
    assert {row[0] for row in site.rows("SELECT reason FROM items WHERE kind = 'recall'")} == {
        f"waits for mss to bring {bundle} back from tape (volume V3)"
    }
    tapes.settle()
    assert tapes.requests() == [bundle]
    tapes.mark(bundle, state="lost")
    tapes.restore("more", destination="c:new")
    tapes.work()
    assert set(site.states("more").values()) == {"held"}
    reasons = {row[0].partition(" - ")[0] for row in site.rows("SELECT reason FROM items WHERE state = 'held'")}
    assert f"mss:raw/0: the bundle it lies in, {bundle}, is lost on the store (recall)" in reasons
