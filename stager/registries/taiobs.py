"""The text that the registries of DC3b have for a time: column `taiObs`, which is UTC whatever its name says.

ISO 8601 with nine decimals and no Z: 49552.28496 TAI is 1994-07-19T06:49:51.543999744. They were made by the class
DateTime of daf_base, whose arithmetic is this: from a double MJD to whole nanoseconds since 1970, the rest cut off,
and leap seconds taken off what is TAI. The last three or so of the decimals are of the double and no time.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from functools import lru_cache

EPOCH_MJD = 40587.0  # 1970-01-01
NS_A_DAY = 86_400_000_000_000.0
NS = 1_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=4096)
def taiobs(mjd: float, scale: str) -> str:
    """The text of an MJD in the scale "utc" or "tai". Raises ValueError for one that no calendar has."""
    try:
        ns = int((mjd - EPOCH_MJD) * NS_A_DAY)
        if scale == "tai":
            ns -= _tai_minus_utc(ns) * NS
        seconds, rest = divmod(ns, NS)
        return f"{EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{rest:09d}"
    except (OverflowError, ValueError) as error:  # not finite, or beyond the years of a calendar
        raise ValueError(f"MJD {mjd!r} is no time") from error


def _tai_minus_utc(ns_tai: int) -> int:
    """Whole seconds at a time that is TAI nanoseconds since 1970. Within a leap second it is still the one before.

    Raises ValueError before 1972, when the difference was no whole number.
    """
    begins, offsets = _leap_seconds()
    at = bisect_right(begins, ns_tai)
    if at == 0:
        raise ValueError("before 1972")
    return offsets[at - 1]


@lru_cache(maxsize=1)
def _leap_seconds() -> tuple[list[int], list[int]]:
    """(when each offset begins, as TAI nanoseconds since 1970; the offset), by the table that astropy goes by."""
    import erfa  # type: ignore[import-untyped]  # imported late: only TAI needs it, and numpy with it

    begins, offsets = [], []
    for year, month, offset in erfa.leap_seconds.get():
        if year >= 1972:
            since = datetime(int(year), int(month), 1, tzinfo=UTC) - EPOCH
            begins.append((int(since.total_seconds()) + int(offset)) * NS)
            offsets.append(int(offset))
    return begins, offsets
