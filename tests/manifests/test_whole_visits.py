"""What a whole visit has: of each layout, of each focal plane, and where it lies on the map."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from manifests.cameras import Camera, load, names
from manifests.errors import CameraError

CAMERAS = [load(name) for name in names()]
CFHT, IMSIM, DECAM = load("cfht_megacam"), load("lsst_imsim"), load("decam")


@pytest.mark.parametrize(
    ("camera", "layout", "focal_plane", "files"),
    [
        (CFHT, "raw", None, 72),
        (CFHT, "raw", "spliced36", 72),
        (CFHT, "raw", "spliced40", 80),
        (CFHT, "raw", "unspliced72", 72),
        (CFHT, "raw", "unspliced80", 80),
        (CFHT, "bias", None, 72),
        (CFHT, "bias", "detrend18", 36),
        (CFHT, "flat", "spliced40", 80),
        (CFHT, "postISR", None, 72),
        (CFHT, "postISRCCD", None, 36),
        (CFHT, "calexp", "spliced40", 40),
        (CFHT, "dc3a_raw", None, 288),
        (IMSIM, "raw", None, 6048),
        (IMSIM, "raw", "snap0", 3024),
        (IMSIM, "bias", None, 3024),
        (IMSIM, "flat", None, 3024),
        (IMSIM, "postISR", None, 6048),
        (IMSIM, "postISRCCD", None, 378),
        (IMSIM, "eimage", None, 378),
        (IMSIM, "eimage", "snap0", 189),
        (IMSIM, "calexp", None, 189),
        (DECAM, "raw", None, 62),
        (DECAM, "raw", "with_focus", 70),
        (DECAM, "exposure", None, 1),
    ],
)
def test_a_whole_visit_has_so_many_files(camera: Camera, layout: str, focal_plane: str | None, files: int) -> None:
    assert camera.whole(layout, focal_plane) == files
    every = list(camera.expected({}, focal_plane, layout))
    if focal_plane or layout not in {plane.layout for plane in camera.focal_planes.values()}:
        assert len(every) == files


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.name)
def test_every_expected_file_has_a_path_of_its_own_that_gives_its_ids_back(camera: Camera) -> None:
    for name in (None, *camera.focal_planes):
        layout = camera.layouts[camera.focal_plane(name).layout]
        given = {one: {"int": 5, "pair": "2,2"}.get(camera.ids[one].kind, "r") for one in layout.id_names}
        given |= {"field": "D1", "night": "20130212", "date": "130213", "time": "090140", "product": "ori"}
        given = {one: value for one, value in given.items() if one in layout.id_names}
        sets = camera.expected_sets(name)
        every = list(camera.expected({one: value for one, value in given.items() if one not in sets}, name))
        paths = [layout.path(ids, None) for ids in every]
        assert len(set(paths)) == len(every) == camera.whole(layout.name, name)
        assert all(camera.identify(path) == (layout.name, ids) for path, ids in zip(paths, every, strict=True))


def test_ids_that_are_given_narrow_a_focal_plane() -> None:
    assert [ids["ccd"] for ids in CFHT.expected({"ccd": 38, "amp": 1}, "spliced40")] == [38]
    assert len(list(IMSIM.expected({"raft": "2,3"}, "eimage"))) == 18
    with pytest.raises(CameraError, match="no ccd 38; its ccds: 0, 1"):
        list(CFHT.expected({"ccd": 38}))
    with pytest.raises(CameraError, match="no ccd 18 in the focal plane detrend18"):
        list(CFHT.expected({"ccd": 18}, "detrend18"))


def test_a_focal_plane_there_is_not_is_told_with_those_there_are() -> None:
    with pytest.raises(CameraError) as error:
        list(CFHT.expected({}, "spliced4"))
    for said in ('no focal plane "spliced4"', 'did you mean "spliced40"?', "detrend18", "unspliced72"):
        assert said in str(error.value)
    with pytest.raises(CameraError, match='no layout "\\\\x1b'):
        CFHT.whole("\x1b[2J")


def test_a_camera_without_focal_planes_says_so(tmp_path: Path) -> None:
    (tmp_path / "plain.toml").write_text(
        'title = "x"\nraw_layout = "raw"\nids.visit.kind = "int"\n[layouts.raw]\ntemplates = ["v{visit}.fits"]\n'
    )
    camera = load("plain", [tmp_path])
    assert list(camera.expected({"visit": 3})) == [{"visit": 3}]
    assert camera.whole("raw") == 1
    assert camera.map_rule is None
    with pytest.raises(CameraError, match="its focal planes: none"):
        camera.focal_plane("x")


@pytest.mark.parametrize(("camera", "rows"), [(CFHT, [9, 11, 11, 9]), (DECAM, [3, 4, 5, 6, 6, 7, 7, 6, 6, 5, 4, 3])])
def test_mosaics_of_ccds_are_mapped_row_by_row(camera: Camera, rows: list[int]) -> None:
    assert camera.map_rule is not None
    [grid] = camera.map_rule.grids
    assert grid.id == "ccd"
    assert [len(row) for row in grid.rows] == rows
    assert set(grid.places) == set(range(40)) if camera is CFHT else set(grid.places) == set(range(1, 63))


def test_the_map_of_megacam_is_that_of_detsec() -> None:
    """Left edges and top edges of DETSEC in a header of November 2010: ccd00 is at the top left."""
    detsec = {0: (2113, 19351), 8: (19050, 19350), 9: (2114, 14318), 17: (19050, 14309), 18: (2114, 9652)}
    detsec |= {26: (19046, 9652), 27: (2121, 4613), 35: (19044, 4612), 4: (10583, 19354), 31: (10583, 4620)}
    assert CFHT.map_rule is not None
    places = CFHT.map_rule.grids[0].places
    left = [places[ccd][1] for ccd in sorted(detsec, key=lambda ccd: detsec[ccd][0] // 1000)]
    assert left == sorted(left)
    assert all(places[ccd][0] == (19354 - top) // 4700 for ccd, (_, top) in detsec.items())


def test_the_ears_are_at_the_ends_of_the_middle_rows() -> None:
    assert CFHT.map_rule is not None
    rows = CFHT.map_rule.grids[0].rows
    assert [(row[0], row[-1]) for row in rows] == [(0, 8), (36, 37), (38, 39), (27, 35)]


def test_the_map_of_imsim_is_rafts_of_sensors() -> None:
    assert IMSIM.map_rule is not None
    assert IMSIM.map_rule.ids == ("raft", "sensor")
    rafts, sensors = IMSIM.map_rule.grids
    assert [len(row) for row in rafts.rows] == [3, 5, 5, 5, 3]
    assert len(rafts.places) == 21
    assert len(sensors.places) == 9
    assert {key for ids in IMSIM.expected({}, "calexp") if (key := IMSIM.map_rule.key(ids))} == set(
        itertools.product(rafts.places, sensors.places)
    )


@pytest.mark.parametrize(("obsid", "layout"), [(0, "bias"), (1, "dark"), (2, "flat"), (3, "raw"), (85471048, "raw")])
def test_imsim_calibrations_are_the_visits_0_to_2(obsid: int, layout: str) -> None:
    cards = {"OBSID": obsid, "FILTER": "r", "CCDID": "R03_S01_C10", "AMPID": "C10", "E2AOFILE": "x_E000"}
    ids = IMSIM.header_ids(cards)
    assert ids["obstype"] == layout
    assert IMSIM.is_science(ids) == (layout == "raw")
    assert IMSIM.identify(IMSIM.destination(ids)) == (layout, {k: v for k, v in ids.items() if k != "obstype"})
