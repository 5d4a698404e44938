"""A registry held against its camera, and against what is proven here."""

from __future__ import annotations

import itertools
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.cameras import load
from manifests.errors import InputError, ManifestError
from stager.completeness.auditing import Audit, Audited, Columns, Row, audit_visit, same_time
from stager.completeness.registry_rows import audit
from stager.samples import Exposure, Visit, write_focal_plane, write_visit
from tests.stager.conftest import Stager
from tests.stager.site import Site

TIME = "1994-07-19T06:49:51.543999744"
IMSIM, CFHT = load("lsst_imsim"), load("cfht_megacam")
KEY = ("snap", "raft", "sensor", "channel")
IMSIM_RAW = "id INTEGER PRIMARY KEY, visit INT, filter TEXT, snap INT, raft TEXT, sensor TEXT, channel TEXT"
CFHT_RAW = "id INTEGER PRIMARY KEY, field TEXT, visit INT, filter TEXT, ccd INT, amp INT"
WHOLE = list(itertools.product(*IMSIM.sets.values()))


@pytest.fixture
def registry(tmp_path: Path) -> Callable[..., Path]:
    """Writes an ImSim registry with these rows of visit, filter, snap, raft, sensor, channel, taiObs, expTime, and
    changes it by SQL."""

    def write(rows: Iterable[tuple[Any, ...]], *changes: str) -> Path:
        path = tmp_path / "registry.sqlite3"
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"CREATE TABLE raw ({IMSIM_RAW}, taiObs TEXT, expTime DOUBLE)")
            connection.execute("CREATE TABLE raw_visit (visit INT, filter TEXT, taiObs TEXT, expTime DOUBLE)")
            connection.execute("CREATE TABLE raw_skyTile (id INTEGER, skyTile INTEGER)")
            connection.executemany("INSERT INTO raw VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            connection.execute("INSERT INTO raw_visit SELECT visit, filter, taiObs, expTime FROM raw GROUP BY visit")
            for change in changes:
                connection.execute(change)
        return path

    return write


def whole(*visits: int) -> list[tuple[Any, ...]]:
    return [(visit, "r", *key, TIME, 15.0) for visit in visits for key in WHOLE]


def checked(site: Site, path: Path, **said: Any) -> Audit:
    return audit(site.database, path, **said)


def of_visit(found: Audit, visit: int) -> Audited:
    return next(one for one in found.visits if one.visit == visit)


# ---------------------------------------------------------------------------------- against its camera


def test_a_whole_registry_is_sound(sqlite_site: Site, registry: Callable[..., Path]) -> None:
    found = checked(sqlite_site, registry(whole(1, 2)))
    assert found.sound
    assert (found.camera, found.against) == ("lsst_imsim", ())
    assert [(one.visit, one.expected, one.rows, one.state) for one in found.visits] == [
        (1, 6048, 6048, "whole"),
        (2, 6048, 6048, "whole"),
    ]


DEFECTS = {
    "DELETE FROM raw WHERE visit = 1 AND raft = '2,3' AND sensor = '1,1' AND snap = 1": (
        "missing", "raft 2,3 sensor 1,1: 16 of 32 without a row (snap 1)"),
    "DELETE FROM raw WHERE visit = 1 AND raft = '2,3' AND sensor = '1,1'": (
        "missing", "raft 2,3 sensor 1,1: all 32 without a row"),
    "DELETE FROM raw WHERE visit = 1 AND snap = 1": ("missing", "3024 of 6048 without a row (snap 1)"),
    """INSERT INTO raw SELECT NULL, visit, filter, snap, raft, sensor, channel, taiObs, expTime FROM raw
       WHERE visit = 1 AND raft = '2,2' AND sensor = '0,0' AND snap = 0 AND channel = '0,7'""": (
        "duplicate", "raft 2,2 sensor 0,0: 1 of 32 in more than one row (snap 0, channel 0,7)"),
    "UPDATE raw SET raft = '4,4' WHERE visit = 1 AND raft = '3,3' AND sensor = '0,0' AND snap = 0": (
        "missing", "raft 4,4 sensor 0,0: 16 of 32 of no place on the focal plane (snap 0)"),
    "UPDATE raw SET taiObs = '1858-11-17T00:00:00.000000000' WHERE visit = 1 AND raft = '2,3' AND sensor = '1,1'": (
        "times", f"raft 2,3 sensor 1,1: all 32 with taiObs 1858-11-17T00:00:00.000000000, where others have {TIME}"),
    "UPDATE raw SET taiObs = NULL WHERE visit = 1 AND raft = '2,3' AND sensor = '1,1'": (
        "times", f"raft 2,3 sensor 1,1: all 32 with taiObs NULL, where others have {TIME}"),
    "UPDATE raw SET expTime = 30 WHERE visit = 1 AND raft = '2,3' AND sensor = '1,1' AND snap = 0": (
        "times", "raft 2,3 sensor 1,1: 16 of 32 with expTime 30.0, where others have 15.0 (snap 0)"),
    "UPDATE raw SET taiObs = '1858-11-17T00:00:00' WHERE visit = 1": (
        "times", "taiObs is 1858-11-17T00:00:00, which is no time of an exposure"),
    "UPDATE raw SET filter = 'i' WHERE visit = 1 AND raft = '0,1'": (
        "ids", "raft 0,1: all 288 with filter i, where others have r"),
    "UPDATE raw SET filter = 'q' WHERE visit = 1": ("ids", 'filter is q; expected text of the form [ugrizy]'),
    "DELETE FROM raw_visit WHERE visit = 1": ("raw_visit", "no row in raw_visit"),
    "INSERT INTO raw_visit SELECT * FROM raw_visit WHERE visit = 1": ("raw_visit", "2 rows in raw_visit"),
    "UPDATE raw_visit SET taiObs = '1994-07-19T06:49:22.543999744' WHERE visit = 1": (
        "raw_visit", f"raw_visit has taiObs 1994-07-19T06:49:22.543999744, and raw {TIME}"),
    "UPDATE raw_visit SET filter = 'z' WHERE visit = 1": ("raw_visit", "raw_visit has filter z, and raw r"),
    "DELETE FROM raw WHERE visit = 1": ("absent", "no row in raw"),
}  # fmt: skip


@pytest.mark.parametrize(("defect", "flag", "told"), [(change, *said) for change, said in DEFECTS.items()])
def test_each_defect_is_told_alone_and_in_few_words(
    sqlite_site: Site, registry: Callable[..., Path], defect: str, flag: str, told: str
) -> None:
    found = checked(sqlite_site, registry(whole(1, 2), defect))
    one, other = of_visit(found, 1), of_visit(found, 2)
    assert flag in one.flags
    assert told in one.problems
    assert other.sound
    assert found.visits[0] is one
    assert len(one.problems) <= 2
    assert not found.sound


def test_a_test_visit_with_one_row_is_a_stray(sqlite_site: Site, registry: Callable[..., Path]) -> None:
    rows = [*whole(1), (7, "r", 0, "2,3", "1,1", "0,0", TIME, 15.0)]
    found = checked(sqlite_site, registry(rows))
    assert of_visit(found, 7).flags == ("stray",)
    assert of_visit(found, 7).problems == ("1 row, where the fullest visit has 6048",)
    assert of_visit(found, 1).sound
    assert not found.sound


def test_snaps_may_have_times_of_their_own_and_the_visit_has_that_of_the_first(
    sqlite_site: Site, registry: Callable[..., Path]
) -> None:
    later = "UPDATE raw SET taiObs = '1994-07-19T06:50:09.5' WHERE snap = 1"
    assert checked(sqlite_site, registry(whole(1), later)).sound
    wrong = "UPDATE raw_visit SET taiObs = '1994-07-19T06:50:09.5'"
    assert checked(sqlite_site, registry(whole(1), later, wrong)).visits[0].flags == ("raw_visit",)


def test_what_is_wrong_with_the_whole_file_is_told_once(sqlite_site: Site, registry: Callable[..., Path]) -> None:
    found = checked(
        sqlite_site, registry(whole(1), "DROP TABLE raw_visit", "INSERT INTO raw_skyTile VALUES (99999, 1)")
    )
    assert found.problems == (
        "there is no table raw_visit, by which readers find visits",
        "raw_skyTile has 1 row of images that raw does not have",
    )
    assert all(one.sound for one in found.visits)
    assert not found.sound


def test_a_view_in_place_of_raw_visit_is_no_table(sqlite_site: Site, registry: Callable[..., Path]) -> None:
    view = "CREATE VIEW raw_visit AS SELECT DISTINCT visit, filter, taiObs, expTime FROM raw"
    found = checked(sqlite_site, registry(whole(1), "DROP TABLE raw_visit", view))
    assert "there is no table raw_visit, by which readers find visits" in found.problems


def cfht(path: Path, ccds: Iterable[int]) -> Path:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE raw ({CFHT_RAW}, taiObs TEXT, expTime DOUBLE)")
        rows = [("D2", 1, "r", ccd, amp, TIME, 300.05) for ccd in ccds for amp in (0, 1)]
        connection.executemany("INSERT INTO raw VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", rows)
        connection.execute("CREATE TABLE raw_visit (visit INT, field TEXT, filter TEXT, taiObs TEXT, expTime DOUBLE)")
        connection.execute(f"INSERT INTO raw_visit VALUES (1, 'D2', 'r', '{TIME}', 300.05)")
    return path


def test_a_mosaic_of_40_ccds_is_whole_with_80_and_one_of_36_with_72(sqlite_site: Site, tmp_path: Path) -> None:
    path = tmp_path / "cfht.sqlite3"
    (usual,) = checked(sqlite_site, cfht(path, range(36))).visits
    assert (usual.expected, usual.sound) == (72, True)
    (eared,) = checked(sqlite_site, cfht(path, range(40))).visits
    assert (eared.expected, eared.sound) == (80, True)
    (lacking,) = checked(sqlite_site, cfht(path, {*range(36)} - {5, 17})).visits
    assert lacking.problems == ("ccd 5, 17: all 4 without a row",)


@given(st.sets(st.tuples(st.just(0), st.integers(0, 35), st.integers(0, 1)), max_size=72))
def test_a_visit_is_sound_only_with_all_of_its_rows(lost: set[tuple[int, int, int]]) -> None:
    columns = Columns.of(CFHT, ("field", "visit", "filter", "snap", "ccd", "amp"))
    keys = [key for key in itertools.product(*(CFHT.sets[name] for name in columns.key)) if key not in lost]
    rows = [Row(key, ("D2", "r"), TIME, 300.0) for key in keys]
    table = [{"visit": 1, "field": "D2", "filter": "r", "taiobs": TIME, "exptime": 300.0}]
    one = audit_visit(1, rows, columns, table, fullest=len(rows))
    assert one.sound == (not lost)
    assert ("absent" in one.flags) == (not rows)


def test_times_that_are_the_same_but_for_their_last_decimals_are_the_same() -> None:
    assert same_time(TIME, "1994-07-19T06:49:51.5440")
    assert not same_time(TIME, "1994-07-19T06:50:20.543999744")
    assert not same_time(TIME, None)
    assert same_time(None, None)


# ------------------------------------------------------------------------------- against what is proven


SMALL = Visit(visit=85471048, filter="y", sensors=("00", "01"), channels=("00", "01"), snaps=(0,))
LANDS = {"source": "a:raw/**", "destination": "b:ImSim/raw", "camera": "lsst_imsim"}


def rows_of(*visits: Visit, time: str = TIME) -> list[tuple[Any, ...]]:
    return [
        (one.visit, one.filter, snap, "2,3", f"{sensor[0]},{sensor[1]}", f"{channel[0]},{channel[1]}", time, 15.0)
        for one in visits
        for snap in one.snaps
        for sensor in one.sensors
        for channel in one.channels
    ]


def landed(site: Site, *visits: Visit, **said: Any) -> None:
    for one in visits:
        write_visit(site.path("a:"), one, shape=(2, 3))
    site.run(**LANDS, **said)


def test_a_registry_of_what_is_proven_is_sound(site: Site, registry: Callable[..., Path]) -> None:
    landed(site, SMALL)
    path = registry(rows_of(SMALL))
    for dataset in ("m data", None):
        found = checked(site, path, dataset=dataset)
        assert found.against == ("m data",)
        assert found.sound, found
        assert [(one.expected, one.rows) for one in found.visits] == [(4, 4)]


def test_rows_without_a_file_and_files_without_a_row_are_told(site: Site, registry: Callable[..., Path]) -> None:
    landed(site, SMALL)
    site.change("UPDATE items SET state = 'held' WHERE ids LIKE '%\"sensor\": \"0,0\"%'")
    lost = "DELETE FROM raw WHERE sensor = '0,1' AND channel = '0,1'"
    (one,) = checked(site, registry(rows_of(SMALL), lost), dataset="m data").visits
    assert one.flags == ("unproven", "unlisted")
    assert one.problems == (
        "raft 2,3 sensor 0,0: 2 of 32 with a row and without a proven file (snap 0, channel 0,0 0,1)",
        "raft 2,3 sensor 0,1: 1 of 32 proven and without a row (snap 0, channel 0,1)",
    )


def test_visits_on_one_side_only_are_strays_and_absent(site: Site, registry: Callable[..., Path]) -> None:
    other = Visit(visit=7, sensors=("00",), channels=("00",), snaps=(0,))
    landed(site, SMALL)
    found = checked(site, registry(rows_of(other)), dataset="m data")
    assert of_visit(found, 7).flags == ("stray",)
    assert of_visit(found, SMALL.visit).flags == ("absent",)


def test_a_row_of_an_expected_visit_that_is_not_there_yet_is_no_stray(
    site: Site, registry: Callable[..., Path]
) -> None:
    write_visit(site.path("a:"), SMALL, shape=(2, 3))
    ids = {"snap": 0, "raft": "2,3", "sensor": "0,0"}
    site.run(**LANDS, expect=[{"visit": SMALL.visit, **ids}, {"visit": 7, **ids}])
    other = Visit(visit=7, sensors=("00",), channels=("00",), snaps=(0,))
    stray = Visit(visit=8, sensors=("00",), channels=("00",), snaps=(0,))
    found = checked(site, registry(rows_of(SMALL, other, stray)), dataset="m data")
    assert of_visit(found, 7).flags == ("unproven",)
    assert of_visit(found, 8).flags == ("stray",)


def test_a_time_that_is_not_that_of_the_header_is_told(site: Site, registry: Callable[..., Path]) -> None:
    landed(site, SMALL)
    as_tai = "1994-07-19T06:50:20.543999744"  # 29 s late: TAI written as if it were UTC
    found = checked(site, registry(rows_of(SMALL, time=as_tai)), dataset="m data")
    (one,) = found.visits
    assert one.flags == ("times",)
    assert "with another taiObs than in the header" in one.problems[0]


def test_the_pieces_of_focal_planes_are_held_against_a_registry(sqlite_site: Site, tmp_path: Path) -> None:
    site = sqlite_site
    site.path("a:in").mkdir()
    write_focal_plane(site.path("a:in/1o.fits"), Exposure(obsid=1, target="D2"), rows=3)
    site.run(kind="chop", source="a:in/*o.fits", destination="b:out", camera="cfht_megacam")
    (one,) = checked(site, cfht(tmp_path / "cfht.sqlite3", range(35)), dataset="m data").visits
    assert (one.expected, one.rows) == (72, 70)
    assert "ccd 35: all 2 proven and without a row" in one.problems
    assert "with another taiObs than in the header" in one.problems[1]


def test_where_nothing_of_it_is_known_a_registry_is_held_against_its_camera(
    site: Site, registry: Callable[..., Path]
) -> None:
    landed(site, SMALL)
    found = checked(site, registry(whole(1)))
    assert found.against == ()
    assert found.sound


# -------------------------------------------------------------------------------------- bad input


def test_a_registry_of_another_camera_is_refused(sqlite_site: Site, registry: Callable[..., Path]) -> None:
    path = registry(whole(1))
    with pytest.raises(InputError, match=r"rows of cfht_megacam are told apart by .*ccd, amp: give another --camera"):
        checked(sqlite_site, path, camera_name="cfht_megacam")
    with pytest.raises(InputError, match="unknown camera"):
        checked(sqlite_site, path, camera_name="nothing")


def test_columns_that_no_camera_has_ask_for_its_name(sqlite_site: Site, tmp_path: Path) -> None:
    path = tmp_path / "odd.sqlite3"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE raw (visit INT, chip INT)")
        connection.execute("INSERT INTO raw VALUES (1, 1)")
    with pytest.raises(InputError, match="has the columns visit, chip, and no camera's registries have these"):
        checked(sqlite_site, path)


def test_what_is_no_registry_is_refused(sqlite_site: Site, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("no database")
    for path in (text, tmp_path / "nothing", tmp_path):
        with pytest.raises(ManifestError):
            checked(sqlite_site, path)


def test_text_of_a_registry_cannot_draw_on_the_terminal(
    site: Site, stager: Stager, registry: Callable[..., Path]
) -> None:
    path = registry(whole(1), "UPDATE raw SET taiObs = char(27) || '[31m' WHERE raft = '0,1'")
    said = stager("registry", "check", "--registry", str(path))
    assert said.code == 1
    assert "\x1b" not in said.out
    assert "\\x1b[31m" in said.out


# ---------------------------------------------------------------------------------------- the command


def test_the_command_checks_a_registry_alone(site: Site, stager: Stager, registry: Callable[..., Path]) -> None:
    path = registry([*whole(1, 2), *rows_of(SMALL)[:1]])
    said = stager("registry", "check", "--registry", str(path), "--camera", "lsst_imsim")
    assert said.code == 1
    table = [line.split() for line in said.out.splitlines() if line.strip()[:1].isdigit()]
    visit = str(SMALL.visit)
    assert table == [[visit, "6048", "1", "stray"], ["1", "6048", "6048", "whole"], ["2", "6048", "6048", "whole"]]
    path = registry(whole(1, 2))
    said = stager("registry", "check", "--registry", str(path), "--json")
    assert said.code == 0
    assert json.loads(said.out)["registry"]["sound"] is True


def test_the_command_shows_completeness_and_the_registry_together(
    site: Site, stager: Stager, registry: Callable[..., Path]
) -> None:
    landed(site, SMALL)
    path = registry(rows_of(SMALL))
    said = stager("registry", "check", "m data", "--registry", str(path))
    assert said.code == 0
    assert "held against the proven files of m data" in said.out
    shutil.rmtree(site.path("a:raw"))
    assert stager("registry", "check", "nothing", "--registry", str(path)).code == 2
    assert stager("registry", "check", "--camera", "lsst_imsim").code == 2


def test_the_real_registries_are_read(sqlite_site: Site, shared: Path) -> None:
    cfht = checked(sqlite_site, shared / "data/registries/cfht_2010.registry.sqlite3")
    assert (cfht.camera, len(cfht.visits), cfht.sound) == ("cfht_megacam", 18, True)
    imsim = checked(sqlite_site, shared / "data/registries/imsim_afwdata.registry.sqlite3")
    assert {one.visit: one.rows for one in imsim.visits} == {85408556: 32, 85751839: 2}
    assert all(one.flags == ("missing",) for one in imsim.visits)
