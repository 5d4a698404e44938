"""What a camera expects of cards, as plain data: tests of a value, and rules of where and when they are made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from manifests.clocks import SECONDS_A_DAY, clock, moment
from manifests.errors import found
from manifests.findings import Finding, Severity
from manifests.headers import Values, number_of
from manifests.layouts import IdRule

Plain = bool | int | float | str
FILE_WORDS = ("layout", "obstype")  # what `when` knows beside keywords

TYPES = {
    "integer": "a whole number",
    "real": "a number",
    "string": "text",
    "logical": "T or F",
    "section": "a section such as [1:2048,1:4612]",
}
_SECTION = re.compile(r"\[ *-?[0-9]+ *: *-?[0-9]+ *(?:, *-?[0-9]+ *: *-?[0-9]+ *)*\]")  # blanks are ImSim's


class Seen(NamedTuple):
    """What a test may look at beside the value: the header, then the file's others; the ids of the path."""

    cards: Values
    ids: Mapping[str, int | str]
    id_rules: Mapping[str, IdRule]


class Fault(NamedTuple):
    """What a test found, "EXPTIME is -1.0", and what it expected; a severity where it is not the rule's own."""

    code: str
    what: str
    expected: str
    severity: Severity | None = None


class Test(Protocol):
    """One demand on the value of a card."""

    def fault(self, keyword: str, value: Any, seen: Seen) -> Fault | None:
        """What is wrong with the value, None where it is as it should be."""


@dataclass(frozen=True)
class OfType:
    """`type`: one of TYPES. A real may be written as a whole number."""

    kind: str

    def fault(self, keyword: str, value: Any, seen: Seen) -> Fault | None:
        if self._fits(value):
            return None
        return Fault("card-type", f"{keyword} is {found(value)}", f"expected {TYPES[self.kind]}")

    def _fits(self, value: Any) -> bool:
        match self.kind:
            case "logical":
                return isinstance(value, bool)
            case "string":
                return isinstance(value, str)
            case "section":
                return isinstance(value, str) and _SECTION.fullmatch(value.strip()) is not None
            case _:
                numbers = int if self.kind == "integer" else (int, float)
                return isinstance(value, numbers) and not isinstance(value, bool)


@dataclass(frozen=True)
class InRange:
    """`min`, `max` and `above`, each where it is not None."""

    least: float | None
    most: float | None
    above: float | None

    def fault(self, keyword: str, value: Any, seen: Seen) -> Fault | None:
        number = number_of(value)
        if number is not None and self._holds(number):
            return None
        return Fault("card-range", f"{keyword} is {found(value)}", f"expected {self._words()}")

    def _holds(self, number: float) -> bool:
        return (
            (self.least is None or number >= self.least)
            and (self.most is None or number <= self.most)
            and (self.above is None or number > self.above)
        )

    def _words(self) -> str:
        bounds = (("more than", self.above), ("at least", self.least), ("at most", self.most))
        return "a number, " + " and ".join(f"{word} {bound}" for word, bound in bounds if bound is not None)


@dataclass(frozen=True)
class OneOf:
    """`one_of`: numbers, or text whatever its case."""

    values: tuple[Plain, ...]

    def fault(self, keyword: str, value: Any, seen: Seen) -> Fault | None:
        if any(same(value, one) for one in self.values):
            return None
        known = " or ".join(str(one) for one in self.values)
        return Fault("card-value", f"{keyword} is {found(value)}", f"expected {known}")


@dataclass(frozen=True)
class Matches:
    """`match`: the whole value, as text."""

    pattern: re.Pattern[str]

    def fault(self, keyword: str, value: Any, seen: Seen) -> Fault | None:
        if self.pattern.fullmatch(str(value).strip()):
            return None
        return Fault("card-value", f"{keyword} is {found(value)}", f"expected {self.pattern.pattern}")


@dataclass(frozen=True)
class Equals:
    """`equals`: the value of another card, where it is there; numbers may differ by `within`."""

    other: str
    within: float

    def fault(self, keyword: str, value: Any, seen: Seen) -> Fault | None:
        other = seen.cards.get(self.other)
        if other is None or same(value, other, self.within):
            return None
        what = f"{keyword} is {found(value)} and {self.other} is {found(other)}"
        return Fault("cards-differ", what, f"expected them to be equal{f' within {self.within:g}' * bool(self.within)}")


@dataclass(frozen=True)
class MjdOf:
    """`mjd_of`: the MJD of a date, and of a time of day in a card of its own; they may differ by `within` seconds.

    A date with its time of day in it needs no second card. What cannot be read is for `time` to say.
    """

    cards: tuple[str, ...]
    within: float

    def fault(self, keyword: str, value: Any, seen: Seen) -> Fault | None:
        mjd, texts = number_of(value), [str(seen.cards.get(name) or "") for name in self.cards]
        begun = _begun(texts)
        if mjd is None or begun is None or abs(mjd - begun) * SECONDS_A_DAY <= self.within:
            return None
        said = " ".join(f"{name} {found(text)}" for name, text in zip(self.cards, texts, strict=True) if text)
        what = f"{keyword} is {value!r} and {said} is {begun:.7f}"
        return Fault("mjd-differs", what, f"expected one time within {self.within:g} s")


def _begun(texts: list[str]) -> float | None:
    """The MJD of a date, and of a time of day behind it where the date has none in it."""
    date = moment(texts[0])
    if date is None or date.timed or len(texts) == 1:
        return date.mjd if date and date.timed else None
    time = clock(texts[1])
    return None if time is None else date.mjd + time.seconds / SECONDS_A_DAY


@dataclass(frozen=True)
class Form:
    """`time`: "date", with or without a time of day in it, or "clock", a time of day. Others are read, and noted."""

    kind: str

    def fault(self, keyword: str, value: Any, seen: Seen) -> Fault | None:
        read = (moment if self.kind == "date" else clock)(str(value))
        form = "YYYY-MM-DD or YYYY-MM-DDThh:mm:ss" if self.kind == "date" else "hh:mm:ss"
        if read is None:
            return Fault("time-unreadable", f"{keyword} is {found(value)}", f"expected {form}")
        if not read.strict:
            return Fault("time-form", f"{keyword} is {found(value)}", f"expected {form}: it is read", Severity.NOTE)
        return None


@dataclass(frozen=True)
class Names:
    """`ids`: the groups of a regular expression that bear the names of ids, held against those of the path."""

    pattern: re.Pattern[str]

    def fault(self, keyword: str, value: Any, seen: Seen) -> Fault | None:
        match = self.pattern.fullmatch(str(value).strip())
        if match is None:
            return None
        said = {name: seen.id_rules[name].own(text) for name, text in match.groupdict().items() if text is not None}
        wrong = {name: one for name, one in said.items() if seen.ids.get(name, one) != one}
        if not wrong:
            return None
        words = " and ".join(f"{name} {one}" for name, one in wrong.items())
        path = " and ".join(f"{name} {seen.ids[name]}" for name in wrong)
        return Fault(
            "ids-differ", f"{keyword} is {found(value)}, which says {words}", f"expected {path}, as the path says"
        )


@dataclass(frozen=True)
class CheckRule:
    """Demands on the values of some cards.

    `where`: "primary", "extensions" (the primary header in a file that has none), "all", or "first": where the
    keyword stands first. `when`: cards, and the words "layout" and "obstype", with the values they must have.
    `unknown` are values that stand for none. `sibling` is what other files of the exposure must agree in.
    """

    keywords: tuple[str, ...] = ()
    tests: tuple[Test, ...] = ()
    where: str = "first"
    when: tuple[tuple[str, tuple[Plain, ...]], ...] = ()
    severity: Severity = Severity.WARN
    code: str | None = None
    says: str | None = None
    required: bool = False
    alike: bool = False
    distinct: bool = False
    within: float = 0.0
    unknown: tuple[Plain, ...] = ()
    sibling: str | None = None

    @cached_property
    def of_file(self) -> tuple[tuple[str, tuple[Plain, ...]], ...]:
        """The conditions on the whole file."""
        return tuple(one for one in self.when if one[0] in FILE_WORDS)

    @cached_property
    def of_cards(self) -> tuple[tuple[str, tuple[Plain, ...]], ...]:
        """The conditions on other cards."""
        return tuple(one for one in self.when if one[0] not in FILE_WORDS)

    def faults(self, keyword: str, value: Any, seen: Seen) -> Iterator[Finding]:
        """What is wrong with a value that is there."""
        for test in self.tests:
            if (fault := test.fault(keyword, value, seen)) is not None:
                yield self.finding(*fault)

    def finding(self, code: str, what: str, expected: str, severity: Severity | None = None) -> Finding:
        """A finding of this rule, with its own code and words where it has them; not for what is only noted."""
        if severity is not None:
            return Finding(code, severity, f"{what}; {expected}")
        return Finding(self.code or code, self.severity, f"{what}; {self.says or expected}")

    def is_unknown(self, value: Any) -> bool:
        """Whether the value is one that an archive writes for none."""
        return any(same(value, one) for one in self.unknown)


def same(value: Any, other: Any, within: float = 0.0) -> bool:
    """Whether two values of cards are one: whole numbers exactly, others within a bound, text whatever its case."""
    if isinstance(value, bool) or isinstance(other, bool):
        return value is other
    if isinstance(value, int) and isinstance(other, int) and not within:
        return value == other
    numbers = number_of(value), number_of(other)
    if numbers[0] is not None and numbers[1] is not None:
        return abs(numbers[0] - numbers[1]) <= within
    return str(value).strip().upper() == str(other).strip().upper()
