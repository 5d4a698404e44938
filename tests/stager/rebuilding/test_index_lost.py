"""An index was lost, damaged or mixed up: the others make it again, and what was proven is not unsaid."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.stager.rebuilding.packed import (
    break_last_member,
    bundle,
    copies,
    flip,
    index_of,
    known_bundle,
    logical,
    run,
    whats,
)
from tests.stager.site import Site


def test_the_index_beside_a_bundle_is_written_again_from_the_database(site: Site) -> None:
    file = known_bundle(site)
    before = index_of(file).read_bytes()
    index_of(file).unlink()
    break_last_member(file)
    told = run(site)
    assert [(one.what, one.text) for one in told] == [
        ("mended", "it was missing, and is written again from the database")
    ]
    assert index_of(file).read_bytes() == before


def test_a_damaged_index_is_kept_in_quarantine_and_written_again(site: Site) -> None:
    file = known_bundle(site)
    before = index_of(file).read_bytes()
    flip(index_of(file), 200)
    damaged = index_of(file).read_bytes()
    told = run(site)
    assert whats(told) == ["mended"]
    assert "could not be believed" in told[0].text
    assert index_of(file).read_bytes() == before
    (kept,) = site.path("mss:.stager/quarantine/indexes").iterdir()
    assert kept.read_bytes() == damaged
    assert run(site) == []


def test_the_index_of_another_bundle_is_not_believed(site: Site) -> None:
    one = bundle(site, "visit=1", "raw/a=1111", "raw/b=2222")
    other = bundle(site, "visit=2", "raw/c=3333", "raw/d=4444")
    assert one.stat().st_size == other.stat().st_size
    right = index_of(one).read_bytes()
    shutil.copyfile(index_of(other), index_of(one))
    told = run(site)
    assert sorted(whats(told)) == ["added", "added", "mended"]
    assert index_of(one).read_bytes() == right
    assert logical(site) == ["raw/a", "raw/b", "raw/c", "raw/d"]
    assert run(site, deep=True) == []


def stale(site: Site) -> tuple[Path, bytes, bytes]:
    """A bundle, its index, and the index of other bytes with the same paths, sizes and times."""
    file = bundle(site, "visit=1", "raw/a=older", "raw/b=second")
    index = index_of(file).read_bytes()
    file.unlink()
    index_of(file).unlink()
    file = bundle(site, "visit=1", "raw/a=newer", "raw/b=second")
    right = index_of(file).read_bytes()
    index_of(file).write_bytes(index)
    return file, right, index


def test_two_indexes_that_tell_other_digests_are_settled_by_reading(site: Site) -> None:
    file, right, _ = stale(site)
    told = run(site)
    assert whats(told) == ["trouble"]
    assert "tell other digests: `--deep` reads the members" in told[0].text
    assert copies(site) == {}
    assert whats(run(site, deep=True)) == ["mended", "added"]
    assert index_of(file).read_bytes() == right
    assert logical(site) == ["raw/a", "raw/b"]


def test_an_index_of_older_bytes_does_not_unsay_what_was_proven(site: Site) -> None:
    file, right, older = stale(site)
    index_of(file).write_bytes(right)
    run(site)
    before = copies(site)
    index_of(file).write_bytes(older)
    assert whats(run(site)) == ["mended"]
    assert index_of(file).read_bytes() == right
    assert copies(site) == before


def test_a_store_that_was_changed_wholly_does_not_unsay_what_was_proven(site: Site) -> None:
    file, right, _ = stale(site)
    index_of(file).write_bytes(right)
    run(site)
    before = copies(site)
    site.change("DELETE FROM copies WHERE path = 'raw/b'")  # so that the database cannot tell it all
    shutil.rmtree(file.parent)
    bundle(site, "visit=1", "raw/a=older", "raw/b=second")
    told = run(site)
    assert whats(told) == ["trouble"]
    assert "than those that were proven" in told[0].text
    assert copies(site)["raw/a"] == before["raw/a"]


def test_a_bundle_whose_last_member_is_damaged_still_serves(site: Site) -> None:
    file = bundle(site, "visit=1", "raw/a", "raw/b")
    break_last_member(file)
    told = run(site)
    assert whats(told) == ["trouble", "added"]
    assert "its last member is damaged" in told[0].text
    assert "still serves" in told[0].text
    assert logical(site) == ["raw/a", "raw/b"]
    assert whats(run(site, deep=True)) == ["trouble"]
