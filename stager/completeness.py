"""How complete the visits of a dataset are: what is expected, proven and registered of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from stager.database import Database


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit of a dataset at one host, in files: `expected` by its manifest, `proven` there, `registered`
    with a header that was read, `bad` of these with something wrong in it."""

    dataset: str
    host: str
    visit: str
    expected: int
    proven: int
    missing: int
    held: int
    excluded: int
    registered: int
    bad: int


def completeness(database: Database, dataset: str | None = None) -> list[Visit]:
    """Every visit of the datasets, by the newest revision of each manifest that knows visits.

    A file that two manifests bring to one place is counted once, at its best.
    """
    totals: dict[tuple[str, str, str], dict[str, int]] = {}
    with database.read() as connection:
        for row in _item_counts(connection, dataset):
            total = totals.setdefault((row.dataset, row.host, str(row.visit)), {})
            total[row.state] = total.get(row.state, 0) + int(row.files)
        registered = _registered(connection, dataset)
    visits = []
    for (name, host, visit), counts in sorted(totals.items()):
        images, bad = registered.get((name, host, visit), (0, 0))
        waited = sum(count for state, count in counts.items() if state != "excluded")
        visits.append(
            Visit(
                name,
                host,
                visit,
                waited,
                counts.get("done", 0),
                counts.get("missing", 0),
                counts.get("held", 0),
                counts.get("excluded", 0),
                images,
                bad,
            )
        )
    return visits


def _item_counts(connection: Connection, dataset: str | None) -> list[Any]:
    on_sqlite = connection.dialect.name == "sqlite"
    visit = "json_extract(i.ids, '$.visit')" if on_sqlite else "(i.ids::json ->> 'visit')"
    query = sa.text(f"""
        SELECT dataset, host, visit, substr(best, 2) AS state, sum(files) AS files FROM (
            SELECT m.dataset, m.destination_host AS host, {visit} AS visit,
                   COALESCE(i.destination, i.source) AS place, max(i.files) AS files,
                   min(CASE WHEN i.missing THEN '4missing' WHEN i.state = 'done' THEN '1done'
                            WHEN i.state = 'held' THEN '3held' WHEN i.state = 'excluded' THEN '5excluded'
                            ELSE '2' || i.state END) AS best
            FROM items i JOIN manifests m ON m.id = i.manifest_id
            WHERE m.intent IN ('active', 'held') AND i.ids IS NOT NULL AND {visit} IS NOT NULL
              AND (m.dataset = :dataset OR :every)
            GROUP BY 1, 2, 3, 4) AS places
        GROUP BY 1, 2, 3, 4""")
    return list(connection.execute(query, {"dataset": dataset or "", "every": dataset is None}))


def _registered(connection: Connection, dataset: str | None) -> dict[tuple[str, str, str], tuple[int, int]]:
    query = sa.text("""
        SELECT dataset, host, visit, count(*), count(problem) FROM images
        WHERE visit IS NOT NULL AND (dataset = :dataset OR :every) GROUP BY 1, 2, 3""")
    rows = connection.execute(query, {"dataset": dataset or "", "every": dataset is None})
    return {(row[0], row[1], str(row[2])): (row[3], row[4]) for row in rows}
