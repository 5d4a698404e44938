"""A camera's TOML file: the tables it has, and the plain data they become."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt

from .chop_rules import Amp, ChopRule
from .errors import found
from .headers import Case, HeaderRule, TimeRule
from .layouts import IdRule
from .part import Part

Number = StrictInt | StrictFloat
DEFAULT_PATTERNS = {"int": "[0-9]{1,18}", "pair": "[0-9]{2}", "text": "[A-Za-z0-9][A-Za-z0-9_+-]*"}


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    return text


def _keyword(text: str) -> str:
    if not re.fullmatch("[A-Z0-9_-]{1,8}", text):
        raise ValueError(f"found {found(text)}; expected a FITS keyword, such as EXPTIME")
    return text


Regex = Annotated[str, AfterValidator(_regex)]
Keyword = Annotated[str, AfterValidator(_keyword)]
Keywords = Annotated[tuple[Keyword, ...], Field(min_length=1)]


class IdPart(Part):
    """[ids.NAME]"""

    kind: Literal["int", "text", "pair"]
    pattern: Regex | None = None


class LayoutPart(Part):
    """[layouts.NAME] and [input]"""

    templates: Annotated[tuple[str, ...], Field(min_length=1)]
    obstypes: tuple[str, ...] = ()
    science: StrictBool = False


class InputPart(Part):
    """[input]"""

    templates: Annotated[tuple[str, ...], Field(min_length=1)]


class SpanPart(Part):
    """`{first = 0, last = 35}` in [expected]"""

    first: StrictInt
    last: StrictInt


class ObstypePart(Part):
    """[obstype]"""

    keywords: Keywords


class CasePart(Part):
    match: Regex
    gives: str


class HeaderPart(Part):
    """[header.NAME]: how that id comes from a header."""

    keywords: tuple[Keyword, ...] = ()
    first: Annotated[StrictInt, Field(ge=1)] | None = None
    fold: Literal["upper", "lower", "capitalize"] | None = None
    cases: tuple[CasePart, ...] = ()
    truncate: StrictBool = False
    given: Literal["agrees", "wins"] = "agrees"
    filename: Regex | None = None
    constant: StrictInt | str | None = None
    says: str = "not of the form its camera expects"


class TimesPart(Part):
    """[times]"""

    mjd: Keyword
    scale: Literal["utc", "tai"]
    exptime: Keyword
    same: tuple[Keyword, ...] = ()
    tolerance: Number = 1.0
    earliest: Number = 40000
    latest: Number = 70000

    def rule(self) -> TimeRule:
        return TimeRule(**self.model_dump())


class AmpPart(Part):
    """[[chop.amps]]"""

    name: Annotated[str, Field(min_length=1)]
    number: Annotated[StrictInt, Field(ge=0)]
    replaced: dict[Keyword, Keyword] = Field(default_factory=dict)


class ShiftsPart(Part):
    """[chop.crpix1]"""

    exact: Literal["width"] | StrictInt
    historic: Literal["width"] | StrictInt


class WholePart(Part):
    """[chop.extensions]"""

    science: tuple[StrictInt, ...]
    calibration: tuple[StrictInt, ...]


class ChopPart(Part):
    """[chop]"""

    extension_id: str
    extension_name: Regex
    amp_id: str
    removed: tuple[Keyword, ...]
    path_keyword: Keyword
    crpix1: ShiftsPart
    extensions: WholePart
    amps: Annotated[tuple[AmpPart, ...], Field(min_length=1)]

    def rule(self) -> ChopRule:
        shifts = {"exact": self.crpix1.exact, "historic": self.crpix1.historic}
        return ChopRule(
            amps=tuple(Amp(amp.name, amp.number, tuple(amp.replaced.items())) for amp in self.amps),
            amp_id=self.amp_id,
            extension_id=self.extension_id,
            extension_name=self.extension_name,
            removed=self.removed,
            path_keyword=self.path_keyword,
            shifts=tuple((mode, None if shift == "width" else int(shift)) for mode, shift in shifts.items()),
            science_extensions=self.extensions.science,
            calibration_extensions=self.extensions.calibration,
        )


class CameraFile(Part):
    """The whole file."""

    title: str
    raw_layout: str
    ids: dict[str, IdPart]
    layouts: dict[str, LayoutPart]
    input: InputPart | None = None
    expected: dict[str, SpanPart | tuple[StrictInt | str, ...]] = Field(default_factory=dict)
    obstype: ObstypePart | None = None
    header: dict[str, HeaderPart] = Field(default_factory=dict)
    times: TimesPart | None = None
    chop: ChopPart | None = None


def id_rule(part: IdPart) -> IdRule:
    return IdRule(part.kind, part.pattern or DEFAULT_PATTERNS[part.kind])


def span(values: SpanPart | tuple[int | str, ...]) -> tuple[int | str, ...]:
    return tuple(range(values.first, values.last + 1)) if isinstance(values, SpanPart) else values


def header_rule(name: str, part: HeaderPart) -> HeaderRule:
    return HeaderRule(
        id_name=name,
        keywords=part.keywords,
        first=part.first,
        fold=part.fold,
        cases=tuple(Case(re.compile(one.match), one.gives) for one in part.cases),
        truncate=part.truncate,
        given=part.given,
        filename=re.compile(part.filename) if part.filename else None,
        constant=part.constant,
        says=part.says,
    )
