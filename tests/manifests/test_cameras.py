"""What is known of each instrument: the whole set, the header's ids and times."""

from __future__ import annotations

import gzip
import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from astropy.io import fits  # type: ignore[import-untyped]  # astropy ships no types

from manifests.cameras import load, names
from manifests.errors import CameraError

CFHT, IMSIM = load("cfht_megacam"), load("lsst_imsim")
SKY: dict[str, Any] = {
    "OBSTYPE": "OBJECT",
    "OBSID": 788033,
    "FILTER": "i.MP9701",
    "OBJECT": "D2",
    "CRUNID": "05Am04",
}
IMSIM_CARDS: dict[str, Any] = {
    "OBSID": 85471048,
    "FILTER": "y       ",
    "CCDID": "R03_S01_C10",
    "CHIPID": "R03_S01 ",
    "AMPID": "C10     ",
    "E2AOFILE": "imsim_85471048_R03_S01_C10_E000",
    "MJD-OBS": 49552.28496,
    "TAI": 49552.28496,
    "EXPTIME": 15.0,
}


def test_a_whole_visit_has_its_files() -> None:
    cfht = list(CFHT.expected({"visit": 5, "field": "D1", "filter": "r"}))
    assert len({CFHT.raw_layout.path(ids, None) for ids in cfht}) == 72
    imsim = list(IMSIM.expected({"visit": 5, "filter": "r"}))
    assert len({IMSIM.raw_layout.path(ids, None) for ids in imsim}) == 6048
    assert len(list(IMSIM.expected({"visit": 5, "snap": 0}))) == 3024
    assert len(list(IMSIM.expected({"visit": 5, "raft": "2,3", "sensor": "1,1", "snap": 1}))) == 16
    with pytest.raises(CameraError, match="no raft 0,0"):
        list(IMSIM.expected({"visit": 5, "raft": "0,0"}))


def test_the_expected_set_is_that_of_the_real_registry(shared: Path) -> None:
    with sqlite3.connect(f"file:{shared}/data/registries/cfht_2010.registry.sqlite3?immutable=1", uri=True) as registry:
        rows = registry.execute("SELECT field, visit, filter, ccd, amp FROM raw").fetchall()
    registry.close()
    real = {(field, visit, band, ccd, amp) for field, visit, band, ccd, amp in rows}
    visits = {row[:3] for row in real}
    ours = {
        (field, visit, band, ids["ccd"], ids["amp"])
        for field, visit, band in visits
        for ids in CFHT.expected({"visit": visit})
    }
    assert len(visits) == 18
    assert ours == real


def test_ids_come_from_the_header() -> None:
    assert CFHT.header_ids(SKY) == {
        "obstype": "raw",
        "field": "D2",
        "visit": 788033,
        "filter": "i",
        "snap": 0,
    }
    assert IMSIM.header_ids(IMSIM_CARDS) == {
        "obstype": "raw", "visit": 85471048, "filter": "y", "snap": 0,
        "raft": "0,3", "sensor": "0,1", "channel": "1,0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("u.MP9301", "u"),
        ("g.MP9401", "g"),
        ("r.MP9602", "r"),
        ("i.MP9701", "i"),
        ("i.MP9702", "i2"),
        ("z.MP9801", "z"),
    ],
)
def test_a_filter_is_its_first_letter_but_the_second_i(text: str, band: str) -> None:
    assert CFHT.header_ids({**SKY, "FILTER": text})["filter"] == band


@pytest.mark.parametrize("text", ["NONE", "filter_name", "gri.MP9605", "CaHK.MP9303", "", 3, True, math.nan])
def test_a_filter_that_is_none_is_refused_until_the_manifest_gives_it(text: object) -> None:
    with pytest.raises(CameraError, match=r"give `\[ids\] filter` in the manifest"):
        CFHT.header_ids({**SKY, "FILTER": text})
    assert CFHT.header_ids({**SKY, "FILTER": text}, {"filter": "g"})["filter"] == "g"


@pytest.mark.parametrize(("text", "field"), [("D4", "D4"), ("w2.+2+2", "W2"), ("d1 deep", "D1"), (" W3", "W3")])
def test_a_field_is_the_first_two_characters_of_object(text: str, field: str) -> None:
    assert CFHT.header_ids({**SKY, "OBJECT": text})["field"] == field


@pytest.mark.parametrize("text", ["N6205 fo", "MM1842_3", "D5", "W0", "D", "<b>D1", "\x1b[2J"])
def test_an_object_that_is_no_field_is_refused_until_the_manifest_gives_it(text: str) -> None:
    with pytest.raises(CameraError) as error:
        CFHT.header_ids({**SKY, "OBJECT": text})
    assert "OBJECT is" in str(error.value)
    assert "give `[ids] field` in the manifest" in str(error.value)
    assert str(error.value).isprintable()
    assert CFHT.header_ids({**SKY, "OBJECT": text}, {"field": "D3"})["field"] == "D3"


def test_visit_and_filter_of_manifest_and_header_must_agree() -> None:
    assert CFHT.header_ids(SKY, {"visit": 788033, "filter": "i"})["visit"] == 788033
    with pytest.raises(CameraError) as error:
        CFHT.header_ids(SKY, {"visit": 788034, "filter": "r"})
    assert "OBSID says visit 788033, the manifest's [ids] says 788034" in str(error.value)
    assert "FILTER says filter i" in str(error.value)


def test_a_field_that_the_manifest_gives_goes_before_the_observers_words() -> None:
    assert CFHT.header_ids(SKY, {"field": "D3"})["field"] == "D3"


def test_an_id_that_the_manifest_gives_must_be_one() -> None:
    with pytest.raises(CameraError, match=r"\[ids\] field is"):
        CFHT.header_ids(SKY, {"field": "a/b"})


def test_calibrations_go_by_their_camera_run() -> None:
    cards = {
        "CRUNID": "03Am02  ",
        "FILTER": "u.MP9301",
        "DARKTIME": 1800.4,
        "OBSID": 695773,
        "OBJECT": "Zenith",
    }
    expected: dict[str, tuple[str, dict[str, Any]]] = {
        "BIAS": ("bias", {"run": "03Am02"}),
        "DARK": ("dark", {"run": "03Am02", "exptime": 1800}),
        "FLAT": ("flat", {"run": "03Am02", "filter": "u"}),
        "FRINGE": ("fringe", {"run": "03Am02", "filter": "u"}),
    }
    for word, (layout, ids) in expected.items():
        found = CFHT.header_ids({**cards, "OBSTYPE": f"{word}      "})
        assert found == {"obstype": layout, **ids}
        assert not CFHT.is_science(found)
    assert CFHT.is_science(CFHT.header_ids(SKY))
    # A bias carries no filter, and what stands there does not matter.
    assert CFHT.header_ids({**cards, "OBSTYPE": "BIAS", "FILTER": "filter_name"})["obstype"] == "bias"


def test_a_calibration_without_a_run_is_named_by_the_manifest_or_by_its_file() -> None:
    cards: dict[str, Any] = {"OBSTYPE": "BIAS"}
    with pytest.raises(CameraError, match=r"no CRUNID, so it gives no run; give `\[ids\] run`"):
        CFHT.header_ids(cards)
    assert CFHT.header_ids(cards, name="in/03Am04.bias.0.36.00.fits")["run"] == "03Am04"
    assert CFHT.header_ids({**cards, "CRUNID": "02AE10"}, {"run": "03Am05"})["run"] == "03Am05"


@pytest.mark.parametrize("word", ["FOCUS", "LED", "MASK", "scatter"])
def test_other_kinds_of_exposure_have_no_place(word: str) -> None:
    with pytest.raises(CameraError, match=r"a place for OBJECT, BIAS, DARK, FLAT, FRINGE only"):
        CFHT.header_ids({**SKY, "OBSTYPE": word})


def test_a_header_without_its_kind_is_refused_with_what_was_expected() -> None:
    with pytest.raises(CameraError, match="no OBSTYPE; expected one of OBJECT"):
        CFHT.header_ids({})
    assert CFHT.header_ids({**SKY, "OBSTYPE": None, "EXPTYPE": "OBJECT"})["visit"] == 788033


@pytest.mark.parametrize("value", [55100500000000020236, -5, 1.5, "12x", True, None])
def test_a_visit_that_is_no_odometer_number_is_refused(value: object) -> None:
    with pytest.raises(CameraError, match="gives no visit"):
        CFHT.header_ids({**SKY, "OBSID": value})


def test_times_of_real_headers_are_good() -> None:
    times = IMSIM.times(IMSIM_CARDS)
    assert (times.mjd, times.scale, times.exptime, times.problems) == (49552.28496, "tai", 15.0, ())
    assert CFHT.times({"MJD-OBS": 54771.606625, "MJDATE": 54771.606625, "EXPTIME": 615.037}).scale == "utc"


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        ({"MJD-OBS": 0.0, "TAI": 0.0}, "MJD-OBS is zero"),
        ({"MJD-OBS": 0.0}, "should be equal"),
        ({"MJD-OBS": math.nan}, "no number"),
        ({"MJD-OBS": math.inf}, "no number"),
        ({"MJD-OBS": "soon"}, "no number"),
        ({"MJD-OBS": True}, "no number"),
        ({"MJD-OBS": None}, "MJD-OBS is absent"),
        ({"MJD-OBS": 2449552.78496}, "a Julian date; as MJD it would be 49552.284960"),
        ({"MJD-OBS": 1.0e9}, "expected 40000 to 70000"),
        ({"TAI": 49552.3}, "should be equal"),
        ({"EXPTIME": None}, "EXPTIME is absent"),
        ({"EXPTIME": -1.0}, "no time in seconds"),
    ],
)
def test_a_bad_time_is_said(cards: dict[str, Any], said: str) -> None:
    times = IMSIM.times({**IMSIM_CARDS, **cards})
    assert any(said in problem.text for problem in times.problems)
    assert times.mjd is None or math.isfinite(times.mjd)


def test_a_camera_is_found_by_name_its_own_folder_first(tmp_path: Path) -> None:
    assert {"cfht_megacam", "lsst_imsim"} <= names().keys()
    for bad in ("nothing", "../cfht_megacam", ""):
        with pytest.raises(CameraError, match="unknown camera"):
            load(bad)
    text = (Path(names()["cfht_megacam"])).read_text()
    (tmp_path / "cfht_megacam.toml").write_text(text.replace("last = 35", "last = 39"))
    assert len(list(load("cfht_megacam", [tmp_path]).expected({}))) == 80
    assert load("cfht_megacam") is load("cfht_megacam")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("title =", "titel ="), "titel"),
        (('raw_layout = "raw"', 'raw_layout = "raws"'), "expected one of raw, bias"),
        (("a{amp}.fits", "a{amplifier}.fits"), "the id amplifier"),
        (("a{amp}.fits", "a{amp:x}.fits"), "brace that is no id"),
        (('match = "i.*2"', 'match = "i.*(2"'), "no regular expression"),
        (("[header.visit]", "[header.vist]"), 'did you mean "visit"?'),
        (('"DETSECA"', '"A B C"'), "a FITS keyword"),
        (("[chop]", "[chop"), "line"),
    ],
)
def test_a_bad_camera_file_is_refused_with_its_place(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    text = names()["cfht_megacam"].read_text()
    assert change[0] in text
    (tmp_path / "cfht_megacam.toml").write_text(text.replace(*change, 1))
    with pytest.raises(CameraError) as error:
        load("cfht_megacam", [tmp_path])
    assert said in str(error.value)
    assert "cfht_megacam.toml" in str(error.value)


def real_header(path: Path) -> fits.Header:
    """The primary header of a text dump, one card a line."""
    lines = gzip.decompress(path.read_bytes()).decode("latin-1").split("\n")
    start = next(number for number, line in enumerate(lines) if line.startswith("SIMPLE"))
    end = next(number for number in range(start, len(lines)) if lines[number].startswith("END"))
    return fits.Header.fromstring("".join(line.ljust(80)[:80] for line in lines[start:end]))


@pytest.mark.parametrize(
    ("name", "given", "path"),
    [
        ("1257365o", {"field": "D3"}, "D3/raw/v1257365-fi2/s00/c05-a1.fits"),
        ("02AE10.bias.0.36.00", {}, "calib/bias/v02AE10/c05-a1.fits"),
        ("03Am02.dark.1800.36.00", {}, "calib/dark/v03Am02-e1800/c05-a1.fits"),
        ("07Bm06.flat.z.36.02", {}, "calib/flat/v07Bm06-fz/c05-a1.fits"),
    ],
)
@pytest.mark.filterwarnings("ignore::astropy.io.fits.verify.VerifyWarning")  # archive headers are as they are
def test_real_headers_lead_to_the_paths_of_2010(
    shared: Path, name: str, given: dict[str, int | str], path: str
) -> None:
    header = real_header(shared / "data" / "cfht_headers" / f"{name}.fits.header.gz")
    ids = CFHT.header_ids(header, given, f"{name}.fits")
    assert CFHT.destination({**ids, "ccd": 5, "amp": 1}) == path
    assert CFHT.times(header).problems == ()


def test_the_real_imsim_header_says_what_its_path_says(shared: Path) -> None:
    [path] = (shared / "data" / "imsim" / "raw").rglob("*.fits.gz")
    header = fits.getheader(path)
    found = IMSIM.identify(str(path))
    assert found is not None
    assert IMSIM.header_ids(header) == {"obstype": "raw", **found[1]}
    assert IMSIM.times(header).problems == ()
