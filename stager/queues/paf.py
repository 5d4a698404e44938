"""PAF, the policy files of DC3b (pex_policy of 2010): `name: value` a line, `name: { ... }` nested.

A name that is given again, or several values on a line, make a list. Text stands in double or single quotes, without
any escapes, or bare; numbers, `true` and `false` are themselves; `#` begins a comment; `@other.paf` includes a file,
which is not followed here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

HEAD = "#<?cfg paf policy ?>\n"
NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*", re.ASCII)
_PARAMETER = re.compile(r"\s*([A-Za-z_][\w.]*)\s*:\s*", re.ASCII)
_END = r"(?=[\s#}]|$)"
_WORDS: tuple[tuple[re.Pattern[str], Any], ...] = (
    (re.compile(rf"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d{{1,3}})?{_END}", re.ASCII), float),
    (re.compile(rf"[+-]?\d+{_END}", re.ASCII), int),
    (re.compile(rf"(true|false){_END}"), lambda text: text == "true"),
    (re.compile(r'"[^"]*"|\'[^\']*\''), lambda text: text[1:-1]),
)
_BARE = re.compile(r"[^#}\s]([^#}]*[^#}\s])?")


class PafError(ValueError):
    """What PAF cannot say, or what is no PAF; the sentence says which and where."""


def write(policy: Mapping[str, Any]) -> str:
    """A policy as a file. Raises PafError for what it cannot hold: text with both kinds of quotes, a number that is
    none."""
    return HEAD + "".join(f"{line}\n" for line in _lines(policy, ""))


def _lines(policy: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, value in policy.items():
        if not NAME.fullmatch(name):
            raise PafError(f"{name!r} is no name that a policy can have")
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, Mapping):
                yield f"{indent}{name}: {{"
                yield from _lines(one, indent + "    ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{name}: {_text(name, one)}"


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    if isinstance(value, str) and value.isprintable():
        for quote in ('"', "'"):
            if quote not in value:
                return f"{quote}{value}{quote}"
    raise PafError(f"{name} is {value!r}, which no policy file can hold")


def read(text: str) -> dict[str, Any]:
    """The policy in a file: a value that stands alone as itself, others in lists. Raises PafError with the line."""
    return _Reader(text).policy()


class _Reader:
    """The lines of a file, and how far they were read."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._number = 0  # of the line that is being read, from 1
        self._rest: str | None = None  # what is left of it

    def policy(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self._fill(found):
            raise self._error("a } that closes nothing")
        return found

    def _fill(self, policy: dict[str, Any]) -> bool:
        """Read parameters up to a closing brace; False where the file ended first."""
        while (line := self._line()) is not None:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if line.lstrip().startswith("}"):
                self._rest = line.lstrip()[1:]
                return True
            match = _PARAMETER.match(line)
            if match is None or not NAME.fullmatch(match[1]):
                raise self._error(f"{line.strip()[:80]!r} is no name with a value")
            for value in self._values(line[match.end() :]):
                _add(policy, match[1].split("."), value)
        return False

    def _values(self, rest: str) -> Iterator[Any]:
        if rest.startswith("{"):
            inner: dict[str, Any] = {}
            self._rest = rest[1:]
            if not self._fill(inner):
                raise self._error("a { that is never closed")
            yield inner
            return
        while rest and not rest.startswith("#"):
            if rest.startswith("}"):
                self._rest = rest
                return
            value, rest = self._value(rest)
            yield value
            rest = rest.lstrip()

    def _value(self, rest: str) -> tuple[Any, str]:
        for pattern, made in _WORDS:
            if match := pattern.match(rest):
                return made(match[0]), rest[match.end() :]
        if rest[0] in "\"'":
            return self._long_text(rest[0], rest[1:])
        match = _BARE.match(rest)
        assert match is not None  # it begins with none of #, } and a blank
        return match[0], rest[match.end() :]

    def _long_text(self, quote: str, rest: str) -> tuple[str, str]:
        """Text over several lines: they are put together with a blank between them."""
        pieces = [rest.rstrip()]
        while (line := self._line()) is not None:
            piece, end, after = line.partition(quote)
            pieces.append(piece.strip())
            if end:
                return " ".join(pieces), after
        raise self._error("text that is never closed")

    def _line(self) -> str | None:
        if self._rest is not None:
            line, self._rest = self._rest, None
            return line
        if self._number == len(self._lines):
            return None
        self._number += 1
        return self._lines[self._number - 1]

    def _error(self, text: str) -> PafError:
        return PafError(f"line {self._number}: {text}")


def _add(policy: dict[str, Any], names: Sequence[str], value: Any) -> None:
    """Put a value below a dotted name; one that has its name already makes a list of them."""
    for name in names[:-1]:
        policy = policy.setdefault(name, {})
        if not isinstance(policy, dict):
            raise PafError(f"{name} is a value and a policy at the same time")
    name = names[-1]
    if name not in policy:
        policy[name] = value
    elif isinstance(policy[name], list):
        policy[name].append(value)
    else:
        policy[name] = [policy[name], value]
