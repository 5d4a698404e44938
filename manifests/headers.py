"""What a header says: ids and times, by rules that a camera's file gives."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from .clocks import SECONDS_A_DAY
from .errors import CameraError, found, shown
from .findings import Finding, Severity
from .layouts import IdRule, expectation

JULIAN = 2400000.5  # MJD 0 as a Julian date
MJD_CODES = ("mjd-missing", "mjd-unreadable")
GROUP = re.compile(r"\\([0-9]|g<[0-9]>)")  # of a template
EXPTIME_CODES = ("exptime-missing", "exptime-unreadable")


class Values(Protocol):
    """A header's keywords with the value of each; any mapping is one."""

    def get(self, keyword: str, /) -> Any: ...

    def __iter__(self) -> Iterator[str]: ...


@dataclass(frozen=True)
class Case:
    """A value that matches the regular expression whole gives the template (`\\1` is its first group)."""

    match: re.Pattern[str]
    gives: str

    def read(self, text: str) -> str | None:
        """What the text gives, None for one that does not match."""
        match = self.match.fullmatch(text)
        if match is None or self._pieces is None:
            return match and match.expand(self.gives)
        return "".join([piece if isinstance(piece, str) else match[piece] or "" for piece in self._pieces])

    @cached_property
    def _pieces(self) -> tuple[str | int, ...] | None:
        """The template cut at its groups, as Python takes it apart anew each time; None where it has more to it."""
        pieces = GROUP.split(self.gives)
        if any("\\" in text for text in pieces[::2]):
            return None
        return tuple(int(piece.strip("g<>")) if place % 2 else piece for place, piece in enumerate(pieces))


class Said(NamedTuple):
    """The first card that says something of an id, its value, and the id that it gives; None where none does."""

    keyword: str | None
    value: Any
    own: int | str | None


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

    def read(self, cards: Values, given: int | str | None, rule: IdRule, name: str = "") -> int | str | None:
        """The id. Raises CameraError where header and manifest give none, or differ and must not."""
        if given is not None:
            given = self._checked(given, rule)
        if given is not None and self.given == "wins":
            return given
        keyword, value, own = self.said(cards, rule, name)
        if own is None and given is None:
            raise CameraError(f"{self.nothing(keyword, value)}; give `[ids] {self.id_name}` in the manifest")
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

    def said(self, cards: Values, rule: IdRule, name: str = "") -> Said:
        """What the header itself says, whatever the manifest has."""
        keyword, value, text = self._text(cards, name)
        own = None if text is None else rule.own(text)
        return Said(keyword, value, self.constant if own is None else own)

    def nothing(self, keyword: str | None, value: Any) -> str:
        """Why a header gives no id: `said` found this value in this card, or none."""
        if keyword is None:
            wanted = " or ".join(self.keywords)
            return f"the header has no {wanted}, so it gives no {self.id_name}"
        return f"{keyword} is {found(value)}, which gives no {self.id_name} ({self.says})"

    def _text(self, cards: Values, name: str) -> tuple[str | None, Any, str | None]:
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
            if (given := case.read(text)) is not None:
                return given
        return None


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

    A time that `problems` speak of is as the header has it, and not to be used.
    """

    mjd: float | None = None
    scale: str = "utc"
    exptime: float | None = None
    problems: tuple[Finding, ...] = ()


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
    severity: Severity = Severity.WARN  # of a time that cannot be used

    def read(self, cards: Values) -> Times:
        """Never raises: what cannot be read is None, and said."""
        wrong: list[Finding] = []
        mjd = self._number(cards, self.mjd, MJD_CODES, wrong)
        if mjd is not None:
            wrong += self._mjd_problems(mjd)
        for keyword in self.same:
            other = self._number(cards, keyword, MJD_CODES, wrong) if cards.get(keyword) is not None else None
            if mjd is not None and other is not None and abs(other - mjd) * SECONDS_A_DAY > self.tolerance:
                text = f"{keyword} is {other!r} and {self.mjd} is {mjd!r}, where they should be equal"
                wrong.append(Finding("mjd-differs", self.severity, text))
        exptime = self._number(cards, self.exptime, EXPTIME_CODES, wrong)
        if exptime is not None and exptime < 0:
            text = f"{self.exptime} is {exptime!r}, which is no time in seconds; expected 0 or more"
            wrong.append(Finding("exptime-negative", self.severity, text))
        return Times(mjd, self.scale, exptime, tuple(wrong))

    def _mjd_problems(self, mjd: float) -> list[Finding]:
        expected = f"expected {self.earliest:g} to {self.latest:g}"
        if mjd == 0:
            return [Finding("mjd-zero", self.severity, f"{self.mjd} is zero; {expected}")]
        if self.earliest <= mjd <= self.latest:
            return []
        if 0 < mjd - JULIAN < 100000:
            text = f"{self.mjd} is {mjd!r}, a Julian date; as MJD it would be {mjd - JULIAN:.6f}; {expected}"
            return [Finding("mjd-julian", self.severity, text)]
        return [Finding("mjd-range", self.severity, f"{self.mjd} is {mjd!r}; {expected}")]

    def _number(self, cards: Values, keyword: str, codes: tuple[str, str], wrong: list[Finding]) -> float | None:
        """A finite number; anything else is said in `wrong`. Text is tried too, as some archives write."""
        value = cards.get(keyword)
        if value is None:
            near = misspelt(keyword, cards)
            wrong.append(Finding(codes[0], self.severity, f"{keyword} is absent; expected a number{near}"))
            return None
        number = number_of(value)
        if number is None:
            text = f"{keyword} is {found(value)}, which is no number; expected one"
            wrong.append(Finding(codes[1], self.severity, text))
        elif isinstance(value, str):
            text = f"{keyword} is {found(value)}; expected a number without quotes: it is read as one"
            wrong.append(Finding("number-quoted", Severity.NOTE, text))
        return number


def number_of(value: Any) -> float | None:
    """A card's value as a finite number, text that says one too; None for anything else."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def misspelt(keyword: str, cards: Values) -> str:
    """` (is it OBSTYP?)` where the header lacks a keyword and has one that is but one letter from it, else nothing."""
    near = next((name for name in cards if _is_slip(keyword, str(name))), None)
    return "" if near is None else f" (is it {shown(near, 8)}?)"


def _is_slip(keyword: str, name: str) -> bool:
    """Whether one letter was lost, put in or struck wrong, or two changed places; GAINA and GAINB are no slips."""
    if abs(len(name) - len(keyword)) > 1 or name == keyword or name[:-1] in (keyword, keyword[:-1]):
        return False
    at = next((place for place, (one, other) in enumerate(zip(keyword, name, strict=False)) if one != other), len(name))
    lost = name[at:] == keyword[at + 1 :]
    put_in = name[at + 1 :] == keyword[at:]
    struck = name[at + 1 :] == keyword[at + 1 :]
    swapped = name[at : at + 2] == keyword[at : at + 2][::-1] and name[at + 2 :] == keyword[at + 2 :]
    return lost or put_in or struck or swapped
