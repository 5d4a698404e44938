"""How the files of an instrument were read out: which CCD, and which of its amplifiers, an extension holds.

A readout is data of a camera's file. There are two kinds: an extension is a CCD, cut into strips of one width,
an amplifier each; or an extension is one amplifier as it was read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from manifests.errors import CameraError, found


class Cards(Protocol):
    """A header: the first value of a keyword, and all of them, for archives write EXTNAME twice."""

    def get(self, keyword: str, /) -> Any: ...

    def all(self, keyword: str, /) -> tuple[Any, ...]: ...


@dataclass(frozen=True)
class Amp:
    """One amplifier: its letter, its number in paths, and the cards that take its own values."""

    name: str
    number: int
    replaced: tuple[tuple[str, str], ...]  # (GAIN, GAINA): GAIN takes the value of GAINA


@dataclass(frozen=True)
class Order:
    """Which amplifier each extension is, by its number: known for files of so many extensions."""

    extensions: tuple[int, ...]
    places: tuple[tuple[int, str], ...]  # (CCD, the amplifier's letter), the first extension's first


@dataclass(frozen=True)
class Naming:
    """How an extension that is one amplifier says which: `00b` in AMPNAME; where it does not, in `order`."""

    keyword: str
    pattern: str  # of its value, with two groups: the CCD and the amplifier's letter
    order: Order | None


class Place(NamedTuple):
    """What an extension holds: a CCD's number, and the amplifiers (which of `Readout.amps`)."""

    ccd: int
    amps: tuple[int, ...]
    stated: bool = True  # by the header, and not only by where the extension stands in its file


@dataclass(frozen=True)
class Readout:
    """One way of reading out: how its files are known, and what their extensions hold."""

    name: str
    extension_id: str  # what the number of a CCD is called: "ccd"
    extension_name: str  # regular expression of EXTNAME; its group is the extension's number
    columns: int | None  # NAXIS1 of an extension; None: whatever divides into strips of one width
    amps: tuple[Amp, ...]  # from the first column on, where an extension is a CCD
    removed: tuple[str, ...]  # keywords that speak of the whole and not of a strip
    science_extensions: tuple[int, ...]  # how many a whole focal plane has
    calibration_extensions: tuple[int, ...]
    naming: Naming | None = None  # where an extension is one amplifier

    @property
    def most(self) -> int:
        """The most extensions that a file of it has."""
        return max(self.science_extensions + self.calibration_extensions)

    @property
    def amps_of_extension(self) -> int:
        """The amplifiers, and so the files, of one extension."""
        return 1 if self.naming else len(self.amps)

    def counts(self, science: bool) -> tuple[int, ...]:
        """How many extensions a whole focal plane has."""
        return self.science_extensions if science else self.calibration_extensions

    def whole(self, science: bool, extensions: int) -> int:
        """How many a focal plane has of which so many are known of."""
        counts = self.counts(science)
        return min((count for count in counts if count >= extensions), default=max(counts))

    def strips(self, columns: int) -> tuple[tuple[int, int], ...]:
        """First and last column, from 1, of each amplifier in an extension that wide. Raises CameraError."""
        count = self.amps_of_extension
        if columns <= 0 or columns % count:
            raise CameraError(f"NAXIS1 is {columns}, which does not divide into {count} amplifiers of one width")
        width = columns // count
        return tuple((index * width + 1, (index + 1) * width) for index in range(count))

    def names(self, cards: Cards) -> set[int]:
        """The extension's number by any of its EXTNAMEs; none where no EXTNAME is of this readout."""
        names = (str(value).strip() for value in cards.all("EXTNAME"))
        matches = (re.fullmatch(self.extension_name, name, re.IGNORECASE) for name in names)
        return {int(match[1]) for match in matches if match and _is_number(match[1])}

    def number(self, cards: Cards, position: int) -> tuple[int, bool]:
        """The extension's number, of EXTNAME, else of its own EXTVER, else its position (from 0).

        With it, whether the header says it. Raises CameraError where the header says two things.
        """
        versions = {value for value in cards.all("EXTVER") if isinstance(value, int) and not isinstance(value, bool)}
        stated = self.names(cards) | versions
        if len(stated) > 1:
            said = " and ".join(
                f"{name} {', '.join(found(value) for value in cards.all(name))}" for name in ("EXTNAME", "EXTVER")
            )
            raise CameraError(f"extension {position + 1} is of two numbers at once: {said} disagree")
        number = min(stated, default=position)
        if not 0 <= number < self.most:
            raise CameraError(
                f"extension {position + 1} says that it is number {found(number)}; "
                f"those of the {self.name} readout are 0 to {self.most - 1}"
            )
        return number, bool(stated)

    def place(self, cards: Cards, position: int, whole: int) -> Place:
        """What the extension at this position (from 0) holds, in a file that should have `whole` of them.

        Raises CameraError where its header does not say, or says two things.
        """
        number, stated = self.number(cards, position)
        if self.naming is None:
            return Place(number, tuple(range(len(self.amps))), stated)
        by_name, by_order = self._named(self.naming, cards), self._ordered(self.naming, number, whole)
        if by_name and by_order and by_name != by_order:
            raise CameraError(
                f"extension {position + 1} is two amplifiers at once: {self.naming.keyword} says "
                f"{self.text(by_name)}, and number {number} of {whole} is {self.text(by_order)}"
            )
        if by_name:
            self._check_ccd(by_name, position, self.naming)
            return by_name
        if by_order is None:
            raise CameraError(_nameless(self.naming, position, whole))
        return by_order._replace(stated=stated)

    def following(self, before: Sequence[Cards], whole: int) -> Place | None:
        """What the extension after these must hold, where they stand in order; else None, as it is not known."""
        position = len(before)
        in_order = all(self.number(cards, index)[0] == index for index, cards in enumerate(before))
        if not in_order or position >= self.most:
            return None
        if self.naming is None:
            return Place(position, tuple(range(len(self.amps))), False)
        return self._ordered(self.naming, position, whole)

    def text(self, place: Place) -> str:
        """The place as people name it: `ccd17`, or `ccd17 amplifier B`."""
        ccd = f"{self.extension_id}{place.ccd:02d}"
        return ccd if len(place.amps) == len(self.amps) else f"{ccd} amplifier {self.amps[place.amps[0]].name}"

    def _named(self, naming: Naming, cards: Cards) -> Place | None:
        match = re.fullmatch(naming.pattern, str(cards.get(naming.keyword) or "").strip(), re.IGNORECASE)
        return self._amplifier(int(match[1]), match[2]) if match and _is_number(match[1]) else None

    def _ordered(self, naming: Naming, number: int, whole: int) -> Place | None:
        order = naming.order
        if order is None or whole not in order.extensions or number >= len(order.places):
            return None
        return self._amplifier(*order.places[number])

    def _amplifier(self, ccd: int, letter: str) -> Place | None:
        amps = tuple(index for index, amp in enumerate(self.amps) if amp.name.upper() == letter.upper())
        return Place(ccd, amps) if amps else None

    def _check_ccd(self, place: Place, position: int, naming: Naming) -> None:
        ccds = self.most // len(self.amps)
        if place.ccd >= ccds:
            raise CameraError(
                f"extension {position + 1} is {self.text(place)} by its {naming.keyword}; "
                f"there are {self.extension_id}00 to {self.extension_id}{ccds - 1:02d}"
            )


def _nameless(naming: Naming, position: int, whole: int) -> str:
    order = naming.order
    known = f", as in one of {' or '.join(map(str, order.extensions))}" if order else ""
    return (
        f"extension {position + 1} has no {naming.keyword} that names its amplifier, "
        f"and its number does not tell in a file of {whole} extensions{known}"
    )


def _is_number(text: str | None) -> bool:
    return text is not None and text.isascii() and text.isdigit() and len(text) <= 9


def width_of(cards: Cards) -> int | None:
    """The columns of an extension's image; of the compressed image where it is tile-compressed."""
    value = cards.get("ZNAXIS1" if cards.get("ZIMAGE") is True else "NAXIS1")
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def called(cards: Cards) -> str:
    """What an extension is, for a sentence: `EXTNAME "im1" and 1024 columns`."""
    names = ", ".join(found(str(value).strip()) for value in cards.all("EXTNAME"))
    return f"{f'EXTNAME {names}' if names else 'no EXTNAME'} and {width_of(cards) or 'no'} columns"
