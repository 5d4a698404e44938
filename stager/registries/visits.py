"""What is the same in all images of a visit, out of the rows of `raw`: table raw_visit.

A visit's time, exposure time, filter and field are those that most images of its first snap have, of those with a
good time: one amplifier whose header says otherwise, or zero, does not change them. It is told.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from stager.counts import counted
from stager.registries.schemas import TIMES, Schema, listed, quoted

EARLIEST, LATEST = "1968", "2051"  # of the times that are good, as text: rows that others made may have any
MOST_VALUES = 4  # of one id that are written out
MOST_OTHERS = 5

Signature = tuple[Any, ...]  # what is the same in all: the columns of raw_visit after the visit


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Images of one snap of a visit that say something else than most of its images, `taken`."""

    visit: int
    snap: int
    images: int
    disagree: int
    where: str  # which, by their ids where these are few
    taken: dict[str, Any]
    others: tuple[dict[str, Any], ...]  # with `images`, how many

    def __str__(self) -> str:
        snap = f" of snap {self.snap}" if self.snap else ""
        if self.taken["taiObs"] is None:
            if self.images == 1:
                return f"visit {self.visit}: its 1 image{snap} has no good time"
            return f"visit {self.visit}: none of its {self.images} images{snap} has a good time"
        where = f" ({self.where})" if self.where else ""
        others = "; ".join(f"{one['images']}: {_said(one)}" for one in self.others)
        return (
            f"visit {self.visit}: {self.disagree} of {counted(self.images, 'image')}{snap}{where} do not say "
            f"{_said(self.taken)} ({others})"
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def _said(values: dict[str, Any]) -> str:
    named = {name: value for name, value in values.items() if name not in (*TIMES, "images")}
    exposed = "no exposure time" if values["expTime"] is None else f"{values['expTime']:g} s"
    return ", ".join([values["taiObs"] or "no good time", exposed, *(f"{name} {one}" for name, one in named.items())])


def rebuild(registry: sqlite3.Connection, schema: Schema) -> tuple[bool, list[Disagreement]]:
    """Make raw_visit what `raw` says; whether that changed it, and what disagrees."""
    registry.execute(f"CREATE TEMP TABLE visits ({schema.typed(schema.of_visit)})")
    marks = ", ".join("?" * len(schema.of_visit))
    disagreements: list[Disagreement] = []
    rows = _visits(registry, schema, disagreements)
    registry.executemany(f"INSERT INTO temp.visits VALUES ({marks})", rows)
    columns = listed(schema.of_visit)
    one, other = f"SELECT {columns} FROM temp.visits", f"SELECT {columns} FROM main.raw_visit"
    differ = (f"SELECT 1 FROM ({a} EXCEPT {b}) LIMIT 1" for a, b in ((one, other), (other, one)))
    if not any(registry.execute(query).fetchone() for query in differ):
        return False, disagreements
    registry.execute("DELETE FROM main.raw_visit")
    registry.execute(f"INSERT INTO main.raw_visit ({columns}) {one} ORDER BY visit")
    return True, disagreements


def _visits(registry: sqlite3.Connection, schema: Schema, disagreements: list[Disagreement]) -> Iterator[Signature]:
    """The rows of raw_visit, by visit; what disagrees goes into the list."""
    names = listed(schema.of_visit[1:])
    query = f"""
        SELECT visit, {schema.snap} AS of_snap, {names}, count(*) AS images FROM main.raw WHERE visit IS NOT NULL
        GROUP BY visit, of_snap, {names} ORDER BY visit, of_snap, images DESC, {names}"""
    for visit, rows in groupby(registry.execute(query), key=lambda row: row[0]):
        snaps = {snap: [(tuple(row[2:-1]), row[-1]) for row in its] for snap, its in groupby(rows, lambda row: row[1])}
        # The first snap's, as the registries of 2010 have it; of another where that has no good time.
        tops = [_top(signatures) for signatures in snaps.values()]
        of_visit = next((one for one in tops if _is_good(one)), tops[0])
        yield (visit, *of_visit)
        for (snap, signatures), top in zip(snaps.items(), tops, strict=True):
            taken = top if _is_good(top) else of_visit
            if len(signatures) > 1 or signatures[0][0] != taken or not _is_good(taken):
                disagreements.append(_disagreement(registry, schema, visit, snap, signatures, taken))


def _top(signatures: Sequence[tuple[Signature, int]]) -> Signature:
    """What most images say, of those that say most: a good time and an exposure time before a good time alone."""
    return max(signatures, key=lambda one: (_is_good(one[0]) + (_is_good(one[0]) and one[0][-1] is not None), one[1]))[
        0
    ]


def _is_good(signature: Signature) -> bool:
    time = signature[-2]
    return isinstance(time, str) and EARLIEST <= time <= LATEST


def _disagreement(
    registry: sqlite3.Connection,
    schema: Schema,
    visit: int,
    snap: int,
    signatures: Sequence[tuple[Signature, int]],
    taken: Signature,
) -> Disagreement:
    names = schema.of_visit[1:]
    others = [(signature, images) for signature, images in signatures if signature != taken or not _is_good(taken)]
    return Disagreement(
        visit=visit,
        snap=snap,
        images=sum(images for _, images in signatures),
        disagree=sum(images for _, images in others),
        where=_where(registry, schema, visit, snap, taken),
        taken=dict(zip(names, taken, strict=True)),
        others=tuple({**dict(zip(names, one, strict=True)), "images": images} for one, images in others[:MOST_OTHERS]),
    )


def _where(registry: sqlite3.Connection, schema: Schema, visit: int, snap: int, taken: Signature) -> str:
    """The ids that the images which disagree have in common, or of which they have few values."""
    names = [name for name in schema.rule.key if name not in ("visit", "snap")]
    same = " AND ".join(f"{quoted(name)} IS ?" for name in schema.of_visit[1:])
    few = []
    for name in names:
        query = f"""
            SELECT DISTINCT {quoted(name)} FROM main.raw WHERE visit = ? AND {schema.snap} = ? AND NOT ({same})
            ORDER BY 1 LIMIT {MOST_VALUES + 1}"""
        values = [str(row[0]) for row in registry.execute(query, (visit, snap, *taken))]
        if 0 < len(values) <= MOST_VALUES:
            few.append(f"{name} {' and '.join(values)}")
    return ", ".join(few)
