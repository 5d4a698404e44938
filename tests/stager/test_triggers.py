"""One trigger for each whole group, with the completion that causes it, and never before."""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import manifests.cameras
from stager import intents, items
from stager.queues import table
from stager.samples import Exposure, write_focal_plane
from stager.triggers import label_of, trigger_id
from tests.stager.site import Site, done, failed
from tests.waiting import LATE_S
from transfers.errors import Refused

PER_VISIT = {"queue": "pipeline", "per": ["visit"]}
PER_CCD = {"queue": "pipeline", "per": ["visit", "ccd"]}


def raws(visits: int, ccds: int = 2) -> list[str]:
    return [f"D1/raw/v{v}-fr/s00/c{c:02d}-a0.fits" for v in range(1, visits + 1) for c in range(ccds)]


def copy(site: Site, trigger: dict[str, Any], name: str = "m", **said: Any) -> None:
    site.submit(
        name, source="a:D1/raw/**", destination="b:D1/raw", camera="cfht_megacam", check="none", trigger=trigger, **said
    )


def data(site: Site) -> list[dict[str, Any]]:
    return [json.loads(row[0]) for row in site.rows("SELECT data FROM triggers ORDER BY group_label")]


def test_the_whole_dataset_gives_one_trigger_after_its_last_file(site: Site) -> None:
    site.files("a:raw/1", "a:raw/2")
    site.submit()
    first, second = site.claim()
    assert site.finish(done(first)).triggers == []
    (made,) = site.finish(done(second)).triggers
    assert made == trigger_id("m data", 1, "", "pipeline")
    assert site.triggers() == [("m data", 1, "", "pending")]
    assert data(site)[0]["files"] == 2


def test_each_visit_gives_its_own_trigger(site: Site) -> None:
    site.files(*(f"a:{path}" for path in raws(3)))
    copy(site, PER_VISIT)
    claimed = site.claim()
    for item in claimed[:3]:
        site.finish(done(item))
    assert [row[2] for row in site.triggers()] == ["visit=1"]
    site.finish(*(done(item) for item in claimed[3:]))
    assert [one["group"] for one in data(site)] == [{"visit": 1}, {"visit": 2}, {"visit": 3}]
    assert {one["files"] for one in data(site)} == {2}


def test_what_is_excluded_is_not_waited_for_and_told_with_its_reason(site: Site) -> None:
    site.files(*(f"a:{path}" for path in raws(2)), "a:D1/raw/v1-fr/s00/c00\\-a1.fits")
    (site.folder / "bad.txt").write_text("visit=1 ccd=1  # dead column\n*c00?-a1.fits  # odd name\n")
    copy(site, PER_VISIT, accept={"except": "bad.txt"})
    site.finish(*(done(item) for item in site.claim()))
    first, second = data(site)
    assert second["excluded"] == []
    assert first["files"] == 1
    assert first["excluded"] == [
        {"path": "D1/raw/v1-fr/s00/c01-a0.fits", "ids": first["excluded"][0]["ids"], "reason": "dead column"}
    ]
    assert first["excluded"][0]["ids"]["ccd"] == 1


def test_a_path_of_what_is_excluded_is_the_real_one(site: Site) -> None:
    site.files("a:raw/good", "a:raw/back\\slash")
    (site.folder / "bad.txt").write_text("*slash  # odd name\n")
    site.submit(accept={"except": "bad.txt"})
    site.finish(*(done(item) for item in site.claim()))
    assert [one["path"] for one in data(site)[0]["excluded"]] == ["raw/back\\slash"]


def test_a_group_of_which_all_is_excluded_gives_no_trigger(site: Site) -> None:
    site.files(*(f"a:{path}" for path in raws(2)))
    (site.folder / "bad.txt").write_text("visit=1  # clouds\n")
    copy(site, PER_VISIT, accept={"except": "bad.txt"})
    site.finish(*(done(item) for item in site.claim()))
    assert [row[2] for row in site.triggers()] == ["visit=2"]


def test_a_group_with_a_missing_or_held_item_is_not_whole(site: Site) -> None:
    site.files(*(f"a:{path}" for path in raws(2)))
    copy(site, PER_VISIT, expect=[2])  # of visit 2 seventy files are missing
    claimed = site.claim()
    site.finish(done(claimed[0]), failed(claimed[1], Refused("no")), *(done(item) for item in claimed[2:]))
    assert site.triggers() == []
    assert intents.cancel(site.database, "m", "c01-a0.fits") == 1
    assert [row[2] for row in site.triggers()] == ["visit=1"]


def test_what_became_whole_while_cancelled_is_triggered_when_it_is_released(site: Site) -> None:
    site.files("a:raw/1")
    site.submit()
    (item,) = site.claim()
    intents.cancel(site.database, "m")
    site.finish(done(item))
    assert site.triggers() == []
    intents.release(site.database, "m")
    assert site.triggers() == [("m data", 1, "", "pending")]


def test_the_id_says_what_the_trigger_is_for_and_nothing_else() -> None:
    one = trigger_id("d", 1, "visit=1", "q")
    assert uuid.UUID(one).version == 5
    assert one == trigger_id("d", 1, "visit=1", "q")
    others = [("e", 1, "visit=1", "q"), ("d", 2, "visit=1", "q"), ("d", 1, "visit=2", "q"), ("d", 1, "visit=1", "r")]
    assert len({one, *(trigger_id(*other) for other in others)}) == 5
    assert label_of({"visit": 3, "ccd": 1}) == "visit=3 ccd=1"


def test_two_workers_that_finish_the_last_two_items_at_once_make_one_trigger(postgres_site: Site) -> None:
    site = postgres_site
    visits = 25
    site.files(*(f"a:{path}" for path in raws(visits)))
    copy(site, PER_VISIT)
    claimed = site.claim()
    meet = threading.Barrier(2)

    def finish(mine: list[items.Claimed]) -> list[str]:
        made = []
        for item in mine:
            meet.wait(LATE_S)
            made += items.finish(site.database, "w", [done(item)]).triggers
        return made

    with ThreadPoolExecutor(2) as pool:
        made = [one for mine in pool.map(finish, (claimed[::2], claimed[1::2])) for one in mine]
    assert len(made) == len(set(made)) == visits
    assert len(site.triggers()) == visits


@pytest.mark.parametrize("own_camera", [False, True])
def test_a_chopped_focal_plane_gives_one_trigger_a_ccd(sqlite_site: Site, own_camera: bool) -> None:
    site = sqlite_site
    camera = "cfht_megacam"
    if own_camera:  # one that only the site has
        camera = "mine"
        (site.folder / "cameras").mkdir()
        shutil.copy(
            Path(manifests.cameras.__file__).parent / "cameras/cfht_megacam.toml", site.folder / "cameras/mine.toml"
        )
    plane = site.path("a:in/1038843o.fits")
    plane.parent.mkdir()
    write_focal_plane(plane, Exposure(), rows=33)
    site.run(kind="chop", source="a:in/*.fits", destination="b:out", camera=camera, trigger=PER_CCD)
    assert set(site.states().values()) == {"done"}
    assert site.problems == []
    assert sorted(row[2] for row in site.triggers()) == sorted(f"visit=1038843 ccd={ccd}" for ccd in range(36))
    event = table.claim(site.database, "pipeline", "me", 60)
    assert event is not None
    assert event["data"]["files"] == 2
    inventory = site.path(event["data"]["inventory"]).read_text()
    assert inventory.count("\n") == 2
    assert f"c{event['data']['group']['ccd']:02d}-a0.fits" in inventory


def test_files_that_have_only_some_of_the_ids_are_in_no_group(site: Site) -> None:
    site.files("a:D1/raw/v1-fr/s00/c00-a0.fits", "a:D1/raw/calib/bias/v03Am04/c00-a0.fits")
    copy(site, PER_CCD)
    site.finish(*(done(item) for item in site.claim()))
    assert [row[2] for row in site.triggers()] == ["visit=1 ccd=0"]
