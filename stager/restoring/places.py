"""What is at the places that files are to be brought to, seen from names, sizes and times: no file is read for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

import sqlalchemy as sa

from stager.breakers import is_of_connection, is_of_host
from stager.database import Database
from stager.models import decode_path, encode_path
from stager.planning import Planned
from transfers.errors import TransferError
from transfers.hosts import FileInfo, Host, only


class Found(Enum):
    """How a place stands."""

    IN_PLACE = auto()  # proven there once, and of that size and time still
    THERE = auto()  # a file of that size is there: it will be read, and is taken if it is the same
    LOST = auto()  # proven there once, and gone or another now
    NOTHING = auto()  # nothing is there
    TAKEN = auto()  # something else has the name, or what is there cannot be looked at


class Copy(NamedTuple):
    """A copy as the database knows it."""

    size: int
    mtime_ns: int | None
    trouble: str | None


class Places:
    """The places of one destination, below one folder. Nothing is asked for in a folder that is not there, nor of the
    database where it knows of no copy."""

    def __init__(self, database: Database, host: Host, folder: str) -> None:
        self.database = database
        self.host = host
        self._any_known = _any_below(database, host.name, folder)
        self._gone: str | None = None

    def look(self, lot: Sequence[Planned], *, replace: bool) -> Iterator[tuple[Planned, Found]]:
        """Each of the items with how its place stands; with `replace`, another file is no hindrance. Raises
        TransferError where the destination cannot be asked."""
        paths = [one.destination or "" for one in lot]
        copies = known(self.database, self.host.name, paths) if self._any_known else {}
        there = self._find(paths)
        if not copies and not there:  # the quick way for what was never brought
            yield from ((one, Found.NOTHING) for one in lot)
            return
        for one, path in zip(lot, paths, strict=True):
            info = there.get(path)
            found = judge(one, copies.get(path), info)
            aside = replace and found is Found.TAKEN and isinstance(info, FileInfo)
            yield one, Found.NOTHING if aside else found

    def _find(self, paths: Sequence[str]) -> dict[str, FileInfo | TransferError]:
        """What is at each path; what is no file, or cannot be looked at, is told as an error of its own."""
        folders = {path.rpartition("/")[0] for path in paths}
        there = {folder for folder in folders if self._has(folder)}
        asked = [path for path in paths if path.rpartition("/")[0] in there] if there else []
        found: dict[str, FileInfo | TransferError] = {}
        for path, result in zip(asked, self.host.find(asked) if asked else (), strict=True):
            if isinstance(result, TransferError) and (is_of_host(result) or is_of_connection(result)):
                raise result
            if result is not None:
                found[path] = result
        return found

    def _has(self, folder: str) -> bool:
        """Whether a folder is there, "" being the root. The highest one that was not is remembered: most of a
        destination that is new is below one."""
        if not folder:
            return True
        if self._gone is not None and f"{folder}/".startswith(f"{self._gone}/"):
            return False
        if only(self.host.find([folder])) is not None:
            return True
        above = folder.rpartition("/")[0]
        while above and only(self.host.find([above])) is None:
            folder, above = above, above.rpartition("/")[0]
        self._gone = folder
        return False


def judge(planned: Planned, copy: Copy | None, there: FileInfo | TransferError | None) -> Found:
    """How a place stands, by what was proven there and what is there now."""
    if there is None:
        return Found.LOST if copy else Found.NOTHING
    if isinstance(there, TransferError):
        return Found.TAKEN
    same_size = planned.size is None or planned.size == there.size
    if copy is None:
        return Found.THERE if same_size else Found.TAKEN
    as_proven = there.size == copy.size and _same_time(there.mtime_ns, copy.mtime_ns)
    if copy.trouble == "corrupt" or there.size != copy.size:
        return Found.LOST
    if not same_size:
        return Found.TAKEN  # the source has another file by now
    if as_proven and copy.trouble is None and planned.mtime_ns in (None, copy.mtime_ns):
        return Found.IN_PLACE
    return Found.THERE


def _same_time(there_ns: int, proven_ns: int | None) -> bool:
    """Whether two times are the same to the second: some hosts tell no more."""
    return proven_ns is None or there_ns // 10**9 == proven_ns // 10**9


def known(database: Database, host: str, paths: Sequence[str]) -> dict[str, Copy]:
    """The copies that are known at a host, of these paths."""
    query = sa.text(f"SELECT path, size, mtime_ns, trouble FROM copies WHERE host = :host AND path {among(database)}")
    with database.read() as connection:
        rows = connection.execute(query, {"host": host, "paths": listed(database, paths)})
        return {decode_path(path): Copy(size, mtime_ns, trouble) for path, size, mtime_ns, trouble in rows}


def _any_below(database: Database, host: str, folder: str) -> bool:
    condition, values = below(database, folder)
    query = sa.text(f"SELECT 1 FROM copies WHERE host = :host AND {condition} LIMIT 1")
    with database.read() as connection:
        return connection.execute(query, {"host": host, **values}).first() is not None


def below(database: Database, folder: str) -> tuple[str, dict[str, str]]:
    """SQL for "`path` is this folder, or below it", and its values; by bytes, as the index of paths is."""
    text = encode_path(folder)
    if not text:
        return "1 = 1", {}
    after, before = (">", "<") if database.is_sqlite else ("~>~", "~<~")
    condition = f"(path = :folder OR (path {after} :from AND path {before} :upto))"
    return condition, {"folder": text, "from": f"{text}/", "upto": f"{text}0"}  # "0" comes after "/"


def among(database: Database) -> str:
    """SQL for "is one of :paths": one parameter, however many there are."""
    return "IN (SELECT value FROM json_each(:paths))" if database.is_sqlite else "= ANY(:paths)"


def listed(database: Database, paths: Sequence[str]) -> Any:
    """The value of :paths."""
    encoded = [encode_path(path) for path in paths]
    return json.dumps(encoded) if database.is_sqlite else encoded
