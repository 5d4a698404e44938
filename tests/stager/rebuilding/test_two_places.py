"""Two files of a store for one path."""

from __future__ import annotations

import pytest

from tests.stager.rebuilding.packed import bundle, copies, logical, run, store_of, whats
from tests.stager.site import Site
from transfers.errors import TransferError


def test_a_file_that_is_in_two_bundles_with_the_same_bytes_is_served_from_one(site: Site) -> None:
    bundle(site, "visit=1", "raw/a=same", "raw/b")
    bundle(site, "visit=2", "raw/a=same", "raw/c", mtime=1_270_000_001)
    told = run(site)
    assert whats(told) == ["added", "added", "note"]
    assert "raw/a: in bundles/visit=1" in told[2].text
    assert sorted(copies(site)) == ["raw/a", "raw/b", "raw/c"]
    assert run(site) == []


def test_two_bundles_with_other_bytes_for_one_path_are_told_and_the_second_is_refused(site: Site) -> None:
    first = bundle(site, "visit=1", "raw/a=one", "raw/b")
    second = bundle(site, "visit=2", "raw/a=two", "raw/c")
    for deep in (False, False, True):
        troubles = [one for one in run(site, deep=deep) if one.what == "trouble"]
        assert [one.path.endswith(second.name) for one in troubles] == [True]
        assert first.name in troubles[0].text
        assert "raw/a" in troubles[0].text
    assert sorted(copies(site)) == ["raw/a", "raw/b", "raw/c"]
    assert copies(site)["raw/a"][0].endswith(first.name)


def test_a_member_whose_other_bundle_is_gone_is_served_from_where_it_is(site: Site) -> None:
    first = bundle(site, "visit=1", "raw/a=same", "raw/b")
    second = bundle(site, "visit=2", "raw/a=same", "raw/c", mtime=1_270_000_001)
    run(site)
    first.unlink()
    told = run(site)
    assert sorted(whats(told)) == ["mended", "trouble"]
    assert copies(site)["raw/a"][0].endswith(second.name)
    found = list(store_of(site).digest(["raw/a"]))
    assert not isinstance(found[0], TransferError)
    assert found[0][2] == copies(site)["raw/a"][3]


@pytest.mark.parametrize(("data", "what"), [("same", "note"), ("other bytes", "trouble")])
def test_a_member_that_is_a_file_of_its_own_too_is_told(site: Site, data: str, what: str) -> None:
    bundle(site, "visit=1", "raw/a=same")
    site.file("mss:raw/a", data)
    told = run(site)
    assert whats(told) == ["added", what]
    assert "it is a member of bundles/visit=1" in told[1].text
    assert logical(site) == ["raw/a"]


def test_a_file_that_went_from_its_own_place_into_a_bundle_is_served_from_there(site: Site) -> None:
    site.file("mss:raw/a", "same")
    run(site, deep=True)
    site.path("mss:raw/a").unlink()
    bundle(site, "visit=1", "raw/a=same")
    assert whats(run(site)) == ["added", "mended"]
    assert run(site) == []
    assert copies(site)["raw/a"][0] is not None
    assert logical(site) == ["raw/a"]
