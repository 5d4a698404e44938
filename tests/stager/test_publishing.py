"""Inventories: lists at the destination that sha256sum itself reads, landed before a trigger may be claimed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from stager import publishing
from tests.stager.site import Site, done

ODD = ["with space", "new\nline", "back\\slash", "-rf", os.fsdecode(b"latin-\xe9"), "'quoted\"$(`)", "ü" * 100, "\r"]


def inventory(site: Site) -> str:
    return str(site.value("SELECT inventory FROM triggers"))


def test_sha256sum_proves_the_dataset_by_the_inventory(site: Site, program: Callable[[str], str]) -> None:
    for number, name in enumerate(ODD):
        site.file(f"a:raw/{name}", bytes([number]) * (1000 + number))
    site.run()
    assert site.problems == []
    assert set(site.states().values()) == {"done"}
    path = site.path(inventory(site))
    check = [program("sha256sum"), "--check", "--strict", "--quiet", str(path)]
    assert subprocess.run(check, cwd=site.path("b:"), check=False).returncode == 0
    assert len(path.read_bytes().splitlines()) >= len(ODD)
    (site.path("b:new") / ODD[0]).write_bytes(b"rotten")
    found = subprocess.run(check, cwd=site.path("b:"), check=False, capture_output=True)
    assert found.returncode == 1


def test_a_trigger_is_ready_only_when_its_inventory_is_there(site: Site) -> None:
    site.files("a:raw/1")
    site.run()
    assert site.triggers() == [("m data", 1, "", "ready")]
    assert site.path(inventory(site)).is_file()
    assert publishing.pending(site.database) == []


def test_an_inventory_made_again_is_adopted(site: Site) -> None:
    site.files("a:raw/1")
    site.run()
    before = site.path(inventory(site)).stat()
    site.change("UPDATE triggers SET state = 'pending', inventory = NULL")  # a crash between landing and marking
    assert publishing.publish_all(site.database, site.hosts) == (1, [])
    assert site.path(inventory(site)).stat() == before
    assert site.triggers()[0][3] == "ready"


def test_a_destination_that_is_down_leaves_the_trigger_pending_and_holds_up_no_other(site: Site) -> None:
    site.files("a:raw/1")
    site.submit("one", destination="b:new")
    site.submit("two", destination="c:new")
    for _ in range(2):
        site.finish(*(done(item) for item in site.claim()))
    site.path("b:").rename(site.folder / "away")
    ready, errors = publishing.publish_all(site.database, site.hosts)
    assert (ready, [error.kind for error in errors]) == (1, ["host down"])
    (site.folder / "away").rename(site.path("b:"))
    assert publishing.publish_all(site.database, site.hosts) == (1, [])


def test_an_inventory_that_cannot_be_of_the_whole_group_is_not_published(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.run()
    site.change("UPDATE triggers SET state = 'pending'")
    site.change("DELETE FROM copies WHERE path = 'new/1'")
    ready, errors = publishing.publish_all(site.database, site.hosts)
    assert ready == 0
    assert "whole with 2 files, and 1 are known now" in str(errors[0])


@pytest.mark.parametrize("dataset", ["../../etc", "CFHTLS D1 / raw", "." * 20, "x" * 200])
def test_an_inventory_lies_below_its_folder_whatever_the_dataset_is_called(sqlite_site: Site, dataset: str) -> None:
    sqlite_site.files("a:raw/1")
    sqlite_site.run(dataset=dataset)
    assert sqlite_site.problems == []
    path = inventory(sqlite_site).removeprefix("b:")
    assert path.startswith(".stager/inventories/")
    assert ".." not in path.split("/")
    assert sqlite_site.path(f"b:{path}").is_file()
