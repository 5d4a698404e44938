"""calibRegistry.sqlite3, as the mapper of obs_cfht has it: which master detrends are valid when, from the inventory.

Tables bias, dark, flat and fringe. The mapper looks for the one row between whose validStart and validEnd the date of
taiObs lies, both included, and whose filter is the image's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from stager.registries.databases import finish, opened
from stager.registries.drafts import Draft
from stager.registries.inventory import KINDS, Detrend, Overlap, overlaps
from stager.registries.schemas import why_other_tables

COLUMNS = {
    "path": "text",
    "derivedRunId": "text",
    "runId": "text",
    "version": "int",
    "validStart": "text",
    "validEnd": "text",
}
QUALIFIERS = {"dark": {"expTime": "int"}, "flat": {"filter": "text"}, "fringe": {"filter": "text"}}

Row = tuple[Any, ...]


def columns(kind: str) -> dict[str, str]:
    """The columns of a table but its id, with their types."""
    return COLUMNS | QUALIFIERS.get(kind, {})


@dataclass
class Report:
    """What was done with a registry of calibrations, in rows of all its tables; `kinds` counts what each has now."""

    written: bool = False
    kinds: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    added: int = 0
    updated: int = 0
    removed: int = 0
    overlaps: list[Overlap] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        counts = {name: getattr(self, name) for name in ("written", "kinds", "kept", "added", "updated", "removed")}
        return counts | {"overlaps": [_plain(one) for one in self.overlaps]}


def _plain(overlap: Overlap) -> dict[str, Any]:
    return {
        "kind": overlap.kind,
        "filter" if overlap.kind in ("flat", "fringe") else "expTime": overlap.qualifier,
        "first": overlap.first.isoformat(),
        "last": overlap.last.isoformat(),
        "paths": [one.path for one in overlap.detrends],
        "lines": [one.line for one in overlap.detrends],
        "text": str(overlap),
    }


def build(draft: Draft, detrends: Sequence[Detrend]) -> Report:
    """Bring the registry that a draft begins with up to an inventory, and keep the draft if that changes anything.

    The inventory is the truth: what it no longer has is removed. Rows keep their ids. Raises RegistryError where what
    is there is no registry of calibrations.
    """
    report = Report(overlaps=overlaps(detrends))
    with opened(draft, _why_foreign, "registry of calibrations") as registry:
        if draft.before is None:
            for kind in KINDS:
                named = ", ".join(f"{name} {type_}" for name, type_ in columns(kind).items())
                registry.execute(f"CREATE TABLE {kind} (id integer primary key autoincrement, {named})")
        for kind in KINDS:
            _update(registry, kind, [_row(one) for one in detrends if one.kind == kind], report)
        report.written = bool(report.added + report.updated + report.removed or draft.before is None)
        if report.written:
            finish(registry, draft)
    return report


def _why_foreign(registry: sqlite3.Connection) -> str | None:
    return why_other_tables(registry, {kind: ("id", *columns(kind)) for kind in KINDS})


def _row(detrend: Detrend) -> Row:
    named = (detrend.path, detrend.derived_run, detrend.run, detrend.version)
    qualifier = () if detrend.qualifier is None else (detrend.qualifier,)
    return (*named, detrend.first.isoformat(), detrend.last.isoformat(), *qualifier)


def _update(registry: sqlite3.Connection, kind: str, wanted: Sequence[Row], report: Report) -> None:
    """Bring one table up to these rows. Rows of one path are matched in their order, equal ones first."""
    names = ", ".join(columns(kind))
    there: dict[str, list[tuple[int, Row]]] = {}
    for number, *values in registry.execute(f"SELECT id, {names} FROM {kind} ORDER BY id"):
        there.setdefault(values[0], []).append((number, tuple(values)))
    matched = dict(_matched(wanted, there))
    for index, row in enumerate(wanted):
        number, old = matched.get(index, (None, None))
        if old == row:
            report.kept += 1
        elif number is not None:
            marks = ", ".join(f"{name} = ?" for name in columns(kind))
            registry.execute(f"UPDATE {kind} SET {marks} WHERE id = ?", (*row, number))
            report.updated += 1
        else:
            registry.execute(f"INSERT INTO {kind} ({names}) VALUES ({', '.join('?' * len(row))})", row)
            report.added += 1
    gone = [(number,) for rows in there.values() for number, _ in rows]
    registry.executemany(f"DELETE FROM {kind} WHERE id = ?", gone)
    report.removed += len(gone)
    report.kinds[kind] = len(wanted)


def _matched(wanted: Sequence[Row], there: dict[str, list[tuple[int, Row]]]) -> Iterator[tuple[int, tuple[int, Row]]]:
    """(index of a wanted row, its row that is there), which is taken out of those that are there."""
    left = []
    for index, row in enumerate(wanted):
        same = next((one for one in there.get(row[0], ()) if one[1] == row), None)
        if same is None:
            left.append(index)
        else:
            there[row[0]].remove(same)
            yield index, same
    for index in left:
        if there.get(wanted[index][0]):
            yield index, there[wanted[index][0]].pop(0)
