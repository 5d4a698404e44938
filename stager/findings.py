"""What was found in files, kept with their items, and told by visit and fault."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests import findings as said
from manifests.checking.checks import odd_ones
from manifests.findings import Severity, merged
from stager import models
from stager.database import Database, id_of
from stager.models import decode_path

table = models.Finding.__table__  # type: ignore[attr-defined]  # SQLModel gives its tables no static type

EARLIEST_MJD = 40000  # of a time that can be one
WITHIN_S = 0.01  # seconds in which the amplifiers of one exposure agree
ITEMS_AT_ONCE = 500  # whose old findings one statement forgets


@dataclass(frozen=True, slots=True)
class Found:
    """A finding with what it is about: `location` is where the file lay that was looked into, `ids` its item's."""

    dataset: str
    manifest: str
    location: str
    state: str  # of the item
    ids: dict[str, Any]
    code: str
    severity: str
    hdus: tuple[int, ...]
    text: str

    @property
    def sentence(self) -> str:
        """What is wrong, with the HDUs it is about."""
        return str(said.Finding(self.code, Severity(self.severity), self.text, self.hdus))

    def as_dict(self) -> dict[str, Any]:
        """The finding alone, as plain data; `said` is its sentence."""
        names = ("code", "severity", "hdus", "text")
        return {name: getattr(self, name) for name in names} | {"said": self.sentence}


def replace(
    database: Database,
    connection: Connection,
    manifest_id: int,
    found: Mapping[int, tuple[str, str, Sequence[said.Finding]]],
) -> None:
    """Keep what was found in the files of these items, as item: (host, path, findings), in place of what was
    known of them before."""
    if not found:
        return
    old = sa.text("DELETE FROM findings WHERE item_id IN :items").bindparams(sa.bindparam("items", expanding=True))
    items = sorted(found)
    for start in range(0, len(items), ITEMS_AT_ONCE):
        connection.execute(old, {"items": items[start : start + ITEMS_AT_ONCE]})
    new = sa.text(f"""
        INSERT INTO findings (item_id, manifest_id, host, path, code, severity, hdus, text, found_at)
        VALUES (:item, :manifest, :host, :path, :code, :severity, :hdus, :text, {database.now})""").bindparams(
        sa.bindparam("path", type_=table.c.path.type)
    )
    rows = [
        {
            "item": item,
            "manifest": manifest_id,
            "host": host,
            "path": path,
            "code": one.code,
            "severity": str(one.severity),
            "hdus": json.dumps(one.hdus),
            "text": one.text,
        }
        for item, (host, path, every) in found.items()
        for one in merged(every)
    ]
    if rows:
        connection.execute(new, rows)


def findings(database: Database, dataset: str | None = None, least: str = "warn") -> list[Found]:
    """All that is known of files of the newest revisions and is at least as bad as `least`, the worst of a dataset
    first; then what only the whole of an exposure shows."""
    return [*_kept(database, dataset, least), *(disagreements(database, dataset) if least != "fail" else ())]


def _kept(database: Database, dataset: str | None, least: str) -> list[Found]:
    worst = [str(one) for one in Severity if one.reaches(least)]
    query = sa.text("""
        SELECT m.dataset, m.name, f.host, f.path, i.state, i.ids, f.code, f.severity, f.hdus, f.text
        FROM findings f JOIN manifests m ON m.id = f.manifest_id JOIN items i ON i.id = f.item_id
        WHERE m.intent IN ('active', 'held') AND f.severity IN :worst
          AND (m.dataset = :dataset OR m.name = :dataset OR :every)
        ORDER BY m.dataset, f.severity = 'fail' DESC, f.host, f.path, f.id""").bindparams(
        sa.bindparam("worst", worst, expanding=True)
    )
    with database.read() as connection:
        rows = connection.execute(query, {"dataset": dataset or "", "every": dataset is None})
        return [_found(row) for row in rows]


def of_items(connection: Connection, items: Sequence[int]) -> dict[int, list[Found]]:
    """What is known of these items, by item."""
    query = sa.text("""
        SELECT f.item_id, m.dataset, m.name, f.host, f.path, i.state, i.ids, f.code, f.severity, f.hdus, f.text
        FROM findings f JOIN manifests m ON m.id = f.manifest_id JOIN items i ON i.id = f.item_id
        WHERE f.item_id IN :items ORDER BY f.id""").bindparams(
        sa.bindparam("items", list(items) or [0], expanding=True)
    )
    found: dict[int, list[Found]] = {}
    for item, *row in connection.execute(query):
        found.setdefault(item, []).append(_found(row))
    return found


def _found(row: Any) -> Found:
    dataset, manifest, host, path, state, ids, code, severity, hdus, text = row
    location = f"{host}:{decode_path(path)}"
    return Found(
        dataset, manifest, location, state, json.loads(ids or "{}"), code, severity, tuple(json.loads(hdus)), text
    )


def disagreements(database: Database, dataset: str | None = None) -> list[Found]:
    """Images whose time or length differs from what more than half of their exposure say, where no look into their
    own file had found that. Those without a good time are left out: they have a finding of their own."""
    found: list[Found] = []
    with database.read() as connection:
        exposures = sa.text(f"""
            SELECT dataset, host, visit, {id_of(connection, "snap", "ids")} AS snap FROM images
            WHERE visit IS NOT NULL AND mjd > {EARLIEST_MJD} AND (dataset = :dataset OR :every) GROUP BY 1, 2, 3, 4
            HAVING min(mjd) <> max(mjd) OR min(exptime) <> max(exptime) ORDER BY 1, 2, 3, 4""")
        for exposure in connection.execute(exposures, {"dataset": dataset or "", "every": dataset is None}).all():
            found += _odd(connection, exposure)
    return found


def _odd(connection: Connection, exposure: Any) -> Iterator[Found]:
    query = sa.text(f"""
        SELECT g.path, g.ids, g.mjd, g.exptime FROM images g
        WHERE dataset = :dataset AND host = :host AND visit = :visit AND mjd > {EARLIEST_MJD}
          AND COALESCE({id_of(connection, "snap", "g.ids")}, '') = COALESCE(:snap, '')
          AND NOT EXISTS (SELECT 1 FROM items i JOIN manifests m ON m.id = i.manifest_id
                          JOIN findings f ON f.item_id = i.id AND f.code LIKE 'sibling-%'
                          WHERE m.destination_host = g.host AND i.destination = g.path)""")
    rows = connection.execute(query, dict(exposure._mapping)).all()
    for name, within in (("mjd", WITHIN_S / 86400), ("exptime", WITHIN_S)):
        values = {number: getattr(row, name) for number, row in enumerate(rows)}
        odd = odd_ones(values, within)
        usual = next((value for number, value in values.items() if number not in odd), None)
        for number in odd:
            row = rows[number]
            text = f"{name} is {values[number]!r}, and {usual!r} in {len(rows) - len(odd)} others of the exposure"
            location = f"{exposure.host}:{decode_path(row.path)}"
            yield Found(
                exposure.dataset, "", location, "done", json.loads(row.ids), f"sibling-{name}", "warn", (), text
            )


MOST_VALUES = 4  # of one id that are written out; more are left unsaid


def summaries(found: Sequence[Found]) -> Iterator[tuple[str, str, str]]:
    """(severity, code, sentence) for all files of a visit at a host that have the same thing wrong: a bad sensor is
    one, not 32. An id is said with its values where they are few.
    """
    groups: dict[tuple[str, ...], list[Found]] = {}
    for one in found:
        host = one.location.partition(":")[0]
        key = (one.severity, one.code, one.dataset, host, str(one.ids.get("visit")), one.sentence)
        groups.setdefault(key, []).append(one)
    for alike in groups.values():
        yield alike[0].severity, alike[0].code, _summary(alike)


def _summary(alike: Sequence[Found]) -> str:
    first = alike[0]
    if len(alike) == 1:
        return f"{first.location}: {first.sentence}"
    names = dict.fromkeys(name for one in alike for name in one.ids if name != "visit")
    values = {name: sorted({str(one.ids[name]) for one in alike if name in one.ids}) for name in names}
    few = [f"{name} {' and '.join(some)}" for name, some in values.items() if len(some) <= MOST_VALUES]
    host, visit = first.location.partition(":")[0], first.ids.get("visit")
    which = ", ".join([*([] if visit is None else [f"visit {visit}"]), *few])
    return f"{first.dataset} at {host}{', ' if which else ''}{which}: {len(alike)} files: {first.sentence}"
