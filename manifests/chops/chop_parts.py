"""The [chop] tables of a camera's TOML file, and the plain data they become."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, StrictInt, model_validator

from manifests.part import Keyword, Part, Regex

from .chop_rules import ChopRule
from .readouts import Amp, Naming, Order, Readout

Count = Annotated[StrictInt, Field(ge=1, le=10_000)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1)]


class AmpPart(Part):
    """[[chop.amps]] and [[chop.readouts.amps]]"""

    name: Annotated[str, Field(min_length=1)]
    number: Annotated[StrictInt, Field(ge=0)]
    replaced: dict[Keyword, Keyword] = Field(default_factory=dict)


class ShiftsPart(Part):
    """[chop.crpix1]"""

    exact: Literal["width"] | StrictInt
    historic: Literal["width"] | StrictInt


class WholePart(Part):
    """[chop.extensions] and [chop.readouts.extensions]"""

    science: Counts
    calibration: Counts


class RunPart(Part):
    """`{ first = 0, last = 17, amps = ["B", "A"] }` in an order: the amplifiers of these CCDs, as they follow."""

    first: Annotated[StrictInt, Field(ge=0)]
    last: Annotated[StrictInt, Field(ge=0, le=10_000)]
    amps: Annotated[tuple[str, ...], Field(min_length=1)]


class OrderPart(Part):
    """[chop.readouts.amplifier.order]"""

    extensions: Counts
    ccds: Annotated[tuple[RunPart, ...], Field(min_length=1)]

    def order(self) -> Order:
        ccds = ((ccd, run.amps) for run in self.ccds for ccd in range(run.first, run.last + 1))
        return Order(self.extensions, tuple((ccd, letter) for ccd, amps in ccds for letter in amps))


class NamingPart(Part):
    """[chop.readouts.amplifier]: each extension is one amplifier, and says so."""

    keyword: Keyword
    pattern: Regex
    order: OrderPart | None = None

    def naming(self) -> Naming:
        return Naming(self.keyword, self.pattern, self.order.order() if self.order else None)


class ReadoutPart(Part):
    """[[chop.readouts]], and [chop] where there is one alone."""

    name: Annotated[str, Field(min_length=1)] = "only"
    extension_name: Regex
    columns: Annotated[StrictInt, Field(ge=1)] | None = None
    removed: tuple[Keyword, ...] = ()
    extensions: WholePart
    amps: Annotated[tuple[AmpPart, ...], Field(min_length=1)]
    amplifier: NamingPart | None = None

    @model_validator(mode="after")
    def _sound(self) -> Self:
        """What holds between the keys, so that no rule fails when it meets a file."""
        wrong = list(self.problems())
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def problems(self) -> Iterator[str]:
        letters = [amp.name.upper() for amp in self.amps]
        if len(set(letters)) < len(letters) or len({amp.number for amp in self.amps}) < len(letters):
            yield "two amps have one name or one number"
        if re.compile(self.extension_name).groups < 1:
            yield "extension_name has no group in parentheses; expected one that gives the number"
        if self.amplifier is None:
            if self.columns and self.columns % len(self.amps):
                yield f"{self.columns} columns do not divide into {len(self.amps)} amplifiers of one width"
            return
        if re.compile(self.amplifier.pattern).groups < 2:
            yield "amplifier.pattern needs two groups in parentheses: the CCD and the amplifier's name"
        if any(count % len(self.amps) for count in self.extensions.science + self.extensions.calibration):
            yield f"each CCD has {len(self.amps)} extensions here, so `extensions` must be multiples of that"
        runs = self.amplifier.order.ccds if self.amplifier.order else ()
        if any(letter.upper() not in letters for run in runs for letter in run.amps):
            yield f"the order names an amplifier that is not in amps; expected {', '.join(letters)}"

    def readout(self, extension_id: str) -> Readout:
        return Readout(
            name=self.name,
            extension_id=extension_id,
            extension_name=self.extension_name,
            columns=self.columns,
            amps=tuple(Amp(amp.name, amp.number, tuple(amp.replaced.items())) for amp in self.amps),
            removed=self.removed,
            science_extensions=self.extensions.science,
            calibration_extensions=self.extensions.calibration,
            naming=self.amplifier.naming() if self.amplifier else None,
        )


class ChopPart(Part):
    """[chop]: what all readouts have in common, and the readouts; or the keys of the only one."""

    extension_id: str
    amp_id: str
    path_keyword: Keyword
    crpix1: ShiftsPart
    readouts: tuple[ReadoutPart, ...] = ()
    name: str | None = None
    extension_name: Regex | None = None
    columns: StrictInt | None = None
    removed: tuple[Keyword, ...] | None = None
    extensions: WholePart | None = None
    amps: tuple[AmpPart, ...] | None = None

    @model_validator(mode="after")
    def _either(self) -> Self:
        """The keys of a readout stand here, or in [[chop.readouts]], and not in both."""
        own = [key for key in ReadoutPart.model_fields if getattr(self, key, None) is not None]
        if self.readouts and own:
            raise ValueError(f"{', '.join(own)} must stand in the [[chop.readouts]], of which there are some")
        names = [one.name for one in self.readouts]
        if len(set(names)) < len(names):
            raise ValueError("two readouts have one name; expected a `name` of its own for each")
        missing = [key for key in ("extension_name", "extensions", "amps") if key not in own]
        if not self.readouts and missing:
            raise ValueError(f"{', '.join(missing)} missing; expected them here, or [[chop.readouts]] that have them")
        wrong = [] if self.readouts else list(self._only().problems())
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _only(self) -> ReadoutPart:
        own = {key: value for key in ReadoutPart.model_fields if (value := getattr(self, key, None)) is not None}
        return ReadoutPart.model_construct(**own)

    def rule(self) -> ChopRule:
        shifts = {"exact": self.crpix1.exact, "historic": self.crpix1.historic}
        return ChopRule(
            readouts=tuple(one.readout(self.extension_id) for one in self.readouts or (self._only(),)),
            amp_id=self.amp_id,
            extension_id=self.extension_id,
            path_keyword=self.path_keyword,
            shifts=tuple((mode, None if shift == "width" else int(shift)) for mode, shift in shifts.items()),
        )
