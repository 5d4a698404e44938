"""What `stager doctor` asks: whether bundles, indexes and the database agree."""

from __future__ import annotations

import shutil

from stager.rebuilding.check import check
from tests.stager.rebuilding.packed import flip, index_of, known_bundle
from tests.stager.site import Site


def test_check_finds_nothing_where_all_agree(site: Site) -> None:
    known_bundle(site)
    for deep in (False, True):
        assert check(site.database, site.hosts, "mss", deep=deep) == (1, [], 0)


def test_check_tells_what_does_not_agree_and_changes_nothing(site: Site) -> None:
    gone, cut, lost, other, rotten = (
        known_bundle(site, f"raw/{name}1", f"raw/{name}2") for name in ("a", "b", "c", "d", "e")
    )
    gone.unlink()
    with open(cut, "rb+") as opened:
        opened.truncate(1024)
    index_of(lost).unlink()
    flip(index_of(other), 200)
    flip(rotten, 520)
    before = {path: path.read_bytes() for path in gone.parent.iterdir()}
    checked = check(site.database, site.hosts, "mss")
    assert checked.bundles == 5
    assert len(checked.wrong) == 4
    deep = check(site.database, site.hosts, "mss", deep=True)
    assert len(deep.wrong) == 5
    assert any("does not have the digest" in text for text in deep.wrong)
    assert {path: path.read_bytes() for path in gone.parent.iterdir()} == before


def test_check_of_a_store_that_is_down_says_that(site: Site) -> None:
    known_bundle(site)
    site.hosts.close()
    shutil.rmtree(site.path("mss:"))
    checked = check(site.database, site.hosts, "mss")
    assert checked.bundles == 1
    assert len(checked.wrong) == 1
