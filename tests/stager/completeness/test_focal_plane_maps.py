"""How the parts of a focal plane stand: cells of a map, pure and drawn; and what the database knows of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from manifests.cameras import load
from manifests.maps import MapRule
from stager.completeness import drawing_maps
from stager.completeness.focal_plane_maps import Cell, FocalPlane, Standing, State, focal_plane
from stager.completeness.mapping import MOST_MAPS, maps
from stager.samples import Exposure, Visit, write_focal_plane, write_visit
from tests.stager.conftest import Stager
from tests.stager.site import Site

RAFTS = tuple(f"{a}{b}" for a in range(5) for b in range(5) if (a, b) not in {(0, 0), (0, 4), (4, 0), (4, 4)})
SENSORS = tuple(f"{a}{b}" for a in range(3) for b in range(3))
SMALL = Visit(sensors=("00", "01"), channels=("00", "01"), snaps=(0,))
IMSIM = {"source": "a:raw/**", "destination": "b:ImSim/raw", "camera": "lsst_imsim"}
CHOP = {"kind": "chop", "source": "a:in/*o.fits", "destination": "b:out", "camera": "cfht_megacam"}


def rule(camera: str) -> MapRule:
    made = load(camera).map_rule
    assert made is not None
    return made


IMSIM_MAP, MEGACAM_MAP = rule("lsst_imsim"), rule("cfht_megacam")


def plane(*standings: Standing) -> FocalPlane:
    return focal_plane(MEGACAM_MAP, standings)


def ccd(number: int, standing: str = "done", files: int = 1, findings: int = 0) -> Standing:
    return Standing({"visit": 1, "ccd": number, "amp": 0}, standing, files, findings)


def drawn(shown: FocalPlane, signs: drawing_maps.Signs = drawing_maps.PLAIN) -> list[str]:
    return drawing_maps.focal_plane(shown, signs).plain.split("\n")


# ------------------------------------------------------------------------------------------- cells


@pytest.mark.parametrize(
    ("files", "state", "tenths"),
    [
        ({"done": 2}, State.WHOLE, 10),
        ({"done": 1, "excluded": 1}, State.WHOLE, 10),
        ({"done": 1, "missing": 1}, State.PARTIAL, 5),
        ({"done": 1, "waiting": 31}, State.PARTIAL, 1),
        ({"done": 31, "running": 1}, State.PARTIAL, 9),
        ({"waiting": 2}, State.FOUND, 0),
        ({"waiting": 1, "missing": 1}, State.FOUND, 0),
        ({"missing": 2}, State.MISSING, 0),
        ({"missing": 1, "excluded": 1}, State.MISSING, 0),
        ({"excluded": 2}, State.EXCLUDED, 0),
        ({"done": 31, "held": 1}, State.HELD, 9),
    ],
)
def test_a_cell_says_the_worst_of_its_files(files: dict[str, int], state: State, tenths: int) -> None:
    cell = Cell(files)
    assert (cell.state, cell.tenths) == (state, tenths)


standings = st.builds(
    Standing,
    st.fixed_dictionaries({"ccd": st.integers(0, 45), "amp": st.integers(0, 1)}),
    st.sampled_from(["done", "running", "waiting", "held", "missing", "excluded"]),
    st.integers(0, 5),
    st.integers(0, 2),
)


@given(st.lists(standings, max_size=40))
def test_no_file_is_lost_between_the_map_and_what_lies_off_it(some: Sequence[Standing]) -> None:
    shown = focal_plane(MEGACAM_MAP, some)
    for standing in ("done", "running", "waiting", "held", "missing", "excluded"):
        assert shown.total(standing) == sum(one.files for one in some if one.standing == standing)
    assert sum(shown.counts.values()) == len(shown.cells)
    assert all(1 <= cell.tenths <= 9 for cell in shown.cells.values() if cell.state is State.PARTIAL)
    for cell in shown.cells.values():
        assert (cell.state is State.WHOLE) == (0 < cell.expected == cell.proven)


@given(st.lists(standings, max_size=60))
def test_every_cell_is_drawn_once_and_within_80_columns(some: Sequence[Standing]) -> None:
    shown = focal_plane(MEGACAM_MAP, some)
    text = "".join(line[4:26] for line in drawn(shown))  # without the numbers at the ends
    signs = [sign for sign in text if sign not in " !"]
    assert len(signs) == len(shown.cells)
    assert max(map(len, drawn(shown))) <= 80


def test_imsim_is_21_blocks_under_their_names_with_empty_corners() -> None:
    every = [Standing({"raft": raft, "sensor": sensor}, "done") for raft, sensor in IMSIM_MAP.places()]
    lines = drawn(focal_plane(IMSIM_MAP, every))
    assert len(lines) == 5 * 4
    assert sum(line.count("#") for line in lines) == 189
    assert max(map(len, lines)) <= 40
    assert lines[0].split() == ["1,4", "2,4", "3,4"]
    assert [line[:6].strip() for line in lines[:4]] == [""] * 4


def test_ccds_stand_between_the_numbers_of_their_rows_and_ears_only_where_there_are_some() -> None:
    usual = drawn(plane(*map(ccd, range(36))))
    assert [line.split() for line in usual] == [
        ["0", *"#" * 9, "8"],
        ["9", *"#" * 9, "17"],
        ["18", *"#" * 9, "26"],
        ["27", *"#" * 9, "35"],
    ]
    assert [line.index("#") for line in usual] == [6, 6, 6, 6]
    eared = drawn(plane(*map(ccd, range(40))))
    assert eared[1].split() == ["36", *"#" * 11, "37"]
    assert [line.index("#") for line in eared] == [6, 4, 4, 6]


def test_each_state_has_a_sign_and_the_legend_counts_them() -> None:
    shown = plane(
        ccd(0), ccd(1, "missing"), ccd(2, "held"), ccd(3, "excluded"), ccd(4, "waiting"), ccd(5), ccd(5, "missing"),
        ccd(6, findings=1),
    )  # fmt: skip
    assert drawn(shown)[0].split() == ["0", "#", ".", "H", "x", "o", "5", "#!", "6"]
    legend = drawing_maps.legend(shown, drawing_maps.PLAIN, 60).plain
    assert max(map(len, legend.split("\n"))) <= 60
    for said in ("7 ccds:", "# 2 whole and proven", "1-9 1 proven in part", "o 1 not proven yet", ". 1 missing",
                 "H 1 held", "x 1 excluded", "! 1 with findings"):  # fmt: skip
        assert said in " ".join(legend.split())


def test_a_terminal_that_has_no_blocks_gets_letters() -> None:
    assert drawing_maps.signs("utf-8") is drawing_maps.FINE
    for encoding in ("ascii", "latin-1", None, "no such"):
        assert drawing_maps.signs(encoding) is drawing_maps.PLAIN
    drawn(plane(ccd(0), ccd(1, "missing"), ccd(2, "waiting")))[0].encode("ascii")


def test_decam_fits_and_its_staggered_rows_stand_by_half_a_ccd() -> None:
    decam = rule("decam")
    lines = drawn(focal_plane(decam, [Standing({"ccd": place[0]}, "done") for place in decam.places()]))
    assert sum(line.count("#") for line in lines) == len(list(decam.places()))
    assert len({line.index("#") % 2 for line in lines}) == 2
    assert max(map(len, lines)) <= 80


# ---------------------------------------------------------------------------------- from the database


def test_the_sensors_of_a_visit_stand_as_their_files_do(site: Site) -> None:
    write_visit(site.path("a:"), Visit(rafts=("23",), sensors=("00", "01", "02"), channels=("00", "01"), snaps=(0,),
                                       missing=(("23", "01"),)), shape=(2, 3))  # fmt: skip
    (site.folder / "bad.txt").write_text(f"visit={SMALL.visit} raft=2,4  # the psf failed\n")
    visit = {"visit": SMALL.visit, "snap": 0, "raft": "2,3"}
    wanted = [{**visit, "channel": channel} for channel in ("0,0", "0,1")]
    excluded = {**visit, "raft": "2,4", "sensor": "0,0"}
    site.run(**IMSIM, accept={"except": "bad.txt"}, expect=[*wanted, excluded])
    site.change("""UPDATE items SET state = 'held', reason = 'looks odd' WHERE ids LIKE '%"sensor": "0,2"%'
                   AND ids LIKE '%"channel": "0,1"%' AND ids LIKE '%"raft": "2,3"%'""")
    found = maps(site.database, "m")
    (one,) = found.maps
    states = {place: cell.state for place, cell in one.plane.cells.items()}
    assert one.visit == str(SMALL.visit)
    assert states[("2,3", "0,0")] is State.WHOLE
    assert states[("2,3", "0,1")] is State.MISSING
    assert states[("2,3", "0,2")] is State.HELD
    assert states[("2,4", "0,0")] is State.EXCLUDED
    assert len(states) == 9 + 1
    assert one.reasons == (("held", 1, "looks odd"), ("excluded", 16, "the psf failed"))


def test_findings_are_marked_on_their_sensors(site: Site) -> None:
    write_visit(site.path("a:"), SMALL, shape=(2, 3))
    site.run(**IMSIM)
    site.change("DELETE FROM findings")
    site.change("""INSERT INTO findings (item_id, manifest_id, host, path, code, severity, hdus, text)
                   SELECT id, manifest_id, 'a', source, 'mjd-zero', 'warn', '[0]', 'no time' FROM items
                   WHERE ids LIKE '%"sensor": "0,1"%'""")
    (one,) = maps(site.database, "m", str(SMALL.visit)).maps
    assert one.plane.cells["2,3", "0,1"].findings == 2
    assert one.plane.cells["2,3", "0,0"].findings == 0
    assert one.plane.findings == 1


def planes(site: Site, *obsids: int) -> None:
    site.path("a:in").mkdir(exist_ok=True)
    for obsid in obsids:
        write_focal_plane(site.path(f"a:in/{obsid}o.fits"), Exposure(obsid=obsid), rows=3)


def test_a_focal_plane_s_ccds_stand_as_its_pieces_do(site: Site) -> None:
    planes(site, 1, 2)
    site.run(**CHOP, expect=[1, 2, 3])
    (one,) = maps(site.database, "m", "1").maps
    assert one.plane.counts[State.WHOLE] == 36
    assert (one.plane.total("done"), one.plane.expected) == (72, 72)
    (absent,) = maps(site.database, "m", "3").maps
    assert absent.plane.counts[State.MISSING] == 36


def test_a_piece_that_was_found_corrupt_is_held_and_the_others_are_still_proven(site: Site) -> None:
    planes(site, 1)
    site.run(**CHOP)
    site.change("UPDATE copies SET trouble = 'corrupt' WHERE path LIKE '%c17-a0%'")
    site.change("UPDATE items SET state = 'held', kind = 'lost', reason = 'corrupt'")
    (one,) = maps(site.database, "m", "1").maps
    assert {place for place, cell in one.plane.cells.items() if cell.state is State.HELD} == {(17,)}
    assert one.plane.counts[State.WHOLE] == 35


def test_a_focal_plane_that_is_not_cut_yet_has_the_ccds_of_its_size(site: Site) -> None:
    planes(site, 1)
    site.submit(**CHOP)
    (one,) = maps(site.database, "m", "1").maps
    assert one.plane.counts[State.FOUND] == 36
    site.change("UPDATE items SET files = 80")
    (one,) = maps(site.database, "m", "1").maps
    assert one.plane.counts[State.FOUND] == 40


def test_ccds_that_the_accept_list_names_are_excluded_from_the_map_of_a_chop(site: Site) -> None:
    planes(site, 1)
    (site.folder / "bad.txt").write_text("visit=1 ccd=5  # light leak\nvisit=1 ccd=6 amp=0  # dead\n")
    site.submit(**CHOP, accept={"except": "bad.txt"})
    (one,) = maps(site.database, "m", "1").maps
    assert one.plane.cells[(5,)].files == {"excluded": 2}
    assert one.plane.cells[(6,)].files == {"excluded": 1, "waiting": 1}
    assert (one.plane.counts[State.FOUND], one.plane.files) == (35, 72)
    site.work()
    (one,) = maps(site.database, "m", "1").maps
    assert one.plane.cells[(5,)].state is State.EXCLUDED
    assert one.plane.cells[(6,)].files == {"excluded": 1, "done": 1}
    assert (one.plane.counts[State.WHOLE], one.plane.files) == (35, 72)


def test_findings_about_an_hdu_of_a_focal_plane_are_marked_on_its_ccd(site: Site) -> None:
    planes(site, 1)
    site.run(**CHOP)
    site.change("DELETE FROM findings")
    insert = """INSERT INTO findings (item_id, manifest_id, host, path, code, severity, hdus, text)
                SELECT id, manifest_id, 'a', source, 'x', 'warn', :hdus, 'odd' FROM items"""
    site.change(insert, hdus="[6, 18]")
    (one,) = maps(site.database, "m", "1").maps
    assert {place for place, cell in one.plane.cells.items() if cell.findings} == {(5,), (17,)}
    site.change(insert, hdus="[0]")
    (one,) = maps(site.database, "m", "1").maps
    assert one.plane.elsewhere.findings == 1


def test_without_a_visit_those_that_are_not_whole_are_drawn_and_the_rest_is_counted(site: Site) -> None:
    for visit in range(1, 8):
        write_visit(
            site.path("a:"), Visit(visit=visit, sensors=("00", "01"), channels=("00",), snaps=(0,)), shape=(2, 3)
        )
    ids = {"snap": 0, "raft": "2,3", "channel": "0,0"}
    expect = [{"visit": visit, **ids, "sensor": sensor} for visit in range(1, 10) for sensor in ("0,0", "0,1")]
    for visit in range(1, 6):
        shutil.rmtree(site.path(f"a:raw/v{visit}-fy/E000/R23/S01"))
    site.run(**IMSIM, expect=expect)
    found = maps(site.database, "m")
    assert [one.visit for one in found.maps] == ["1", "2", "3"]
    assert len(found.maps) == MOST_MAPS
    assert (found.more, found.absent, found.whole, found.visits) == (("4", "5"), ("8", "9"), 2, 9)


def test_where_all_is_whole_all_visits_are_drawn_together(site: Site) -> None:
    for visit in (1, 2):
        write_visit(site.path("a:"), Visit(visit=visit, sensors=("00",), channels=("00",), snaps=(0,)), shape=(2, 3))
    site.run(**IMSIM)
    found = maps(site.database, "m")
    (one,) = found.maps
    assert one.visit is None
    assert one.plane.cells["2,3", "0,0"].files == {"done": 2}
    assert (found.whole, found.visits) == (2, 2)


def test_files_of_a_ccd_that_the_map_does_not_have_are_counted_beside_it(site: Site) -> None:
    site.files("a:raw/D3/raw/v1-fr/s00/c50-a0.fits", "a:raw/D3/raw/v1-fr/s00/c05-a0.fits")
    site.run(source="a:raw/**", destination="b:new", camera="cfht_megacam", check="none")
    (one,) = maps(site.database, "m", "1").maps
    assert one.plane.elsewhere.files == {"done": 1}
    assert list(one.plane.cells) == [(5,)]


# -------------------------------------------------------------------------------------- the command


def test_the_map_is_drawn_in_80_columns_and_in_ascii_where_there_is_nothing_else(
    site: Site, stager: Stager, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_visit(site.path("a:"), Visit(rafts=RAFTS, sensors=SENSORS, channels=("00",), snaps=(0,)), shape=(2, 3))
    site.run(**IMSIM, expect=[{"visit": SMALL.visit, "snap": 0, "channel": "0,0"}, 99])
    monkeypatch.setenv("COLUMNS", "80")
    said = stager("show", "m", "--map", "--visit", str(SMALL.visit))
    assert said.code == 0
    assert max(map(len, said.out.splitlines())) <= 80
    assert "189 of 189 files proven" in said.out
    assert "189 sensors" in said.out
    together = stager("show", "m", "--map")
    assert "nothing is there of visit 99" in together.out


def test_the_map_is_plain_data_too(site: Site, stager: Stager) -> None:
    write_visit(site.path("a:"), SMALL, shape=(2, 3))
    site.run(**IMSIM)
    said = stager("show", "m", "--map", "--json")
    data: dict[str, Any] = json.loads(said.out)
    (one,) = data["maps"]
    assert one["ids"] == ["raft", "sensor"]
    assert one["cells"][0] | {"findings": 0} == {
        "raft": "2,3", "sensor": "0,1", "state": "whole", "expected": 2, "files": {"done": 2}, "findings": 0,
    }  # fmt: skip


def test_what_is_typed_wrong_is_one_line(site: Site, stager: Stager) -> None:
    site.files("a:raw/x")
    site.run("plain")
    (site.folder / "cameras").mkdir()
    own = site.folder / "cameras" / "small.toml"
    own.write_text(
        'title = "small"\nraw_layout = "raw"\n[ids]\nvisit = { kind = "int" }\n[layouts.raw]\n'
        'templates = ["raw/v{visit}.fits"]\n'
    )
    site.files("a:raw/v7.fits")
    site.run("small", camera="small", check="none", destination="b:small")
    write_visit(site.path("a:"), SMALL, shape=(2, 3))
    site.run("imsim", **IMSIM)
    for words, told in {
        ("nothing", "--map"): 'there is no manifest "nothing"',
        ("plain", "--map"): "plain names no camera",
        ("small", "--map"): "the camera small has no [[map]]",
        ("imsim", "--map", "--visit", "85471049"): f'imsim has no visit "85471049", did you mean "{SMALL.visit}"',
        ("imsim", "--visit", "1"): "--visit goes with --map",
        ("imsim", "--map", "--attempts"): "no --attempts",
    }.items():
        said = stager("show", *words)
        assert said.code == 2, words
        assert told in said.err
        assert said.err.count("\n") == 1


def test_colours_are_only_for_a_terminal(tmp_path: Path) -> None:
    shown = drawing_maps.focal_plane(plane(ccd(0), ccd(1, "missing")), drawing_maps.PLAIN)
    with (tmp_path / "out").open("w") as file:
        Console(file=file, width=80).print(shown)
    assert "\x1b" not in (tmp_path / "out").read_text()
    with (tmp_path / "out").open("w") as file:
        Console(file=file, width=80, force_terminal=True, color_system="standard").print(shown)
    assert "\x1b[" in (tmp_path / "out").read_text()
