"""A table for `butler ingest-files`: what the Butler calls ids, in an order that stays, whatever names files have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from astropy.table import Table

from stager.registries.errors import RegistryError
from stager.samples import Visit, write_visit
from tests.stager.conftest import Stager
from tests.stager.registries.archive import CFHT_CARDS, IMSIM_CARDS, Archive, cfht, imsim
from tests.stager.site import Site


def table(archive: Archive) -> Any:
    return Table.read(archive.folder / "raw.ecsv")


def test_a_row_for_each_image_with_its_uri_and_its_dimensions(archive: Archive) -> None:
    paths = archive.add("cfht_megacam", cfht(), root="CFHTLS/", **CFHT_CARDS)
    report = archive.export()
    assert (report.rows, report.written, report.columns) == (72, True, ("file", "instrument", "exposure", "detector"))
    made = table(archive)
    assert made.colnames == ["file", "instrument", "exposure", "detector"]
    root = archive.config.hosts["b"].root
    assert [unquote(urlsplit(str(uri)).path) for uri in made["file"]] == [f"{root}/{path}" for path in sorted(paths)]
    assert set(made["instrument"]) == {"MegaPrime"}
    assert made["exposure"].dtype == "int64"
    assert set(made["exposure"]) == {788033}
    assert made["detector"].tolist() == list(range(72))


def test_detectors_of_imsim_are_counted_as_its_mapper_counts_amplifiers(archive: Archive) -> None:
    archive.add("lsst_imsim", imsim(), **IMSIM_CARDS)
    archive.export()
    made = table(archive)
    raft = (5 * 2 + 3) * 160
    expected = [raft + sensor * 16 + channel for sensor in (4, 5) for channel in (0, 7, 11)]
    assert made["exposure"].tolist() == [2 * 85471048] * 6 + [2 * 85471048 + 1] * 6
    assert made["detector"].tolist() == expected * 2


def test_the_same_images_give_the_same_bytes_and_the_file_is_not_touched(archive: Archive) -> None:
    ids = list(imsim())
    archive.add("lsst_imsim", reversed(ids), **IMSIM_CARDS)
    archive.export()
    file = archive.folder / "raw.ecsv"
    before = (file.read_bytes(), file.stat().st_ino)
    assert not archive.export().written
    archive.change("DELETE FROM images")
    archive.add("lsst_imsim", ids, **IMSIM_CARDS)
    assert not archive.export().written
    assert (file.read_bytes(), file.stat().st_ino) == before


def test_a_table_for_each_amplifier_has_the_ccd_as_its_detector(sqlite_archive: Archive) -> None:
    sqlite_archive.add("cfht_megacam", cfht(), **CFHT_CARDS)
    report = sqlite_archive.export(conditions=["amp=1"], dimensions=["detector=ccd"], instrument="MegaCam")
    assert report.rows == 36
    made = table(sqlite_archive)
    assert made["detector"].tolist() == list(range(36))
    assert all("-a1" in uri for uri in made["file"])
    assert set(made["instrument"]) == {"MegaCam"}


def test_dimensions_may_be_added_and_left_out_and_conditions_may_be_several(sqlite_archive: Archive) -> None:
    sqlite_archive.add("lsst_imsim", imsim(), **IMSIM_CARDS)
    dimensions = ["exposure=", "visit=visit", "band=filter", "detector=raft,sensor"]
    report = sqlite_archive.export(conditions=["channel=0,7", "snap=1"], dimensions=dimensions)
    assert (report.rows, report.columns) == (2, ("file", "instrument", "detector", "visit", "band"))
    assert table(sqlite_archive)["band"].tolist() == ["y", "y"]
    assert table(sqlite_archive)["detector"].tolist() == [13 * 10 + 4, 13 * 10 + 5]


@pytest.mark.parametrize("root", ["a b/c#d%41?x/", 'quo"te, comma/', "höhe/", "back\\slash/"])
def test_a_file_of_any_name_is_a_uri_that_leads_to_it(sqlite_archive: Archive, root: str) -> None:
    paths = sqlite_archive.add("cfht_megacam", cfht(ccds=[0]), root=root, **CFHT_CARDS)
    sqlite_archive.export()
    host = sqlite_archive.config.hosts["b"].root
    assert [unquote(urlsplit(str(uri)).path) for uri in table(sqlite_archive)["file"]] == [f"{host}/{p}" for p in paths]


def test_a_name_that_is_no_utf8_is_refused(sqlite_archive: Archive) -> None:
    sqlite_archive.add("cfht_megacam", cfht(ccds=[0]), root="\udcff/", **CFHT_CARDS)
    with pytest.raises(RegistryError, match="no UTF-8"):
        sqlite_archive.export()
    assert not (sqlite_archive.folder / "raw.ecsv").exists()


def test_relative_paths_are_below_the_root_and_plain(sqlite_archive: Archive) -> None:
    paths = sqlite_archive.add("cfht_megacam", cfht(ccds=[0]), root="a b/", **CFHT_CARDS)
    sqlite_archive.export(relative=True)
    assert table(sqlite_archive)["file"].tolist() == paths
    sqlite_archive.add("cfht_megacam", cfht(2, ccds=[0]), root="a#b/", **CFHT_CARDS)
    with pytest.raises(RegistryError, match="leave out --relative"):
        sqlite_archive.export(relative=True)


def test_images_that_are_gone_are_left_out(site: Site) -> None:
    archive = Archive(site.folder, site.database)
    write_visit(site.path("a:"), Visit(sensors=("00",), channels=("00", "01"), snaps=(0,)), shape=(2, 3))
    site.run(source="a:raw/**", destination="b:raw", camera="lsst_imsim")
    site.change("UPDATE copies SET trouble = 'missing' WHERE path LIKE '%C01%'")
    report = archive.export("m data")
    assert (report.rows, report.lost) == (1, 1)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dimensions": ["detector=ccd"]}, "36 data ids would be of more than one file, such as exposure 788033, "),
        ({"dimensions": ["detector=cdd"]}, 'did you mean "ccd"?'),
        ({"dimensions": ["detector=ccd,filter"]}, "cannot be numbered by filter"),
        ({"dimensions": ["detector"]}, "expected NAME=ID"),
        ({"dimensions": ["file=ccd"]}, "expected NAME=ID"),
        ({"dimensions": ["De tector=ccd"]}, "expected NAME=ID"),
        ({"dimensions": ["exposure=", "detector="]}, "no dimension"),
        ({"dimensions": ["run=run"]}, "run is made of run, which the file does not have"),
        ({"dimensions": ["detector=amp,visit"]}, "say more in `sizes`"),
        ({"conditions": ["cdd=1"]}, 'did you mean "ccd"?'),
        ({"conditions": ["ccd"]}, "expected a whole number"),
        ({"conditions": ["ccd=99"]}, "none of the images"),
    ],
)
def test_what_cannot_be_a_table_is_said(sqlite_archive: Archive, options: dict[str, Any], expected: str) -> None:
    sqlite_archive.add("cfht_megacam", cfht(), **CFHT_CARDS)
    with pytest.raises(RegistryError) as refused:
        sqlite_archive.export(**options)
    assert expected in str(refused.value)
    assert not list(sqlite_archive.folder.glob("*raw.ecsv*"))


def test_a_file_that_is_no_ecsv_is_left_as_it_is(sqlite_archive: Archive) -> None:
    sqlite_archive.add("cfht_megacam", cfht(), **CFHT_CARDS)
    (sqlite_archive.folder / "raw.ecsv").write_text("my notes\n")
    with pytest.raises(RegistryError, match="no ECSV table"):
        sqlite_archive.export()
    assert (sqlite_archive.folder / "raw.ecsv").read_text() == "my notes\n"


def test_a_table_at_a_host_is_landed_there(sqlite_archive: Archive) -> None:
    sqlite_archive.add("cfht_megacam", cfht(), **CFHT_CARDS)
    assert sqlite_archive.export(output="b:tables/raw.ecsv").written
    assert len(Table.read(sqlite_archive.folder / "hosts" / "b" / "tables" / "raw.ecsv")) == 72


def test_the_command_says_what_it_wrote(site: Site, stager: Stager) -> None:
    write_visit(site.path("a:"), Visit(sensors=("00",), channels=("00", "01"), snaps=(0,)), shape=(2, 3))
    site.run(source="a:raw/**", destination="b:raw", camera="lsst_imsim")
    said = stager("registry", "export", "m data", "--output", "raw.ecsv")
    assert (said.code, said.out) == (
        0,
        "raw.ecsv: 2 files (lsst_imsim at b), file, instrument, exposure, detector\n",
    )
    words = [
        "--dimension",
        "detector=raft,sensor",
        "--where",
        "channel=0,1",
        "--instrument",
        "X",
        "--relative",
        "--json",
    ]
    said = stager("registry", "export", "m data", "--output", "raw.ecsv", "--format", "ecsv", *words)
    assert json.loads(said.out) == {
        "output": "raw.ecsv", "camera": "lsst_imsim", "host": "b", "datasets": ["m data"],
        "columns": ["file", "instrument", "exposure", "detector"], "written": True, "rows": 1, "lost": 0,
    }  # fmt: skip
    assert Path(str(Table.read(site.folder / "raw.ecsv")["file"][0])).parts[0] == "raw"


@pytest.mark.parametrize(
    "words", [["d", "--output", "x", "--format", "csv"], ["d"], ["--output", "x"], ["unknown", "--output", "x"]]
)
def test_bad_usage_is_one_line_and_exit_status_2(site: Site, stager: Stager, words: list[str]) -> None:
    said = stager("registry", "export", *words)
    assert (said.code, said.out, len(said.err.splitlines())) == (2, "", 1), said
