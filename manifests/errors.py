"""What can be wrong with a manifest, and with what it refers to.

InputError           something that a person wrote cannot be used as it is; says what to do
  PathError          a path that no host would be asked for
  PatternError       a pattern that cannot be read
  ManifestError      a manifest or a list beside it: all its problems at once
  CameraError        a header, ids or a name that a camera makes no sense of
    CameraFileError  a camera's file: all its problems at once
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time


class InputError(ValueError):
    """Something that a person wrote cannot be used as it is. Its text is a sentence fit for people."""


class PathError(InputError):
    """A path that no host would be asked for."""


class PatternError(InputError):
    """A pattern that cannot be read."""


class CameraError(InputError):
    """A header, ids or a name that a camera makes no sense of."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong: where (`trigger.per`, `line 3`), and a sentence: found, expected, what to do."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text


class ManifestError(InputError):
    """All problems of one document; `str` lists them, one a line."""

    def __init__(self, problems: tuple[Problem, ...], where: str = "") -> None:
        self.problems = problems
        self.where = where
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        where = shown(self.where) if self.where else "the manifest"
        if len(self.problems) == 1:
            return f"{where}: {self.problems[0]}"
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        return f"{where}: {len(self.problems)} problems{lines}"


class CameraFileError(CameraError):
    """All problems of one camera's file; `str` has them in one sentence."""

    def __init__(self, problems: tuple[Problem, ...], where: str) -> None:
        self.problems = problems
        self.where = where
        super().__init__(f"{shown(where)}: {'; '.join(map(str, problems))}")


def shown(text: str, most: int = 200) -> str:
    """The text on one line, cut at `most`, with control characters, surrogates and the like escaped."""
    cut = text if len(text) <= most else text[: most - 3] + "..."
    if cut.isprintable():
        return cut
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)


def found(value: object) -> str:
    """The value as a person would name it, with its kind: `3 (a whole number)`."""
    match value:
        case bool():
            return f"{str(value).lower()} (true or false)"
        case int():
            return f"{_number(value)} (a whole number)"
        case float():
            return f"{value!r} (a number)"
        case str():
            return f'"{shown(value, 80)}"' if value else 'empty text ("")'
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            keys = ", ".join(shown(str(key), 40) for key in list(value)[:4])
            return f"a table ({keys})" if value else "an empty table"
        case datetime() | date() | time():
            return f"{value.isoformat()} (a date or time)"
        case None:
            return "nothing"
        case _:
            return shown(repr(value), 80)


def _number(value: int) -> str:
    """Python refuses to write out integers of thousands of digits, and nobody wants to read one."""
    return str(value) if abs(value) < 10**40 else "an enormous number"
