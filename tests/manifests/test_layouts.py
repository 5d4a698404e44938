"""Templates go both ways: ids to path and path to ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.cameras import load
from manifests.errors import CameraError
from manifests.layouts import IdRule, Layout

CFHT, IMSIM = load("cfht_megacam"), load("lsst_imsim")
PATHS = [
    (CFHT, "raw", "D2/raw/v788033-fi/s00/c23-a0.fits"),
    (CFHT, "raw", "W3/raw/v845493-fi2/s00/c00-a1.fits"),
    (CFHT, "bias", "calib/bias/v03Am04n/c35-a1.fits"),
    (CFHT, "dark", "calib/dark/v03Am02-e1800/c00-a0.fits"),
    (CFHT, "flat", "calib/flat/v07Bm06-fz/c09-a0.fits"),
    (CFHT, "fringe", "calib/fringe/v06Am03-fi2/c09-a1.fits"),
    (IMSIM, "raw", "raw/v85471048-fy/E000/R03/S01/imsim_85471048_R03_S01_C10_E000.fits.gz"),
]


@pytest.mark.parametrize(("camera", "layout", "path"), PATHS, ids=[one[2] for one in PATHS])
@pytest.mark.parametrize("before", ["", "obs/CFHTLS", "a/raw/b"])
def test_real_paths_go_both_ways(camera: object, layout: str, path: str, before: str) -> None:
    assert camera in (CFHT, IMSIM)
    known = CFHT if camera is CFHT else IMSIM
    whole = f"{before}/{path}" if before else path
    found = known.identify(whole)
    assert found is not None
    assert found[0] == layout
    assert known.layouts[layout].path(found[1]) == path
    assert known.layouts[layout].base(whole) == before
    assert known.destination({**found[1], "obstype": layout}) == path


def test_the_ids_of_real_paths_are_what_the_registries_hold() -> None:
    assert CFHT.raw_layout.ids("x/D2/raw/v788033-fi/s00/c23-a0.fits") == {
        "field": "D2", "visit": 788033, "filter": "i", "snap": 0, "ccd": 23, "amp": 0,
    }  # fmt: skip
    assert IMSIM.raw_layout.ids("raw/v85471048-fy/E001/R03/S01/imsim_85471048_R03_S01_C10_E001.fits") == {
        "visit": 85471048, "filter": "y", "snap": 1, "raft": "0,3", "sensor": "0,1", "channel": "1,0",
    }  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "D2/raw/v788033-fi/s00/c23-a2.fits",
        "D2/raw/v788033-fi/s00/c023-a0.fits",
        "D2/raw/v788033-fi/s00/c3-a0.fits",
        "D2/raw/v0788033-fi/s00/c23-a0.fits",
        "D2/raw/v788033-fi/s00/c23-a0.fits.bak",
        "D2/raw/v788033/s00/c23-a0.fits",
        "raw/v788033-fi/s00/c23-a0.fits",
        "D2/raw/v788033-fi/s00/.c23-a0.fits",
        "D2/raw/v788033-fi/s00/c23-a0.fits\n",
        "",
    ],
)
def test_a_path_that_is_written_otherwise_is_none_of_the_cameras(path: str) -> None:
    assert CFHT.identify(path) is None
    assert CFHT.raw_layout.base(path) is None


@pytest.mark.parametrize(
    "name",
    [
        "imsim_85471049_R03_S01_C10_E000.fits.gz",
        "imsim_85471048_R04_S01_C10_E000.fits.gz",
        "imsim_85471048_R03_S02_C10_E000.fits.gz",
        "imsim_85471048_R03_S01_C10_E001.fits.gz",
    ],
)
def test_a_name_that_contradicts_its_folders_is_refused(name: str) -> None:
    assert IMSIM.identify(f"raw/v85471048-fy/E000/R03/S01/{name}") is None


def test_an_id_in_two_forms_must_agree_too() -> None:
    layout = Layout("x", ("s{snap:02d}/E{snap:03d}.fits",), {"snap": IdRule("int", "[0-9]+")})
    assert layout.ids("s01/E001.fits") == {"snap": 1}
    assert layout.ids("s01/E002.fits") is None


def test_what_is_not_known_becomes_a_wildcard_or_an_error() -> None:
    ids = {"visit": 5, "ccd": 3, "amp": 1}
    assert CFHT.raw_layout.path(ids) == "*/raw/v5-f*/s*/c03-a1.fits"
    with pytest.raises(CameraError, match="needs the id field"):
        CFHT.raw_layout.path(ids, unknown=None)
    with pytest.raises(CameraError, match="needs the id field"):
        CFHT.destination(ids)


@pytest.mark.parametrize(
    "ids",
    [
        {"visit": -1},
        {"visit": "abc"},
        {"field": "../x"},
        {"field": "a/b"},
        {"amp": 2},
        {"filter": 3},
        {"visit": 10**20},
    ],
)
def test_a_value_that_an_id_cannot_have_never_gets_into_a_path(ids: dict[str, int | str]) -> None:
    with pytest.raises(CameraError, match="cannot be"):
        CFHT.raw_layout.path(ids)


def test_focal_planes_are_known_by_their_names() -> None:
    assert CFHT.input is not None
    assert CFHT.input.ids("in/1257365o.fits.fz") == {"visit": 1257365, "suffix": "o"}
    detrend = CFHT.input.ids("03Am04n.flat.i.36.02.fits.gz")
    assert detrend is not None
    assert detrend["run"] == "03Am04n"
    assert detrend["obstype"] == "flat"
    assert CFHT.input.ids("1257365o.fits.bz2") is None
    assert CFHT.input.paths({"visit": 5}) == ("5*.fits", "5*.fits.fz", "5*.fits.gz")


@given(
    st.integers(0, 10**9),
    st.sampled_from("ugrizy"),
    st.integers(0, 1),
    st.sampled_from(IMSIM.sets["raft"]),
    st.sampled_from(IMSIM.sets["channel"]),
)
def test_any_ids_come_back_from_their_path(
    visit: int, band: str, snap: int, raft: int | str, channel: int | str
) -> None:
    ids: dict[str, int | str] = {
        "visit": visit,
        "filter": band,
        "snap": snap,
        "raft": raft,
        "sensor": "1,2",
        "channel": channel,
    }
    assert IMSIM.raw_layout.ids(IMSIM.raw_layout.path(ids)) == ids


@given(st.text(max_size=60))
def test_no_text_breaks_a_reader(path: str) -> None:
    for camera in (CFHT, IMSIM):
        found = camera.identify(path)
        assert found is None or camera.layouts[found[0]].base(path) is not None
