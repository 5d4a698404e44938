"""A camera's TOML file: the tables it has, and the plain data they become."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import UnionType
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, PlainValidator, StrictBool, StrictFloat, StrictInt

from .checking.check_parts import CheckPart, Scalar
from .chops.chop_parts import ChopPart
from .dimensions import ButlerPart
from .errors import found
from .findings import Severity
from .headers import Case, HeaderRule, TimeRule
from .layouts import DEFAULT_PATTERNS, IdRule
from .maps import MapPart
from .part import Keyword, Keywords, Part, Regex
from .registry_tables import RegistryPart

Number = StrictInt | StrictFloat
MOST_VALUES = 10_000  # of one id in one visit


def _values(value: object) -> tuple[int | str, ...]:
    """A list of values, or a span of whole numbers with both its ends, as a tuple."""
    if isinstance(value, dict) and set(value) == {"first", "last"} and _are_values(list(value.values()), int):
        first, last = value["first"], value["last"]
        if not 0 <= first <= last < first + MOST_VALUES:
            raise ValueError(f"found {first} to {last}; expected at most {MOST_VALUES} numbers, the smallest first")
        return tuple(range(first, last + 1))
    if isinstance(value, list | tuple) and 0 < len(value) <= MOST_VALUES and _are_values(value, int | str):
        return tuple(value)
    raise ValueError(f'found {found(value)}; expected a list such as ["0,1", "0,2"], or {{ first = 0, last = 35 }}')


def _are_values(values: Sequence[object], kind: type | UnionType) -> bool:
    return all(isinstance(one, kind) and not isinstance(one, bool) for one in values)


Values = Annotated[tuple[int | str, ...], PlainValidator(_values)]


class IdPart(Part):
    """[ids.NAME]"""

    kind: Literal["int", "text", "pair"] = Field(description='"int", "text" or "pair"')
    pattern: Regex | None = Field(default=None, description="a regular expression of the id as it stands in a path")


Templates = Annotated[tuple[str, ...], Field(min_length=1)]


class LayoutPart(Part):
    """[layouts.NAME]"""

    templates: Templates = Field(
        description="a list of paths with ids in braces", examples=["raw/v{visit}/c{ccd:02d}.fits"]
    )
    obstypes: tuple[str, ...] = Field(default=(), description='a list of words, such as ["BIAS"]')
    science: StrictBool = Field(default=False, description="true or false: whether these are images of the sky")


class InputPart(Part):
    """[input]"""

    templates: Templates = Field(
        description="a list of names of focal planes with ids in braces", examples=["{visit}o.fits"]
    )


class FocalPlanePart(Part):
    """[focal_planes.NAME]: for some ids other values than in [expected], and perhaps of files of another layout."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, Values] = Field(init=False)

    layout: str | None = Field(default=None, description="the name of a layout")

    @property
    def sets(self) -> dict[str, tuple[int | str, ...]]:
        return self.__pydantic_extra__


class ObstypePart(Part):
    """[obstype]"""

    keywords: Keywords = Field(description="a list of FITS keywords", examples=["OBSTYPE"])
    otherwise: str | None = Field(default=None, description="the name of a layout")


class CasePart(Part):
    match: Regex
    gives: str


class HeaderPart(Part):
    """[header.NAME]: how that id comes from a header."""

    keywords: tuple[Keyword, ...] = ()
    first: Annotated[StrictInt, Field(ge=1)] | None = Field(default=None, description="a whole number from 1 up")
    fold: Literal["upper", "lower", "capitalize"] | None = Field(
        default=None, description='"upper", "lower" or "capitalize"'
    )
    cases: tuple[CasePart, ...] = ()
    truncate: StrictBool = False
    given: Literal["agrees", "wins"] = Field(default="agrees", description='"agrees" or "wins"')
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
    severity: Literal["note", "warn", "fail"] = "warn"

    def rule(self) -> TimeRule:
        return TimeRule(**{**self.model_dump(), "severity": Severity(self.severity)})


class CameraFile(Part):
    """The whole file."""

    title: str = Field(description="the instrument's name, for people", examples=["CFHT MegaPrime/MegaCam"])
    raw_layout: str = Field(description="the name of the layout of raw images of the sky", examples=["raw"])
    ids: dict[str, IdPart] = Field(description="a table for each id, such as [ids.visit]")
    layouts: dict[str, LayoutPart] = Field(description="a table for each kind of file, such as [layouts.raw]")
    input: InputPart | None = None
    expected: dict[str, Values] = Field(default_factory=dict, description="a table of ids and their values")
    focal_planes: dict[str, FocalPlanePart] = Field(
        default_factory=dict, description="a table for each, such as [focal_planes.spliced40]"
    )
    map: tuple[MapPart, ...] = Field(default=(), description="tables [[map]], each with `id` and `rows`")
    obstype: ObstypePart | None = None
    header: dict[str, HeaderPart] = Field(
        default_factory=dict, description="a table for each id that headers give, such as [header.visit]"
    )
    times: TimesPart | None = None
    checks: tuple[CheckPart, ...] = ()
    unknown: tuple[Scalar, ...] = ()
    chop: ChopPart | None = None
    registry: RegistryPart | None = None
    butler: ButlerPart | None = None


def id_rule(part: IdPart) -> IdRule:
    return IdRule(part.kind, part.pattern or DEFAULT_PATTERNS[part.kind])


def own_values(values: Sequence[int | str], rule: IdRule) -> tuple[int | str, ...]:
    """The values as ids have them, a raft that was written 23 as "2,3"; what the id cannot be is left out."""
    return tuple(own for value in values if (own := rule.own(value)) is not None)


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
