"""`stager registry rebuild`, and a life after the database was deleted."""

from __future__ import annotations

import json

import pytest

from tests.stager.conftest import Stager
from tests.stager.rebuilding.packed import bundle, copies, flip
from tests.stager.site import Site


def archived(site: Site) -> dict[str, bytes]:
    """A dataset of three visits on the store in bundles; its files as they were."""
    files = {f"raw/v{visit}/f{number}.dat": f"{visit} {number}" * number for visit in range(3) for number in range(5)}
    for path, data in files.items():
        site.file(f"a:{path}", data)
    site.run(
        "tape",
        kind="archive",
        source="a:raw/**",
        destination="mss:lsst",
        bundle={"per": ["day"], "bytes": 1_000_000, "files": 4, "age_s": 1},
        trigger=None,
    )
    return {path.removeprefix("raw/"): data.encode() for path, data in files.items()}


def test_a_restore_works_after_the_database_was_deleted(site: Site, stager: Stager) -> None:
    files = archived(site)
    assert len(list(site.path("mss:lsst").glob("*.stager.tar"))) == 4
    assert stager("doctor").code == 0
    lose_database(site)
    said = stager("registry", "rebuild", "mss")
    assert said.code == 0, said.err
    assert "4 bundles, 0 as they should be, with 15 members" in said.out
    site.run("back", kind="restore", source="mss:lsst/**", destination="b:back")
    assert {path: site.path(f"b:back/{path}").read_bytes() for path in files} == files
    assert set(site.states("back").values()) == {"done"}


def lose_database(site: Site) -> None:
    tables = ("triggers", "images", "copies", "bundles", "attempts", "items", "groups", "manifests", "tallies", "hosts")
    for table in tables:
        site.change(f"DELETE FROM {table}")


def test_archiving_again_after_a_rebuild_adopts_what_is_there(site: Site, stager: Stager) -> None:
    archived(site)
    before = {path: path.stat().st_mtime_ns for path in site.path("mss:lsst").iterdir()}
    lose_database(site)
    assert stager("registry", "rebuild", "mss").code == 0
    archived(site)
    assert {path: path.stat().st_mtime_ns for path in site.path("mss:lsst").iterdir()} == before
    assert set(site.states("tape").values()) == {"done"}


def test_the_command_says_what_it_did_in_json_too(site: Site, stager: Stager) -> None:
    bad = bundle(site, "visit=1", "raw/a")
    bundle(site, "visit=2", "raw/b")
    flip(bad, 1)
    said = stager("registry", "rebuild", "mss", "--dry-run", "--json")
    data = json.loads(said.out)
    assert said.code == 1
    assert (data["store"], data["dry_run"], data["counts"]["members_added"], data["counts"]["troubles"]) == (
        "mss",
        True,
        1,
        1,
    )
    assert [one["what"] for one in data["told"]] == ["trouble", "added"]
    assert copies(site) == {}
    said = stager("registry", "rebuild", "mss")
    assert said.code == 1
    assert "cannot be believed" in said.err
    assert "2 bundles, 0 as they should be, with 1 member: " in said.out


@pytest.mark.parametrize("name", ["a", "nowhere"])
def test_what_is_no_store_is_a_misuse(site: Site, stager: Stager, name: str) -> None:
    said = stager("registry", "rebuild", name)
    assert said.code == 2
    assert said.err == f"there is no mass store {name}; the configuration has mss\n"
