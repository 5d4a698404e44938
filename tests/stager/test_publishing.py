"""Inventories: lists at the destination that sha256sum itself reads, landed before a trigger may be claimed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from stager import publishing, status
from stager.queues import table
from stager.samples import Exposure, write_focal_plane
from tests.stager.queues.handoff import PER_VISIT, add_queue, copy, items, lists, raws
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
    assert publishing.lanes(site.database, site.config) == []


def test_an_inventory_made_again_is_adopted(site: Site) -> None:
    site.files("a:raw/1")
    site.run()
    before = site.path(inventory(site)).stat()
    site.change("UPDATE triggers SET state = 'pending', inventory = NULL")  # a crash between landing and marking
    assert publishing.publish_all(site.database, site.hosts) == (1, [])
    after = site.path(inventory(site)).stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)
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
    assert "whole with 2 files, and 1 is known now" in str(errors[0])


@pytest.mark.parametrize("dataset", ["../../etc", "CFHTLS D1 / raw", "." * 20, "x" * 200])
def test_an_inventory_lies_below_its_folder_whatever_the_dataset_is_called(sqlite_site: Site, dataset: str) -> None:
    sqlite_site.files("a:raw/1")
    sqlite_site.run(dataset=dataset)
    assert sqlite_site.problems == []
    path = inventory(sqlite_site).removeprefix("b:")
    assert path.startswith(".stager/inventories/")
    assert ".." not in path.split("/")
    assert sqlite_site.path(f"b:{path}").is_file()


# ----------------------------------------------------------------------------------- queues that are folders


def states(site: Site) -> list[tuple[str, str]]:
    return [
        (row[0], row[1]) for row in site.rows("SELECT state, COALESCE(note, '') FROM triggers ORDER BY group_label")
    ]


def test_a_visit_that_is_whole_is_delivered_to_the_job_office_and_nothing_is_claimed(site: Site) -> None:
    office = add_queue(site, "isr", ids=["visit", "filter", "ccd", "amp"])
    site.files(*(f"a:{path}" for path in raws(2)))
    copy(site)
    assert site.problems == []
    assert states(site) == [("delivered", f"4 datasets to {office}")] * 2
    datasets = [one["DATASET"] for one in items(office)]
    assert [one["ids"]["visit"] for one in datasets] == [1] * 4 + [2] * 4
    assert datasets[0] == {"type": "raw", "ids": {"visit": 1, "filter": "r", "ccd": 0, "amp": 0}, "valid": True}
    assert table.claim(site.database, "isr", "me", 60) is None
    assert publishing.lanes(site.database, site.config) == []
    assert site.path(site.value("SELECT min(inventory) FROM triggers")).is_file()


def test_each_trigger_is_a_list_that_says_what_it_is_of(site: Site) -> None:
    folder = add_queue(site, "isr", kind="lists", type="raw", ids=["visit", "filter", "ccd", "amp"], flush=2)
    site.files(*(f"a:{path}" for path in raws(2)))
    (site.folder / "bad.txt").write_text("visit=1 ccd=1 amp=1  # dead column\n")
    copy(site, accept={"except": "bad.txt"})
    names = [row[0] for row in site.rows("SELECT id FROM triggers ORDER BY group_label")]
    found = lists(folder)
    assert list(found) == [f"m_data-visit={visit}-r1-{names[visit - 1][:8]}.txt" for visit in (1, 2)]
    first, second = ((folder / name).read_text().splitlines() for name in found)
    assert first[0] == "# m data, revision 1: visit=1"
    assert first[2:] == [
        ">intids visit ccd amp",
        "raw visit=1 filter=r ccd=0 amp=0",
        "raw visit=1 filter=r ccd=0 amp=1",
        "raw visit=1 filter=r ccd=1 amp=0",
        "#raw visit=1 filter=r ccd=1 amp=1  # excluded: dead column",
        "raw visit=0 filter=0 ccd=0 amp=0",
        "raw visit=0 filter=0 ccd=0 amp=0",
    ]
    assert f"trigger {names[1]}, inventory b:.stager/inventories/" in second[1]
    assert [one.ids["visit"] for one in found[list(found)[1]]] == [2, 2, 2, 2, 0, 0]


GROUPS: list[tuple[str, list[str], int]] = [
    ("cfht_megacam", ["visit"], 2),
    ("cfht_megacam", ["visit", "ccd"], 4),
    ("cfht_megacam", ["visit", "ccd", "amp"], 8),
    ("lsst_imsim", ["visit"], 1),
    ("lsst_imsim", ["visit", "snap"], 2),
    ("lsst_imsim", ["visit", "raft", "sensor"], 2),
    ("lsst_imsim", ["visit", "raft", "sensor", "channel", "snap"], 8),
]
IMSIM = [
    f"D1/raw/v7-fy/E00{e}/R23/S0{s}/imsim_7_R23_S0{s}_C1{c}_E00{e}.fits.gz"
    for e in (0, 1)
    for s in (0, 1)
    for c in (0, 1)
]


@pytest.mark.parametrize(("camera", "per", "groups"), GROUPS)
@pytest.mark.parametrize("datasets", ["files", "group"])
def test_each_group_of_a_copy_gives_one_trigger_and_its_datasets_once(
    sqlite_site: Site, camera: str, per: list[str], groups: int, datasets: str
) -> None:
    site = sqlite_site
    office = add_queue(site, "isr", datasets=datasets)
    files = raws(2) if camera == "cfht_megacam" else IMSIM
    site.files(*(f"a:{path}" for path in files))
    copy(site, {"queue": "isr", "per": per}, camera=camera)
    assert [state for state, _ in states(site)] == ["delivered"] * groups
    told = [json.dumps(one["DATASET"], sort_keys=True) for one in items(office)]
    assert len(told) == len(set(told)) == (len(files) if datasets == "files" else groups)
    if datasets == "group":
        assert all(set(one["DATASET"]["ids"]) == set(per) for one in items(office))


@pytest.mark.parametrize(("per", "groups"), [(["visit"], 1), (["visit", "ccd"], 36), (["visit", "ccd", "amp"], 72)])
def test_each_group_of_a_chop_gives_one_trigger_and_its_datasets_once(
    sqlite_site: Site, per: list[str], groups: int
) -> None:
    site = sqlite_site
    office = add_queue(site, "isr", ids=["visit", "filter", "ccd", "amp"])
    plane = site.path("a:in/1038843o.fits")
    plane.parent.mkdir()
    write_focal_plane(plane, Exposure(), rows=33)
    trigger = {"queue": "isr", "per": per}
    site.run(kind="chop", source="a:in/*.fits", destination="b:out", camera="cfht_megacam", trigger=trigger)
    assert site.problems == []
    assert [state for state, _ in states(site)] == ["delivered"] * groups
    told = {(one["DATASET"]["ids"]["ccd"], one["DATASET"]["ids"]["amp"]) for one in items(office)}
    assert told == {(ccd, amp) for ccd in range(36) for amp in (0, 1)}
    assert len(items(office)) == 72


def test_a_delivery_that_the_database_did_not_learn_of_is_not_made_again(site: Site) -> None:
    office = add_queue(site, "isr")
    site.files(*(f"a:{path}" for path in raws(1)))
    copy(site)
    for item in (office / "dataAvailable").glob("raw-*"):
        item.unlink()  # a job office took them
    site.change("UPDATE triggers SET state = 'pending', claims = 0, inventory = NULL")  # as an old copy has it
    assert publishing.publish_all(site.database, site.hosts) == (1, [])
    assert list((office / "dataAvailable").glob("raw-*")) == []
    assert states(site)[0][0] == "delivered"


def test_what_waited_to_be_claimed_is_delivered_once_its_queue_is_a_folder(site: Site) -> None:
    site.files(*(f"a:{path}" for path in raws(1)))
    copy(site, {"queue": "pipeline", "per": ["visit"]})
    assert states(site) == [("ready", "")]
    office = add_queue(site, "pipeline")
    assert publishing.publish_all(site.database, site.hosts) == (1, [])
    assert len(items(office)) == 4


def told(site: Site) -> list[status.QueueRow]:
    with status.reading(site.config.database_url) as connection:
        return status.snapshot(connection).queues


def test_a_folder_that_is_not_there_is_one_line_of_status_and_holds_up_no_other_queue(site: Site) -> None:
    office = add_queue(site, "isr")
    office.parent.rmdir()
    site.files(*(f"a:{path}" for path in raws(3)), "a:other/x")
    copy(site)
    site.run("two", source="a:other/**", destination="b:other")
    assert [error.kind for error in site.problems] == ["undelivered"]
    assert site.value("SELECT count(*) FROM triggers WHERE state = 'ready'") == 1
    (row,) = told(site)
    assert (row.queue, row.triggers) == ("isr", 3)
    assert row.problem.startswith(f"{office}: the folder above it is not there (deliver)")
    office.parent.mkdir()
    assert publishing.publish_all(site.database, site.hosts) == (3, [])
    assert told(site) == []
    assert len(items(office)) == 12


def test_a_file_in_the_place_of_a_folder_is_said_and_left_alone(site: Site) -> None:
    office = add_queue(site, "isr")
    office.write_text("mine")
    site.files(*(f"a:{path}" for path in raws(1)))
    copy(site)
    assert told(site)[0].problem.startswith(
        f"{office}: this is a file, and no folder (deliver) - undelivered; triggers wait"
    )
    assert office.read_text() == "mine"
    office.unlink()
    assert publishing.publish_all(site.database, site.hosts) == (1, [])


def test_a_folder_whose_disk_is_not_mounted_is_not_taken_for_a_new_one(site: Site) -> None:
    office = add_queue(site, "isr")
    site.files(*(f"a:{path}" for path in raws(1)))
    copy(site)
    away = office.rename(site.folder / "away")
    site.files("a:D1/raw/v9-fr/s00/c00-a0.fits")
    for there in (False, True):
        if there:
            office.mkdir()
        site.run("m", source="a:D1/raw/**", destination="b:D1/raw", camera="cfht_megacam", check="none",
                 trigger=PER_VISIT)  # fmt: skip
        (row,) = told(site)
        assert "is its disk mounted? To begin anew there, `mkdir -p " in row.problem
        assert not office.exists() or list(office.iterdir()) == []
    office.rmdir()
    away.rename(office)
    assert publishing.publish_all(site.database, site.hosts) == (1, [])
    assert len(items(office)) == 5


def test_a_trigger_that_cannot_be_told_waits_alone_and_says_why(site: Site) -> None:
    office = add_queue(site, "isr", ids=["visit", "ccd"])
    site.files(*(f"a:{path}" for path in raws(1)), "a:other/x")
    site.run("odd", source="a:other/**", destination="b:other", trigger={"queue": "isr"}, camera="cfht_megacam")
    copy(site)
    assert [error.kind for error in site.problems] == ["undeliverable"]
    assert [row.problem.split(" - ")[0] for row in told(site)] == [
        "its 1 file has not by its path the ids visit, ccd to be announced by, such as other/x"
    ]
    assert len(items(office)) == 2


def test_a_trigger_of_a_queue_that_is_no_longer_configured_waits_and_says_so(site: Site) -> None:
    site.files("a:raw/1")
    site.submit()
    site.finish(*(done(item) for item in site.claim()))
    queues = {name: queue for name, queue in site.config.queues.items() if name != "pipeline"}
    site.hosts.config = site.config.model_copy(update={"queues": queues})
    publishing.publish_all(site.database, site.hosts)
    (row,) = told(site)
    assert row.problem.startswith("the configuration has no queue pipeline")
    site.hosts.config = site.config
    assert publishing.publish_all(site.database, site.hosts) == (1, [])
    assert told(site) == []


def test_a_file_without_ids_is_not_announced_and_the_queue_says_so(site: Site) -> None:
    office = add_queue(site, "isr")
    site.files(*(f"a:{path}" for path in raws(1)), "a:D1/raw/README")
    copy(site, {"queue": "isr"})
    assert states(site) == [("delivered", f"4 datasets (1 of its files has no such ids: D1/raw/README) to {office}")]


def test_a_later_revision_announces_what_is_new_once_more(site: Site) -> None:
    office = add_queue(site, "isr", kind="lists")
    site.files(*(f"a:{path}" for path in raws(2)))
    copy(site)
    site.file("a:D1/raw/v2-fr/s00/c09-a0.fits", "a late one")
    copy(site)
    names: Any = lists(office)
    assert [len(found) for found in names.values()] == [4, 4, 5]
    assert sorted(name[:17] for name in names) == ["m_data-visit=1-r1", "m_data-visit=2-r1", "m_data-visit=2-r2"]


def test_a_file_that_lies_where_no_layout_knows_it_is_told_by_its_source(site: Site) -> None:
    office = add_queue(site, "isr", ids=["visit", "ccd", "amp"])
    site.files(*(f"a:{path}" for path in raws(1)))
    copy(site, destination="b:new")
    assert site.path("b:new/v1-fr/s00/c00-a0.fits").is_file()
    assert [one["DATASET"]["type"] for one in items(office)] == ["raw"] * 4
