"""The inventory of master detrends, a text of nine columns as Elixir's CalibInventory has it.

    03Am04.flat.u.36.02.fits  no  03Am04  2003-May-30 2003-Jun-10  u  flat  2  36

Path, whether it was used in DC3a, camera run, first and last date of validity (both valid), filter, kind, version,
number of CCDs. `#` begins a comment. Masks are no detrends of a run, and passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from manifests.errors import ManifestError, Problem, found, shown
from stager.registries.errors import RegistryError

MOST_BYTES = 64 << 20
COLUMNS = "path, used, run, first date, last date, filter, kind, version, number of CCDs"
KINDS = ("bias", "dark", "flat", "fringe")
PASSED_OVER = ("mask",)
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
COMMENT = re.compile(r"(^|\s)#.*")
DATE = re.compile(r"([0-9]{4})-([A-Za-z]{3}|[0-9]{2})-([0-9]{1,2})", re.ASCII)
NUMBER = re.compile("[0-9]{1,9}", re.ASCII)


class Detrend(NamedTuple):
    """A master detrend, valid from `first` to `last`, both included. `qualifier` is what a lookup asks for beside the
    date: the filter of a flat or fringe, the exposure time of a dark (s), None for a bias."""

    line: int
    kind: str
    path: str
    run: str
    version: int
    first: date
    last: date
    qualifier: str | int | None

    @property
    def derived_run(self) -> str:
        """The run by the name: up to its first dot."""
        return self.path.rsplit("/", 1)[-1].partition(".")[0]


def read_inventory(path: Path) -> list[Detrend]:
    """The detrends of an inventory, in its order. Raises ManifestError with every line that cannot be used."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RegistryError(f"{shown(str(path))}: cannot be read: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise RegistryError(f"{shown(str(path))}: larger than {MOST_BYTES} bytes, which no inventory is")
    detrends, wrong = parse(content.decode("utf-8", "surrogateescape"))
    if wrong:
        raise ManifestError(tuple(wrong), str(path))
    if not detrends:
        raise RegistryError(f"{shown(str(path))}: no line of it is a detrend; expected {COLUMNS}")
    return detrends


def parse(text: str) -> tuple[list[Detrend], list[Problem]]:
    """The detrends of an inventory's text, and what is wrong with its lines."""
    detrends: list[Detrend] = []
    wrong: list[Problem] = []
    for number, line in enumerate(text.split("\n"), 1):
        words = COMMENT.sub("", line).split()
        if not words:
            continue
        problems = list(_problems(words))
        if problems:
            wrong += [Problem(f"line {number}", one) for one in problems]
        elif words[6] in KINDS:
            detrends.append(_detrend(number, words))
    return detrends, wrong


def _problems(words: Sequence[str]) -> Iterator[str]:
    if len(words) != 9:
        yield f"{len(words)} columns; expected 9: {COLUMNS}"
        return
    path, _, _, first, last, filter_, kind, version, ccds = words
    if kind in PASSED_OVER:
        return
    if not path.isprintable() or path.startswith(("/", ".")) or ".." in path.split("/") or path.endswith("/"):
        yield f"path is {found(path)}; expected a name such as 03Am04.flat.u.36.02.fits"
    if kind not in KINDS:
        yield f"kind is {found(kind)}; expected {', '.join((*KINDS, *PASSED_OVER))}"
    for name, value in (("version", version), ("number of CCDs", ccds)):
        if not NUMBER.fullmatch(value):
            yield f"{name} is {found(value)}; expected a whole number"
    dates = [_date(first), _date(last)]
    for name, value, read in zip(("first date", "last date"), (first, last), dates, strict=True):
        if read is None:
            yield f"{name} is {found(value)}; expected a date such as 2003-May-30"
    if dates[0] and dates[1] and dates[0] > dates[1]:
        yield f"valid from {first} to {last}, which is no time; expected the earlier date first"
    if kind in ("flat", "fringe") and filter_ == "none":
        yield f"a {kind} of no filter; expected one such as r or i2"
    if kind == "dark" and _exposure(path) is None:
        yield f"path is {found(path)}; expected the exposure time after the kind, as in 03Am04.dark.60.36.00.fits"
    if not all(one.isprintable() for one in words):
        yield "it has characters that cannot be printed"


def _detrend(number: int, words: Sequence[str]) -> Detrend:
    path, _, run, first, last, filter_, kind, version, _ = words
    begins, ends = _date(first), _date(last)
    assert begins is not None
    assert ends is not None
    qualifier = {"dark": _exposure(path), "bias": None}.get(kind, filter_)
    return Detrend(number, kind, path, run, int(version), begins, ends, qualifier)


def _date(text: str) -> date | None:
    """2003-May-30, in any case and whatever the locale, or 2003-05-30."""
    match = DATE.fullmatch(text)
    if match is None:
        return None
    month = match[2].lower()
    if not month.isdigit() and month not in MONTHS:
        return None
    try:
        return date(int(match[1]), int(month) if month.isdigit() else MONTHS.index(month) + 1, int(match[3]))
    except ValueError:  # no such day
        return None


def _exposure(path: str) -> int | None:
    """The exposure time in the name of a dark: RUN.dark.SECONDS.NCCD.VERSION.fits."""
    parts = path.rsplit("/", 1)[-1].split(".")
    return int(parts[2]) if len(parts) > 2 and NUMBER.fullmatch(parts[2]) else None


@dataclass(frozen=True, slots=True)
class Overlap:
    """Days on which a lookup finds more than one detrend, where the mappers want exactly one."""

    kind: str
    qualifier: str | int | None
    first: date
    last: date
    detrends: tuple[Detrend, ...]

    def __str__(self) -> str:
        days = f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"
        what = self.kind if self.qualifier is None else f"{self.kind} {shown(str(self.qualifier), 40)}"
        which = ", ".join(f"{shown(one.path)} (line {one.line})" for one in self.detrends)
        return f"{what} on {days}: {len(self.detrends)} are valid, and a lookup wants one: {which}"


def overlaps(detrends: Sequence[Detrend]) -> list[Overlap]:
    """All spans of days on which more than one detrend of a kind and qualifier is valid."""
    groups: dict[tuple[str, str | int | None], list[Detrend]] = {}
    for one in detrends:
        groups.setdefault((one.kind, one.qualifier), []).append(one)
    return [overlap for (kind, qualifier), its in groups.items() for overlap in _overlaps(kind, qualifier, its)]


def _overlaps(kind: str, qualifier: str | int | None, detrends: Sequence[Detrend]) -> Iterator[Overlap]:
    """Spans between days where one begins or has ended; the same ones in the next span go on in it."""
    bounds = sorted({one.first.toordinal() for one in detrends} | {one.last.toordinal() + 1 for one in detrends})
    ordered = sorted(detrends, key=lambda one: one.first)
    valid: list[Detrend] = []
    for begins, ends in pairwise(bounds):
        while ordered and ordered[0].first.toordinal() <= begins:
            valid.append(ordered.pop(0))
        valid = [one for one in valid if one.last.toordinal() >= begins]
        if len(valid) > 1:
            which = tuple(sorted(valid, key=lambda one: one.line))
            yield Overlap(kind, qualifier, date.fromordinal(begins), date.fromordinal(ends - 1), which)
