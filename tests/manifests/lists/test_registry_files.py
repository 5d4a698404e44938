"""A registry beside a manifest says what should exist, and is believed in nothing before it was looked at."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from manifests.cameras import load
from manifests.errors import ManifestError
from manifests.lists import registry_files
from manifests.manifest import Manifest
from manifests.problems import problems
from manifests.reading import read_text

HOSTS = {"a": "local", "b": "local"}
IMSIM = """id integer primary key autoincrement, visit int, filter text, snap int, raft text, sensor text, channel text,
    taiObs text, expTime double"""
CFHT = """id integer primary key autoincrement, field text, visit int, filter text, ccd int, amp int, taiObs text,
    expTime double, unique(visit, ccd, amp)"""
Row = tuple[Any, ...]


def imsim(visit: Any = 85408556, raft: Any = "2,3", channel: Any = "0,0", snap: Any = 0, filter_: Any = "r") -> Row:
    return (visit, filter_, snap, raft, "1,1", channel)


def write(path: Path, rows: Iterable[Row], schema: str = IMSIM, *, also: str = "") -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE raw ({schema})")
        columns = "visit, filter, snap, raft, sensor, channel" if schema == IMSIM else "field, visit, filter, ccd, amp"
        marks = ", ".join("?" * (columns.count(",") + 1))
        connection.executemany(f"INSERT INTO raw ({columns}) VALUES ({marks})", rows)
        connection.executescript(also)
        connection.commit()
    return path


def visit(number: int) -> list[Row]:
    return [
        (number, "r", ids["snap"], ids["raft"], ids["sensor"], ids["channel"])
        for ids in load("lsst_imsim").expected({})
    ]


def manifest(folder: Path, expect: str = '"registry.sqlite3"', camera: str = "lsst_imsim", more: str = "") -> Manifest:
    text = (
        f'name = "a"\ncamera = "{camera}"\nkind = "copy"\ndataset = "d"\nsource = "a:raw/**"\ndestination = "b:new"\n'
    )
    return read_text(f"{text}expect = {expect}\n{more}", "m.toml", folder)


def wrong(folder: Path, expect: str = '"registry.sqlite3"') -> dict[str, str]:
    """What is said of a registry that cannot be read, by place."""
    with pytest.raises(ManifestError) as error:
        manifest(folder, expect)
    said = {one.place: one.text for one in error.value.problems}
    assert all(text.isprintable() for text in said.values())
    return said


def test_each_row_is_a_file_with_its_ids(tmp_path: Path) -> None:
    write(tmp_path / "registry.sqlite3", [imsim(), imsim(channel="1,7", snap=1)])
    read = manifest(tmp_path)
    assert read.expects
    assert read.visits == {"85408556"}
    assert read.registry is not None
    assert (read.registry.rows, read.registry.ids["channel"]) == (2, ("0,0", "1,7"))
    assert list(registry_files.rows(read.registry)) == [
        {"visit": 85408556, "filter": "r", "snap": snap, "raft": "2,3", "sensor": "1,1", "channel": channel}
        for snap, channel in ((0, "0,0"), (1, "1,7"))
    ]
    assert problems(read, HOSTS, []) == []


def test_a_registry_stands_among_visits_and_only_one_does(tmp_path: Path) -> None:
    write(tmp_path / "registry.sqlite3", [imsim()])
    read = manifest(tmp_path, '[85770111, "registry.sqlite3", {visit = 85770112, raft = "2,3"}]')
    assert read.expect == ({"visit": 85770111}, {"visit": 85770112, "raft": "2,3"})
    assert read.visits == {"85408556", "85770111", "85770112"}
    said = wrong(tmp_path, '["registry.sqlite3", "registry.sqlite3"]')
    assert said == {"expect[1]": '"registry.sqlite3" is a second registry; one is read'}
    assert "written without quotes" in wrong(tmp_path, '["85770111"]')["expect[0]"]
    assert '".."' in wrong(tmp_path, '"../registry.sqlite3"')["expect"]


def test_the_content_makes_the_digest_and_comes_back_from_the_canonical_form(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "registry.sqlite3", [imsim()])
    one, two = manifest(tmp_path / "a"), manifest(tmp_path / "b")
    assert one.digest() == two.digest()
    assert Manifest.from_canonical(one.canonical()) == one
    with closing(sqlite3.connect(tmp_path / "b" / "registry.sqlite3")) as connection:
        connection.execute("UPDATE raw SET channel = '0,1'")
        connection.commit()
    assert manifest(tmp_path / "b").digest() != one.digest()
    assert two.registry is not None
    with pytest.raises(ManifestError, match="changed since it was read; submit again"):
        list(registry_files.rows(two.registry))


def test_every_bad_value_is_said_once_a_column_with_its_first_row(tmp_path: Path) -> None:
    rows = [imsim(), imsim("many"), imsim(None), imsim("x"), imsim(-1), imsim(raft=None), imsim(channel="0;DROP")]
    write(tmp_path / "registry.sqlite3", [*rows, imsim(snap=0.5), imsim(filter_=b"r"), imsim(raft="\x1b[31m")])
    with pytest.raises(ManifestError) as error:
        manifest(tmp_path)
    said = [(one.place.rpartition(" ")[2], one.text) for one in error.value.problems]
    assert [column for column, _ in said] == ["visit", "visit", "visit", "filter", "snap", "raft", "raft", "channel"]
    assert said[0][1] == 'found "many" in row 2 of raw, and in 1 more; expected a whole number from 0 up'
    assert said[1][1] == "found NULL in row 3 of raw; expected a whole number from 0 up"
    assert "found -1 (a whole number) in row 5" in said[2][1]
    assert said[6][1] == 'found "\\x1b[31m" in row 10 of raw; expected text of letters, digits and _+.,-'


Spoil = Callable[[Path], object]


def as_view(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "ALTER TABLE raw RENAME TO other; CREATE VIEW raw AS SELECT * FROM other, other AS b, other AS c;"
        )


def as_virtual_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("DROP TABLE raw; CREATE VIRTUAL TABLE raw USING rtree(visit, snap, amp);")


def with_open_log(path: Path) -> None:
    path.with_name(path.name + "-wal").write_bytes(b"x" * 32)


def with_a_page_overwritten(path: Path) -> None:
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[16:18], "big")
    for page in range(2 * size, len(content), size):
        content[page : page + 16] = b"\xff" * 16
    path.write_bytes(content)


def with_a_page_twice(path: Path) -> None:
    """A tree whose root has one child many times over: few bytes, and rows without end."""
    with closing(sqlite3.connect(path)) as connection:
        root = int(connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'raw'").fetchone()[0])
    content = bytearray(path.read_bytes())
    size = int.from_bytes(content[16:18], "big")
    at = (root - 1) * size
    assert content[at] == 5  # an inner page
    cells = [int.from_bytes(content[at + 12 + 2 * n : at + 14 + 2 * n], "big") for n in range(2)]
    content[at + cells[1] : at + cells[1] + 4] = content[at + cells[0] : at + cells[0] + 4]
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000), "no SQLite database"),
        (lambda path: path.write_text("visit,raft\n" * 100), "no SQLite database"),
        (lambda path: path.write_bytes(b""), "no table raw"),
        (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "malformed|damaged|cannot be"),
        (lambda path: sqlite3.connect(path).execute("DROP TABLE raw").connection.close(), "no table raw"),
        (lambda path: path.unlink(), "no such file"),
        (lambda path: os.truncate(path, (4 << 30) + 1), "more than the 4294967296 allowed"),
        (as_view, "raw is a view"),
        (as_virtual_table, "raw is a virtual table"),
        (with_open_log, "registry.sqlite3-wal lies beside it"),
        (with_a_page_overwritten, "damaged|malformed"),
        (with_a_page_twice, "it is damaged .*2nd reference|second reference|malformed"),
    ],
)
def test_what_is_no_sound_registry_is_refused_in_a_sentence(tmp_path: Path, spoil: Spoil, sentence: str) -> None:
    path = write(tmp_path / "registry.sqlite3", visit(1))
    before = {one.name for one in tmp_path.iterdir()}
    spoil(path)
    with pytest.raises(ManifestError, match=sentence):
        manifest(tmp_path)
    assert {one.name for one in tmp_path.iterdir()} <= before | {"registry.sqlite3-wal"}


def test_a_registry_of_something_else_says_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE bias (id integer, path text); CREATE TABLE raw (path text, seen int);")
    assert "no column visit; its columns are: path, seen" in wrong(tmp_path)["expect, registry.sqlite3"]
    path.unlink()
    write(path, [])
    assert "is empty" in wrong(tmp_path)["expect, registry.sqlite3"]


def test_a_registry_is_read_and_never_written(tmp_path: Path) -> None:
    path = write(tmp_path / "registry.sqlite3", [imsim()])
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    try:
        read = manifest(tmp_path)
        assert read.registry is not None
        assert len(list(registry_files.rows(read.registry))) == 1
    finally:
        tmp_path.chmod(0o700)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert [one.name for one in tmp_path.iterdir()] == ["registry.sqlite3"]


def test_what_a_file_would_have_reckoned_is_bounded(tmp_path: Path) -> None:
    huge = "hex(zeroblob(400000000))"
    path = tmp_path / "registry.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(f"CREATE TABLE raw ({IMSIM}, CHECK (length({huge}) > 0))")
        connection.execute("INSERT INTO raw (visit, raft) VALUES (1, '2,3')")
        connection.commit()
    start = time.process_time()
    assert set(wrong(tmp_path)) == {
        f"expect, registry.sqlite3: {name}" for name in ("filter", "snap", "sensor", "channel")
    }
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"ALTER TABLE raw ADD COLUMN spell text GENERATED ALWAYS AS ({huge}) VIRTUAL")
    assert "too big" in wrong(tmp_path)["expect, registry.sqlite3"]
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("rows", "place", "sentence"),
    [
        ([imsim(raft="0,0")], "expect, registry.sqlite3: raft", "lsst_imsim has no raft 0,0; its rafts:"),
        ([imsim(snap=2)], "expect, registry.sqlite3: snap", "has no snap 2"),
        ([imsim(filter_="NONE")], "expect, registry.sqlite3: filter", 'found "NONE" for filter; expected text'),
        ([imsim(channel="10"), imsim(raft="23")], "", ""),  # other spellings of what the camera has
    ],
)
def test_what_the_camera_does_not_have_is_said(tmp_path: Path, rows: list[Row], place: str, sentence: str) -> None:
    write(tmp_path / "registry.sqlite3", rows)
    found = {one.place: one.text for one in problems(manifest(tmp_path), HOSTS, [])}
    assert list(found) == ([place] if place else [])
    assert sentence in found.get(place, "")


def test_a_registry_of_another_camera_is_said_to_lack_columns(tmp_path: Path) -> None:
    write(tmp_path / "registry.sqlite3", [("D2", 793310, "r", 0, 0)], CFHT)
    (one,) = problems(manifest(tmp_path), HOSTS, [])
    assert "no column channel, raft, sensor, snap" in one.text
    assert problems(manifest(tmp_path, camera="cfht_megacam"), HOSTS, []) == []


def test_forty_ccds_are_right_where_the_focal_plane_has_them(tmp_path: Path) -> None:
    write(tmp_path / "registry.sqlite3", [("D2", 1, "r", 39, 0)], CFHT)
    (one,) = problems(manifest(tmp_path, camera="cfht_megacam"), HOSTS, [])
    assert "no ccd 39" in one.text
    forty = manifest(tmp_path, camera="cfht_megacam", more='focal_plane = "spliced40"\n')
    assert problems(forty, HOSTS, []) == []
    (one,) = problems(manifest(tmp_path, camera="cfht_megacam", more='focal_plane = "spliced4"\n'), HOSTS, [])
    assert (one.place, 'did you mean "spliced40"?' in one.text) == ("focal_plane", True)


def test_columns_of_something_else_are_no_ids(tmp_path: Path) -> None:
    more = "ALTER TABLE raw ADD COLUMN note text; ALTER TABLE raw ADD COLUMN [order] int; UPDATE raw SET note = 'a b';"
    write(tmp_path / "registry.sqlite3", [imsim()], also=more + "UPDATE raw SET [order] = 3;")
    read = manifest(tmp_path)
    assert read.registry is not None
    assert "note" not in read.registry.ids
    assert read.registry.ids["order"] == (3,)
    assert problems(read, HOSTS, []) == []


def test_four_visits_are_read_in_less_than_a_second(tmp_path: Path) -> None:
    write(tmp_path / "registry.sqlite3", [row for number in range(1, 5) for row in visit(number)] + [imsim(9)])
    start = time.process_time()
    read = manifest(tmp_path)
    assert read.registry is not None
    assert sum(1 for _ in registry_files.rows(read.registry)) == 24_193
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("name", "camera", "rows", "visits"),
    [("cfht_2010", "cfht_megacam", 1296, 18), ("imsim_afwdata", "lsst_imsim", 34, 2)],
)
def test_the_real_registries_are_read(
    shared: Path, tmp_path: Path, name: str, camera: str, rows: int, visits: int
) -> None:
    shutil.copyfile(shared / f"data/registries/{name}.registry.sqlite3", tmp_path / "registry.sqlite3")
    read = manifest(tmp_path, camera=camera)
    assert read.registry is not None
    assert (read.registry.rows, len(read.visits)) == (rows, visits)
    assert problems(read, HOSTS, []) == []


def test_a_calibration_registry_is_none_of_raw_images(shared: Path, tmp_path: Path) -> None:
    shutil.copyfile(shared / "data/registries/cfht_2010.calibRegistry.sqlite3", tmp_path / "registry.sqlite3")
    assert "its tables are: bias, dark, flat, fringe" in wrong(tmp_path)["expect, registry.sqlite3"]
