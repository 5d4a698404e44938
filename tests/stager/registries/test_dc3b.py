"""registry.sqlite3: the tables of 2010 to the letter, brought up to what landed, and never half of it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from manifests.cameras import load
from stager.registries.errors import RegistryError
from stager.registries.schemas import schema_of
from stager.samples import Visit, write_visit
from tests.stager.conftest import Stager
from tests.stager.registries.archive import CFHT_CARDS, IMSIM_CARDS, Archive, cfht, imsim, rows, schema
from tests.stager.site import Site
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[3]
TIME = "1994-07-19T06:49:51.543999744"
CFHT_TIME = "2005-04-06T06:48:17.760960256"
REGISTRIES = {"cfht_megacam": "cfht_2010.registry.sqlite3", "lsst_imsim": "imsim_afwdata.registry.sqlite3"}


def taken_over(archive: Archive, shared: Path, camera: str) -> Path:
    """A registry of 2010 where the archive's would be."""
    shutil.copyfile(shared / "data" / "registries" / REGISTRIES[camera], archive.output)
    return archive.output


# ------------------------------------------------------------------------------------------- tables


def test_a_registry_of_imsim_has_the_tables_of_2010_and_the_indexes_of_2012(archive: Archive) -> None:
    archive.add("lsst_imsim", imsim(), **IMSIM_CARDS)
    report = archive.build()
    assert (report.added, report.rows, report.visits, report.written) == (12, 12, 1, True)
    made = schema(archive.output)
    assert made["raw"] == (
        "CREATE TABLE raw (id integer primary key autoincrement, visit int, filter text, snap int, raft text, "
        "sensor text, channel text, taiObs text, expTime double)"
    )
    assert made["uq_raw"] == "CREATE UNIQUE INDEX uq_raw ON raw (visit, snap, raft, sensor, channel)"
    assert {"ix_skyTile_id", "ix_skyTile_tile"} < set(made)
    assert archive.read("SELECT * FROM raw ORDER BY id")[:2] == [
        (1, 85471048, "y", 0, "2,3", "1,1", "0,0", TIME, 15.0),
        (2, 85471048, "y", 0, "2,3", "1,1", "0,7", TIME, 15.0),
    ]
    assert archive.read("SELECT * FROM raw_visit") == [(85471048, "y", TIME, 15.0)]
    assert archive.read("SELECT * FROM raw_skyTile") == []


def test_a_registry_of_cfht_has_the_tables_of_2010_and_i2_is_a_filter_like_others(archive: Archive) -> None:
    archive.add("cfht_megacam", cfht(), root="CFHTLS/", **CFHT_CARDS)
    archive.add("cfht_megacam", cfht(788034, "i2"), root="CFHTLS/", **CFHT_CARDS)
    assert archive.build().rows == 144
    assert archive.read("SELECT * FROM raw WHERE id IN (1, 2, 144)") == [
        (1, "D2", 788033, "r", 0, 0, CFHT_TIME, 360.09),
        (2, "D2", 788033, "r", 0, 1, CFHT_TIME, 360.09),
        (144, "D2", 788034, "i2", 35, 1, CFHT_TIME, 360.09),
    ]
    assert archive.read("SELECT * FROM raw_visit") == [
        (788033, "D2", "r", CFHT_TIME, 360.09),
        (788034, "D2", "i2", CFHT_TIME, 360.09),
    ]


@pytest.mark.parametrize("camera", REGISTRIES)
def test_the_text_of_the_tables_is_that_of_the_real_registries(
    sqlite_archive: Archive, shared: Path, camera: str
) -> None:
    ids, cards = (imsim(), IMSIM_CARDS) if camera == "lsst_imsim" else (cfht(), CFHT_CARDS)
    sqlite_archive.add(camera, ids, **cards)
    sqlite_archive.build()
    real, made = schema(shared / "data" / "registries" / REGISTRIES[camera]), schema(sqlite_archive.output)
    assert real == {
        name: text for name, text in made.items() if name not in ("uq_raw", "ix_skyTile_id", "ix_skyTile_tile")
    }


def test_a_third_camera_has_a_registry_of_the_same_kind(sqlite_archive: Archive) -> None:
    ids = ({"proposal": "2013A-0351", "visit": 180000, "filter": "VR", "ccd": ccd} for ccd in range(1, 63))
    sqlite_archive.add("decam", ids, **{"MJD-OBS": 56336.37, "EXPTIME": 90.0})
    assert sqlite_archive.build().rows == 62
    assert schema(sqlite_archive.output)["raw"] == (
        "CREATE TABLE raw (id integer primary key autoincrement, proposal text, visit int, filter text, ccd int, "
        "taiObs text, expTime double)"
    )
    assert schema(sqlite_archive.output)["uq_raw"] == "CREATE UNIQUE INDEX uq_raw ON raw (visit, ccd)"
    assert sqlite_archive.read("SELECT visit, proposal, filter, expTime FROM raw_visit") == [
        (180000, "2013A-0351", "VR", 90.0)
    ]


def test_an_id_may_be_called_as_a_word_of_sql_is(sqlite_archive: Archive) -> None:
    folder = sqlite_archive.folder / "cameras"
    folder.mkdir()
    (folder / "odd.toml").write_text("""
        title = "odd"
        raw_layout = "raw"
        [ids]
        visit = { kind = "int" }
        group = { kind = "int" }
        order = { kind = "text" }
        [layouts.raw]
        templates = ["v{visit}/g{group}-{order}.fits"]
        [expected]
        group = [1, 2]
    """)
    camera = load("odd", [folder])
    assert camera.registry_rule is not None
    assert camera.registry_rule.key == ("visit", "group")
    with sqlite3.connect(":memory:") as connection:
        for statement in schema_of(camera).statements():
            connection.execute(statement)
        assert schema_of(camera).why_foreign(connection) is None
    connection.close()


def test_a_camera_without_visits_has_no_registry(sqlite_archive: Archive) -> None:
    folder = sqlite_archive.folder / "cameras"
    folder.mkdir()
    (folder / "night.toml").write_text("""
        title = "night"
        raw_layout = "raw"
        [ids]
        night = { kind = "int" }
        [layouts.raw]
        templates = ["{night}.fits"]
    """)
    with pytest.raises(RegistryError, match="night have no id visit"):
        schema_of(load("night", [folder]))


# -------------------------------------------------------------------------------------------- again


def test_a_second_build_changes_nothing_and_does_not_touch_the_file(archive: Archive) -> None:
    archive.add("lsst_imsim", imsim(), **IMSIM_CARDS)
    archive.build()
    before = (archive.output.read_bytes(), archive.output.stat().st_ino, archive.output.stat().st_mtime_ns)
    report = archive.build()
    assert (report.written, report.kept, report.added, report.changes) == (False, 12, 0, [])
    assert (archive.output.read_bytes(), archive.output.stat().st_ino, archive.output.stat().st_mtime_ns) == before


def test_the_same_images_give_the_same_bytes_whatever_their_order(sqlite_archive: Archive) -> None:
    ids = list(imsim())
    sqlite_archive.add("lsst_imsim", ids, **IMSIM_CARDS)
    sqlite_archive.build()
    other = Archive(sqlite_archive.folder / "other", sqlite_archive.database)
    other.add("lsst_imsim", reversed(ids), dataset="E", host="a", **IMSIM_CARDS)
    other.build("E")
    assert sqlite_archive.output.read_bytes() == other.output.read_bytes()


def test_new_images_are_added_and_ids_stay(archive: Archive) -> None:
    archive.add("cfht_megacam", cfht(788100), **CFHT_CARDS)
    archive.build()
    before = archive.read("SELECT * FROM raw")
    archive.add("cfht_megacam", cfht(788033), **CFHT_CARDS)
    report = archive.build()
    assert (report.added, report.kept, report.visits) == (72, 72, 2)
    assert archive.read("SELECT * FROM raw WHERE id <= 72") == before
    assert archive.read("SELECT min(id), max(id), count(DISTINCT ccd) FROM raw WHERE visit = 788033") == [(73, 144, 36)]
    assert archive.read("SELECT visit FROM raw_visit") == [(788033,), (788100,)]


def test_a_changed_image_is_updated_in_its_row_and_told(archive: Archive) -> None:
    archive.add("cfht_megacam", cfht(), **CFHT_CARDS)
    archive.build()
    archive.add("cfht_megacam", cfht(), **CFHT_CARDS | {"EXPTIME": 361.0})
    report = archive.build()
    assert (report.updated, report.added, report.kept) == (72, 0, 0)
    assert [(one.visit, one.updated) for one in report.changes] == [(788033, 72)]
    assert archive.read("SELECT DISTINCT expTime, max(id) FROM raw") == [(361.0, 72)]
    assert archive.read("SELECT expTime FROM raw_visit") == [(361.0,)]


def test_an_image_of_another_filter_takes_its_row_and_not_a_second(sqlite_archive: Archive) -> None:
    """A folder that was misnamed and mended: the same amplifiers, v788033-fr and then v788033-fi2."""
    paths = sqlite_archive.add("cfht_megacam", cfht(), **CFHT_CARDS)
    sqlite_archive.build()
    sqlite_archive.change("DELETE FROM images")
    sqlite_archive.add("cfht_megacam", cfht(filter_="i2"), **CFHT_CARDS)
    report = sqlite_archive.build()
    assert (report.updated, report.rows, len(paths)) == (72, 72, 72)
    assert sqlite_archive.read("SELECT DISTINCT filter FROM raw") == [("i2",)]


def test_an_image_that_is_gone_is_removed_with_its_sky_tiles_and_its_id_is_not_given_again(archive: Archive) -> None:
    archive.add("lsst_imsim", imsim(), **IMSIM_CARDS)
    archive.add("lsst_imsim", imsim(85471049), **IMSIM_CARDS)
    archive.build()
    with sqlite3.connect(archive.output) as connection:
        connection.executemany("INSERT INTO raw_skyTile VALUES (?, 100479)", [(1,), (24,)])
    connection.close()
    archive.change("DELETE FROM images WHERE visit = 85471049")
    report = archive.build()
    assert (report.removed, report.kept, report.visits) == (12, 12, 1)
    assert archive.read("SELECT * FROM raw_skyTile") == [(1, 100479)]
    archive.add("lsst_imsim", imsim(85471050), **IMSIM_CARDS)
    archive.build()
    assert archive.read("SELECT min(id) FROM raw WHERE visit = 85471050") == [(25,)]


def test_what_verify_found_gone_or_damaged_is_left_out_and_comes_back_when_it_is_mended(site: Site) -> None:
    archive = Archive(site.folder, site.database)
    write_visit(site.path("a:"), Visit(sensors=("00",), channels=("00", "01"), snaps=(0, 1)), shape=(2, 3))
    site.run(source="a:raw/**", destination="b:raw", camera="lsst_imsim")
    assert archive.build("m data").added == 4
    site.change("UPDATE copies SET trouble = 'corrupt' WHERE path LIKE '%_C01_E001%'")
    site.change("UPDATE copies SET trouble = 'missing' WHERE path LIKE '%_C00_E001%'")
    report = archive.build("m data")
    assert (report.removed, report.landed.lost, report.rows, report.kept) == (2, 2, 2, 2)
    assert archive.read("SELECT DISTINCT snap FROM raw") == [(0,)]
    site.change("UPDATE copies SET trouble = NULL")
    assert archive.build("m data").rows == 4


def test_images_that_are_all_lost_make_no_empty_registry(sqlite_site: Site) -> None:
    site = sqlite_site
    archive = Archive(site.folder, site.database)
    write_visit(site.path("a:"), Visit(sensors=("00",), channels=("00",), snaps=(0,)), shape=(2, 3))
    site.run(source="a:raw/**", destination="b:raw", camera="lsst_imsim")
    archive.build("m data")
    before = archive.output.read_bytes()
    site.change("UPDATE copies SET trouble = 'missing'")
    with pytest.raises(RegistryError, match="none is there any more"):
        archive.build("m data")
    assert archive.output.read_bytes() == before


# ---------------------------------------------------------------------------------- other datasets


def test_rows_of_another_dataset_are_kept_as_strays_and_removed_when_asked(archive: Archive) -> None:
    archive.add("lsst_imsim", imsim(), dataset="D", **IMSIM_CARDS)
    archive.add("lsst_imsim", imsim(85471049), dataset="E", **IMSIM_CARDS)
    archive.add("lsst_imsim", imsim(85471050), dataset="F", **IMSIM_CARDS)
    assert archive.build("D", "E", "F").rows == 36
    archive.change("DELETE FROM images WHERE dataset = 'F'")
    report = archive.build("D")
    assert (report.strays, report.removed, report.kept, report.rows) == (12, 12, 12, 24)
    assert {one.visit: (one.strays, one.removed) for one in report.changes} == {
        85471049: (12, 0),
        85471050: (0, 12),
    }
    report = archive.build("D", drop_strays=True)
    assert (report.strays, report.removed, report.rows, report.visits) == (0, 12, 12, 1)


@pytest.mark.parametrize("camera", REGISTRIES)
def test_a_registry_of_2010_is_taken_over_with_its_ids_and_what_is_not_known_is_a_stray(
    sqlite_archive: Archive, shared: Path, camera: str
) -> None:
    archive = sqlite_archive
    output = taken_over(archive, shared, camera)
    before = rows(output, "SELECT * FROM raw ORDER BY id")
    tiles = rows(output, "SELECT * FROM raw_skyTile")
    visits = rows(output, "SELECT * FROM raw_visit ORDER BY visit")
    if camera == "cfht_megacam":
        archive.add(camera, cfht(788033, "i"), root="CFHTLS/", **CFHT_CARDS)
        known = 72
    else:
        ids = {"visit": 85751839, "filter": "r", "raft": "2,3", "sensor": "1,1", "channel": "0,0"}
        cards = {"MJD-OBS": 49681.120041, "TAI": 49681.120041, "EXPTIME": 15.0}
        archive.add(camera, [{**ids, "snap": snap} for snap in (0, 1)], **cards)
        known = 2
    report = archive.build()
    assert (report.kept, report.strays, report.updated, report.added) == (known, len(before) - known, 0, 0)
    assert rows(output, "SELECT * FROM raw ORDER BY id") == before
    assert rows(output, "SELECT * FROM raw_skyTile") == tiles
    assert rows(output, "SELECT * FROM raw_visit ORDER BY visit") == visits
    assert report.disagreements == []
    assert not archive.build().written
    archive.add(camera, cfht(999) if camera == "cfht_megacam" else imsim(), **IMSIM_CARDS)
    report = archive.build()
    assert (report.added, report.strays, report.kept) == (report.rows - len(before), len(before) - known, known)
    archive.change("DELETE FROM images WHERE visit IN (999, 85471048)")
    report = archive.build()
    assert (report.removed, report.strays) == (72 if camera == "cfht_megacam" else 12, len(before) - known)
    assert rows(output, "SELECT * FROM raw ORDER BY id") == before
    report = archive.build(drop_strays=True)
    assert (report.removed, report.rows, report.visits) == (len(before) - known, known, 1)
    ids_left = {row[0] for row in rows(output, "SELECT id FROM raw")}
    assert {row[0] for row in rows(output, "SELECT id FROM raw_skyTile")} <= ids_left


def test_rows_that_stand_in_a_registry_twice_are_merged_the_first_stays(sqlite_archive: Archive) -> None:
    """The early registries of ImSim had nothing against it, and a second run of their script wrote all again."""
    sqlite_archive.add("lsst_imsim", imsim(), **IMSIM_CARDS)
    sqlite_archive.build()
    with sqlite3.connect(sqlite_archive.output) as connection:
        connection.execute("DROP INDEX uq_raw")
        columns = "visit, filter, snap, raft, sensor, channel, taiObs, expTime"
        connection.execute(f"INSERT INTO raw ({columns}) SELECT {columns} FROM raw")
        connection.execute("INSERT INTO raw_skyTile SELECT id, 5 FROM raw")
    connection.close()
    report = sqlite_archive.build()
    assert (report.merged, report.kept, report.rows) == (12, 12, 12)
    assert sqlite_archive.read("SELECT max(id) FROM raw UNION ALL SELECT count(*) FROM raw_skyTile") == [(12,), (12,)]


# -------------------------------------------------------------------------------------- times, visits


@pytest.mark.parametrize("mjd", [0.0, None, 2449552.78, -1.0, 70001.0, "junk", 1e300])
def test_one_sensor_with_bad_times_is_told_and_its_visit_is_as_the_others_say(archive: Archive, mjd: Any) -> None:
    bad = ("2,3", "1,2")
    good = [one for one in imsim() if (one["raft"], one["sensor"]) != bad]
    archive.add("lsst_imsim", good, **IMSIM_CARDS)
    cards = IMSIM_CARDS | {"MJD-OBS": mjd, "TAI": mjd}
    archive.add("lsst_imsim", [one for one in imsim() if one not in good], **cards)
    report = archive.build()
    assert (report.rows, report.landed.bad_times) == (12, 6)
    assert archive.read("SELECT DISTINCT taiObs FROM raw WHERE sensor = '1,2'") == [(None,)]
    assert archive.read("SELECT * FROM raw_visit") == [(85471048, "y", TIME, 15.0)]
    first, second = report.disagreements
    assert str(first) == (
        "visit 85471048: 3 of 6 images (raft 2,3, sensor 1,2, channel 0,0 and 0,7 and 1,3) do not say "
        f"{TIME}, 15 s, filter y (3: no good time, 15 s, filter y)"
    )
    assert (second.snap, second.disagree) == (1, 3)


def test_the_most_common_time_and_filter_of_the_first_snap_are_the_visits(archive: Archive) -> None:
    ids = list(imsim())
    archive.add("lsst_imsim", ids, **IMSIM_CARDS)
    archive.add("lsst_imsim", ids[:2], **IMSIM_CARDS | {"MJD-OBS": 49552.29})
    archive.add("lsst_imsim", ids[2:3], **IMSIM_CARDS | {"EXPTIME": 30.0})
    archive.add("lsst_imsim", [one for one in ids if one["snap"]], **IMSIM_CARDS | {"MJD-OBS": 49552.2852})
    report = archive.build()
    assert archive.read("SELECT * FROM raw_visit") == [(85471048, "y", TIME, 15.0)]
    (told,) = report.disagreements  # that the second snap began later is no disagreement
    assert (told.snap, told.images, told.disagree) == (0, 6, 3)
    assert [(one["images"], one["expTime"]) for one in told.others] == [(2, 15.0), (1, 30.0)]


def test_a_visit_whose_first_snap_has_no_good_time_has_that_of_the_second(archive: Archive) -> None:
    archive.add("lsst_imsim", imsim(snaps=[0]), **IMSIM_CARDS | {"MJD-OBS": 0.0})
    archive.add("lsst_imsim", imsim(snaps=[1]), **IMSIM_CARDS)
    report = archive.build()
    assert archive.read("SELECT * FROM raw_visit") == [(85471048, "y", TIME, 15.0)]
    (told,) = report.disagreements
    assert (told.snap, told.disagree, told.images) == (0, 6, 6)


def test_a_visit_without_any_good_time_is_there_without_one_and_told(archive: Archive) -> None:
    archive.add("lsst_imsim", imsim(), **IMSIM_CARDS | {"MJD-OBS": 0.0})
    report = archive.build()
    assert archive.read("SELECT * FROM raw_visit") == [(85471048, "y", None, 15.0)]
    assert str(report.disagreements[0]) == "visit 85471048: none of its 6 images has a good time"


def test_the_zero_times_of_a_registry_of_others_are_no_good_times(sqlite_archive: Archive) -> None:
    sqlite_archive.add("cfht_megacam", cfht(ccds=range(2)), **CFHT_CARDS)
    sqlite_archive.build()
    with sqlite3.connect(sqlite_archive.output) as connection:
        connection.execute("PRAGMA application_id = 0")
        zero = "1858-11-17T00:00:00.000000000"
        connection.execute(
            "INSERT INTO raw (field, visit, filter, ccd, amp, taiObs, expTime) SELECT 'D1', 5, 'r', ccd, amp, "
            f"CASE WHEN ccd THEN '{zero}' WHEN amp THEN '{zero}' ELSE taiObs END, 1.0 FROM raw"
        )
    connection.close()
    report = sqlite_archive.build()
    assert sqlite_archive.read("SELECT * FROM raw_visit WHERE visit = 5") == [(5, "D1", "r", CFHT_TIME, 1.0)]
    assert [(one.visit, one.disagree) for one in report.disagreements] == [(5, 3)]


def test_negative_and_absent_exposure_times_are_null(sqlite_archive: Archive) -> None:
    first, second, third, *_ = imsim()
    sqlite_archive.add("lsst_imsim", [first], **IMSIM_CARDS)
    sqlite_archive.add("lsst_imsim", [second], **IMSIM_CARDS | {"EXPTIME": -1.0})
    sqlite_archive.add("lsst_imsim", [third], **{"MJD-OBS": 49552.28496, "TAI": 49552.28496})
    sqlite_archive.build()
    assert sqlite_archive.read("SELECT expTime FROM raw ORDER BY id") == [(15.0,), (None,), (None,)]
    assert sqlite_archive.read("SELECT expTime FROM raw_visit") == [(15.0,)]


# ------------------------------------------------------------------------------------- what landed twice


def test_an_image_that_landed_in_two_places_is_one_row(sqlite_archive: Archive) -> None:
    sqlite_archive.add("cfht_megacam", cfht(), root="CFHTDeep/", **CFHT_CARDS)
    sqlite_archive.add("cfht_megacam", cfht(), root="CFHTLS/", **CFHT_CARDS)
    report = sqlite_archive.build()
    assert (report.rows, report.landed.repeated, report.clashes) == (72, 72, 0)


def test_images_of_one_key_that_say_different_things_are_told_and_a_good_time_goes_before(
    sqlite_archive: Archive,
) -> None:
    one = next(cfht())
    sqlite_archive.add("cfht_megacam", [one], root="a/", **CFHT_CARDS | {"MJD-OBS": 0.0})
    sqlite_archive.add("cfht_megacam", [one], root="b/", **CFHT_CARDS)
    sqlite_archive.add("cfht_megacam", [{**one, "filter": "i2"}], root="c/", **CFHT_CARDS)
    report = sqlite_archive.build()
    assert sqlite_archive.read("SELECT filter, taiObs FROM raw") == [("r", CFHT_TIME)]
    (told,) = report.clashing
    assert told.startswith(
        "visit 788033, ccd 0, amp 0: 3 images landed that say different things; b/D2/raw/v788033-fr/"
    )


# ------------------------------------------------------------------------------------- what is refused


def test_only_raw_images_are_rows(sqlite_archive: Archive) -> None:
    sqlite_archive.add("lsst_imsim", imsim(), **IMSIM_CARDS)
    ids = {"filter": "y", "raft": "2,3", "sensor": "1,1", "channel": "0,0", "visit": 85471048, "snap": 0}
    sqlite_archive.add(
        "lsst_imsim", [{**ids, "obstype": name} for name in ("flat", "postISR", "eimage")], **IMSIM_CARDS
    )
    assert sqlite_archive.build().rows == 12


def test_datasets_without_raw_images_make_no_registry(sqlite_archive: Archive) -> None:
    ids = {"filter": "y", "raft": "2,3", "sensor": "1,1", "channel": "0,0", "obstype": "flat"}
    sqlite_archive.add("lsst_imsim", [ids], **IMSIM_CARDS)
    with pytest.raises(RegistryError, match="1 of lsst_imsim's flat files"):
        sqlite_archive.build()
    assert not sqlite_archive.output.exists()


def test_images_at_several_hosts_ask_which(archive: Archive) -> None:
    archive.add("lsst_imsim", imsim(), host="a", **IMSIM_CARDS)
    archive.add("lsst_imsim", imsim(snaps=[0]), host="b", **IMSIM_CARDS)
    with pytest.raises(RegistryError, match=r"12 at a, 6 at b; say which with --host"):
        archive.build()
    assert archive.build(host="b").rows == 6
    assert archive.build(output="a:registry.sqlite3").rows == 12
    with pytest.raises(RegistryError, match="landed at c; 12 at a, 6 at b"):
        archive.build(host="c")
    with pytest.raises(RegistryError, match="no host of stager"):
        archive.build(host="nowhere")


def test_datasets_of_two_cameras_are_two_registries(sqlite_archive: Archive) -> None:
    sqlite_archive.add("lsst_imsim", imsim(), dataset="D", **IMSIM_CARDS)
    sqlite_archive.add("cfht_megacam", cfht(), dataset="E", **CFHT_CARDS)
    with pytest.raises(RegistryError, match="cfht_megacam, lsst_imsim"):
        sqlite_archive.build("D", "E")


@pytest.mark.parametrize("kind", ["text", "other", "cfht", "trigger", "view", "cut", "bits", "-journal", "-wal"])
def test_a_file_that_is_no_registry_of_this_camera_is_refused_and_left_as_it_is(
    sqlite_archive: Archive, kind: str
) -> None:
    archive, output = sqlite_archive, sqlite_archive.output
    archive.add("cfht_megacam", cfht(), dataset="C", **CFHT_CARDS)
    archive.add("lsst_imsim", (one for visit in range(100) for one in imsim(visit)), **IMSIM_CARDS)
    archive.build("C" if kind == "cfht" else "D")
    sql = {
        "trigger": "CREATE TRIGGER t AFTER INSERT ON raw BEGIN DELETE FROM raw; END",
        "view": "CREATE VIEW v AS SELECT 1",
        "other": "ALTER TABLE raw DROP COLUMN filter",
    }
    if kind == "text":
        output.write_text("# my notes\n")
    elif kind in sql:
        with sqlite3.connect(output) as connection:
            connection.execute(sql[kind])
        connection.close()
    elif kind == "cut":
        os.truncate(output, output.stat().st_size // 2 // 4096 * 4096)
    elif kind == "bits":
        content = bytearray(output.read_bytes())
        content[4096 * 3 : 4096 * 3 + 64] = b"\xff" * 64
        output.write_bytes(content)
    elif kind.startswith("-"):
        output.with_name(output.name + kind).write_text("somebody's")
    before = output.read_bytes()
    archive.add("lsst_imsim", imsim(5000), **IMSIM_CARDS)
    with pytest.raises(RegistryError) as refused:
        archive.build()
    assert str(output) in str(refused.value)
    assert output.read_bytes() == before
    assert not list(archive.folder.glob(".*.part"))


def test_a_registry_in_wal_mode_is_taken_over_and_is_in_it_no_longer(sqlite_archive: Archive) -> None:
    """A reader on a read-only file system could not open one that is."""
    sqlite_archive.add("lsst_imsim", imsim(), **IMSIM_CARDS)
    sqlite_archive.build()
    connection = sqlite3.connect(sqlite_archive.output)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    sqlite_archive.add("lsst_imsim", imsim(85471049), **IMSIM_CARDS)
    assert sqlite_archive.build().added == 12
    assert sqlite_archive.read("PRAGMA journal_mode") == [("delete",)]
    assert sqlite_archive.output.read_bytes()[18:20] == b"\x01\x01"


# -------------------------------------------------------------------------------------- crash, readers


def test_a_reader_of_the_old_registry_reads_on_in_it(sqlite_archive: Archive) -> None:
    sqlite_archive.add("lsst_imsim", imsim(), **IMSIM_CARDS)
    sqlite_archive.build()
    reader = sqlite3.connect(sqlite_archive.output)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM raw").fetchone() == (12,)
    sqlite_archive.add("lsst_imsim", imsim(85471049), **IMSIM_CARDS)
    sqlite_archive.build()
    assert reader.execute("SELECT count(*) FROM raw").fetchone() == (12,)
    reader.close()
    assert sqlite_archive.read("SELECT count(*) FROM raw") == [(24,)]


def test_a_build_that_is_killed_leaves_the_old_registry_and_the_next_one_ends_it(sqlite_archive: Archive) -> None:
    archive = sqlite_archive
    archive.add("cfht_megacam", cfht(1), **CFHT_CARDS)
    archive.build()
    before = archive.output.read_bytes()
    archive.add("cfht_megacam", (one for visit in range(2, 200) for one in cfht(visit)), **CFHT_CARDS)
    part, killed = archive.output.with_name(".registry.sqlite3.stager.part"), 0
    for turn in range(6):
        part.unlink(missing_ok=True)
        command = [sys.executable, "-m", "stager", "registry", "build", "D", "--output", str(archive.output)]
        building = subprocess.Popen(command, cwd=archive.folder, env={**os.environ, "PYTHONPATH": str(ROOT)})
        until(lambda building=building: part.exists() or building.poll() is not None, pause_s=0.001)
        time.sleep(0.04 * turn)
        building.send_signal(signal.SIGKILL)
        building.wait()
        if part.exists():
            killed += 1
            assert archive.output.read_bytes() == before
        else:  # it was quicker than the kill
            archive.output.write_bytes(before)
    assert killed
    archive.build()
    assert archive.read("SELECT count(*), max(id) FROM raw") == [(199 * 72, 199 * 72)]
    assert archive.read("PRAGMA integrity_check") == [("ok",)]
    assert not part.exists()


def test_a_full_visit_has_all_its_rows(sqlite_archive: Archive) -> None:
    camera = load("lsst_imsim")
    sqlite_archive.add("lsst_imsim", camera.expected({"visit": 85471048, "filter": "y"}), **IMSIM_CARDS)
    assert sqlite_archive.build().rows == 6048


# -------------------------------------------------------------------------------------------- commands


def landed(site: Site) -> None:
    visit = Visit(sensors=("00", "01"), channels=("00", "01"), snaps=(0, 1), bad_times=(("23", "01"),))
    write_visit(site.path("a:"), visit, shape=(2, 3))
    site.run(source="a:raw/**", destination="b:raw", camera="lsst_imsim", check="headers", hold="none")


def test_the_command_says_what_it_did_in_words_and_as_data(site: Site, stager: Stager) -> None:
    landed(site)
    said = stager("registry", "build", "m data", "--output", "registry.sqlite3")
    assert said.code == 0, said.err
    first, *rest = said.out.splitlines()
    assert first == ("registry.sqlite3: 8 images of 1 visit (lsst_imsim at b): 8 added, 0 updated, 0 removed, 0 kept")
    assert rest[0].startswith("4 images have no good time")
    assert rest[1].startswith("visit 85471048: 2 of 4 images (raft 2,3, sensor 0,1, channel 0,0 and 0,1) do not say ")
    said = stager("registry", "build", "m data", "--output", "registry.sqlite3", "--json")
    data = json.loads(said.out)
    assert {name: data[name] for name in ("written", "added", "kept", "removed", "strays", "rows")} == {
        "written": False, "added": 0, "kept": 8, "removed": 0, "strays": 0, "rows": 8,
    }  # fmt: skip
    assert [(one["visit"], one["snap"], one["disagree"]) for one in data["disagreements"]] == [
        (85471048, 0, 2),
        (85471048, 1, 2),
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["m data"], "--output is missing"),
        (["--output", "r"], "name the datasets"),
        (["m data", "--output", "r", "--calib", "i"], "leave out datasets"),
        (["m date", "--output", "r"], 'did you mean "m data"?'),
        (["m", "--output", "r"], 'it is a manifest, of the dataset "m data"'),
        (["m data", "--output", "no/r"], "cannot be written"),
        (["m data", "--output", "nowhere:r"], "no host nowhere"),
        (["m data", "--output", "b:../r"], '".."'),
        (["m data", "--output", "stager.toml"], "no SQLite database"),
        (["m data", "--output", "r", "--host", "c"], "landed at c"),
    ],
)
def test_bad_usage_is_one_line_and_exit_status_2(site: Site, stager: Stager, words: list[str], expected: str) -> None:
    landed(site)
    said = stager("registry", "build", *words)
    assert (said.code, said.out, len(said.err.splitlines())) == (2, "", 1), said
    assert expected in said.err
    assert not (site.folder / "r").exists()
