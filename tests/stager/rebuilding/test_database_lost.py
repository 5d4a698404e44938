"""The database was lost, wholly or in part: bundles tell what is in them."""

from __future__ import annotations

from stager.rebuilding.rebuild import Rebuild
from tests.stager.rebuilding.packed import bundle, copies, index_of, logical, run, store_of, whats
from tests.stager.site import Site
from transfers.bundles import parse_beside


def test_members_are_known_again_from_the_index_beside_their_bundle(site: Site) -> None:
    file = bundle(site, "visit=1", "raw/a", "raw/b")
    assert logical(site) == []
    told = run(site)
    assert whats(told) == ["added"]
    assert told[0].text == "2 of its 2 members are known now, by the index beside it"
    assert logical(site) == ["raw/a", "raw/b"]
    entries = parse_beside(index_of(file).read_bytes()).index.entries
    path = file.relative_to(site.path("mss:")).as_posix()
    assert copies(site) == {
        one.path: (path, one.offset, one.size, one.digest, one.mtime_ns, "index") for one in entries
    }
    assert site.value("SELECT digest FROM bundles") == parse_beside(index_of(file).read_bytes()).digest
    assert site.value("SELECT count(*) FROM copies WHERE proven_at IS NOT NULL") == 0


def test_members_are_known_again_from_the_last_member_which_writes_the_index_beside_it_too(site: Site) -> None:
    file = bundle(site, "visit=1", "raw/a", "raw/b")
    beside = index_of(file).read_bytes()
    index_of(file).unlink()
    told = run(site)
    assert whats(told) == ["mended", "added"]
    assert index_of(file).read_bytes() == beside
    assert logical(site) == ["raw/a", "raw/b"]
    assert site.value("SELECT digest FROM bundles") == parse_beside(beside).digest


def test_what_is_known_is_left_alone_however_often(site: Site) -> None:
    bundle(site, "visit=1", "raw/a", "raw/b")
    bundle(site, "visit=2", "raw/c")
    run(site)
    before = copies(site)
    for deep in (False, True, False):
        again = Rebuild(site.database, store_of(site), deep)
        assert list(again.run()) == []
        assert (again.counts.bundles, again.counts.agree, again.counts.members) == (2, 2, 3)
    assert {path: row[:5] for path, row in copies(site).items()} == {path: row[:5] for path, row in before.items()}


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(site: Site) -> None:
    file = bundle(site, "visit=1", "raw/a", "raw/b")
    index_of(file).unlink()
    site.file("mss:whole/c")
    told = run(site, dry_run=True, deep=True)
    assert whats(told) == ["mended", "added", "added"]
    assert copies(site) == {}
    assert site.value("SELECT count(*) FROM bundles") == 0
    assert not index_of(file).exists()
    assert whats(run(site, deep=True)) == whats(told)


def test_names_that_are_no_utf_8_and_empty_files_come_back(site: Site) -> None:
    places = ["raw/\udcff\udc80\\x41", "raw/leer=", "raw/ä ö", "raw/'-; DROP TABLE copies"]
    site.file("a:raw/leer", b"")
    bundle(site, "visit=1", *places)
    run(site)
    assert sorted(copies(site)) == sorted(place.removesuffix("=") for place in places)
    assert run(site, deep=True) == []


def test_a_deep_pass_reads_what_it_adds_and_says_so(site: Site) -> None:
    bundle(site, "visit=1", "raw/a")
    site.file("mss:whole/c", "bytes of its own")
    site.file("mss:.hidden/d")
    told = run(site, deep=True)
    assert whats(told) == ["added", "added"]
    assert {path: row[-1] for path, row in copies(site).items()} == {"raw/a": "reread", "whole/c": "reread"}
    assert logical(site) == ["raw/a", "whole/c"]
    assert site.value("SELECT count(*) FROM copies WHERE proven_at IS NULL") == 0


def test_a_deep_pass_proves_what_was_taken_at_its_word_before(site: Site) -> None:
    bundle(site, "visit=1", "raw/a")
    run(site)
    assert run(site, deep=True) == []
    assert copies(site)["raw/a"][-1] == "reread"
    assert site.rows("SELECT proof, proven_at IS NOT NULL FROM bundles") in ([("reread", 1)], [("reread", True)])


def test_files_of_their_own_are_listed_and_not_added_unread(site: Site) -> None:
    site.file("mss:whole/c")
    again = Rebuild(site.database, store_of(site))
    told = list(again.run())
    assert [(one.path, one.what) for one in told] == [("whole/c", "unknown")]
    assert (again.counts.files_unknown, again.counts.troubles) == (1, 0)
    assert copies(site) == {}


def test_members_that_a_crash_left_out_are_added_the_next_time(site: Site) -> None:
    bundle(site, "visit=1", "raw/a", "raw/b", "raw/c")
    run(site)
    before = copies(site)
    site.change("DELETE FROM copies WHERE path = 'raw/b'")
    told = run(site)
    assert [one.text for one in told] == ["1 of its members is known again, by the index beside it"]
    assert copies(site) == before


def test_bundles_on_their_way_are_left_alone(site: Site) -> None:
    file = bundle(site, "visit=1", "raw/a")
    index_of(file).unlink()
    site.change(
        "INSERT INTO bundles (host, path, label, state, files, size) VALUES ('mss', :path, '', 'packing', 1, 1)",
        path=file.relative_to(site.path("mss:")).as_posix(),
    )
    assert [one.text for one in run(site)] == ["it is being packed, and left alone"]
    assert not index_of(file).exists()
    assert copies(site) == {}
