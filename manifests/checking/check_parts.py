"""The table [[checks]] of a camera's TOML file, and the rules that it becomes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt, model_validator

from manifests.errors import found
from manifests.findings import Severity
from manifests.part import Keyword, Keywords, Part, Regex
from manifests.wording import nearest

from .check_rules import FILE_WORDS, CheckRule, Equals, Form, InRange, Matches, MjdOf, Names, OfType, OneOf, Plain, Test

Number = StrictInt | StrictFloat
Scalar = StrictBool | StrictInt | StrictFloat | str
TESTS = ("required", "type", "min", "max", "above", "one_of", "match", "equals", "mjd_of", "time", "ids")
ACROSS = ("alike", "distinct")  # HDUs of one file
MJD_WITHIN = 1.0  # seconds


def _code(text: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9]*(-[a-z0-9]+)*", text):
        raise ValueError(f"found {found(text)}; expected small letters with hyphens, such as gain-range")
    return text


def _condition(text: str) -> str:
    if text not in FILE_WORDS and not re.fullmatch("[A-Z0-9_-]{1,8}", text):
        raise ValueError(f'found {found(text)}; expected a FITS keyword such as OBSTYPE, "layout" or "obstype"')
    return text


class CheckPart(Part):
    """[[checks]]: one demand, or several, on the values of some cards."""

    keywords: tuple[Keyword, ...] = ()
    where: Literal["first", "primary", "extensions", "all"] | None = None
    when: dict[Annotated[str, AfterValidator(_condition)], Scalar | tuple[Scalar, ...]] = Field(default_factory=dict)
    severity: Literal["note", "warn", "fail"] = "warn"
    code: Annotated[str, AfterValidator(_code)] | None = None
    says: str | None = None
    required: StrictBool = False
    type: Literal["integer", "real", "string", "logical", "section"] | None = None
    min: Number | None = None
    max: Number | None = None
    above: Number | None = None
    one_of: tuple[Scalar, ...] = ()
    match: Regex | None = None
    equals: Keyword | None = None
    mjd_of: Annotated[Keywords, Field(max_length=2)] | None = None
    time: Literal["date", "clock"] | None = None
    ids: Regex | None = None
    alike: StrictBool = False
    distinct: StrictBool = False
    within: Annotated[Number, Field(ge=0)] | None = None
    sibling: Literal["mjd", "exptime", "filter"] | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if wrong := list(self._wrong()):
            raise ValueError("; ".join(wrong))
        return self

    def _demands(self, name: str) -> bool:
        value = getattr(self, name)
        return value is not None and value is not False and value != ()

    def _wrong(self) -> Iterator[str]:
        demands = [name for name in (*TESTS, *ACROSS) if self._demands(name)]
        if self.sibling is not None:
            if self.keywords or self.when or self.where or demands:
                yield "beside `sibling` only `within`, `severity`, `code` and `says` have a meaning"
        elif not self.keywords:
            yield 'a check needs `keywords`, such as keywords = ["EXPTIME"], or `sibling`'
        elif not demands:
            yield f"the check of {', '.join(self.keywords)} demands nothing; expected {', '.join((*TESTS, *ACROSS))}"
        if self.within is not None and not (self.equals or self.mjd_of or self.alike or self.sibling):
            yield "`within` has a meaning beside `equals`, `mjd_of`, `alike` or `sibling` only"

    def rule(self, unknown: tuple[Plain, ...]) -> CheckRule:
        """The rule; `unknown` are values that stand for none."""
        when = {name: one if isinstance(one, tuple) else (one,) for name, one in self.when.items()}
        where = "all" if self.alike else "extensions" if self.distinct else "first"
        return CheckRule(
            keywords=self.keywords,
            tests=tuple(self._tests()),
            where=self.where or where,
            when=tuple(when.items()),
            severity=Severity(self.severity),
            code=self.code,
            says=self.says,
            required=self.required,
            alike=self.alike,
            distinct=self.distinct,
            within=float(self.within or 0),
            unknown=unknown,
            sibling=self.sibling,
        )

    def _tests(self) -> Iterator[Test]:
        if self.type:
            yield OfType(self.type)
        if (self.min, self.max, self.above) != (None, None, None):
            yield InRange(self.min, self.max, self.above)
        if self.one_of:
            yield OneOf(self.one_of)
        if self.match:
            yield Matches(re.compile(self.match))
        if self.equals:
            yield Equals(self.equals, float(self.within or 0))
        if self.mjd_of:
            yield MjdOf(self.mjd_of, MJD_WITHIN if self.within is None else float(self.within))
        if self.time:
            yield Form(self.time)
        if self.ids:
            yield Names(re.compile(self.ids))

    def strangers(self, ids: Collection[str], layouts: Collection[str]) -> Iterator[tuple[str, str]]:
        """The key and a sentence for each id, and each layout, that the check names and its camera has not."""
        for name in re.compile(self.ids).groupindex if self.ids else ():
            if name not in ids:
                yield "ids", f'the group "{name}" is no id of [ids]{nearest(name, ids)}'
        named = self.when.get("layout", ())
        for layout in named if isinstance(named, tuple) else (named,):
            if layout not in layouts:
                yield "when.layout", f"found {found(layout)}; expected one of {', '.join(layouts)}"
