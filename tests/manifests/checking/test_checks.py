"""Headers held against what a camera expects, against their path and their siblings."""

from __future__ import annotations

import ast
import gzip
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given as property_of
from hypothesis import strategies as st

import manifests
from manifests.cameras import Camera, load, names
from manifests.checking.check_parts import CheckPart
from manifests.checking.checks import SIBLING_CODES, check, odd_ones
from manifests.clocks import clock, moment
from manifests.errors import CameraError
from manifests.findings import Finding, Severity
from manifests.headers import EXPTIME_CODES, MJD_CODES
from transfers.agent import Agent, Fault
from transfers.fits import Header

CFHT, IMSIM, DECAM = load("cfht_megacam"), load("lsst_imsim"), load("decam")
DOCS = Path(__file__).resolve().parents[3] / "docs" / "checks.md"


# ----------------------------------------------------------------------------------------- headers


def raw_card(keyword: str, value: object) -> bytes:
    """A card with this value, which bytes give as they are to stand in it."""
    match value:
        case bytes():
            field = value
        case bool():
            field = b"T" if value else b"F"
        case str():
            field = b"'%s'" % value.replace("'", "''").encode("latin-1")
        case None:
            field = b""
        case _:
            field = str(value).encode()
    return (keyword.ljust(8).encode("latin-1") + b"= " + field).ljust(80)[:80]


def header(*cards: Mapping[str, object] | tuple[str, object]) -> Header:
    """A header of these keywords and values; a keyword may stand in it several times, a `del` one is left out."""
    pairs = [pair for part in cards for pair in (part.items() if isinstance(part, Mapping) else [part])]
    return Header(raw_card(name, value) for name, value in pairs)


def changed(cards: Mapping[str, object], **changes: object) -> Header:
    """The cards with others in their place; `...` takes a card away. MJD_OBS stands for MJD-OBS."""
    named = {name.replace("_", "-"): value for name, value in changes.items()}
    return header({name: value for name, value in {**cards, **named}.items() if value is not ...})


IMSIM_PATH = "raw/v85471048-fy/E000/R03/S01/imsim_85471048_R03_S01_C10_E000.fits.gz"
IMSIM_CARDS: dict[str, object] = {
    "SIMPLE": True, "BITPIX": 16, "NAXIS": 2, "NAXIS1": 513, "NAXIS2": 2001,
    "OBSID": 85471048, "DATASET": "85471048", "TAI": b"49552.28496", "MJD-OBS": b"49552.28496",
    "EXPTIME": b"15.", "DARKTIME": b"15.", "FILTER": "y       ", "FILTNM": 5, "CHIPID": "R03_S01 ",
    "CCDID": "R03_S01_C10", "AMPID": "C10     ", "PAIRID": 0, "VERSION": 13357, "DATE": "2010-03-23T03:06:35",
    "E2AOFILE": "imsim_85471048_R03_S01_C10_E000", "GAIN": 1.68866, "RDNOISE": 3.324464942, "SATURATE": 57222.65,
    "CRPIX1": b"1.D0", "CRPIX2": b"2.5D+003", "CRVAL1": 0.1, "CRVAL2": -3, "EQUINOX": b"2000.", "EPOCH": b"2000.",
    "DATASEC": "[   1: 513,   1:2001]", "BIASSEC": "[   1:   4,   1:2001]", "TRIMSEC": "[   5: 513,   2:2001]",
    "PREAD": -4294967295, "SREAD": 21474836479,
}  # fmt: skip
CFHT_CARDS: dict[str, object] = {
    "OBSTYPE": "OBJECT", "EXPTYPE": "OBJECT", "EXPNUM": 1257365, "OBSID": 1257365, "FILENAME": "1257365o",
    "OBJECT": "D3", "EXPTIME": 20.194, "EXPREQ": b"20.0", "DARKTIME": b"20.000", "FILTER": "i.MP9702",
    "CRUNID": "10Bm03", "TIMESYS": "UTC     ", "DATE": "2010-11-03T04:38:21", "DATE-OBS": "2010-11-03",
    "UTIME": "04:37:54.31", "UTC-OBS": "04:37:54.31", "MJD-OBS": 55503.1929897, "MJDATE": 55503.1929897,
    "INSTRUME": "MegaPrime", "EQUINOX": b"2000.0", "EPOCH": b"2000.0", "TEALOWWS": -9999.9, "MOONUP": "Null",
}  # fmt: skip
CCD_CARDS: dict[str, object] = {
    **CFHT_CARDS, "GAIN": 1.585, "GAINA": 1.54, "GAINB": 1.63, "RDNOISE": 5, "RDNOISEA": 3, "RDNOISEB": 6,
    "DATASEC": "[33:2080,1:4612]", "BIASSEC": "[0:0,0:0]", "DETSEC": "[4160:2113,19351:14740]",
}  # fmt: skip
PIECE_PATH = "D3/raw/v1257365-fi2/s00/c05-a1.fits"
PIECE_CARDS: dict[str, object] = {
    **CCD_CARDS, "EXTNAME": "ccd05", "EXTVER": 5, "DC3BPATH": f"/data/{PIECE_PATH}",
}  # fmt: skip


def imsim(**changes: object) -> list[Finding]:
    return check(IMSIM, f"CFHT/{IMSIM_PATH}", [changed(IMSIM_CARDS, **changes)], {})


def piece(path: str = PIECE_PATH, given: Mapping[str, int | str] | None = None, **changes: object) -> list[Finding]:
    return check(CFHT, path, [changed(PIECE_CARDS, **changes)], given or {})


def focal_plane(ccds: Sequence[Header], path: str = "1257365o.fits", **changes: object) -> list[Finding]:
    primary = changed({"SIMPLE": True, "NAXIS": 0, "NEXTEND": len(ccds), **CFHT_CARDS}, **changes)
    return check(CFHT, path, [primary, *ccds], {})


def ccds(count: int = 36, **changes: object) -> list[Header]:
    of_ccd = {"XTENSION": "IMAGE", "NAXIS1": 2112, "NAXIS2": 4644}
    return [changed({**of_ccd, "EXTNAME": f"ccd{n:02d}", "EXTVER": n, **CCD_CARDS}, **changes) for n in range(count)]


def codes(findings: Sequence[Finding]) -> dict[str, str]:
    """What was found, by code, with the worst severity of each."""
    return {finding.code: str(finding.severity) for finding in reversed(findings)}


def texts(findings: Sequence[Finding], code: str) -> str:
    found = [finding.text for finding in findings if finding.code == code]
    assert found, f"no {code} among {codes(findings)}"
    return "; ".join(found)


# -------------------------------------------------------------------------------- sound and ugly


def test_sound_files_have_no_findings() -> None:
    assert imsim() == []
    assert piece() == []
    assert focal_plane(ccds()) == []


def test_junk_in_cards_that_mean_nothing_here_is_no_finding() -> None:
    junk = [("COMMENT", b"Reserved space")] * 300 + [("HISTORY", "x"), ("TEALOWWS", -9999.9), ("MOONUP", "Null")]
    assert check(IMSIM, IMSIM_PATH, [header(IMSIM_CARDS, *junk)], {}) == []


def test_integers_of_twenty_digits_are_noted_and_no_more() -> None:
    found = focal_plane(ccds(QID=55100500000000020236), QID=55100500000000020236, QOFFID=b"10000000000000000001")
    assert codes(found) == {"integer-huge": "note"}
    assert "QID, QOFFID hold" in found[0].text
    assert imsim(SREAD=9223372036854775807) == []
    assert codes(imsim(SREAD=-9223372036854775809)) == {"integer-huge": "note"}


def test_times_without_a_leading_zero_are_read_and_noted() -> None:
    found = piece(UTC_OBS="4:37:54.31", UTIME="4:37:54.31", DATE="2010-11-03T4:38:21")
    assert codes(found) == {"time-form": "note"}
    assert len(found) == 3
    assert codes(piece(UTC_OBS="5:37:54.31")) == {"time-form": "note", "mjd-differs": "warn"}


def test_a_sentinel_is_no_value() -> None:
    assert piece(GAINA=-9999) == []
    assert texts(piece(GAIN=-9999.9), "card-missing") == (
        "GAIN is -9999.9 (a number), which stands for no value; expected a value"
    )


@pytest.mark.parametrize(
    ("value", "code", "shown"),
    [
        (b"'ab\x1b[2Jc'", "text-control", r'"ab\x1b[2Jc"'),
        (b"'tab\there'", "text-control", r'"tab\there"'),
        (b"'nul\0'", "text-control", r'"nul\x00"'),
        (b"'H\xc3\xa9l\xe8ne'", "text-not-ascii", r'"H\xc3\xa9l\xe8ne"'),
        (b"'<b>x</b>'", "text-markup", '"<b>x</b>"'),
        (b"'<img src=x onerror=alert(1)>'", "text-markup", "onerror"),
    ],
)
def test_what_is_no_plain_text_is_shown_escaped(value: bytes, code: str, shown: str) -> None:
    found = piece(OBSERVER=value)
    assert list(codes(found)) == [code]
    assert shown in found[0].text
    assert "OBSERVER" in found[0].text
    assert found[0].text.isascii()
    assert found[0].text.isprintable()
    assert found[0].severity is not Severity.FAIL


def test_less_than_and_greater_than_are_no_markup() -> None:
    assert piece(CMMTOBS="seeing < 1 and airmass > 2", CMMTSEQ="a <- b") == []


def test_a_keyword_that_stands_twice_is_told_with_both_values() -> None:
    twice = check(CFHT, PIECE_PATH, [header(PIECE_CARDS, {"OBSID": 1257365})], {})
    assert codes(twice) == {"card-twice": "note"}
    two = check(CFHT, PIECE_PATH, [header(PIECE_CARDS, {"OBSID": 1257366})], {})
    assert codes(two) == {"card-ambiguous": "warn"}
    assert "1257365" in two[0].text
    assert "1257366" in two[0].text
    assert check(CFHT, PIECE_PATH, [header(PIECE_CARDS, ("TESTTEMP", 1), ("TESTTEMP", 2))], {}) == []


# ------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"MJD_OBS": b"0.", "TAI": b"0."}, "mjd-zero", "MJD-OBS is zero; expected 40000 to 70000"),
        ({"MJD_OBS": ...}, "mjd-missing", "MJD-OBS is absent; expected a number"),
        ({"MJD_OBS": ..., "MDJ_OBS": 49552.28496}, "mjd-missing", "(is it MDJ-OBS?)"),
        ({"MJD_OBS": None}, "mjd-missing", "absent"),
        ({"MJD_OBS": b"NaN"}, "mjd-unreadable", '"NaN"'),
        ({"MJD_OBS": b"Inf"}, "mjd-unreadable", '"Inf"'),
        ({"MJD_OBS": "soon"}, "mjd-unreadable", '"soon"'),
        ({"MJD_OBS": True}, "mjd-unreadable", "true or false"),
        ({"MJD_OBS": b"1E9999"}, "mjd-unreadable", "no number"),
        ({"MJD_OBS": b"2449552.78496"}, "mjd-julian", "as MJD it would be 49552.284960"),
        ({"MJD_OBS": b"1.0E9"}, "mjd-range", "expected 40000 to 70000"),
        ({"MJD_OBS": -1}, "mjd-range", "expected 40000 to 70000"),
        ({"TAI": b"49552.28497"}, "mjd-differs", "TAI is 49552.28497 and MJD-OBS is 49552.28496"),
        ({"TAI": "gone"}, "mjd-unreadable", 'TAI is "gone"'),
        ({"EXPTIME": ...}, "exptime-missing", "EXPTIME is absent"),
        ({"EXPTIME": ..., "XPTIME": 15}, "exptime-missing", "(is it XPTIME?)"),
        ({"EXPTIME": "long"}, "exptime-unreadable", '"long"'),
        ({"EXPTIME": b"-1."}, "exptime-negative", "expected 0 or more"),
    ],
)
def test_a_bad_time_has_a_code_of_its_own(changes: dict[str, object], code: str, said: str) -> None:
    found = imsim(**changes)
    assert codes(found)[code] == "warn"
    assert said in texts(found, code)
    assert {one.severity for one in found} <= {Severity.WARN}


def test_an_mjd_of_zero_is_told_once() -> None:
    assert codes(piece(MJD_OBS=b"0.0", MJDATE=b"0.0")) == {"mjd-zero": "warn"}


def test_a_number_in_quotes_is_read() -> None:
    assert codes(imsim(MJD_OBS="49552.28496")) == {"number-quoted": "note"}
    times = IMSIM.times(changed(IMSIM_CARDS, MJD_OBS="49552.28496"))
    assert times.mjd == 49552.28496
    assert [one.code for one in times.problems] == ["number-quoted"]


def test_a_float_with_a_d_exponent_is_a_number() -> None:
    assert imsim(MJD_OBS=b"4.955228496D4", EXPTIME=b"1.5D+01") == []


@pytest.mark.parametrize(
    ("changes", "bad"),
    [
        ({}, False),
        ({"UTC_OBS": "04:37:55.2"}, False),
        ({"UTC_OBS": "04:37:56"}, True),
        ({"UTC_OBS": "05:37:54.31"}, True),
        ({"DATE_OBS": "2010-11-04"}, True),
        ({"DATE_OBS": "2010-11-03T04:37:54.31", "UTC_OBS": "12:00:00"}, False),
        ({"DATE_OBS": "2010-11-03T04:37:59"}, True),
        ({"MJD_OBS": 55503.1930100, "MJDATE": 55503.1930100}, True),
    ],
)
def test_the_mjd_is_that_of_date_and_time_within_a_second(changes: dict[str, object], bad: bool) -> None:
    found = piece(**changes)
    assert codes(found) == ({"mjd-differs": "warn"} if bad else {})
    if bad:
        assert "expected one time within 1 s" in found[0].text
        assert "UTC-OBS" in found[0].text or "T" in str(changes.get("DATE_OBS"))


@pytest.mark.parametrize("text", ["24:00:00", "12:60:00", "noon", "", "12:00", "-1:00:00"])
def test_what_is_no_time_of_day_is_told(text: str) -> None:
    assert clock(text) is None
    assert codes(piece(UTC_OBS=text))["time-unreadable"] == "warn"


@pytest.mark.parametrize(
    ("text", "mjd", "strict"),
    [
        ("2003-02-08T5:23:35.46", 52678 + 19415.46 / 86400, False),
        ("2003-02-08T05:23:35.46", 52678 + 19415.46 / 86400, True),
        ("2003-02-08 05:23:35.46", 52678 + 19415.46 / 86400, False),
        ("2003-02-08", 52678, True),
        ("2003-2-8", 52678, False),
        ("08/02/99", 51217, False),
        ("2016-12-31T23:59:60.5", 57753 + 86400.5 / 86400, True),
        ("1858-11-17", 0, True),
    ],
)
def test_dates_of_archives_are_read(text: str, mjd: float, strict: bool) -> None:
    read = moment(text)
    assert read is not None
    assert math.isclose(read.mjd, mjd, abs_tol=1e-9)
    assert read.strict is strict


@pytest.mark.parametrize("text", ["2003-02-30", "20030208", "2003-02-08T", "2003-02-08Tx", "yesterday", "", "T"])
def test_what_is_no_date_is_none(text: str) -> None:
    assert moment(text) is None


@pytest.mark.parametrize(
    ("obstype", "exptime", "bad"),
    [("OBJECT", 0, True), ("OBJECT", 0.1, False), ("BIAS", b"0.0", False), ("BIAS", 3, True), ("DARK", 0, False)],
)
def test_an_exposure_time_is_right_for_its_kind(obstype: str, exptime: object, bad: bool) -> None:
    found = piece("1257365x.fits", OBSTYPE=obstype, EXPTYPE=obstype, EXPTIME=exptime)
    assert bool({"card-range", "card-value"} & codes(found).keys()) is bad


def test_another_time_scale_is_told() -> None:
    assert codes(piece(TIMESYS="TAI")) == {"time-scale": "warn"}


def test_a_bad_time_in_one_extension_is_told_with_its_hdu() -> None:
    extensions = ccds()
    extensions[6] = changed({**CCD_CARDS, "EXTNAME": "ccd06", "EXTVER": 6}, MJD_OBS=b"0.0", MJDATE=b"0.0")
    found = focal_plane(extensions)
    assert [(one.code, one.hdus) for one in found] == [("mjd-zero", (7,)), ("cards-unlike", (7,))]


# --------------------------------------------------------------------------------------------- ids


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"OBSID": 85471049, "DATASET": "85471049"}, "OBSID is 85471049 (a whole number), which says visit 85471049"),
        ({"FILTER": "r"}, 'FILTER is "r", which says filter r; expected y, as the path says'),
        ({"CCDID": "R03_S11_C10", "CHIPID": "R03_S11"}, "which says sensor 1,1; expected 0,1"),
        ({"CCDID": "R30_S01_C10", "CHIPID": "R30_S01"}, "which says raft 3,0; expected 0,3"),
        ({"AMPID": "C01", "CCDID": "R03_S01_C01"}, "which says channel 0,1; expected 1,0"),
        ({"E2AOFILE": "imsim_85471048_R03_S01_C10_E001"}, "which says snap 1; expected 0"),
        ({"E2AOFILE": "imsim_85471048_R03_S02_C10_E000"}, "which says sensor 0,2; expected sensor 0,1"),
    ],
)
def test_an_id_of_the_header_that_is_not_the_paths_fails(changes: dict[str, object], said: str) -> None:
    found = imsim(**changes)
    assert {code: severity for code, severity in codes(found).items() if severity == "fail"} == {"ids-differ": "fail"}
    assert said in texts(found, "ids-differ")


def test_an_id_that_cannot_be_read_hides_no_other() -> None:
    found = imsim(OBSID="none", DATASET="none", E2AOFILE=..., FILTER="r")
    assert codes(found) == {"ids-differ": "fail", "id-unreadable": "warn"}
    assert "gives no visit" in texts(found, "id-unreadable")
    assert "no E2AOFILE, so it gives no snap; expected 0, as the path says" in texts(found, "id-unreadable")
    assert "filter r" in texts(found, "ids-differ")


def test_cards_that_give_two_ids_are_told() -> None:
    found = imsim(CHIPID="R03_S02")
    assert codes(found) == {"ids-ambiguous": "warn"}
    assert "CCDID says sensor 0,1, and CHIPID 0,2" in found[0].text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"EXTNAME": "ccd07", "EXTVER": 7}, 'EXTNAME is "ccd07", which says ccd 7; expected 5'),
        ({"EXTNAME": ..., "EXTVER": 7}, "EXTVER is 7 (a whole number), which says ccd 7; expected 5"),
        ({"FILTER": "i.MP9701"}, "which says filter i; expected i2"),
        ({"OBSID": 1257366, "EXPNUM": 1257366, "FILENAME": "1257366o"}, "which says visit 1257366"),
        ({"OBSTYPE": "FLAT", "EXPTYPE": "FLAT"}, 'OBSTYPE is "FLAT"; expected OBJECT, as the path says'),
        ({"DC3BPATH": f"/data/{PIECE_PATH.replace('a1', 'a0')}"}, "which says amp 0; expected 1"),
    ],
)
def test_a_piece_of_a_focal_plane_is_held_to_its_path(changes: dict[str, object], said: str) -> None:
    found = piece(**changes)
    assert codes(found)["ids-differ"] == "fail"
    assert said in texts(found, "ids-differ")


def test_a_piece_whose_extname_and_extver_differ_fails() -> None:
    assert codes(piece(EXTVER=6))["extname-differs"] == "fail"


def test_a_piece_of_an_unspliced_file_is_known_by_its_amplifier() -> None:
    cards = {**PIECE_CARDS, "DC3BPATH": "/x/y", "AMPNAME": "02b", "EXTNAME": "amp04", "EXTVER": 4}
    path = PIECE_PATH.replace("c05-a1", "c02-a1")
    assert check(CFHT, path, [header(cards)], {}) == []
    assert check(CFHT, path, [header({k: v for k, v in cards.items() if k != "EXTNAME"})], {}) == []
    for wrong in ("c02-a0", "c04-a1"):
        found = check(CFHT, PIECE_PATH.replace("c05-a1", wrong), [header(cards)], {})
        assert codes(found) == {"ids-differ": "fail"}


def test_the_field_of_the_manifest_goes_before_the_observers_words() -> None:
    assert codes(piece(OBJECT="D2")) == {"ids-differ": "warn"}
    assert codes(piece(OBJECT="MM1842_3")) == {"id-unreadable": "note"}
    assert piece(OBJECT="D2", given={"field": "D3"}) == []
    assert piece(OBJECT="N6205 fo", given={"field": "D3"}) == []
    assert "the manifest's [ids] D1" in texts(piece(given={"field": "D1"}), "ids-differ")


def test_an_id_of_the_manifest_that_is_not_the_paths_fails() -> None:
    assert codes(piece(given={"visit": 5}))["ids-differ"] == "fail"
    assert piece(given={"visit": 1257365, "field": "D3"}) == []


def test_a_calibration_in_a_place_of_exposures_fails() -> None:
    bias = {"OBSTYPE": "BIAS", "EXPTYPE": "BIAS", "EXPTIME": 0}
    assert piece("calib/bias/v10Bm03/c05-a1.fits", DC3BPATH="/x", **bias) == []
    assert codes(piece("calib/dark/v10Bm03-e20/c05-a1.fits", **bias))["ids-differ"] == "fail"
    assert codes(piece(OBSTYPE="FOCUS", EXPTYPE="FOCUS"))["ids-differ"] == "warn"
    assert codes(piece(OBSTYPE=..., EXPTYPE=...))["id-unreadable"] == "warn"


def test_focal_planes_are_held_to_their_names() -> None:
    assert codes(focal_plane(ccds(), "1257366o.fits"))["ids-differ"] == "fail"
    bias = {"OBSTYPE": "BIAS", "EXPTYPE": "BIAS", "EXPTIME": 0}
    assert focal_plane(ccds(**bias), "10Bm03.bias.0.36.00.fits", **bias) == []
    assert codes(focal_plane(ccds(**bias), "10Bm03.flat.r.36.00.fits", **bias)) == {"ids-differ": "warn"}


def test_a_packed_image_is_read_behind_its_empty_primary_header() -> None:
    stub = header({"SIMPLE": True, "BITPIX": 16, "NAXIS": 0, "EXTEND": True})
    assert check(IMSIM, IMSIM_PATH, [stub, changed(IMSIM_CARDS)], {}) == []
    found = check(IMSIM, IMSIM_PATH, [stub, changed(IMSIM_CARDS, MJD_OBS=b"0.", TAI=b"0.", FILTER="r")], {})
    assert [(one.code, one.hdus) for one in found] == [("ids-differ", (1,)), ("mjd-zero", (1,))]


# -------------------------------------------------------------------------------------- extensions


def test_two_extnames_are_a_note() -> None:
    extensions = []
    for number, ccd in enumerate(ccds()):
        extensions.append(Header([raw_card("EXTNAME", "COMPRESSED_IMAGE"), *ccd.cards]))
        assert extensions[-1].all("EXTNAME") == ("COMPRESSED_IMAGE", f"ccd{number:02d}")
    [found] = focal_plane(extensions)
    assert (found.code, found.severity, found.hdus) == ("extname-twice", Severity.NOTE, tuple(range(1, 37)))
    assert '2 times, once as "COMPRESSED_IMAGE"; expected it once' in found.text


def test_an_absent_extname_is_a_note_and_extver_is_taken() -> None:
    [found] = focal_plane(ccds(EXTNAME=...))
    assert (found.code, found.severity) == ("extname-absent", Severity.NOTE)
    assert "EXTVER is taken" in found.text
    nothing = focal_plane(ccds(EXTNAME=..., EXTVER=...))
    assert "the position in the file is taken" in texts(nothing, "extname-absent")
    assert codes(nothing) == {"extname-absent": "note"}


def test_extnames_that_disagree_fail_with_their_hdu() -> None:
    extensions = ccds()
    extensions[4] = changed({"NAXIS1": 2112, "EXTNAME": "ccd04", "EXTVER": 9, **CCD_CARDS})
    found = next(one for one in focal_plane(extensions) if one.code == "extname-differs")
    assert (found.severity, found.hdus) == (Severity.FAIL, (5,))
    assert "ccd04" in found.text
    assert "9" in found.text


def test_a_ccd_that_is_there_twice_fails() -> None:
    extensions = [*ccds()[:35], ccds()[3]]
    found = next(one for one in focal_plane(extensions) if one.code == "extension-twice")
    assert (found.severity, found.hdus) == (Severity.FAIL, (4, 36))
    assert "ccd03" in found.text


def test_a_ccd_that_is_missing_is_named() -> None:
    found = focal_plane([*ccds()[:17], *ccds()[18:]])
    assert codes(found)["extensions-missing"] == "warn"
    assert "ccd17" in texts(found, "extensions-missing")


def test_extensions_of_another_instrument_are_told() -> None:
    strange = [header({"XTENSION": "IMAGE", "EXTNAME": "im1", "NAXIS1": 1024, **CCD_CARDS})] * 4
    assert codes(focal_plane(strange))["readout-unknown"] == "warn"


def test_extensions_that_differ_where_all_should_agree_are_told() -> None:
    extensions = ccds()
    extensions[2] = changed({"NAXIS1": 2112, "EXTNAME": "ccd02", "EXTVER": 2, **CCD_CARDS}, FILTER="r.MP9601")
    [found] = focal_plane(extensions)
    assert (found.code, found.hdus) == ("cards-unlike", (3,))
    assert found.text == ('FILTER is "r.MP9601" where most HDUs have "i.MP9702"; expected one value in all of them')


# ------------------------------------------------------------------------------------------- rules

OWN = """
title = "A camera of one's own"
raw_layout = "raw"
unknown = [-9999, "Null"]
[ids]
visit = {{ kind = "int" }}
[layouts.raw]
templates = ["v{{visit}}.fits"]
obstypes = ["SKY"]
[layouts.flat]
templates = ["flat/{{visit}}.fits"]
obstypes = ["FLAT"]
[obstype]
keywords = ["IMAGETYP"]
{checks}
"""


def own_camera(folder: Path, *checks: str) -> Camera:
    rules = "\n".join(f"[[checks]]\n{one}" for one in checks)
    (folder / "own.toml").write_text(OWN.format(checks=rules))
    return load("own", [folder])


def by_rule(folder: Path, rule: str, *headers: dict[str, object], path: str = "v5.fits") -> dict[str, str]:
    given = [header({"IMAGETYP": "sky", **headers[0]}), *map(header, headers[1:])]
    return codes(check(own_camera(folder, rule), path, given, {}))


RULES: list[tuple[str, dict[str, object], str | None]] = [
    ('keywords = ["GAIN"]\nrequired = true', {"GAIN": 1}, None),
    ('keywords = ["GAIN"]\nrequired = true', {}, "card-missing"),
    ('keywords = ["GAIN"]\nrequired = true', {"GAIN": None}, "card-missing"),
    ('keywords = ["GAIN"]\nrequired = true', {"GAIN": -9999}, "card-missing"),
    ('keywords = ["GAIN", "NOISE"]\nrequired = true', {"GAIN": 1}, "card-missing"),
    ('keywords = ["GAIN"]\ntype = "integer"', {"GAIN": 1}, None),
    ('keywords = ["GAIN"]\ntype = "integer"', {"GAIN": 1.5}, "card-type"),
    ('keywords = ["GAIN"]\ntype = "integer"', {"GAIN": True}, "card-type"),
    ('keywords = ["GAIN"]\ntype = "integer"', {"GAIN": 55100500000000020236}, None),
    ('keywords = ["GAIN"]\ntype = "integer"', {}, None),
    ('keywords = ["GAIN"]\ntype = "real"', {"GAIN": b"1.D0"}, None),
    ('keywords = ["GAIN"]\ntype = "real"', {"GAIN": 1}, None),
    ('keywords = ["GAIN"]\ntype = "real"', {"GAIN": "1.0"}, "card-type"),
    ('keywords = ["GAIN"]\ntype = "real"', {"GAIN": b"NaN"}, "card-type"),
    ('keywords = ["GAIN"]\ntype = "real"', {"GAIN": "Null"}, None),
    ('keywords = ["GAIN"]\ntype = "string"', {"GAIN": "high"}, None),
    ('keywords = ["GAIN"]\ntype = "string"', {"GAIN": 1}, "card-type"),
    ('keywords = ["GAIN"]\ntype = "logical"', {"GAIN": False}, None),
    ('keywords = ["GAIN"]\ntype = "logical"', {"GAIN": 0}, "card-type"),
    ('keywords = ["SEC"]\ntype = "section"', {"SEC": "[  1:  4, -1:2001]"}, None),
    ('keywords = ["SEC"]\ntype = "section"', {"SEC": "1:4,1:2001"}, "card-type"),
    ('keywords = ["TEMP"]\nmin = -5\nmax = 5', {"TEMP": -5}, None),
    ('keywords = ["TEMP"]\nmin = -5\nmax = 5', {"TEMP": b"5.5"}, "card-range"),
    ('keywords = ["TEMP"]\nmin = -5\nmax = 5', {"TEMP": b"-5.5"}, "card-range"),
    ('keywords = ["TEMP"]\nmin = -5', {"TEMP": "cold"}, "card-range"),
    ('keywords = ["TEMP"]\nabove = 0', {"TEMP": b"0.0"}, "card-range"),
    ('keywords = ["TEMP"]\nabove = 0', {"TEMP": b"1E-30"}, None),
    ('keywords = ["BAND"]\none_of = ["g", "r"]', {"BAND": "R  "}, None),
    ('keywords = ["BAND"]\none_of = ["g", "r"]', {"BAND": "z"}, "card-value"),
    ('keywords = ["BAND"]\none_of = [1, 2]', {"BAND": b"2."}, None),
    ('keywords = ["BAND"]\none_of = [1, 2]', {"BAND": True}, "card-value"),
    ('keywords = ["BAND"]\none_of = [true]', {"BAND": True}, None),
    ('keywords = ["BAND"]\nmatch = "i.MP97.*"', {"BAND": "i.MP9702"}, None),
    ('keywords = ["BAND"]\nmatch = "i.MP97"', {"BAND": "i.MP9702"}, "card-value"),
    ('keywords = ["A"]\nequals = "B"', {"A": 5, "B": b"5.0"}, None),
    ('keywords = ["A"]\nequals = "B"', {"A": 5, "B": 6}, "cards-differ"),
    ('keywords = ["A"]\nequals = "B"', {"A": 5}, None),
    ('keywords = ["A"]\nequals = "B"', {"A": 55100500000000020236, "B": 55100500000000020237}, "cards-differ"),
    ('keywords = ["A"]\nequals = "B"\nwithin = 0.1', {"A": 5, "B": 5.05}, None),
    ('keywords = ["A"]\nequals = "B"\nwithin = 0.1', {"A": 5, "B": 5.2}, "cards-differ"),
    ('keywords = ["MJD"]\nmjd_of = ["D", "T"]', {"MJD": 51544.5, "D": "2000-01-01", "T": "12:00:00.9"}, None),
    ('keywords = ["MJD"]\nmjd_of = ["D", "T"]', {"MJD": 51544.5, "D": "2000-01-01", "T": "12:00:02"}, "mjd-differs"),
    ('keywords = ["MJD"]\nmjd_of = ["D"]', {"MJD": 51544.5, "D": "2000-01-01T12:00:02"}, "mjd-differs"),
    ('keywords = ["MJD"]\nmjd_of = ["D"]', {"MJD": 51544.5, "D": "2000-01-01"}, None),
    ('keywords = ["MJD"]\nmjd_of = ["D"]\nwithin = 60', {"MJD": 51544.5, "D": "2000-01-01T12:00:02"}, None),
    ('keywords = ["T"]\ntime = "clock"', {"T": "4:37:54"}, "time-form"),
    ('keywords = ["T"]\ntime = "date"', {"T": "nil"}, "time-unreadable"),
    ('keywords = ["NAME"]\nids = "im(?P<visit>[0-9]+)_.*"', {"NAME": "im5_x"}, None),
    ('keywords = ["NAME"]\nids = "im(?P<visit>[0-9]+)_.*"', {"NAME": "im6_x"}, "ids-differ"),
    ('keywords = ["NAME"]\nids = "im(?P<visit>[0-9]+)_.*"', {"NAME": "other"}, None),
    ('keywords = ["A"]\nabove = 0\nwhen = { obstype = "sky" }', {"A": 0}, "card-range"),
    ('keywords = ["A"]\nabove = 0\nwhen = { obstype = ["FLAT", "DARK"] }', {"A": 0}, None),
    ('keywords = ["A"]\nabove = 0\nwhen = { layout = "raw" }', {"A": 0}, "card-range"),
    ('keywords = ["A"]\nabove = 0\nwhen = { layout = "flat" }', {"A": 0}, None),
    ('keywords = ["A"]\nabove = 0\nwhen = { MODE = [1, 2] }', {"A": 0, "MODE": 2}, "card-range"),
    ('keywords = ["A"]\nabove = 0\nwhen = { MODE = [1, 2] }', {"A": 0, "MODE": 3}, None),
    ('keywords = ["A"]\nabove = 0\nwhen = { MODE = [1, 2] }', {"A": 0}, None),
    ('keywords = ["A"]\nabove = 0\ncode = "a-low"', {"A": 0}, "a-low"),
]


@pytest.mark.parametrize(("rule", "cards", "code"), RULES)
def test_a_rule_of_a_camera_finds_what_it_says(
    tmp_path: Path, rule: str, cards: dict[str, object], code: str | None
) -> None:
    found = by_rule(tmp_path, rule, cards)
    found.pop("integer-huge", None)
    assert list(found) == ([] if code is None else [code])


def test_the_severity_and_the_words_of_a_rule_are_its_own(tmp_path: Path) -> None:
    camera = own_camera(tmp_path, 'keywords = ["A"]\nmin = 1\nseverity = "fail"\nsays = "expected a good one"')
    [found] = check(camera, "v5.fits", [header({"IMAGETYP": "sky", "A": 0})], {})
    assert (found.severity, found.text) == (Severity.FAIL, "A is 0 (a whole number); expected a good one")


def test_a_rule_looks_where_it_says(tmp_path: Path) -> None:
    sky, low, good = {"IMAGETYP": "sky"}, {"A": 0}, {"A": 1}

    def hdus(where: str, *headers: dict[str, object]) -> list[tuple[int, ...]]:
        camera = own_camera(tmp_path, f'keywords = ["A"]\nabove = 0\nrequired = true\nwhere = "{where}"')
        return [one.hdus for one in check(camera, "v5.fits", [header(one) for one in headers], {})]

    assert hdus("primary", {**sky, **good}, low) == []
    assert hdus("primary", sky, good) == [(0,)]
    assert hdus("first", sky, good, low) == []
    assert hdus("first", sky, low, good) == [(1,)]
    assert hdus("first", sky, sky) == [()]
    assert hdus("extensions", {**sky, **low}, good, low, low) == [(2, 3)]
    assert hdus("extensions", sky, good, {}) == [(2,)]
    assert hdus("extensions", {**sky, **low}) == [()]
    assert hdus("all", {**sky, **low}, low, good) == [(0, 1)]


def test_a_condition_looks_into_the_header_and_then_into_the_others(tmp_path: Path) -> None:
    rule = 'keywords = ["A"]\nabove = 0\nwhere = "extensions"\nwhen = { MODE = 2 }'
    assert by_rule(tmp_path, rule, {"MODE": 2}, {"A": 0}) == {"card-range": "warn"}
    assert by_rule(tmp_path, rule, {"MODE": 2}, {"A": 0, "MODE": 3}) == {}


def test_hdus_are_held_against_each_other(tmp_path: Path) -> None:
    alike = 'keywords = ["A"]\nalike = true'
    assert by_rule(tmp_path, alike, {"A": 5}, {"A": b"5.0"}, {}) == {}
    camera = own_camera(tmp_path, alike)
    [odd] = check(camera, "v5.fits", [header({"IMAGETYP": "sky"}), *(header({"A": a}) for a in (5, 5, 6))], {})
    assert (odd.code, odd.hdus) == ("cards-unlike", (3,))
    [tied] = check(camera, "v5.fits", [header({"IMAGETYP": "sky", "A": 1}), header({"A": 2})], {})
    assert tied.hdus == (0, 1)
    assert "1 (a whole number) and 2" in tied.text
    distinct = own_camera(tmp_path, 'keywords = ["CCD"]\ndistinct = true\nseverity = "fail"')
    [twice] = check(distinct, "v5.fits", [header({"IMAGETYP": "sky"}), *(header({"CCD": n}) for n in (1, 2, 1))], {})
    assert (twice.code, twice.severity, twice.hdus) == ("card-repeated", Severity.FAIL, (1, 3))


def test_everything_that_is_wrong_with_the_checks_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(CameraError) as error:
        own_camera(
            tmp_path,
            'keywords = ["A B"]\nmin = 1',
            'keywords = ["A"]',
            "min = 1",
            'keywords = ["A"]\nmin = "1"',
            'keywords = ["A"]\nmin = 1\nseverity = "bad"',
            'keywords = ["A"]\nmin = 1\nwhen = { mode = 1 }',
            'keywords = ["A"]\nmin = 1\ncode = "A b"',
            'keywords = ["A"]\nmin = 1\nwithin = 2',
            'keywords = ["A"]\nmatch = "("',
            'sibling = "mjd"\nkeywords = ["A"]',
            'keywords = ["A"]\nmn = 1',
        )
    said = str(error.value)
    for number, word in enumerate(
        ["keyword", "demands nothing", "needs `keywords`", "min", "severity", "obstype", "hyphens", "`within`",
         "regular expression", "`sibling`", "`mn`"]
    ):  # fmt: skip
        assert f"checks[{number}]" in said
        assert word in said


def test_a_check_names_ids_and_layouts_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(CameraError) as error:
        own_camera(
            tmp_path,
            'keywords = ["A"]\nids = "(?P<vist>[0-9]+)"',
            'keywords = ["A"]\nmin = 1\nwhen = { layout = ["raw", "bias"] }',
        )
    assert 'the group "vist" is no id of [ids], did you mean "visit"?' in str(error.value)
    assert 'checks[1].when.layout: found "bias"; expected one of raw, flat, input' in str(error.value)


# ---------------------------------------------------------------------------------------- siblings


def siblings(*mjds: float, exptime: float = 15.0) -> list[dict[str, Any]]:
    return [{"mjd": mjd, "exptime": exptime, "filter": "y"} for mjd in mjds]


def with_siblings(others: Sequence[Mapping[str, Any]], **changes: object) -> list[Finding]:
    return check(IMSIM, IMSIM_PATH, [changed(IMSIM_CARDS, **changes)], {}, others)


def test_a_file_that_differs_from_its_siblings_is_told_with_both_values() -> None:
    same = siblings(*[49552.28496] * 5)
    assert with_siblings(same) == []
    late = with_siblings(same, MJD_OBS=b"49552.28497", TAI=b"49552.28497")
    assert codes(late) == {"sibling-mjd": "warn"}
    assert "49552.28497" in late[0].text
    assert "49552.28496 (a number) in 5 of 5 other files" in late[0].text
    assert codes(with_siblings(same, EXPTIME=b"14.9")) == {"sibling-exptime": "warn"}
    found = with_siblings([{**one, "filter": "r"} for one in same])
    assert codes(found) == {"sibling-filter": "warn"}


def test_siblings_that_do_not_agree_say_nothing_of_a_file() -> None:
    assert with_siblings(siblings(49552.28496, 49553, 49554)) == []
    assert with_siblings(siblings(49553, 49553, 49554, 49554)) == []
    assert codes(with_siblings(siblings(49553, 49553, 49554))) == {"sibling-mjd": "warn"}
    assert with_siblings([]) == []
    assert with_siblings([{"mjd": None, "exptime": None, "filter": None}, {}]) == []


def test_a_bad_time_is_not_told_again_by_its_siblings() -> None:
    same = siblings(*[49552.28496] * 5)
    assert codes(with_siblings(same, MJD_OBS=b"0.", TAI=b"0.")) == {"mjd-zero": "warn"}
    assert codes(with_siblings(siblings(0.0, 0.0, 49552.28496, 49552.28496, 49552.28496))) == {}


def test_a_camera_may_say_how_far_siblings_differ(tmp_path: Path) -> None:
    text = names()["lsst_imsim"].read_text()
    (tmp_path / "lsst_imsim.toml").write_text(
        f'{text}\n[[checks]]\nsibling = "exptime"\nwithin = 0.5\nseverity = "fail"'
    )
    camera = load("lsst_imsim", [tmp_path])
    others = siblings(*[49552.28496] * 3)
    for exptime, expected in ((b"15.4", {}), (b"15.6", {"sibling-exptime": "fail"})):
        found = check(camera, IMSIM_PATH, [changed(IMSIM_CARDS, EXPTIME=exptime)], {}, others)
        assert codes(found) == expected


def test_nobody_is_odd_unless_more_than_half_agree() -> None:
    assert odd_ones({"a": 1, "b": 1, "c": 2}) == ["c"]
    assert odd_ones({"a": 1, "b": 1, "c": 2, "d": 2}) == []
    assert odd_ones({"a": 1, "b": 2, "c": 3}) == []
    assert odd_ones({"a": 1.0, "b": 1.001, "c": 2.0}, within=0.01) == ["c"]
    assert odd_ones({"a": "r", "b": "r", "c": "g"}) == ["c"]
    assert odd_ones({"a": 1.0, "b": 1.0, "c": None}) == []
    assert odd_ones({"a": 1.0, "b": 1.0, "c": math.nan}) == ["c"]
    assert odd_ones({"a": 1}) == []
    assert odd_ones({}) == []


@property_of(st.lists(st.one_of(st.none(), st.integers(0, 3), st.sampled_from(["r", "g"])), max_size=12))
def test_those_that_are_not_odd_share_one_value_of_more_than_half(values: list[Any]) -> None:
    known = [value for value in values if value is not None]
    odd = odd_ones(dict(enumerate(values)))
    rest = [value for key, value in enumerate(values) if key not in odd and value is not None]
    shared = [value for value in known if known.count(value) * 2 > len(known)]
    assert (rest == shared) if shared else odd == []


# ------------------------------------------------------------------------------------ real headers


def dumped(path: Path) -> list[Header]:
    """The headers of a text dump, one card a line."""
    headers: list[Header] = []
    cards: list[bytes] = []
    for line in gzip.decompress(path.read_bytes()).split(b"\n"):
        if line.rstrip() == b"END":
            headers.append(Header(cards))
            cards = []
        elif not line.startswith(b"# HDU") and (cards or line.strip()):
            cards.append(line.ljust(80)[:80])
    return headers


def from_yaml(path: Path) -> Header:
    """The header of a dump of astro_metadata_translator's tests, a list of (keyword, kind, value, comment) or a map."""

    class Loader(yaml.SafeLoader):
        """Takes the tag of a property list for a list."""

    Loader.add_multi_constructor("", lambda loader, _, node: loader.construct_sequence(node, deep=True))
    read = yaml.load(path.read_text(), Loader)  # noqa: S506  # a SafeLoader that takes one tag more
    items = read.items() if isinstance(read, dict) else [(one[0], one[2]) for one in read]
    return header(*((name, value) for name, value in items if len(name) < 9 and not isinstance(value, list)))


def files(folder: Path, root: Path) -> list[Header] | None:
    """The headers of a FITS file, gzipped or not whatever its name says; None for one that is no FITS."""
    packed = folder.read_bytes()
    name = "a.fits.gz" if packed[:2] == b"\x1f\x8b" else "a.fits"
    (root / name).write_bytes(packed)
    [found] = Agent(str(root)).headers([name])
    return None if isinstance(found, Fault) else [Header.parse(hdu.header) for hdu in found]


def failures(found: Sequence[Finding]) -> list[str]:
    return [str(one) for one in found if one.severity is Severity.FAIL]


def test_no_real_header_of_megaprime_fails(shared: Path) -> None:
    paths = sorted((shared / "data" / "cfht_headers").glob("*.header.gz"))
    assert len(paths) >= 5
    for path in paths:
        found = check(CFHT, path.name.removesuffix(".header.gz"), dumped(path), {})
        assert [str(one) for one in found if one.severity is not Severity.NOTE] == [], path.name


def test_a_real_megaprime_header_of_2003_is_noted_for_its_times_and_extnames(shared: Path) -> None:
    found = check(CFHT, "688231o.fits", dumped(shared / "data/cfht_headers/688231o.fits.header.gz"), {})
    assert codes(found) == {"extname-twice": "note", "time-form": "note"}
    assert 'DATE is "2003-02-08T5:23:35.46"' in texts(found, "time-form")
    assert 'UTC-OBS is "5:23:35.46"' in texts(found, "time-form")


def test_no_real_file_fails_with_its_camera(shared: Path, tmp_path: Path) -> None:
    seen = 0
    for path in sorted([*(shared / "data").rglob("*.fits*"), *(shared / "data").rglob("*.fz")]):
        relative = str(path.relative_to(shared / "data"))
        if "derived_mef" in relative or path.name.endswith(".header.gz"):
            continue
        headers = files(path, tmp_path)
        if headers is None:
            continue
        camera = CFHT if "cfht" in relative else IMSIM
        if path.name.startswith("eimage"):
            relative = f"eimage/v4000021706001-fg/E000/R22/{path.name}"
        assert failures(check(camera, relative, headers, {})) == [], relative
        seen += 1
    assert seen > 15


def test_the_real_imsim_header_has_nothing_to_it(shared: Path, tmp_path: Path) -> None:
    [path] = (shared / "data" / "imsim" / "raw").rglob("*.fits.gz")
    headers = files(path, tmp_path)
    assert headers is not None
    assert check(IMSIM, str(path), headers, {}) == []


def test_misspelt_keywords_of_a_real_header_are_named(shared: Path) -> None:
    folder = shared / "data" / "header_yaml"
    good, bad = (from_yaml(folder / name) for name in ("fitsheader-megaprime.yaml", "bad-megaprime.yaml"))
    path = "W2/raw/v1038843-fi2/s00/c02-a0.fits"
    assert codes(check(CFHT, path, [good], {})) == {}
    said = " ".join(one.text for one in check(CFHT, path, [bad], {}))
    for name, slip in (("OBSTYPE", "OBSTYP"), ("EXPTIME", "XPTIME"), ("EXPREQ", "XPREQ")):
        assert f"{name} is absent" in said
        assert f"(is it {slip}?)" in said


def test_the_real_decam_header_fails_in_nothing(shared: Path) -> None:
    cards = from_yaml(shared / "data" / "header_yaml" / "fitsheader-decam-raw_dec050441_25.yaml")
    found = check(DECAM, "2013A-0351/raw/v177764-fg/c25.fits.fz", [cards], {})
    assert [str(one) for one in found if one.severity is not Severity.NOTE] == []
    assert codes(check(DECAM, "2013A-0351/raw/v177764-fg/c26.fits.fz", [cards], {}))["ids-differ"] == "fail"
    assert codes(check(DECAM, "2013A-0351/raw/v177765-fr/c25.fits.fz", [cards], {}))["ids-differ"] == "fail"


# --------------------------------------------------------------------------------- any input, speed


@property_of(
    st.lists(
        st.tuples(
            st.sampled_from([*IMSIM_CARDS, *PIECE_CARDS, "MJD-OBS", "NEXTEND", "EXTNAME", "EXTVER"]),
            st.one_of(
                st.binary(max_size=70),
                st.sampled_from([b"NaN", b"'", b"'&'", b"1E999", b"T", b"-1", b"'\x1b]0;x\x07'", b"9" * 69, b""]),
            ),
        ),
        max_size=30,
    ),
    st.sampled_from([PIECE_PATH, IMSIM_PATH, "1257365o.fits", "calib/bias/v1/c05-a1.fits", "nothing", ""]),
    st.integers(0, 4),
)
def test_no_header_makes_a_check_raise_or_says_more_than_a_line(
    cards: list[tuple[str, bytes]], path: str, extensions: int
) -> None:
    headers = [header(*cards), *([header(*cards)] * extensions)]
    for camera in (CFHT, IMSIM, DECAM):
        for found in check(camera, path, headers, {}, siblings(1.0, 1.0)):
            assert found.text.isprintable()
            assert len(found.text) < 1000
            assert re.search("expected|taken", found.text), found


def test_a_file_without_headers_is_no_fault_of_the_checks() -> None:
    assert check(CFHT, PIECE_PATH, [], {}) != []


# ------------------------------------------------------------------------------------------- pages

SOURCES = (
    *(f"checking/{name}" for name in ("checks", "check_rules", "card_texts", "id_checks", "extension_checks")),
    "headers",
)
MAKERS = ("Finding", "Fault", "finding")  # what takes a code first


def _codes_in(source: str) -> Iterator[str]:
    """The codes that are written out in a module: what findings are made with, and what a function gives with them."""
    tree = ast.parse((Path(manifests.__file__).parent / f"{source}.py").read_text("utf-8"))
    for node in ast.walk(tree):
        values: list[ast.expr] = []
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in MAKERS:
            values = node.args[:1]
        elif isinstance(node, ast.Tuple):
            values = node.elts
        elif isinstance(node, ast.Assign):
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
        texts = [one.value for one in values if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        yield from (text for text in texts if re.fullmatch("[a-z]+(-[a-z]+)+", text))


def every_code() -> set[str]:
    shipped = {rule.code for name in names() for rule in load(name).checks if rule.code}
    written = {code for source in SOURCES for code in _codes_in(source)}
    return {*shipped, *written, *SIBLING_CODES.values(), *MJD_CODES, *EXPTIME_CODES}


def test_every_code_has_its_row_and_every_row_its_code() -> None:
    text = DOCS.read_text("utf-8").split("## Codes of headers", 1)[1].split("\n## ", 1)[0]
    cells = re.findall(r"^\| ((?:`[a-z-]+`(?:, )?)+) \|", text, re.MULTILINE)
    documented = [code for cell in cells for code in re.findall("`([a-z-]+)`", cell)]
    assert len(every_code()) > 35
    assert sorted(documented) == sorted(every_code())


def test_every_demand_on_the_page_is_one_and_its_examples_are_read() -> None:
    text = DOCS.read_text("utf-8")
    examples = re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    rules = [rule for example in examples for rule in tomllib.loads(example)["checks"]]
    assert len(rules) > 3
    for rule in rules:
        CheckPart.model_validate(rule)
    section = text.split("## Rules of one's own", 1)[1]
    assert {name for name in CheckPart.model_fields if f"`{name}" not in section} == set()
