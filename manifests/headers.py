"""What a header says: ids and times, by rules that a camera's file gives."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import CameraError, found
from .layouts import IdRule, expectation

JULIAN = 2400000.5  # MJD 0 as a Julian date
SECONDS_A_DAY = 86400.0


@dataclass(frozen=True)
class Case:
    """A value that matches the regular expression whole gives the template (`\\1` is its first group)."""

    match: re.Pattern[str]
    gives: str


@dataclass(frozen=True)
class HeaderRule:
    """How one id comes from a header: of the first keyword there is, cut, folded, put through the cases."""

    id_name: str
    keywords: tuple[str, ...]
    first: int | None  # only so many characters count
    fold: str | None  # "upper", "lower" or "capitalize"
    cases: tuple[Case, ...]  # none: the value as it is
    truncate: bool  # 1800.4 s is 1800
    given: str  # where the manifest gives the id too: "wins", or "agrees" with what the header says
    filename: re.Pattern[str] | None  # the file's name stands in: its first group
    constant: int | str | None
    says: str  # what is expected, in words

    def read(self, cards: Mapping[str, Any], given: int | str | None, rule: IdRule, name: str = "") -> int | str | None:
        """The id. Raises CameraError where header and manifest give none, or differ and must not."""
        if given is not None:
            given = self._checked(given, rule)
        if given is not None and self.given == "wins":
            return given
        keyword, value, text = self._text(cards, name)
        own = None if text is None else rule.own(text)
        if own is None and self.constant is not None:
            own = self.constant
        if own is None and given is None:
            raise CameraError(self._nothing(keyword, value))
        if own is not None and given is not None and own != given:
            raise CameraError(
                f"{keyword or 'the camera'} says {self.id_name} {own}, the manifest's [ids] says {given}; "
                f"take {self.id_name} out of [ids], or take this file out of the source"
            )
        return given if own is None else own

    def _checked(self, given: int | str, rule: IdRule) -> int | str:
        own = rule.own(given)
        if own is None:
            raise CameraError(
                f"[ids] {self.id_name} is {found(given)}; expected {expectation(rule)}: change it in the manifest"
            )
        return own

    def _text(self, cards: Mapping[str, Any], name: str) -> tuple[str | None, Any, str | None]:
        """The keyword that was there, its value, and the text of the id that it gives."""
        for keyword in self.keywords:
            value = cards.get(keyword)
            if text := text_of(value, self.truncate):
                return keyword, value, self._shaped(text)
        if self.filename is not None and (match := self.filename.fullmatch(name.rsplit("/", 1)[-1])):
            return "the file's name", name, match[1]
        return None, None, None

    def _shaped(self, text: str) -> str | None:
        text = text[: self.first] if self.first else text
        if self.fold:
            text = {"upper": text.upper, "lower": text.lower, "capitalize": text.capitalize}[self.fold]()
        if not self.cases:
            return text
        for case in self.cases:
            if match := case.match.fullmatch(text):
                return match.expand(case.gives)
        return None

    def _nothing(self, keyword: str | None, value: Any) -> str:
        advice = f"give `[ids] {self.id_name}` in the manifest"
        if keyword is None:
            wanted = " or ".join(self.keywords)
            return f"the header has no {wanted}, so it gives no {self.id_name}; {advice}"
        return f"{keyword} is {found(value)}, which gives no {self.id_name} ({self.says}); {advice}"


def text_of(value: Any, truncate: bool = False) -> str | None:
    """A card's value as text: text without blanks around it, a whole number; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int):
        return str(value) if abs(value) < 10**40 else None
    if isinstance(value, float) and math.isfinite(value) and (truncate or value == int(value)):
        return str(int(value))
    return None


@dataclass(frozen=True)
class Times:
    """When an exposure began (MJD of the scale given) and how long it took (seconds); None where unreadable.

    `problems` are sentences; a time that has one is as the header has it, and not to be used.
    """

    mjd: float | None = None
    scale: str = "utc"
    exptime: float | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class TimeRule:
    """Which cards hold the time and what a good one looks like."""

    mjd: str
    scale: str  # "utc" or "tai"
    exptime: str
    same: tuple[str, ...]  # other cards that hold the same MJD
    tolerance: float  # seconds that they may differ by
    earliest: float  # MJD
    latest: float

    def read(self, cards: Mapping[str, Any]) -> Times:
        """Never raises: what cannot be read is None, and said."""
        wrong: list[str] = []
        mjd = _number(cards, self.mjd, wrong)
        if mjd is not None:
            wrong += self._mjd_problems(mjd)
        for keyword in self.same:
            other = _number(cards, keyword, wrong) if keyword in cards else None
            if mjd is not None and other is not None and abs(other - mjd) * SECONDS_A_DAY > self.tolerance:
                wrong.append(f"{keyword} is {other!r} and {self.mjd} is {mjd!r}, where they should be equal")
        exptime = _number(cards, self.exptime, wrong)
        if exptime is not None and exptime < 0:
            wrong.append(f"{self.exptime} is {exptime!r}, which is no time in seconds")
        return Times(mjd, self.scale, exptime, tuple(wrong))

    def _mjd_problems(self, mjd: float) -> list[str]:
        if mjd == 0:
            return [f"{self.mjd} is zero"]
        if self.earliest <= mjd - JULIAN <= self.latest:
            return [f"{self.mjd} is {mjd!r}, a Julian date; as MJD it would be {mjd - JULIAN:.6f}"]
        if not self.earliest <= mjd <= self.latest:
            return [f"{self.mjd} is {mjd!r}; expected {self.earliest:g} to {self.latest:g}"]
        return []


def _number(cards: Mapping[str, Any], keyword: str, wrong: list[str]) -> float | None:
    """A finite number; anything else is said in `wrong`. Text is tried too, as some archives write."""
    value = cards.get(keyword)
    if value is None:
        wrong.append(f"{keyword} is absent")
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        wrong.append(f"{keyword} is {found(value)}, which is no number")
        return None
    return number
