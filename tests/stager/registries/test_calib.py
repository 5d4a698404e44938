"""calibRegistry.sqlite3 from the inventory of master detrends: row by row as in 2010, and what is wrong with lines."""

from __future__ import annotations

import json
import shutil
import sqlite3
from datetime import date
from pathlib import Path

import pytest

from manifests.errors import ManifestError
from stager.registries import making
from stager.registries.errors import RegistryError
from stager.registries.inventory import KINDS, overlaps, parse, read_inventory
from tests.stager.conftest import Stager
from tests.stager.registries.archive import Archive, rows, schema
from tests.stager.site import Site

INVENTORY = """\
# CFHT Elixir Master De-trend Images
static.mask.0.36.00.fits       no   2003B   2003-May-23 2003-Sep-17  none  mask    0    36
03Am04n.bias.0.18.00.fits      no   03Am04n 2003-May-23 2003-May-30  none  bias    0    18
03Am04.dark.60.36.00.fits     yes   03Am04  2003-May-30 2003-Jun-10  none  dark    0    36

03Am04.flat.u.36.02.fits       no   03Am04  2003-May-31 2003-Jun-10  u     flat    2    36  # twilight
03Am04.fringe.i2.36.01.fits   yes   03Am04  2003-05-31  2003-jun-10  i2    fringe  1    36
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    file = tmp_path / "inventory.txt"
    file.write_text(INVENTORY)
    return file


def test_the_real_inventory_gives_the_real_registry_row_by_row(shared: Path, tmp_path: Path) -> None:
    real = shared / "data" / "registries" / "cfht_2010.calibRegistry.sqlite3"
    output = tmp_path / "calibRegistry.sqlite3"
    report = making.calibrations(shared / "data" / "registries" / "CalibInventory_13Apr10.txt", str(output))
    assert report.kinds == {"bias": 52, "dark": 56, "flat": 252, "fringe": 94}
    for kind in KINDS:
        query = f"SELECT * FROM {kind} ORDER BY id"
        assert rows(output, query) == rows(real, query)
    assert schema(output) == schema(real)
    assert len(report.overlaps) == 15


def test_the_real_registry_is_taken_over_as_it_is(shared: Path, tmp_path: Path) -> None:
    folder, output = shared / "data" / "registries", tmp_path / "calibRegistry.sqlite3"
    shutil.copyfile(folder / "cfht_2010.calibRegistry.sqlite3", output)
    before = output.read_bytes()
    report = making.calibrations(folder / "CalibInventory_13Apr10.txt", str(output))
    assert (report.written, report.kept) == (False, 454)
    assert output.read_bytes() == before


def test_overlaps_are_just_the_days_on_which_a_lookup_finds_more_than_one_row(shared: Path, tmp_path: Path) -> None:
    """Asked as the mapper asks, for every day of six years and every filter."""
    output = tmp_path / "calibRegistry.sqlite3"
    report = making.calibrations(shared / "data" / "registries" / "CalibInventory_13Apr10.txt", str(output))
    told = {
        (one.kind, one.qualifier, day)
        for one in report.overlaps
        for day in range(one.first.toordinal(), one.last.toordinal() + 1)
    }
    found = set()
    connection = sqlite3.connect(output)
    for kind, column in (("bias", "NULL"), ("dark", "expTime"), ("flat", "filter"), ("fringe", "filter")):
        query = f"SELECT {column} FROM {kind} WHERE ? BETWEEN validStart AND validEnd GROUP BY 1 HAVING count(*) > 1"
        for day in range(date(2003, 1, 1).toordinal(), date(2009, 12, 31).toordinal()):
            for (qualifier,) in connection.execute(query, (date.fromordinal(day).isoformat(),)):
                found.add((kind, qualifier, day))
    connection.close()
    assert told == found
    assert found


def test_each_kind_has_its_table_and_its_columns(inventory: Path, tmp_path: Path) -> None:
    output = tmp_path / "c"
    report = making.calibrations(inventory, str(output))
    assert (report.added, report.overlaps) == (4, [])
    assert rows(output, "SELECT * FROM bias") == [
        (1, "03Am04n.bias.0.18.00.fits", "03Am04n", "03Am04n", 0, "2003-05-23", "2003-05-30")
    ]
    assert rows(output, "SELECT path, expTime FROM dark") == [("03Am04.dark.60.36.00.fits", 60)]
    assert rows(output, "SELECT validStart, validEnd, filter, version FROM fringe") == [
        ("2003-05-31", "2003-06-10", "i2", 1)
    ]


def test_a_second_build_changes_nothing(inventory: Path, tmp_path: Path) -> None:
    output = tmp_path / "c"
    making.calibrations(inventory, str(output))
    before = (output.read_bytes(), output.stat().st_ino)
    report = making.calibrations(inventory, str(output))
    assert (report.written, report.kept, report.added) == (False, 4, 0)
    assert (output.read_bytes(), output.stat().st_ino) == before


def test_a_changed_inventory_is_followed_and_rows_of_a_path_keep_their_ids(inventory: Path, tmp_path: Path) -> None:
    output = tmp_path / "c"
    making.calibrations(inventory, str(output))
    lines = INVENTORY.replace("2003-May-23 2003-May-30  none  bias", "2003-May-23 2003-May-29  none  bias").splitlines()
    flat = next(line for line in lines if ".flat." in line)
    lines.remove(flat)
    lines.insert(0, flat.replace(".flat.u", ".flat.g").replace(" u ", " g "))
    inventory.write_text("\n".join(lines))
    report = making.calibrations(inventory, str(output))
    assert (report.added, report.updated, report.removed, report.kept) == (1, 1, 1, 2)
    assert rows(output, "SELECT id, validEnd FROM bias") == [(1, "2003-05-29")]
    assert rows(output, "SELECT id, filter FROM flat") == [(2, "g")]


def test_a_path_with_two_spans_of_validity_has_two_rows_that_stay(tmp_path: Path) -> None:
    line = "03Am04.bias.0.36.00.fits no 03Am04 {} none bias 0 36\n"
    inventory, output = tmp_path / "i", tmp_path / "c"
    inventory.write_text(line.format("2003-May-01 2003-May-05") + line.format("2003-May-10 2003-May-12"))
    making.calibrations(inventory, str(output))
    assert not making.calibrations(inventory, str(output)).written
    inventory.write_text(line.format("2003-May-10 2003-May-12"))
    assert making.calibrations(inventory, str(output)).removed == 1
    assert rows(output, "SELECT id, validStart FROM bias") == [(2, "2003-05-10")]


BAD = {
    "a b c": "line 1: 3 columns; expected 9",
    "x no r 2003-May-01 2003-May-02 none bias 0 36 extra": "line 1: 10 columns",
    "x no r 2003-May-32 2003-May-02 none bias 0 36": 'first date is "2003-May-32"',
    "x no r 2003-Feb-28 2003-Feb-29 none bias 0 36": 'last date is "2003-Feb-29"',
    "x no r 2003-Mai-01 2003-May-02 none bias 0 36": 'first date is "2003-Mai-01"',
    "x no r 2003-May-03 2003-May-02 none bias 0 36": "expected the earlier date first",
    "x no r 2003-May-01 2003-May-02 none scatter 0 36": 'kind is "scatter"',
    "x no r 2003-May-01 2003-May-02 none bias one 36": 'version is "one"',
    "x no r 2003-May-01 2003-May-02 none bias 0 all": 'number of CCDs is "all"',
    "x no r 2003-May-01 2003-May-02 none flat 0 36": "a flat of no filter",
    "r.dark.long.fits no r 2003-May-01 2003-May-02 none dark 0 36": "expected the exposure time",
    "/etc/x no r 2003-May-01 2003-May-02 none bias 0 36": 'path is "/etc/x"',
    "a/../x no r 2003-May-01 2003-May-02 none bias 0 36": 'path is "a/../x"',
    "x no r\x1b[2J 2003-May-01 2003-May-02 none bias 0 36": "cannot be printed",
    "x no r 2003-May-01 2003-May-02 none bias 0 \u0663": "number of CCDs",
}


@pytest.mark.parametrize("line", BAD)
def test_a_line_that_cannot_be_used_is_told(line: str) -> None:
    _, wrong = parse(line)
    assert BAD[line] in str(wrong[0])


def test_all_bad_lines_are_told_at_once_with_their_numbers_and_nothing_is_made(inventory: Path, tmp_path: Path) -> None:
    making.calibrations(inventory, str(tmp_path / "c"))
    before = (tmp_path / "c").read_bytes()
    inventory.write_text(INVENTORY + "\n".join(BAD) + "\nz\xff")
    with pytest.raises(ManifestError) as refused:
        making.calibrations(inventory, str(tmp_path / "c"))
    places = {problem.place for problem in refused.value.problems}
    assert places == {f"line {number}" for number in range(8, 8 + len(BAD) + 1)}
    assert (tmp_path / "c").read_bytes() == before


def test_a_file_that_is_no_inventory_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# nothing\n")
    with pytest.raises(RegistryError, match="no line of it is a detrend"):
        read_inventory(tmp_path / "empty")
    with pytest.raises(RegistryError, match="No such file"):
        read_inventory(tmp_path / "none")
    with pytest.raises(RegistryError, match="cannot be read"):
        read_inventory(tmp_path)
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 100)
    with pytest.raises(ManifestError):
        read_inventory(tmp_path / "binary")


def test_days_that_touch_overlap_and_other_filters_do_not() -> None:
    line = "x no r {} {} {} flat 0 36\n"
    text = line.format("2003-May-01", "2003-May-10", "u") + line.format("2003-May-10", "2003-May-20", "u")
    detrends, wrong = parse(text + line.format("2003-May-01", "2003-May-20", "g"))
    assert not wrong
    (overlap,) = overlaps(detrends)
    assert str(overlap) == "flat u on 2003-05-10: 2 are valid, and a lookup wants one: x (line 1), x (line 2)"


@pytest.mark.parametrize("content", ["text", "a registry of images"])
def test_another_file_is_refused_and_left_as_it_is(inventory: Path, tmp_path: Path, content: str) -> None:
    output = tmp_path / "c"
    if content == "text":
        output.write_text(content)
    else:
        with sqlite3.connect(output) as connection:
            connection.execute("CREATE TABLE raw (id integer)")
        connection.close()
    before = output.read_bytes()
    with pytest.raises(RegistryError, match="no registry of calibrations"):
        making.calibrations(inventory, str(output))
    assert output.read_bytes() == before


def test_the_command_needs_no_configuration_for_a_file(
    inventory: Path, site: Site, stager: Stager, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.folder / "stager.toml").unlink()
    said = stager("registry", "build", "--calib", str(inventory), "--output", "c")
    assert (said.code, said.out) == (0, "c: 1 bias, 1 dark, 1 flat, 1 fringe: 4 added, 0 updated, 0 removed, 0 kept\n")
    said = stager("registry", "build", "--calib", str(inventory), "--output", "c", "--json")
    assert json.loads(said.out)["kept"] == 4
    inventory.write_text("a b\nc d\n")
    said = stager("registry", "build", "--calib", str(inventory), "--output", "c")
    assert said.code == 2
    assert "line 1" in said.err
    assert "line 2" in said.err


def test_the_command_lands_it_at_a_host_too(inventory: Path, site: Site, stager: Stager) -> None:
    said = stager("registry", "build", "--calib", str(inventory), "--output", "b:calib/calibRegistry.sqlite3")
    assert said.code == 0, said.err
    assert rows(site.path("b:calib/calibRegistry.sqlite3"), "SELECT count(*) FROM bias") == [(1,)]


def test_an_archive_is_not_needed(sqlite_archive: Archive, inventory: Path) -> None:
    report = making.calibrations(inventory, "b:c", sqlite_archive.config, sqlite_archive.database)
    assert report.written
