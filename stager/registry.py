"""What landed, by its header: the images of a dataset, and how complete its visits are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.cameras import Camera
from manifests.errors import CameraError
from manifests.manifest import Manifest
from stager.database import Database
from stager.models import Image, decode_path

table = Image.__table__  # type: ignore[attr-defined]  # SQLModel gives its tables no static type


def image(
    camera: Camera,
    manifest: Manifest,
    host: str,
    path: str,
    cards: Mapping[str, Any],
    ids: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """The registry's entry for an image that lands at `host:path`; None for a file that is no image of a layout.

    Its ids are those of its path; where the header says other ones, or has no good time, `problem` says so:
    such an image is registered all the same, and reported.
    """
    found = camera.identify(path)
    if found is None:
        return None
    layout, of_path = found
    said, wrong = _said(camera, manifest, cards)
    wrong += [
        f"{name} is {said[name]} by the header and {value} by the path"
        for name, value in of_path.items()
        if name in said and str(said[name]) != str(value)
    ]
    times = camera.times(cards)
    every = {**(ids or {}), **of_path}
    visit = every.get("visit")
    return {
        "dataset": manifest.dataset,
        "host": host,
        "path": path,
        "camera": camera.name,
        "layout": layout,
        "visit": visit if isinstance(visit, int) else None,
        "ids": json.dumps(every),
        "mjd": times.mjd,
        "scale": times.scale,
        "exptime": times.exptime,
        "problem": "; ".join([*wrong, *times.problems]) or None,
    }


def add(database: Database, connection: Connection, images: Sequence[dict[str, Any]]) -> None:
    """Write entries that `image` made; one that is there of the same place is made anew."""
    if not images:
        return
    statement = sa.text(f"""
        INSERT INTO images
            (dataset, host, path, camera, layout, visit, ids, mjd, scale, exptime, problem, registered_at)
        VALUES (:dataset, :host, :path, :camera, :layout, :visit, :ids, :mjd, :scale, :exptime, :problem,
                {database.now})
        ON CONFLICT (host, path) DO UPDATE SET
            dataset = excluded.dataset, camera = excluded.camera, layout = excluded.layout, visit = excluded.visit,
            ids = excluded.ids, mjd = excluded.mjd, scale = excluded.scale, exptime = excluded.exptime,
            problem = excluded.problem, registered_at = excluded.registered_at""").bindparams(
        sa.bindparam("path", type_=table.c.path.type)
    )
    connection.execute(statement, images)


def _said(camera: Camera, manifest: Manifest, cards: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    try:
        return dict(camera.header_ids(cards, manifest.ids)), []
    except CameraError as error:
        return {}, [str(error)]


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


@dataclass(frozen=True, slots=True)
class Finding:
    """An image with something wrong in its header, in a sentence."""

    dataset: str
    location: str
    ids: dict[str, Any]
    problem: str


def findings(database: Database, dataset: str | None = None) -> list[Finding]:
    """All images whose headers have something wrong in them."""
    query = sa.text("""
        SELECT dataset, host, path, ids, problem FROM images
        WHERE problem IS NOT NULL AND (dataset = :dataset OR :every) ORDER BY dataset, host, path""")
    with database.read() as connection:
        rows = connection.execute(query, {"dataset": dataset or "", "every": dataset is None})
        found = [(row.dataset, f"{row.host}:{decode_path(row.path)}", row.ids, row.problem) for row in rows]
    return [Finding(name, location, json.loads(ids), problem) for name, location, ids, problem in found]


MOST_VALUES = 4  # of one id that are written out; more are left unsaid


def summaries(found: Sequence[Finding]) -> list[str]:
    """A sentence for all images of a visit at a host that have the same thing wrong: a bad sensor is one, not 32.

    An id is said with its values where they are few.
    """
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for one in found:
        host = one.location.partition(":")[0]
        groups.setdefault((one.dataset, host, str(one.ids.get("visit")), one.problem), []).append(one)
    return [_summary(*key, alike) for key, alike in groups.items()]


def _summary(dataset: str, host: str, visit: str, problem: str, alike: Sequence[Finding]) -> str:
    if len(alike) == 1:
        return f"{alike[0].location}: {problem}"
    names = dict.fromkeys(name for one in alike for name in one.ids if name != "visit")
    values = {name: sorted({str(one.ids[name]) for one in alike if name in one.ids}) for name in names}
    said = [f"{name} {' and '.join(few)}" for name, few in values.items() if len(few) <= MOST_VALUES]
    return f"{dataset} at {host}, {', '.join([f'visit {visit}', *said])}: {len(alike)} images: {problem}"
