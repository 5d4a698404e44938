"""A batch whose host goes away on the way: the host is to blame, and no item pays for it."""

from __future__ import annotations

from functools import partial

import pytest

from manifests.manifest import Manifest
from stager import items
from tests.stager.site import Site
from transfers.errors import HostDown


@pytest.mark.parametrize("gone", ["a", "b"])
def test_items_of_a_host_that_went_away_wait_without_a_try(site: Site, gone: str) -> None:
    site.files(*(f"a:raw/{number:03d}" for number in range(300)))
    site.submit()
    claimed = site.claim()
    assert len(claimed) == 300
    manifest = Manifest.from_canonical(items.document(site.database, claimed[0].manifest_id))
    batch = site.carry_out(manifest, claimed, partial(site.path(f"{gone}:").rename, site.folder / "away"))
    assert list(batch.troubles) == [gone]
    assert isinstance(batch.troubles[gone], HostDown)
    rows = site.rows("SELECT state, tries, missing, count(*) FROM items GROUP BY state, tries, missing")
    assert rows == [("waiting", 0, False, 300)]
    assert len(site.claim()) == 300, "they are not due at once when the host is back"
    assert site.value("SELECT count(*) FROM attempts") < 300, "work went on when the host was known to be gone"


def test_a_file_that_only_its_host_refuses_is_its_own_trouble(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.submit()
    claimed = site.claim()
    manifest = Manifest.from_canonical(items.document(site.database, claimed[0].manifest_id))
    site.file("b:new/1", "other bytes")
    batch = site.carry_out(manifest, claimed)
    assert batch.troubles == {}
    assert site.states() == {"raw/1": "held", "raw/2": "done"}
    assert batch.traffic.failures <= 1
