"""A third instrument, of which no code knows: DECam is a file alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits  # type: ignore[import-untyped]  # astropy ships no types

from manifests.cameras import load
from manifests.errors import CameraError
from transfers.fits import Header

ROOT = Path(__file__).parents[2]
DECAM = load("decam")
PRIMARY: dict[str, Any] = {
    "OBSTYPE": "object",
    "EXPNUM": 177764,
    "FILTER": "r DECam SDSS c0002 6415.0 1480.0",
    "PROPID": "2013A-0351",
    "OBSID": "ct4m20130213t090140",
    "DTCALDAT": "2013-02-12",
    "DATE-OBS": "2013-02-13T09:01:40.966998",
    "TIMESYS": "UTC",
    "MJD-OBS": 56336.3761686,
    "EXPTIME": 30.0,
}


def test_no_code_mentions_the_camera() -> None:
    sources = [path for folder in ("manifests", "stager", "transfers") for path in (ROOT / folder).rglob("*.py")]
    assert len(sources) > 50
    assert [str(path) for path in sources if "decam" in path.read_text("utf-8").lower()] == []


def visit_of_files(folder: Path, ccds: list[int]) -> list[Path]:
    """One small file per CCD, as a raw exposure is split: the cards of the primary header and of the extension."""
    paths = []
    for ccd in ccds:
        path = folder / f"2013A-0351/raw/v177764-fr/c{ccd:02d}.fits"
        path.parent.mkdir(parents=True, exist_ok=True)
        hdu = fits.PrimaryHDU(np.full((4, 6), ccd, "int16"))
        for key, value in {**PRIMARY, "CCDNUM": ccd, "EXTNAME": f"N{ccd}"}.items():
            hdu.header[key] = value
        hdu.writeto(path)
        paths.append(path)
    return paths


def test_a_visit_of_files_is_known_by_path_and_header_and_its_holes_are_found(tmp_path: Path) -> None:
    paths = visit_of_files(tmp_path, [ccd for ccd in range(1, 63) if ccd not in (2, 61)])
    found = []
    for path in paths:
        identified = DECAM.identify(str(path.relative_to(tmp_path)))
        assert identified is not None
        layout, ids = identified
        assert layout == "raw"
        header = Header.parse(path.read_bytes()[:-2880])  # but for one block of pixels
        assert DECAM.header_ids(header) == {"obstype": "raw", **ids}
        assert DECAM.times(header).problems == ()
        found.append(ids)
    visit = {"visit": 177764, "proposal": "2013A-0351", "filter": "r"}
    missing = [ids["ccd"] for ids in DECAM.expected(visit) if ids not in found]
    assert missing == [2, 61]
    assert len(found) + len(missing) == DECAM.whole("raw") == 62


def test_an_exposure_of_all_ccds_is_known_by_the_archives_name() -> None:
    path = "20130212/ct4m/2013A-0351/c4d_130213_090140_ori.fits.fz"
    identified = DECAM.identify(f"net/archive/mtn/{path}")
    assert identified is not None
    layout, ids = identified
    assert layout == "exposure"
    said = {
        name: rule.read(PRIMARY | {"CCDNUM": 1}, None, DECAM.ids[name]) for name, rule in DECAM.header_rules.items()
    }
    assert {name: said.get(name, "ori") for name in ids} == ids
    assert DECAM.layouts["exposure"].path(ids, None) == path


@pytest.mark.parametrize(
    ("word", "layout", "path"),
    [
        ("object", "raw", "2013A-0351/raw/v177764-fr/c25.fits.fz"),
        ("zero", "bias", "calib/bias/v177764/c25.fits.fz"),
        ("dark", "dark", "calib/dark/v177764/c25.fits.fz"),
        ("dome flat", "flat", "calib/flat/v177764-fr/c25.fits.fz"),
        ("sky flat", "flat", "calib/flat/v177764-fr/c25.fits.fz"),
    ],
)
def test_what_a_file_is_says_obstype(word: str, layout: str, path: str) -> None:
    ids = DECAM.header_ids({**PRIMARY, "OBSTYPE": word, "CCDNUM": 25})
    assert ids["obstype"] == layout
    assert DECAM.destination(ids) == path


@pytest.mark.parametrize(
    ("text", "band"),
    [
        ("g DECam SDSS c0001 4720.0 1520.0", "g"),
        ("Y DECam c0005 10095.0 1130.0", "Y"),
        ("VR DECam c0007 6300.0 2600.0", "VR"),
        ("N662 DECam c0009 6620.0 172.0", "N662"),
        ("z", "z"),
    ],
)
def test_a_filter_is_the_first_word(text: str, band: str) -> None:
    assert DECAM.header_ids({**PRIMARY, "FILTER": text, "CCDNUM": 1})["filter"] == band


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        ({"FILTER": "solid plate 0.0 0.0"}, "gives no filter"),
        ({"CCDNUM": 71}, "gives no ccd"),
        ({"CCDNUM": None}, "no CCDNUM"),
        ({"EXPNUM": None}, "no EXPNUM"),
        ({"OBSTYPE": "focus"}, "a place for OBJECT, STANDARD, ZERO"),
    ],
)
def test_what_headers_do_not_say_is_refused(cards: dict[str, Any], said: str) -> None:
    with pytest.raises(CameraError, match=re.escape(said)):
        DECAM.header_ids({**PRIMARY, "CCDNUM": 1, **cards})


def test_the_real_header_leads_to_its_place(shared: Path) -> None:
    text = (shared / "data/header_yaml/fitsheader-decam-raw_dec050441_25.yaml").read_text()
    cards: dict[str, Any] = {}
    for key, value in re.findall(r"^([A-Z0-9_-]{1,8}): (.*)$", text, re.MULTILINE):
        number = re.fullmatch(r"-?\d+(\.\d+)?", value)
        cards[key] = value.strip("'") if number is None else float(value) if number[1] else int(value)
    ids = DECAM.header_ids(cards)
    assert DECAM.destination(ids) == "2013A-0351/raw/v177764-fg/c25.fits.fz"
    assert DECAM.times(cards).problems == ()
