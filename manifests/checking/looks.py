"""A file as its checks see it: its headers, one after the other and together; what its path says it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from manifests.headers import Values, text_of
from manifests.layouts import Ids

if TYPE_CHECKING:
    from manifests.cameras import Camera

INPUT = "input"  # what `when` calls the layout of focal planes before a chop


class Cards(Protocol):
    """One header: a value for each keyword, and what archives do to headers beyond that."""

    def get(self, keyword: str, /) -> Any: ...

    def __contains__(self, keyword: object, /) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...

    def all(self, keyword: str, /) -> tuple[Any, ...]:
        """The values of every card of a keyword."""

    @property
    def doubled(self) -> tuple[str, ...]:
        """The keywords that have a value in more than one card."""

    @property
    def printable(self) -> bool:
        """Whether all of it is printable ASCII."""

    def find(self, pattern: re.Pattern[bytes], /) -> Iterable[tuple[str, str]]:
        """The keyword, and the text behind it, of every card in which a pattern is found."""


class Joined:
    """Several headers as one: the value of a keyword is that of the first header that has one."""

    def __init__(self, headers: Sequence[Values]) -> None:
        self._headers = headers

    def get(self, keyword: str, /) -> Any:
        for header in self._headers:
            if (value := header.get(keyword)) is not None:
                return value
        return None

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(keyword for header in self._headers for keyword in header))


@dataclass(frozen=True)
class File:
    """What is checked. `given` are the ids of the manifest."""

    camera: Camera
    path: str
    headers: Sequence[Cards]
    given: Mapping[str, int | str]

    @cached_property
    def joined(self) -> Joined:
        """All headers as one: a packed image has an empty primary header before its own."""
        return Joined(self.headers)

    @cached_property
    def identity(self) -> tuple[str, Ids]:
        """The layout and the ids of its path; "" and none for a path that is none of the camera's."""
        found = self.camera.identify(self.path)
        if found is not None:
            return found
        ids = self.camera.input.ids(self.path) if self.camera.input else None
        return ("", {}) if ids is None else (INPUT, ids)

    @property
    def layout(self) -> str:
        return self.identity[0]

    @property
    def ids(self) -> Ids:
        return self.identity[1]

    @cached_property
    def obstype(self) -> tuple[str, str] | None:
        """The keyword that says what was exposed, and its word; None where the header does not say."""
        for keyword in self.camera.obstype_keywords:
            if word := text_of(self.joined.get(keyword)):
                return keyword, word
        return None

    @property
    def extensions(self) -> Sequence[Cards]:
        return self.headers[1:]

    def first(self, keyword: str) -> int | None:
        """The HDU where a keyword stands first."""
        return next((hdu for hdu, header in enumerate(self.headers) if keyword in header), None)

    def hdus(self, where: str, keyword: str) -> Sequence[int]:
        """The HDUs that a rule looks at; for "first" none where no header has the keyword."""
        match where:
            case "first":
                hdu = self.first(keyword)
                return () if hdu is None else (hdu,)
            case "primary":
                return range(min(len(self.headers), 1))
            case "extensions" if len(self.headers) > 1:
                return range(1, len(self.headers))
            case _:
                return range(len(self.headers))

    def seen_from(self, hdu: int) -> Joined:
        """A header, and the others where it lacks a keyword, as with INHERIT."""
        return self.joined if hdu == 0 else Joined((self.headers[hdu], *self.headers))
