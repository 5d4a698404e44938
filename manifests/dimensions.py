"""What the Butler of the LSST pipelines calls a camera's ids: `[butler]` in its file.

A dimension is one id, or a number that is made of several, the last the fastest: a detector of ("ccd", "amp") is
ccd * 2 + amp. A pair counts as a number too, first digit times columns plus second. The Butler knows no amplifiers,
so a file that is one amplifier is a detector of its own, or of a dataset type of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field, StrictInt

from .errors import CameraError, shown
from .layouts import IdRule
from .part import Part
from .registry_tables import RegistryRule
from .wording import nearest

EXPOSURE_IDS = ("visit", "snap")
PAIR = re.compile("([0-9]),([0-9])")
MOST = 2**63 - 1  # what a Butler's database holds


class ButlerPart(Part):
    """[butler]"""

    instrument: Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")] | None = None
    dimensions: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(default_factory=dict)
    sizes: dict[str, Annotated[StrictInt, Field(ge=1)]] = Field(default_factory=dict)


@dataclass(frozen=True)
class Digit:
    """How the values of an id count: `size` numbers from 0 up, a pair in rows of so many columns."""

    size: int
    columns: int = 0  # 0: it is a whole number already


@dataclass(frozen=True)
class ButlerRule:
    """The name of the instrument, and for each further dimension the ids it is made of."""

    instrument: str
    dimensions: Mapping[str, tuple[str, ...]]
    digits: Mapping[str, Digit]

    def but(self, instrument: str | None, dimensions: Mapping[str, tuple[str, ...]]) -> ButlerRule:
        """The same with another instrument and these dimensions; one that is made of nothing is left out."""
        merged = {name: made_of for name, made_of in {**self.dimensions, **dimensions}.items() if made_of}
        for name, made_of in merged.items():
            _check(name, made_of, self.digits)
        return replace(self, instrument=instrument or self.instrument, dimensions=merged)

    def is_number(self, name: str) -> bool:
        """Whether the values of a dimension are whole numbers, and not text."""
        made_of = self.dimensions[name]
        return len(made_of) > 1 or self.digits[made_of[0]].size > 0

    def value(self, name: str, ids: Mapping[str, int | str]) -> int | str:
        """The value of a dimension for a file with these ids. Raises CameraError where there is none."""
        made_of = self.dimensions[name]
        for one in made_of:
            if one not in ids:
                raise CameraError(f"{name} is made of {one}, which the file does not have")
        if not self.is_number(name):
            return ids[made_of[0]]
        number = 0
        for place, one in enumerate(made_of):
            digit = self.digits[one]
            value = _number(ids[one], digit)
            if place and value >= digit.size:
                raise CameraError(
                    f"{name} counts {digit.size} of {one}, and {ids[one]} is number {value}; say more in `sizes`"
                )
            number = number * digit.size + value if place else value
        if number > MOST:
            raise CameraError(f"{name} would be {number}, which no Butler holds")
        return number


def butler_rule(
    part: ButlerPart | None,
    name: str,
    registry: RegistryRule | None,
    ids: Mapping[str, IdRule],
    sets: Sequence[Mapping[str, tuple[int | str, ...]]],
) -> ButlerRule:
    """The rule of a camera of that name, whose whole visits have these sets. Raises CameraError, one sentence.

    Without dimensions said, the exposure is the visit (and snap), the detector what else tells a visit's files apart.
    """
    part = part or ButlerPart()
    dimensions = dict(part.dimensions)
    if not dimensions and registry is not None:
        dimensions["exposure"] = tuple(one for one in registry.key if one in EXPOSURE_IDS)
        dimensions["detector"] = tuple(one for one in registry.key if one not in EXPOSURE_IDS)
    digits = {one: _digit(rule, [own[one] for own in sets if one in own], part.sizes) for one, rule in ids.items()}
    for one, size in part.sizes.items():
        if one not in ids:
            raise CameraError(f'sizes has "{shown(one, 40)}", which is no id{nearest(one, ids)}')
        digits[one] = replace(digits[one], size=size)
    return ButlerRule(part.instrument or name, {}, digits).but(None, dimensions)


def _digit(rule: IdRule, values: Sequence[tuple[int | str, ...]], sizes: Mapping[str, int]) -> Digit:
    """How an id counts, by the values that whole visits have of it; of size 0 where it is text."""
    every = [one for own in values for one in own]
    if rule.kind == "int":
        return Digit(max((one for one in every if isinstance(one, int)), default=0) + 1)
    pairs = [PAIR.fullmatch(str(one)) for one in every or ["9,9"]]
    if rule.kind != "pair" or None in pairs:
        return Digit(0)
    columns = max(int(pair[2]) for pair in pairs if pair) + 1
    return Digit((max(int(pair[1]) for pair in pairs if pair) + 1) * columns, columns)


def _number(value: int | str, digit: Digit) -> int:
    if not digit.columns:
        return int(value)
    pair = PAIR.fullmatch(str(value))
    if pair is None or int(pair[2]) >= digit.columns:
        raise CameraError(f"{shown(str(value), 40)} is no pair of digits, the second of them less than {digit.columns}")
    return int(pair[1]) * digit.columns + int(pair[2])


def _check(name: str, made_of: tuple[str, ...], digits: Mapping[str, Digit]) -> None:
    for one in made_of:
        if one not in digits:
            raise CameraError(f'{shown(name, 40)} is made of "{shown(one, 40)}", which is no id{nearest(one, digits)}')
        if len(made_of) > 1 and not digits[one].size:
            raise CameraError(f"{shown(name, 40)} cannot be numbered by {one}, which is text")
