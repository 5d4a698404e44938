"""What the accept list names is not brought over, not waited for and not handed on; the trigger says what and why."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import manifests
from manifests.cameras import load
from manifests.errors import ManifestError
from stager.rescanning import rescan
from stager.samples import Exposure, write_focal_plane
from tests.stager.site import Site, recount, tallies

PT1 = Path(manifests.__file__).parent / "pt1"
PER_VISIT = {"queue": "pipeline", "per": ["visit"]}
PER_CCD = {"queue": "pipeline", "per": ["visit", "ccd"]}
IMSIM = {"source": "a:raw/**", "destination": "b:raw", "camera": "lsst_imsim", "check": "none", "trigger": PER_VISIT}
CHOP = {"kind": "chop", "source": "a:in/*.fits", "destination": "b:out", "camera": "cfht_megacam"}


def told(site: Site) -> list[dict[str, Any]]:
    return [json.loads(row[0]) for row in site.rows("SELECT data FROM triggers ORDER BY revision, group_label")]


def sensors(visit: int, raft: str, *names: str) -> list[str]:
    """The raw files of some sensors of a visit, of both snaps."""
    camera = load("lsst_imsim")
    return [
        camera.raw_layout.path({**ids, "filter": "r"})
        for name in names
        for ids in camera.expected({"visit": visit, "raft": raft, "sensor": name})
    ]


@pytest.fixture
def plane(sqlite_site: Site) -> Site:
    """A site with one small focal plane at a:in."""
    sqlite_site.path("a:in").mkdir()
    write_focal_plane(sqlite_site.path("a:in/1038843o.fits"), Exposure(), rows=33)
    return sqlite_site


def test_the_pages_failures_leave_out_all_channels_and_snaps_of_their_sensors(sqlite_site: Site) -> None:
    site = sqlite_site
    for name in ("psf", "wcs", "photocal"):
        shutil.copy(PT1 / f"{name}-failures.txt", site.folder)
    there = sensors(85770111, "4,2", "1,2", "2,2") + sensors(85770111, "4,3", "0,0", "1,0", "1,1")
    site.files(*(f"a:{path}" for path in there))
    lists = ["psf-failures.txt", "wcs-failures.txt", "photocal-failures.txt"]
    submitted = site.run(**IMSIM, accept={"except": lists})
    assert submitted.notes == []
    assert submitted.states == {"waiting": 64, "excluded": 96}
    (data,) = told(site)
    assert (data["files"], len(data["excluded"])) == (64, 96)
    said = {(one["ids"]["raft"], one["ids"]["sensor"], one["reason"]) for one in data["excluded"]}
    assert said == {
        ("4,2", "1,2", "PSF failure on one CCD of 110"),
        ("4,3", "0,0", "WCS failures on 17 ImSim CCDs of 110"),
        ("4,3", "1,0", "Photocal failures on 11 ImSim CCDs of 110: insufficient data points for order"),
    }
    assert not list(site.path("b:raw").rglob("imsim_85770111_R42_S12_*"))


def test_a_heading_that_counts_otherwise_is_said_when_the_manifest_is_submitted(sqlite_site: Site) -> None:
    site = sqlite_site
    text = (PT1 / "wcs-failures.txt").read_text(encoding="utf-8").replace("sensors 0,0 1,0 2,0", "sensors 0,0 1,0")
    (site.folder / "page.txt").write_text(text, encoding="utf-8")
    site.files("a:raw/x")
    notes = site.submit(**IMSIM, accept={"except": "page.txt"}).notes
    assert notes[0] == "page.txt, line 2: the heading says 17 CCDs, and 16 are named below it"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("Visit 85770111 raft 0,0 sensor 1,2", "lsst_imsim has no raft 0,0; its rafts: 0,1"),
        ("visit=85770111 raft=4,9", "has no raft 4,9"),
        ("Visit 85770111 CCD 5", 'lsst_imsim has no id "ccd"'),
        ("visit=V1", 'found "V1" for visit; expected a whole number'),
    ],
)
def test_an_entry_that_the_camera_has_not_is_an_error_for_it_would_exclude_nothing(
    sqlite_site: Site, line: str, sentence: str
) -> None:
    (sqlite_site.folder / "bad.txt").write_text(f"visit=1\n{line}\n")
    sqlite_site.files("a:raw/x")
    with pytest.raises(ManifestError, match=sentence) as error:
        sqlite_site.submit(**IMSIM, accept={"except": "bad.txt"})
    assert [one.place for one in error.value.problems] == ["accept.except, entry 2"]


def test_an_excluded_ccd_of_a_focal_plane_is_not_made_and_named_with_its_reason(plane: Site) -> None:
    (plane.folder / "bad.txt").write_text("Visit 1038843 ccd 5 (amplifier B dead)\n*c07-a1.fits # noisy\n")
    submitted = plane.run(**CHOP, trigger=PER_VISIT, accept={"except": "bad.txt"})
    assert (submitted.files, submitted.states) == (72, {"waiting": 1, "excluded": 3})
    made = sorted(path.name for path in plane.path("b:out").rglob("*.fits"))
    assert len(made) == 69
    assert not {"c05-a0.fits", "c05-a1.fits", "c07-a1.fits"} & set(made)
    (data,) = told(plane)
    assert data["files"] == 69
    excluded = {(one["ids"]["ccd"], one["ids"]["amp"]): one["reason"] for one in data["excluded"]}
    assert excluded == {(5, 0): "amplifier B dead", (5, 1): "amplifier B dead", (7, 1): "noisy"}
    (state, inventory) = plane.rows("SELECT state, inventory FROM triggers")[0]
    assert state == "ready"
    assert plane.path(inventory).read_text().count("\n") == 69
    assert tallies(plane.database) == recount(plane.database)


def test_each_ccd_of_a_focal_plane_is_triggered_but_for_the_excluded_ones(plane: Site) -> None:
    (plane.folder / "bad.txt").write_text("visit=1038843 ccd=5  # dead\nvisit=1038843 ccd=7 amp=1  # noisy\n")
    plane.run(**CHOP, trigger=PER_CCD, accept={"except": "bad.txt"})
    assert plane.problems == []
    groups = {data["group"]["ccd"]: data for data in told(plane)}
    assert set(groups) == set(range(36)) - {5}
    assert (groups[4]["files"], groups[4]["excluded"]) == (2, [])
    assert groups[7]["files"] == 1
    assert [(one["ids"]["amp"], one["reason"]) for one in groups[7]["excluded"]] == [(1, "noisy")]


def test_a_focal_plane_all_of_which_is_excluded_is_not_chopped(plane: Site) -> None:
    (plane.folder / "bad.txt").write_text("amp=0 # clouds\namp=1\n")
    plane.run(**CHOP, trigger=PER_VISIT, accept={"except": "bad.txt"})
    assert plane.states() == {"in/1038843o.fits": "excluded"}
    assert plane.triggers() == []


def test_a_ccd_that_is_no_longer_excluded_is_made_by_the_next_revision(plane: Site) -> None:
    (plane.folder / "bad.txt").write_text("visit=1038843 ccd=5  # dead\n")
    plane.run(**CHOP, trigger=PER_VISIT, accept={"except": "bad.txt"})
    (plane.folder / "bad.txt").write_text("# mended\n")
    plane.run(**CHOP, trigger=PER_VISIT, accept={"except": "bad.txt"})
    first, second = told(plane)
    assert [(one["revision"], one["files"], len(one["excluded"])) for one in (first, second)] == [
        (1, 70, 2),
        (2, 72, 0),
    ]
    assert len(list(plane.path("b:out").rglob("*.fits"))) == 72


def test_a_late_focal_plane_is_chopped_without_its_excluded_ccd(sqlite_site: Site) -> None:
    site = sqlite_site
    site.path("a:in").mkdir()
    write_focal_plane(site.path("a:in/1038844o.fits"), Exposure(obsid=1038844), rows=33)
    (site.folder / "bad.txt").write_text("visit=1038843 ccd=5  # dead\n")
    site.run(**CHOP, trigger=PER_VISIT, accept={"except": "bad.txt"}, expect=[1038843, 1038844])
    assert [row[0] for row in site.rows("SELECT files FROM items WHERE missing")] == [70]
    write_focal_plane(site.path("a:in/1038843o.fits"), Exposure(obsid=1038843), rows=33)
    assert rescan(site.database, site.hosts) == 1
    site.work()
    assert site.problems == []
    late = next(data for data in told(site) if data["group"] == {"visit": 1038843})
    assert (late["files"], [one["reason"] for one in late["excluded"]]) == (70, ["dead", "dead"])
    assert tallies(site.database) == recount(site.database)


def registry(path: Path, *channels: str) -> None:
    """A registry with files of one sensor in both snaps; the first of them twice."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE raw (visit int, filter text, snap int, raft text, sensor text, channel text, taiObs text)"
        )
        rows = [(85471048, "r", snap, "2,3", "0,1", channel) for channel in channels for snap in (0, 1)]
        connection.executemany("INSERT INTO raw VALUES (?, ?, ?, ?, ?, ?, NULL)", [*rows, rows[0]])
        connection.commit()


def test_a_registry_says_what_should_exist_and_a_changed_one_is_a_new_revision(sqlite_site: Site) -> None:
    site = sqlite_site
    registry(site.folder / "registry.sqlite3", "0,0", "1,7")
    there = [path for path in sensors(85471048, "2,3", "0,1") if "C00" in path]
    site.files(*(f"a:{path}" for path in there))
    submitted = site.run(**IMSIM, expect="registry.sqlite3")
    assert submitted.states == {"waiting": 2, "missing": 2}
    assert submitted.notes == [
        "registry.sqlite3: 1 row says again what others say; each file is expected once",
        "registry.sqlite3 has only a part of visit 85471048 (4 of 6048 files): it is expected as it stands there",
    ]
    assert site.triggers() == []
    assert not site.submit(**IMSIM, expect="registry.sqlite3").changed
    registry(site.folder / "registry.sqlite3", "0,0")
    assert site.run(**IMSIM, expect="registry.sqlite3").revision == 2
    assert [(data["revision"], data["files"]) for data in told(site)] == [(2, 2)]
