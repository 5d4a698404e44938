"""What lay in a bundle that is gone or cut off is missing: counted, named, and brought once the bundle is back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from stager import status
from stager.daemon import standing
from stager.rescanning import rescan
from tests.stager.site import Site

BACK: dict[str, Any] = {"kind": "restore", "source": "mss:kept/**", "destination": "b:again", "dataset": "back"}


def archived(site: Site) -> list[Path]:
    """Six files in two bundles; returns these."""
    for number in range(6):
        site.file(f"a:raw/f{number}.dat", bytes([number]) * 1000)
    site.run(kind="archive", destination="mss:kept", bundle={"files": 3})
    first, second = sorted(site.path("mss:").rglob("*.stager.tar"))
    return [first, second]


def triggers(site: Site) -> int:
    return sum(1 for dataset, *_ in site.triggers() if dataset == "back")


@pytest.mark.parametrize("how", ["gone", "cut off"])
def test_members_of_a_lost_bundle_are_missing_until_it_is_back(site: Site, how: str) -> None:
    bundle = archived(site)[1]
    data = bundle.read_bytes()
    if how == "gone":
        bundle.unlink()
    else:
        os.truncate(bundle, 100)
    site.run("back", **BACK)
    assert sorted(site.states("back").values()) == ["done"] * 3 + ["missing"] * 3
    reasons = site.rows(
        "SELECT missing, reason FROM items i JOIN manifests m ON m.id = i.manifest_id WHERE m.name = 'back' AND missing"
    )
    assert len(reasons) == 3
    assert all(bundle.name in reason for _, reason in reasons)
    with status.reading(site.config.database_url) as connection:
        (row,) = status.snapshot(connection, "back").datasets
    assert (row.files["missing"], row.percent, row.percent_of) == (3, 50.0, "bytes")
    assert standing(site.database, ["back"]) == 3
    assert triggers(site) == 0, "a trigger, and half of it is not there"

    bundle.write_bytes(data)
    assert rescan(site.database, site.hosts) == 3
    site.work()
    assert set(site.states("back").values()) == {"done"}
    assert triggers(site) == 1


def test_a_restore_of_nothing_but_lost_members_is_no_mistake_of_the_manifest(site: Site) -> None:
    for bundle in archived(site):
        bundle.unlink()
    site.run("back", **BACK)
    assert standing(site.database, ["back"]) == 3
    assert set(site.states("back").values()) == {"missing"}


def test_what_was_restored_stays_so_when_its_bundle_is_lost_later(site: Site) -> None:
    bundles = archived(site)
    site.run("back", **BACK)
    for bundle in bundles:
        bundle.unlink()
    site.run("back", **BACK)
    site.run("back", **BACK, lead="ctslater")
    assert site.value("SELECT max(revision) FROM manifests WHERE name = 'back'") == 2
    assert set(site.states("back").values()) == {"done"}
    assert triggers(site) == 1


def test_what_lay_in_a_lost_bundle_is_archived_anew_from_where_it_still_is(site: Site) -> None:
    lost = archived(site)[0]
    site.run("back", **BACK)
    lost.unlink()
    site.run("anew", kind="archive", source="b:again", destination="mss:kept", trigger=None)  # in no bundle this time
    assert set(site.states("anew").values()) == {"done"}
    own = site.value("SELECT count(*) FROM copies WHERE host = 'mss' AND bundle_id IS NULL")
    assert own == len(list(site.path("mss:kept").glob("f*.dat"))) == 3
    site.run("later", **BACK | {"destination": "c:again", "dataset": "later"})
    assert set(site.states("later").values()) == {"done"}
