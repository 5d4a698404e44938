"""What manifests are made of: locations, ids, lists, exclusions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    StrictInt,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

from .errors import PathError, found, shown
from .layouts import Ids
from .part import Part
from .paths import path_problem
from .patterns import Pattern

HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ID_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
ID_TEXT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+.,-]{0,63}")
DAY = "day"  # in `per` of a bundle: the UTC day of a file's time, which needs no camera
MOST_NUMBER = 2**63 - 1  # what both databases hold


class Kind(StrEnum):
    COPY = "copy"  # files from one host to another, as they are
    CHOP = "chop"  # focal planes cut into one file per amplifier
    ARCHIVE = "archive"  # files to a mass store
    RESTORE = "restore"  # files back from a mass store


@dataclass(frozen=True, order=True)
class Location:
    """`host:path`, the path relative to the host's root; '' is the root itself."""

    host: str
    path: str

    def __str__(self) -> str:
        return f"{self.host}:{self.path}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises PathError for anything but host:path with a path below the root. A '/' at its end goes."""
        host, colon, path = text.partition(":")
        if not colon:
            raise PathError(f'"{shown(text, 80)}" has no host; write host:path, such as lsst10:CFHTDeep/D1/raw')
        if not HOST_NAME.fullmatch(host):
            raise PathError(f'"{shown(text, 80)}": "{shown(host, 40)}" is no name of a host; write host:path')
        if len(path) > 1 and path.endswith("/") and not path.endswith("//"):
            path = path[:-1]
        if path and (problem := path_problem(path)):
            raise PathError(problem)
        return cls(host, path)


def _location(value: object) -> Location:
    if isinstance(value, Location):
        return value
    if not isinstance(value, str):
        raise ValueError(f"found {found(value)}; expected host:path, such as lsst10:CFHTDeep/D1/raw")
    return Location.parse(value)


def _id_value(value: object) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_NUMBER:
        return value
    if isinstance(value, str) and ID_TEXT.fullmatch(value) and ".." not in value:
        return value
    raise ValueError(f"found {found(value)}; expected a whole number from 0 up, or text of letters, digits and _+.,-")


def _id_names(value: Ids) -> Ids:
    for name in value:
        if not ID_NAME.fullmatch(name):
            raise ValueError(f'"{shown(name, 40)}" is no name of an id; expected small letters, such as visit or ccd')
    return value


def _visit_as_ids(value: object) -> object:
    return {"visit": value} if isinstance(value, int) and not isinstance(value, bool) else value


def registry_name(entry: object) -> str | None:
    """The name, where an entry of `expect` names a registry."""
    return entry if isinstance(entry, str) else None


def _or_a_name(value: object, read: ValidatorFunctionWrapHandler) -> Any:
    return value if isinstance(value, str) else read(value)


def _plain(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise ValueError(f"found {found(value)}; expected text without control characters or blanks around it")
    return value


Place = Annotated[
    Location,
    PlainValidator(_location),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]*:[^/].*$"}),
]
IdValue = Annotated[
    int | str,
    PlainValidator(_id_value),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "minLength": 1}]}),
]
IdTable = Annotated[dict[str, IdValue], AfterValidator(_id_names)]
Expected = Annotated[
    IdTable,
    BeforeValidator(_visit_as_ids),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "object", "minProperties": 1}]}),
]
Expecting = Annotated[Expected, WrapValidator(_or_a_name)]  # as it is written: a name of a registry too
Plain = Annotated[str, AfterValidator(_plain)]


class Trigger(Part):
    """The message that tells a pipeline, once, that a group of the dataset is whole."""

    queue: Annotated[Plain, Field(min_length=1, description='the name of a queue, such as "pipeline"')]
    per: tuple[str, ...] = Field(
        default=(),
        description='a list of ids, such as ["visit"]; without it, one trigger for the whole dataset',
    )


class Chop(Part):
    """How focal planes are cut."""

    crpix: Literal["exact", "historic"] = Field(
        default="exact",
        description='"exact" (CRPIX1 shifted by the amplifier\'s width) or "historic" (by -1024, as in 2010)',
    )


class Bundling(Part):
    """How small files go to a store: in tar bundles, each of files that have `per` in common."""

    per: tuple[str, ...] = Field(
        default=(),
        description='a list of ids, such as ["visit"], or ["day"] for the day of a file\'s time; '
        "without it, all of the manifest together",
    )
    bytes: Annotated[StrictInt, Field(ge=1_000_000, le=10**13)] = Field(
        default=8_000_000_000,
        description="bytes of one bundle at the most, headers and index with it (1 MB to 10 TB)",
    )
    files: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = Field(
        default=20_000, description="files in one bundle at the most (1 to 1000000)"
    )
    below: Annotated[StrictInt, Field(ge=1, le=10**13)] = Field(
        default=100_000_000, description="bytes from which on a file goes as it is"
    )
    age_s: Annotated[float, Field(ge=0, le=366 * 86400, allow_inf_nan=False)] = Field(
        default=3600.0,
        description="seconds that the oldest file of an incomplete group waits for the others",
    )


class FileList(Part):
    """A list read beside a manifest: its absolute path, and the digest of what it held when it was read."""

    path: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class RegistryFile(FileList):
    """A registry read beside a manifest: how many rows it has, and every value that each id has in them."""

    rows: int
    ids: dict[str, tuple[IdValue, ...]]


class Exclusion(Part):
    """Files that are not waited for and not handed on: by ids, by name, or by both together; and why."""

    ids: dict[str, str] = Field(default_factory=dict)
    glob: str | None = None
    reason: str = ""

    def excludes(self, path: str, ids: Mapping[str, int | str]) -> bool:
        """Whether a file with this path and these ids is excluded. All ids given must be the file's own."""
        if self.glob is not None and not _by_name(self.glob, "/" in self.glob).matches(
            path if "/" in self.glob else path[path.rfind("/") + 1 :]
        ):
            return False
        return all(name in ids and same_id(ids[name], text) for name, text in self.ids.items())


def same_id(value: int | str, text: str) -> bool:
    """Whether an id is the one a person wrote: 05 is 5, and a raft 4,2 may be written 42."""
    if isinstance(value, int):
        return text.isascii() and text.isdigit() and int(text) == value
    return value == text or value.replace(",", "") == text.replace(",", "")


ANY_VISIT = "*"


def visit_key(value: int | str) -> str:
    """The same for all ways to write a visit that `same_id` takes for one."""
    text = str(value).replace(",", "")
    return text.lstrip("0") or "0" if text.isdecimal() else text


@lru_cache(maxsize=4096)
def _by_name(glob: str, whole_path: bool) -> Pattern:
    """A glob without '/' is matched against a file's name, one with '/' against the end of its path."""
    return Pattern(f"**/{glob}") if whole_path and not glob.startswith("**/") else Pattern(glob)
