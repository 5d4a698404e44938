"""registry.sqlite3 as the mappers of DC3b read it, brought up to what landed.

A registry that is there is the start: rows keep their ids, also those that others made. The new one is written beside
its place and renamed, and only when something changed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from manifests.errors import shown
from stager.registries import landed, visits
from stager.registries.databases import finish, opened
from stager.registries.drafts import Draft
from stager.registries.errors import RegistryError
from stager.registries.landed import Image, Place, Staged
from stager.registries.schemas import UNIQUE, Schema, listed, quoted, schema_of
from stager.registries.visits import Disagreement

OURS = 0x53746772  # PRAGMA application_id of a registry that Stager wrote: "Stgr"
MOST_ID = 2**31 - 1  # what PRAGMA user_version holds
MOST_CLASHES = 100  # that are told one by one

Images = Callable[[], Iterable[Image]]


@dataclass
class Change:
    """What became of the rows of one visit."""

    visit: int | None
    added: int = 0
    updated: int = 0
    removed: int = 0
    strays: int = 0


@dataclass
class Report:
    """What was done with a registry, in rows of `raw`; `rows` is how many there are now.

    `strays` were in the registry and are none of these images: others wrote them, or other datasets have them. They
    are kept, but where they were to be dropped, when they count as removed. `merged` stood in it twice. `landed` says
    what the images were; `clashes` are those that landed twice and say different things, some of them in words.
    """

    camera: str
    host: str
    datasets: tuple[str, ...]
    written: bool = False
    rows: int = 0
    visits: int = 0
    kept: int = 0
    added: int = 0
    updated: int = 0
    removed: int = 0
    strays: int = 0
    merged: int = 0
    clashes: int = 0
    landed: Staged = field(default_factory=Staged)
    changes: list[Change] = field(default_factory=list)
    clashing: list[str] = field(default_factory=list)
    disagreements: list[Disagreement] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        disagreements = [{**one.as_dict(), "text": str(one)} for one in self.disagreements]
        return {**asdict(self), "disagreements": disagreements}


def build(draft: Draft, place: Place, images: Images, elsewhere: Images, *, drop_strays: bool = False) -> Report:
    """Bring the registry that a draft begins with up to these images, and keep the draft if that changes anything.

    `elsewhere` are the images of the same camera and host that other datasets have: their rows stay. Raises
    RegistryError where what is there is no registry of this camera, and where no image is left of those that landed.
    """
    schema = schema_of(place.camera)
    report = Report(place.camera.name, place.host, place.datasets)
    with opened(draft, schema.why_foreign, f"registry of {place.camera.name}") as registry:
        watermark = _begin(registry, schema, draft)
        report.landed = landed.stage(registry, schema, place, images())
        if not report.landed.images:
            raise RegistryError("of all images that landed none is there any more, so nothing is made")
        lacking = schema.indexes(registry)
        report.merged = _merge(registry, schema) if UNIQUE in lacking else 0
        for statement in lacking.values():
            registry.execute(statement)
        _judge(registry, schema, watermark, elsewhere, drop_strays)
        _change(registry, schema, report)
        changed, report.disagreements = visits.rebuild(registry, schema)
        _count(registry, schema, report)
        done = report.added + report.updated + report.removed + report.merged
        report.written = bool(done or changed or lacking or draft.before is None)
        if report.written:
            finish(registry, draft)
    return report


def _begin(registry: sqlite3.Connection, schema: Schema, draft: Draft) -> int:
    """Make the tables where there are none; the highest id of rows that others made.

    A registry says who wrote it where no reader of tables looks: in two numbers of its file's header, the application
    that it is of and, as its version, that id.
    """
    (application,), (version,) = (
        registry.execute(f"PRAGMA {name}").fetchone() for name in ("application_id", "user_version")
    )
    if draft.before is None:
        for statement in schema.statements():
            registry.execute(statement)
        version = 0
    elif application != OURS:
        (version,) = registry.execute("SELECT COALESCE(max(id), 0) FROM raw").fetchone()
    if not 0 <= version <= MOST_ID:
        raise RegistryError(
            f"{shown(draft.name)}: its ids go up to {version}, and from {MOST_ID} on they are not kept apart"
        )
    registry.execute(f"PRAGMA application_id = {OURS}")
    registry.execute(f"PRAGMA user_version = {version:d}")
    return int(version)


def _merge(registry: sqlite3.Connection, schema: Schema) -> int:
    """Remove rows whose key another row has already, as a registry has that was built twice; how many."""
    named = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in schema.rule.key)
    numbered = f"row_number() OVER (PARTITION BY {listed(schema.rule.key)} ORDER BY id) AS number"
    return registry.execute(f"""
        DELETE FROM main.raw WHERE id IN (
            SELECT id FROM (SELECT id, {numbered} FROM main.raw WHERE {named}) WHERE number > 1)""").rowcount


def _judge(registry: sqlite3.Connection, schema: Schema, watermark: int, elsewhere: Images, drop_strays: bool) -> None:
    """Find each image's row, and say in temp.fates what becomes of rows without one: "stray" or "removed"."""
    same = _same("raw", "landed", schema)
    registry.execute(f"UPDATE temp.landed SET old = (SELECT id FROM main.raw WHERE {same})")
    registry.execute("CREATE TEMP TABLE fates (id integer PRIMARY KEY, visit int, fate text)")
    lost = f"EXISTS (SELECT 1 FROM temp.lost WHERE {_same('raw', 'lost', schema)})"
    registry.execute(
        f"""
        INSERT INTO temp.fates
        SELECT id, visit, CASE WHEN {lost} THEN 'removed' WHEN id <= ? THEN 'stray' ELSE 'gone' END FROM main.raw
        WHERE NOT EXISTS (SELECT 1 FROM temp.landed WHERE {same})""",
        (watermark,),
    )
    if registry.execute("SELECT 1 FROM temp.fates WHERE fate = 'gone' LIMIT 1").fetchone():
        _keep_others(registry, schema, elsewhere)
    left = "('gone', 'stray')" if drop_strays else "('gone')"
    registry.execute(f"UPDATE temp.fates SET fate = 'removed' WHERE fate IN {left}")


def _keep_others(registry: sqlite3.Connection, schema: Schema, elsewhere: Images) -> None:
    """What is an image of another dataset is not gone, but a stray."""
    key = listed(schema.rule.key)
    registry.execute(
        f"CREATE TEMP TABLE elsewhere ({schema.typed(schema.rule.key)}, PRIMARY KEY ({key})) WITHOUT ROWID"
    )
    insert = f"INSERT OR IGNORE INTO temp.elsewhere VALUES ({', '.join('?' * len(schema.rule.key))})"
    registry.executemany(insert, _keys(schema, elsewhere()))
    registry.execute(f"""
        UPDATE temp.fates SET fate = 'stray' WHERE fate = 'gone' AND id IN (
            SELECT id FROM temp.elsewhere JOIN main.raw ON {_same("raw", "elsewhere", schema)})""")


def _keys(schema: Schema, images: Iterable[Image]) -> Iterator[list[Any]]:
    for image in images:
        if not image.lost and all(name in image.ids for name in schema.rule.key):
            yield [image.ids[name] for name in schema.rule.key]


def _change(registry: sqlite3.Connection, schema: Schema, report: Report) -> None:
    """Add, update and remove rows, and count that by visit."""
    matched = f"temp.landed JOIN main.raw ON raw.id = landed.old WHERE {_differ(schema)}"
    changes: dict[int | None, Change] = {}
    for what, source in (
        ("added", "temp.landed WHERE old IS NULL"),
        ("updated", matched),
        ("removed", "temp.fates WHERE fate = 'removed'"),
        ("strays", "temp.fates WHERE fate = 'stray'"),
    ):
        visit = "raw.visit" if source == matched else "visit"
        for number, rows in registry.execute(f"SELECT {visit}, count(*) FROM {source} GROUP BY 1 ORDER BY 1"):
            setattr(changes.setdefault(number, Change(number)), what, rows)
            setattr(report, what, getattr(report, what) + rows)
    report.changes = list(changes.values())
    if report.updated:
        values = ", ".join(f"{quoted(name)} = landed.{quoted(name)}" for name in schema.values)
        registry.execute(
            f"UPDATE main.raw SET {values} FROM temp.landed WHERE landed.old = raw.id AND ({_differ(schema)})"
        )
    if report.removed:
        registry.execute("DELETE FROM main.raw WHERE id IN (SELECT id FROM temp.fates WHERE fate = 'removed')")
    if report.removed or report.merged:
        registry.execute("DELETE FROM main.raw_skyTile WHERE id NOT IN (SELECT id FROM main.raw)")
    columns = listed(schema.columns)
    registry.execute(
        f"INSERT INTO main.raw ({columns}) SELECT {columns} FROM temp.landed WHERE old IS NULL ORDER BY {columns}"
    )


def _count(registry: sqlite3.Connection, schema: Schema, report: Report) -> None:
    (report.rows,) = registry.execute("SELECT count(*) FROM main.raw").fetchone()
    (report.visits,) = registry.execute("SELECT count(*) FROM main.raw_visit").fetchone()
    report.kept = report.rows - report.added - report.updated - report.strays
    (report.clashes,) = registry.execute("SELECT count(*) FROM temp.landed WHERE differ").fetchone()
    query = f"SELECT copies, path, {listed(schema.rule.key)} FROM temp.landed WHERE differ LIMIT {MOST_CLASHES}"
    for copies, path, *values in registry.execute(query):
        ids = ", ".join(f"{name} {value}" for name, value in zip(schema.rule.key, values, strict=True))
        report.clashing.append(f"{ids}: {copies} images landed that say different things; {shown(path)} is taken")


def _same(table: str, other: str, schema: Schema) -> str:
    """SQL for rows of two tables that have one key."""
    return " AND ".join(f"{table}.{name} = {other}.{name}" for name in map(quoted, schema.rule.key))


def _differ(schema: Schema) -> str:
    return " OR ".join(f"raw.{name} IS NOT landed.{name}" for name in map(quoted, schema.values))
