"""The text of a time: the arithmetic of 2010, to the last decimal."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from astropy.time import Time

from stager.registries.taiobs import taiobs
from tests.stager.registries.archive import rows

EPOCH_MJD = 40587


@pytest.mark.parametrize(
    ("mjd", "scale", "text"),
    [
        (49552.28496, "tai", "1994-07-19T06:49:51.543999744"),
        (49552.28496, "utc", "1994-07-19T06:50:20.543999744"),
        (53503.2924147, "utc", "2005-05-13T07:01:04.630080128"),
        (53462.3922446, "utc", "2005-04-02T09:24:49.933440000"),
        (40587.0, "utc", "1970-01-01T00:00:00.000000000"),
        (40586.5, "utc", "1969-12-31T12:00:00.000000000"),
    ],
)
def test_a_time_is_written_as_the_registries_of_2010_have_it(mjd: float, scale: str, text: str) -> None:
    assert taiobs(mjd, scale) == text


@pytest.mark.parametrize(
    ("name", "scale"), [("cfht_2010.registry.sqlite3", "utc"), ("imsim_afwdata.registry.sqlite3", "tai")]
)
def test_every_time_of_the_real_registries_is_that_of_some_header(shared: Path, name: str, scale: str) -> None:
    """Headers give an MJD with five to seven decimals; one of them must give the row's text, all nine decimals."""
    texts = {row[0] for row in rows(shared / "data" / "registries" / name, "SELECT DISTINCT taiObs FROM raw")}
    assert len(texts) == (18 if scale == "utc" else 2)
    for text in texts:
        exact = getattr(Time(text, format="isot", scale="utc"), scale).mjd
        assert text in {taiobs(round(float(exact), decimals), scale) for decimals in range(4, 10)}


def test_it_is_the_time_that_astropy_says() -> None:
    draw = random.Random(1994)
    for _ in range(300):
        mjd, scale = draw.uniform(41500, 61000), draw.choice(["utc", "tai"])
        said = Time(taiobs(mjd, scale), format="isot", scale="utc")
        assert abs((said - Time(mjd, format="mjd", scale=scale)).sec) < 1e-6


@pytest.mark.parametrize(("seconds", "text"), [(35.5, "23:59:59.5"), (36.5, "00:00:00.5"), (37.5, "00:00:00.5")])
def test_a_leap_second_is_told_as_the_second_after_it(seconds: float, text: str) -> None:
    """UTC 23:59:60 of 31 December 2016 has no text of its own, as in DateTime of daf_base."""
    assert taiobs(57754 + (seconds + 0.01) / 86400, "tai")[11:21] == text


@pytest.mark.parametrize("mjd", [math.nan, math.inf, 1e12, -1e12])
@pytest.mark.parametrize("scale", ["utc", "tai"])
def test_what_no_calendar_has_is_no_time(mjd: float, scale: str) -> None:
    with pytest.raises(ValueError, match="no time"):
        taiobs(mjd, scale)


def test_tai_before_1972_is_no_time() -> None:
    """TAI - UTC was no whole number of seconds then."""
    with pytest.raises(ValueError, match="no time"):
        taiobs(41000.0, "tai")
