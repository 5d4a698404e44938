"""Dates and times of day as headers write them, made into MJD and seconds.

FITS demands ISO 8601 (FITS 4.0, 9.1.1). Archives also hold `5:23:35.46`, a blank for the T, and the dates of before
1998, `08/02/95`: they say what they say, and are read; `strict` tells them from the others.
"""

from __future__ import annotations

import re
from datetime import date
from typing import NamedTuple

SECONDS_A_DAY = 86400.0
_EPOCH = date(1858, 11, 17).toordinal()  # MJD 0

_DATE = re.compile(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})|([0-9]{2})/([0-9]{2})/([0-9]{2})")
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2}(?:\.[0-9]{0,15})?)")
_STRICT_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_STRICT_CLOCK = re.compile(r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?")


class Clock(NamedTuple):
    """A time of day in seconds after midnight."""

    seconds: float
    strict: bool  # as FITS demands it


class Moment(NamedTuple):
    """A date as MJD, with the time of day in it where the text has one."""

    mjd: float
    timed: bool
    strict: bool


def clock(text: str) -> Clock | None:
    """`04:37:54.31`, or `4:37:54.31`, which is not strict; None for what is no time of day. A leap second is one."""
    text = text.strip()
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    hours, minutes, seconds = int(match[1]), int(match[2]), float(match[3])
    if hours > 23 or minutes > 59 or seconds >= 61:
        return None
    return Clock(hours * 3600 + minutes * 60 + seconds, bool(_STRICT_CLOCK.fullmatch(text)))


def moment(text: str) -> Moment | None:
    """`2010-11-03`, `2010-11-03T04:37:54.31`; not strict: without leading zeros, with a blank for the T, `03/11/99`."""
    day, mark, rest = _cut(text.strip())
    match = _DATE.fullmatch(day)
    if match is None:
        return None
    numbers = [int(group) for group in match.groups() if group is not None]
    year, month, of_month = numbers if match[1] else (1900 + numbers[2], numbers[1], numbers[0])
    try:
        mjd = float(date(year, month, of_month).toordinal() - _EPOCH)
    except ValueError:
        return None
    strict = bool(_STRICT_DATE.fullmatch(day))
    if not mark:
        return Moment(mjd, False, strict)
    time = clock(rest)
    if time is None:
        return None
    return Moment(mjd + time.seconds / SECONDS_A_DAY, True, strict and time.strict and mark == "T")


def _cut(text: str) -> tuple[str, str, str]:
    """The date, what stands between it and the time of day, the time of day."""
    for mark in ("T", " "):
        day, found, rest = text.partition(mark)
        if found:
            return day, mark, rest
    return text, "", ""
