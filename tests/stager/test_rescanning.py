"""A file that comes late is found where it was expected, and tells somebody."""

from __future__ import annotations

import os

import pytest

from stager import intents
from stager.opening import Hosts
from stager.rescanning import rescan
from stager.samples import Exposure, write_focal_plane
from tests.stager.site import Site, recount, tallies

CFHT = {"source": "a:D1/raw/**", "destination": "b:D1/raw", "camera": "cfht_megacam", "check": "none"}
PER_VISIT = {"queue": "pipeline", "per": ["visit"]}


def test_a_late_file_of_a_list_is_found_carried_out_and_triggers(site: Site) -> None:
    site.files("a:raw/1")
    (site.folder / "list.txt").write_text("1\nlate\n")
    site.run(source="a:raw", files="list.txt")
    assert site.states() == {"raw/1": "done", "raw/late": "missing"}
    assert rescan(site.database, site.hosts) == 0
    assert site.triggers() == []
    site.file("a:raw/late")
    assert rescan(site.database, site.hosts) == 1
    assert rescan(site.database, site.hosts) == 0
    site.work()
    assert site.states() == {"raw/1": "done", "raw/late": "done"}
    assert site.path("b:new/late").is_file()
    assert site.triggers() == [("m data", 1, "", "ready")]
    assert tallies(site.database) == recount(site.database)


def test_late_files_of_an_expected_visit_are_found_with_all_their_ids(site: Site) -> None:
    site.files(*(f"a:D1/raw/v1-fr/s00/c{ccd:02d}-a0.fits" for ccd in range(36)))
    site.run(**CFHT, expect=[1], trigger=PER_VISIT)
    assert list(site.states().values()).count("missing") == 36
    site.files(*(f"a:D1/raw/v1-fr/s00/c{ccd:02d}-a1.fits" for ccd in range(36)))
    assert rescan(site.database, site.hosts) == 36
    site.work()
    assert set(site.states().values()) == {"done"}
    assert [row[2] for row in site.triggers()] == ["visit=1"]


def test_a_late_visit_is_found_though_its_filter_was_unknown(site: Site) -> None:
    site.files("a:D1/raw/v1-fr/s00/c00-a0.fits")
    site.run(**CFHT, ids={"field": "D1"}, expect=[{"visit": 2, "ccd": 3, "amp": 1}], trigger=PER_VISIT)
    unknown = [path for path, state in site.states().items() if state == "missing"]
    assert unknown == ["D1/raw/v2-f*/s00/c03-a1.fits"]
    site.files("a:D1/raw/v2-fi2/s00/c03-a1.fits")
    assert rescan(site.database, site.hosts) == 1
    site.work()
    assert site.states()["D1/raw/v2-fi2/s00/c03-a1.fits"] == "done"
    assert site.path("b:D1/raw/v2-fi2/s00/c03-a1.fits").is_file()
    assert [row[2] for row in site.triggers()] == ["visit=1", "visit=2"]


def test_a_late_focal_plane_is_read_and_chopped(sqlite_site: Site) -> None:
    site = sqlite_site
    site.path("a:in").mkdir()
    said = {"kind": "chop", "source": "a:in/*.fits", "destination": "b:out", "camera": "cfht_megacam"}
    write_focal_plane(site.path("a:in/1038843o.fits"), Exposure(), rows=33)
    site.run(**said, expect=[1038843, 1038844], trigger=PER_VISIT)
    assert sorted(site.states().values()) == ["done", "missing"]
    write_focal_plane(site.path("a:in/1038844o.fits"), Exposure(obsid=1038844), rows=33)
    assert rescan(site.database, site.hosts) == 1
    site.work()
    assert site.states() == {"in/1038843o.fits": "done", "in/1038844o.fits": "done"}
    assert [row[2] for row in site.triggers()] == ["visit=1038843", "visit=1038844"]


def test_a_late_focal_plane_that_cannot_be_used_is_held_whatever_its_name(site: Site) -> None:
    site.path("a:in").mkdir()
    write_focal_plane(site.path("a:in/1038843o.fits"), Exposure(), rows=2, ccds=range(1), nextend=36)
    site.submit(kind="chop", source="a:in/*.fits", destination="b:out", camera="cfht_megacam", expect=[7])
    site.file(os.fsdecode(b"a:in/7o\xe9.fits"), "no FITS at all")
    assert rescan(site.database, site.hosts) in (0, 1)
    ((state, reason),) = site.rows("SELECT state, reason FROM items WHERE source LIKE 'in/7%'")
    assert (state, "SIMPLE" in reason or "FITS" in reason) == ("held", True)
    assert tallies(site.database) == recount(site.database)


@pytest.mark.parametrize("wrong", ["no FITS", "no field"])
def test_a_bad_focal_plane_with_any_name_is_held_from_the_start(site: Site, wrong: str) -> None:
    plane = site.file(os.fsdecode(b"a:in/latin-\xe9\n.fits"), "no FITS at all")
    if wrong == "no field":
        write_focal_plane(plane, Exposure(target="zenith"), rows=2)
    site.submit(kind="chop", source="a:in/*.fits", destination="b:out", camera="cfht_megacam", trigger=None)
    ((state, reason),) = site.rows("SELECT state, reason FROM items")
    assert state == "held"
    assert reason.isprintable()


def test_a_source_that_is_down_or_unknown_holds_up_no_other(site: Site) -> None:
    site.files("a:raw/1", "c:raw/1")
    (site.folder / "list.txt").write_text("1\nlate\n")
    site.run("down", source="a:raw", files="list.txt", destination="b:a")
    site.run("up", source="c:raw", files="list.txt", destination="b:c")
    site.files("c:raw/late")
    site.path("a:").rename(site.folder / "away")
    assert rescan(site.database, site.hosts) == 1
    assert site.states("up")["raw/late"] == "waiting"
    gone = site.config.model_copy(update={"hosts": {k: v for k, v in site.config.hosts.items() if k != "a"}})
    assert rescan(site.database, Hosts(site.database, gone)) == 0


@pytest.mark.parametrize("what", ["hold", "cancel"])
def test_what_an_operator_gave_up_is_not_looked_for(site: Site, what: str) -> None:
    site.files("a:raw/1")
    (site.folder / "list.txt").write_text("1\nlate\n")
    site.run(source="a:raw", files="list.txt")
    getattr(intents, what)(site.database, "m")
    site.files("a:raw/late")
    assert rescan(site.database, site.hosts) == 0


def test_a_missing_file_is_not_lost_by_holding_and_releasing_its_item(site: Site) -> None:
    site.files("a:raw/1")
    (site.folder / "list.txt").write_text("1\nlate\n")
    site.run(source="a:raw", files="list.txt")
    intents.hold(site.database, "m", "*")
    intents.release(site.database, "m", "*")
    site.files("a:raw/late")
    assert rescan(site.database, site.hosts) == 1
