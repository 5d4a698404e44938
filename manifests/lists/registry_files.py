"""A registry beside a manifest, read for what should exist: each row of its table `raw` is one file.

Both schemas of DC3b are read, and others like them: `raw` has `visit` and the other ids of its camera as columns. The
file comes from elsewhere and is not trusted: it is opened to be read and nothing else, checked before rows are asked
for, and bounded in rows, values and time. Nothing of it is kept in memory but which values each id has.
"""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from manifests.errors import ManifestError, Problem, found, shown
from manifests.layouts import Ids
from manifests.parts import ID_NAME, ID_TEXT, MOST_NUMBER, RegistryFile

TABLE = "raw"
MOST_BYTES = 4 << 30
MOST_ROWS = 10_000_000
MOST_VISITS = 100_000
MOST_VALUES = 10_000  # of any other id
MOST_TEXT = 1 << 20  # bytes of one value
MOST_S = 120  # to look through all of it
AT_ONCE = 5000  # rows taken together

NO_IDS = frozenset({"id", "taiobs", "exptime"})  # columns of both schemas that are none
WHOLE = frozenset({"visit", "snap", "ccd", "amp"})
TEXT = frozenset({"field", "filter", "raft", "sensor", "channel"})


def read_registry(path: Path, file: io.BufferedReader) -> RegistryFile:
    """What a registry holds; `file` is the same file, open. Raises ManifestError with all that is wrong with it."""
    with _reported(path):
        _check_closed(path)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        with closing(_opened(path)) as connection:
            survey = _Survey(_columns(connection))
            survey.take(connection)
        if _state(os.fstat(file.fileno())) != _state(path.stat()):
            raise _Unusable("it was changed while it was read; submit again")
    if problems := tuple(survey.problems()):
        raise ManifestError(problems, str(path))
    return RegistryFile(path=str(path), sha256=sha256, rows=survey.rows, ids=survey.ids())


def rows(registry: RegistryFile) -> Iterator[Ids]:
    """The ids of every row, in the order of the table. Raises ManifestError where the file is no longer as it was."""
    path = Path(registry.path)
    with _reported(path):
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != registry.sha256:
                raise _Unusable("it was changed since it was read; submit again")
        names = tuple(registry.ids)
        with closing(_opened(path)) as connection:
            cursor = connection.execute(_query(names))
            while batch := cursor.fetchmany(AT_ONCE):
                for row in batch:
                    yield dict(zip(names, row, strict=True))


class _Unusable(Exception):
    """What is wrong with the whole file, a sentence."""


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Whatever SQLite, the system or we find wrong with a file, as a ManifestError."""
    try:
        yield
    except _Unusable as error:
        raise ManifestError((Problem("", str(error)),), str(path)) from error
    except sqlite3.Error as error:
        raise ManifestError((Problem("", _sentence(error)),), str(path)) from error
    except OSError as error:
        raise ManifestError((Problem("", f"cannot be read: {error.strerror}"),), str(path)) from error


def _sentence(error: sqlite3.Error) -> str:
    said = shown(str(error))
    if "not a database" in said:
        return "it is no SQLite database; name a registry.sqlite3 with a table raw"
    if "interrupted" in said:
        return f"to look through it takes longer than {MOST_S} s, which no registry does"
    if "UTF-8" in said:
        return f"it holds text that is not UTF-8 ({said}); make it anew"
    return f"it cannot be read as a registry ({said}); copy it anew, or make it anew"


def _check_closed(path: Path) -> None:
    """What a writer has not yet brought into the file would not be seen."""
    for suffix in ("-wal", "-journal"):
        beside = path.with_name(path.name + suffix)
        if beside.exists() and beside.stat().st_size:
            raise _Unusable(f"{shown(beside.name)} lies beside it: it is being written, or was not closed; close it")


def _state(facts: os.stat_result) -> tuple[int, ...]:
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _opened(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing, beside the file neither, and runs nothing that the file brings."""
    connection = sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro&immutable=1", uri=True)
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_TEXT)
        ends = time.monotonic() + MOST_S
        connection.set_progress_handler(lambda: time.monotonic() > ends, 100_000)
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "ignore_check_constraints = ON"):
            connection.execute(f"PRAGMA {pragma}")
        _check_table(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_table(connection: sqlite3.Connection) -> None:
    """That there is a sound table `raw`, and not something that is drawn up when it is read."""
    known = "SELECT name, type, sql FROM sqlite_master WHERE type IN ('table', 'view')"
    row = connection.execute(f"{known} AND name = ? COLLATE NOCASE", (TABLE,)).fetchone()
    if row is None:
        tables = ", ".join(shown(str(one[0]), 40) for one in connection.execute(f"{known} ORDER BY name LIMIT 10"))
        raise _Unusable(
            f"it has no table raw; expected a registry of raw images, and its tables are: {tables or 'none'}"
        )
    if row[1] != "table" or str(row[2]).upper().split()[:2] == ["CREATE", "VIRTUAL"]:
        kind = "view" if row[1] == "view" else "virtual table"
        raise _Unusable(f"raw is a {kind}; expected a table with a row for each file")
    said = [str(row[0]) for row in connection.execute(f"PRAGMA quick_check({TABLE})").fetchmany(1)]
    if said != ["ok"]:
        raise _Unusable(f"it is damaged ({shown('; '.join(said))}); copy it anew")


def _columns(connection: sqlite3.Connection) -> tuple[str, ...]:
    """The columns that may be ids, by their names in small letters."""
    every = [str(row[1]) for row in connection.execute(f"PRAGMA table_info({TABLE})")]
    names = tuple(name for name in map(str.lower, every) if ID_NAME.fullmatch(name) and name not in NO_IDS)
    if "visit" not in names:
        columns = ", ".join(shown(name, 40) for name in every[:20])
        raise _Unusable(f"its table raw has no column visit; its columns are: {columns}")
    return names


def _query(names: Sequence[str]) -> str:
    columns = ", ".join(f'"{name}"' for name in names)  # which ID_NAME let through
    return f"SELECT {columns} FROM {TABLE}"  # noqa: S608


@dataclass(slots=True)
class _Fault:
    """Values of a column that no id can have: how many rows, the first of them, and what stands there."""

    rows: int
    first: int
    value: Any


@dataclass(slots=True)
class _Column:
    """What is seen of a column."""

    name: str
    values: set[Any] = field(default_factory=set)
    faults: dict[str, _Fault] = field(default_factory=dict)

    @property
    def required(self) -> bool:
        """Whether its values must be ids; another column may be of something else."""
        return self.name in WHOLE or self.name in TEXT

    @property
    def kinds(self) -> set[type]:
        return {int} if self.name in WHOLE else {str} if self.name in TEXT else {int, str}

    @property
    def full(self) -> bool:
        return len(self.values) > (MOST_VISITS if self.name == "visit" else MOST_VALUES)

    def take(self, some: tuple[Any, ...], before: int) -> None:
        """Look at values in the rows after the first `before`. Most are like others, and cost nothing."""
        if set(map(type, some)) <= self.kinds and not self.full:
            new = set(some) - self.values
            bad = {value for value in new if not _is_id(value)}
            self.values |= new - bad
            if not bad:
                return
        for row, value in enumerate(some, before + 1):
            if type(value) not in self.kinds or not _is_id(value):
                what = "NULL" if value is None else type(value).__name__
                fault = self.faults.setdefault(what, _Fault(0, row, value))
                fault.rows += 1
            elif not self.full:
                self.values.add(value)

    def problems(self) -> Iterator[Problem]:
        expected = "a whole number from 0 up" if self.name in WHOLE else "text of letters, digits and _+.,-"
        for fault in self.faults.values():
            what = "NULL" if fault.value is None else shown(found(fault.value), 80)
            more = f", and in {fault.rows - 1} more" if fault.rows > 1 else ""
            yield Problem(self.name, f"found {what} in row {fault.first} of raw{more}; expected {expected}")
        if self.full:
            yield Problem(self.name, f"more than {len(self.values) - 1} different values; no registry has so many")


def _is_id(value: Any) -> bool:
    if isinstance(value, int):
        return 0 <= value <= MOST_NUMBER
    return isinstance(value, str) and ID_TEXT.fullmatch(value) is not None and ".." not in value


class _Survey:
    """One look through all rows."""

    def __init__(self, names: Sequence[str]) -> None:
        self.columns = [_Column(name) for name in names]
        self.rows = 0

    def take(self, connection: sqlite3.Connection) -> None:
        cursor = connection.execute(_query([column.name for column in self.columns]))
        while batch := cursor.fetchmany(AT_ONCE):
            for column, some in zip(self.columns, zip(*batch, strict=True), strict=True):
                if column.required or not (column.faults or column.full):
                    column.take(some, self.rows)
            self.rows += len(batch)
            if self.rows > MOST_ROWS:
                raise _Unusable(f"it has more than {MOST_ROWS} rows; split it, and name the visits in `expect`")

    def problems(self) -> Iterator[Problem]:
        if not self.rows:
            yield Problem("", "its table raw is empty, so that nothing would be expected")
        for column in self.columns:
            if column.required:
                yield from column.problems()

    def ids(self) -> dict[str, tuple[Any, ...]]:
        """The values of every id, sorted; columns of something else are left out."""
        sound = [column for column in self.columns if column.required or not (column.faults or column.full)]
        return {column.name: tuple(sorted(column.values, key=_order)) for column in sound}


def _order(value: int | str) -> tuple[bool, int | str]:
    return isinstance(value, str), value
