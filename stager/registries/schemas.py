"""The tables of registry.sqlite3 for a camera, written as in the registries of 2010.

    raw          a row for each raw file: id, the ids of its camera, taiObs (UTC text), expTime (s)
    raw_skyTile  which sky tiles a file touches, by id: pixels of a quad-sphere, which Stager does not compute
    raw_visit    a row for each visit: what is the same in all of its files

Their text is that of the real files, so that `.schema` gives no difference. What no two rows share was a constraint
of the tables for CFHT, and for ImSim, from 2012 on, an index, as were those on raw_skyTile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy.dialects import sqlite

from manifests.cameras import Camera
from manifests.errors import shown
from manifests.registry_tables import RegistryRule
from stager.registries.errors import RegistryError

TIMES = ("taiObs", "expTime")
UNIQUE = "uq_raw"
SKY_TILE_INDEXES = {"ix_skyTile_id": "id", "ix_skyTile_tile": "skyTile"}

_preparer = sqlite.dialect().identifier_preparer


def quoted(name: str) -> str:
    """The name of a column as SQL: an id may be called as a word of SQL is."""
    return name if name in TIMES else _preparer.quote(name)


def listed(names: Sequence[str], of: str = "") -> str:
    """Names of columns as SQL, each of the table `of` where it is given."""
    return ", ".join(f"{of}.{quoted(name)}" if of else quoted(name) for name in names)


@dataclass(frozen=True)
class Schema:
    """The tables for a camera. `columns` are those of `raw` but the id, `values` those that are not of the key."""

    rule: RegistryRule

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.rule.columns, *TIMES)

    @property
    def values(self) -> tuple[str, ...]:
        return tuple(name for name in self.columns if name not in self.rule.key)

    @property
    def of_visit(self) -> tuple[str, ...]:
        return (*self.rule.of_visit, *TIMES)

    @property
    def snap(self) -> str:
        """SQL for the snap of a row of raw; a camera without snaps has only the first."""
        return "COALESCE(snap, 0)" if "snap" in self.rule.columns else "0"

    def typed(self, names: Sequence[str]) -> str:
        types = {**self.rule.columns, "taiObs": "text", "expTime": "double"}
        return ", ".join(f"{quoted(name)} {types[name]}" for name in names)

    def statements(self) -> Iterator[str]:
        """What makes the tables."""
        raw = f"id integer primary key autoincrement, {self.typed(self.columns)}"
        tiles = "id integer, skyTile integer"
        if self.rule.in_table:
            raw += f", unique({listed(self.rule.key)})"
            tiles += ", unique(id, skyTile), foreign key(id) references raw(id)"
        yield f"CREATE TABLE raw ({raw})"
        yield f"CREATE TABLE raw_skyTile ({tiles})"
        yield f"CREATE TABLE raw_visit ({self.typed(self.of_visit)}, UNIQUE(visit))"

    def indexes(self, registry: sqlite3.Connection) -> dict[str, str]:
        """The indexes that a registry still lacks, by name, and what makes them."""
        lacking = {}
        if not self._is_unique(registry):
            lacking[UNIQUE] = f"CREATE UNIQUE INDEX {UNIQUE} ON raw ({listed(self.rule.key)})"
        if not self.rule.in_table:
            there = {row[0] for row in registry.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
            for name, column in SKY_TILE_INDEXES.items():
                if name not in there:
                    lacking[name] = f"CREATE INDEX {name} ON raw_skyTile ({column})"
        return lacking

    def _is_unique(self, registry: sqlite3.Connection) -> bool:
        """Whether the tables themselves let no two rows have one key."""
        names = "SELECT name FROM pragma_index_list('raw') WHERE \"unique\" AND NOT partial"
        for (index,) in registry.execute(names).fetchall():
            columns = [row[0] for row in registry.execute("SELECT name FROM pragma_index_info(?)", (index,))]
            if sorted(columns) == sorted(self.rule.key):
                return True
        return False

    def why_foreign(self, registry: sqlite3.Connection) -> str | None:
        """Why a database is no registry with these tables, as a part of a sentence; None for one that is."""
        wanted = {"raw": ("id", *self.columns), "raw_skyTile": ("id", "skyTile"), "raw_visit": self.of_visit}
        return why_other_tables(registry, wanted)


def schema_of(camera: Camera) -> Schema:
    """The tables for a camera. Raises RegistryError where its raw files have no visits."""
    if camera.registry_rule is None:
        raise RegistryError(f"the raw files of {camera.name} have no id visit, so there is no registry of them")
    return Schema(camera.registry_rule)


def why_other_tables(database: sqlite3.Connection, wanted: dict[str, tuple[str, ...]]) -> str | None:
    """What about a database is not as with these tables and their columns, whatever their order.

    Tables beside them are let be; triggers and views are not, for they would run when rows are written.
    """
    query = "SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view') OR sql LIKE 'CREATE VIRTUAL%'"
    for kind, name in database.execute(query):
        return f"it has a {kind} {shown(str(name), 40)}"
    for table, columns in wanted.items():
        found = [str(row[0]) for row in database.execute("SELECT name FROM pragma_table_info(?)", (table,))]
        if not found:
            return f"it has no table {table}"
        if {one.lower() for one in found} != {one.lower() for one in columns}:
            there = ", ".join(shown(one, 40) for one in found[:20])
            return f"its table {table} has the columns {there}, where it would have {', '.join(columns)}"
    return None
