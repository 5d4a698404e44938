"""Lists of what is accepted as missing, in the two notations that people write them in.

**Ids or names, one a line**: `visit=85770111 raft=4,2 sensor=1,2  # reason`, or `*c05-a?.fits  # reason`. Such a line
stands for itself.

**The outline of the PT1 page**, pasted from a wiki as text:

    • Photocal failures on 11 ImSim CCDs of 110:
        • Visit 85656362
            • Raft 2,4 sensors 0,1 1,1 (all matches have bad photometry)

A line that begins with an id and its value is an entry, and has the ids of those that it stands below: further to the
right, or (where a paste has lost that) in the same column and of a finer id. What has entries below it is not itself
excluded. A line that names nothing is a heading: the reason of the entries below it, to which theirs is added; below
an entry, it is a remark on it. Bullets, numbers, tabs, blanks of all kinds and the case of letters do not matter.
Nothing that looks like an entry is passed over: it is read, or it is an error with its line.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from manifests.errors import ManifestError, Problem, shown
from manifests.parts import Exclusion

from .failure_lines import FORMS, RANKS, Said, check_remark, cut, indented, is_word, joined, named_by, said

MOST_SAID = 20  # problems of one list that are written out
MOST_LINES = 200_000
MOST_ENTRIES = 100_000  # exclusions of one list
MOST_DEPTH = 20  # lines that one may stand below


class FailureList(NamedTuple):
    """What a list excludes, and what is worth saying of it."""

    exclusions: tuple[Exclusion, ...]
    notes: tuple[str, ...]


def read_failure_list(content: bytes, where: str) -> FailureList:
    """The exclusions in a list. Raises ManifestError with all lines that cannot be read."""
    outline = _Outline(where)
    lines = max(content.count(b"\n"), content.count(b"\r"))
    if lines > MOST_LINES:
        raise ManifestError((Problem("", f"{lines} lines, more than the {MOST_LINES} allowed"),), where)
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            outline.add(number, line.decode("utf-8"))
        except UnicodeDecodeError:
            outline.refuse(number, "not UTF-8; save the file with that encoding")
        except ValueError as error:
            outline.refuse(number, str(error))
    return outline.read()


@dataclass(slots=True)
class _Open:
    """A line that others may stand below."""

    number: int
    column: int
    said: Said
    below: bool = False  # whether entries do
    deeper: bool = False  # and further to the right, so that a line in its own column does not
    count: _Count | None = None  # of a heading that counts
    bare: bool = False  # one word, which is the name of a file where nothing stands below it

    @property
    def heads(self) -> bool:
        return bool(self.said.heading)

    @property
    def rank(self) -> int:
        """What stands below it in the same column has a finer id than any of its own."""
        return max((RANKS.get(name, 0) for name in self.said.ids), default=0)

    def stands_beside(self, above: _Open) -> bool:
        """Whether a line before it is none that it stands below."""
        rank = min((RANKS.get(name, 0) for name in self.said.ids), default=0)
        level = (above.column, math.inf if above.deeper and not above.heads else above.rank)
        return (self.column, rank) <= level or self.shares(above)

    def shares(self, other: _Open) -> bool:
        return bool(self.said.ids.keys() & other.said.ids.keys())


class _Outline:
    """Lines as they come, and the exclusions that they are."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.exclusions: list[Exclusion] = []
        self.notes: list[str] = []
        self._open: list[_Open] = []
        self._outlined = False  # whether a line was one of an outline for certain
        self._visit: int | None = None  # the first line of an outline that names a visit
        self._beside: int | None = None  # the first entry in the column of the one that it stands below
        self._wrong: list[Problem] = []
        self._more_wrong = 0
        self._passed: list[_Open] = []  # the first heading that nothing is below of
        self._more_passed = 0

    def add(self, number: int, line: str) -> None:
        """Raises ValueError for a line that cannot be read."""
        column, text = indented(line)
        what = said(text)
        if what is None:
            return
        one = _Open(number, column, what)
        if what.alone:
            self._add_alone(one)
            return
        depth = next((depth for depth, above in enumerate(self._open) if one.stands_beside(above)), len(self._open))
        self._close(depth)
        if depth == MOST_DEPTH:
            raise ValueError(f"stands below {MOST_DEPTH} others, and no more are read")
        one.bare = not self._outlined and is_word(text)
        self._outlined |= not one.bare
        if not one.heads:
            if self._visit is None and "visit" in what.ids:
                self._visit = number
            _note_below(one, self._open)
            if self._beside is None and any(not each.heads and each.column == column for each in self._open):
                self._beside = number
        elif self._entries():
            check_remark(text)
        else:
            one.count = _Count.of(what.heading)
        self._open.append(one)

    def refuse(self, number: int, text: str) -> None:
        if len(self._wrong) < MOST_SAID:
            self._wrong.append(Problem(f"line {number}", shown(text, 400)))
        else:
            self._more_wrong += 1

    def read(self) -> FailureList:
        """All of it, once every line was added. Raises ManifestError with what is wrong."""
        self._close(0)
        if not self.exclusions and not self._wrong and self._passed:
            self.refuse(self._passed[0].number, f"no line can be read as an entry; expected {FORMS}")
        if self._wrong:
            raise ManifestError(tuple(self._problems()), self.where)
        if self._beside is not None:
            text = "stands in the column of the line above it, and is taken to be of its visit or raft"
            self.notes.append(f"{shown(self.where)}, line {self._beside}: {text}; indent it where that is so")
        for first in self._passed:
            count = self._more_passed + 1
            said = "a line names nothing" if count == 1 else f"{count} lines name nothing"
            which = f'line {first.number}: "{shown(first.said.heading, 60)}"'
            self.notes.append(f"{shown(self.where)}: {said} that could be left out ({which})")
        return FailureList(tuple(self.exclusions), tuple(self.notes))

    def _problems(self) -> Iterator[Problem]:
        yield from sorted(self._wrong, key=lambda problem: int(problem.place.rpartition(" ")[2]))
        if self._more_wrong:
            yield Problem("", f"and {self._more_wrong} more lines like these")

    def _entries(self) -> list[_Open]:
        return [one for one in self._open if not one.heads]

    def _add_alone(self, one: _Open) -> None:
        """A line in the notation of one a line: of what it stands below by its column it has ids and reason too."""
        above = [
            each
            for each in self._open
            if (each.heads and not each.deeper and not each.bare) or (each.column < one.column and not one.shares(each))
        ]
        _note_below(one, above)
        self._emit(one, above)

    def _close(self, depth: int) -> None:
        while len(self._open) > depth:
            one = self._open.pop()
            if not one.heads and not one.below:
                self._emit(one, self._open)
            elif one.heads and not one.below:
                self._close_empty(one)
            if one.count is not None and (note := one.count.difference(one.below)):
                self.notes.append(f"{shown(self.where)}, line {one.number}: {note}")

    def _close_empty(self, one: _Open) -> None:
        """A heading without entries: a remark on the entry that it stands below, or a line that says nothing to us."""
        if one.bare:
            self._emit_name(one)
            return
        above = self._open[-1] if self._open else None
        if above is not None and not above.heads and not above.below:
            above.said = above.said._replace(reason=cut(joined(above.said.reason, one.said.heading)))
        elif self._passed:
            self._more_passed += 1
        else:
            self._passed.append(one)

    def _emit_name(self, one: _Open) -> None:
        try:
            self._emit(replace(one, said=Said({}, named_by(one.said.heading), alone=True)), ())
        except ValueError as error:
            self.refuse(one.number, str(error))

    def _emit(self, one: _Open, above: Sequence[_Open]) -> None:
        """The exclusions that an entry is, with the ids and reasons of those above it."""
        ids: dict[str, tuple[str, ...]] = {}
        for each in (*above, one):
            ids |= each.said.ids
        if not one.said.alone and "visit" not in ids and self._visit is not None and self._visit < one.number:
            name, values = next(iter(one.said.ids.items()))
            text = f"names no visit, and stands below none (line {self._visit} names one); write its visit, or "
            self.refuse(one.number, f"{text}{name}={shown(values[0], 20)} and so on where every visit is meant")
            return
        if len(self.exclusions) + math.prod(map(len, ids.values())) > MOST_ENTRIES:
            self.refuse(one.number, f"more than {MOST_ENTRIES} entries up to here; name visits, or files by a pattern")
            return
        reason = _reason(one, above)
        heading = next((each for each in reversed(above) if each.heads), None)
        for chosen in itertools.product(*ids.values()):
            made = dict(zip(ids, chosen, strict=True))
            self.exclusions.append(Exclusion(ids=made, glob=one.said.glob, reason=reason))
            for each in above:
                if each.count is not None:
                    each.count.add({} if one.said.glob else made, own=each is heading)


def _note_below(one: _Open, above: Sequence[_Open]) -> None:
    for each in above:
        each.below = True
        each.deeper |= one.column > each.column


def _reason(one: _Open, above: Sequence[_Open]) -> str:
    """The heading above the first entry, and what it and those below it say."""
    first = next((index for index, each in enumerate(above) if not each.heads), len(above))
    said = [each.said.heading or each.said.reason for each in above[max(0, first - 1) :]]
    return cut(joined(*said, one.said.reason))


# ------------------------------------------------------------------------------------------ counts

UNITS = {"ccd": "ccd", "sensor": "ccd", "detector": "ccd", "chip": "ccd", "visit": "visit", "exposure": "visit"}
UNITS |= {"focal plane": "visit", "amp": "amp", "amplifier": "amp", "channel": "amp", "raft": "raft"}
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
# "17 ImSim CCDs of 110", "one CCD", "17 of the 110 CCDs"
COUNTED = re.compile(
    rf"\b(?P<number>[0-9]{{1,9}}|{'|'.join(NUMBERS)})\b(?:\s*(?:/|of(?:\s+the)?)\s*[0-9]+)?"
    rf"\s+(?:[A-Za-z]\S*\s+){{0,2}}?(?P<unit>(?:{'|'.join(UNITS)})s?)\b",
    re.IGNORECASE,
)
# By unit: an entry must have one of these ids to be counted; and all those that tell two of them apart.
TOLD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "visit": (("visit",), ("visit",)),
    "raft": (("raft",), ("visit", "raft")),
    "ccd": (("sensor", "ccd"), ("visit", "raft", "sensor", "ccd")),
    "amp": (("channel", "amp"), ("visit", "raft", "sensor", "ccd", "channel", "amp")),
}


@dataclass(slots=True)
class _Count:
    """What a heading counts, held against what stands below it: two amplifiers are one CCD."""

    said: str  # "17 CCDs"
    number: int
    unit: str
    firm: bool  # whether it is a count of what is listed, though nothing is
    own: set[tuple[str | None, ...]] = field(default_factory=set)  # directly below it
    every: set[tuple[str | None, ...]] = field(default_factory=set)  # and below headings that are below it
    uncounted: bool = False  # whether something below it is no such unit

    @classmethod
    def of(cls, heading: str) -> _Count | None:
        found = COUNTED.search(heading)
        if found is None:
            return None
        word = found["number"].lower()
        number = NUMBERS.index(word) + 1 if word in NUMBERS else int(word)
        firm = bool(re.search(r"\bon $", heading[: found.start()]) and re.match(r"\s+of\b", heading[found.end() :]))
        return cls(f"{found['number']} {found['unit']}", number, UNITS[found["unit"].lower().removesuffix("s")], firm)

    def add(self, ids: dict[str, str], *, own: bool) -> None:
        needed, telling = TOLD[self.unit]
        key = tuple(ids.get(name) for name in telling)
        self.uncounted |= not any(name in ids for name in needed)
        self.every.add(key)
        if own:
            self.own.add(key)

    def difference(self, below: bool) -> str | None:
        """A sentence where the heading counts other than what is there; None where it agrees, or counts nothing."""
        counts = {len(self.own), len(self.every)}
        if self.uncounted or self.number in counts or not (below or self.firm):
            return None
        count = len(self.own) or len(self.every)
        return f"the heading says {self.said}, and {count} {'is' if count == 1 else 'are'} named below it"
