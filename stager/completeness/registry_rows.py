"""Where an audit has its rows from: the registry's file, and what the database says is proven."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.cameras import Camera, load, names
from manifests.errors import CameraError, InputError, ManifestError, Problem, shown
from manifests.lists.registry_files import MOST_S, MOST_TEXT, MOST_VISITS, read_registry
from manifests.parts import RegistryFile
from stager.completeness import visits
from stager.completeness.auditing import Audit, Audited, Columns, Key, Row, audit_visit
from stager.completeness.visits import Plan
from stager.counts import counted
from stager.database import Database
from stager.models import decode_path
from stager.registries.taiobs import taiobs

Proven = dict[int, dict[Key, str | None]]  # of each visit its files, each with the taiObs that its header gives


def audit(
    database: Database,
    path: Path,
    camera_name: str | None = None,
    dataset: str | None = None,
    folders: Sequence[Path] = (),
) -> Audit:
    """A registry held against the proven files of a dataset; without one against those of all datasets of its camera,
    where they have visits in common, and else against its camera alone.

    Raises ManifestError for a file that is no sound registry, InputError for a camera that it is not of.
    """
    registry = _read(path)
    camera = _camera(registry, camera_name, folders)
    columns = _columns(registry, camera)
    with database.read() as connection:
        plans = visits.plans(connection, folders, dataset)
        plans = [one for one in plans if one.camera is not None and one.camera.name == camera.name]
        if dataset is not None and not plans:
            raise InputError(f"no manifest of {dataset} is of the camera {camera.name}: name another, or no dataset")
        proven = _proven(connection, plans, columns) if plans else {}
    held = dataset is not None or not proven.keys().isdisjoint(registry.ids["visit"])
    expects = [plan for plan in plans if plan.manifest.expects]
    named = {visit for plan in expects for visit in plan.named} if held and expects else None
    found, problems = _audited(path, columns, proven if held else None, named)
    against = tuple(dict.fromkeys(plan.dataset for plan in plans)) if held else ()
    ordered = sorted(found, key=lambda one: (one.sound, one.visit))
    return Audit(str(path), camera.name, against, tuple(ordered), tuple(problems))


def _read(path: Path) -> RegistryFile:
    try:
        with path.open("rb") as file:
            return read_registry(path, file)
    except OSError as error:
        raise ManifestError((Problem("", f"cannot be read: {error.strerror}"),), str(path)) from error


def _camera(registry: RegistryFile, name: str | None, folders: Sequence[Path]) -> Camera:
    """The camera of that name, else the one whose registries have the most of these columns and no others."""
    if name is not None:
        return load(name, folders)
    fitting: dict[str, int] = {}
    for one in sorted(names(folders)):
        with suppress(CameraError):  # a broken file of another camera is no reason not to check
            rule = load(one, folders).registry_rule
            if rule is not None and set(rule.columns) <= set(registry.ids):
                fitting[one] = len(rule.columns)
    best = [one for one in fitting if fitting[one] == max(fitting.values())]
    if len(best) != 1:
        said = (
            f"those of {' and of '.join(best)} have the same" if best else "no camera's registries have these columns"
        )
        raise InputError(f"{shown(registry.path)} has the columns {', '.join(registry.ids)}, and {said}: give --camera")
    return load(best[0], folders)


def _columns(registry: RegistryFile, camera: Camera) -> Columns:
    lacking = [name for name, values in camera.sets.items() if len(values) > 1 and name not in registry.ids]
    if lacking or not camera.sets:
        there = ", ".join(shown(name, 40) for name in registry.ids)
        raise InputError(
            f"{shown(registry.path)} has the columns {there}; rows of {camera.name} are told apart by "
            f"{', '.join(camera.sets) or 'nothing that its file says'}: give another --camera"
        )
    return Columns.of(camera, registry.ids)


# ------------------------------------------------------------------------------------------ the file


def _audited(
    path: Path, columns: Columns, proven: Proven | None, named: Collection[str] | None
) -> tuple[list[Audited], list[str]]:
    """Every visit of the registry and every one that is proven; what is wrong with the file as a whole."""
    try:
        with closing(_opened(path)) as connection:
            table = _visit_table(connection)
            counts = Counter(dict(connection.execute("SELECT visit, count(*) FROM raw GROUP BY visit")))
            fullest = max(counts.values())

            def one(visit: int, rows: Sequence[Row]) -> Audited:
                of_table = None if table is None else table.get(visit, [])
                files = None if proven is None else proven.get(visit, {})
                return audit_visit(visit, rows, columns, of_table, files, fullest, named)

            found = [one(visit, rows) for visit, rows in _rows(connection, columns)]
            elsewhere = {*(proven or ()), *(table or ())} - counts.keys()
            found += [one(visit, []) for visit in sorted(elsewhere)]
            return found, list(_problems(connection, table))
    except sqlite3.Error as error:
        raise ManifestError((Problem("", f"cannot be read as a registry: {shown(str(error))}"),), str(path)) from error


def _opened(path: Path) -> sqlite3.Connection:
    """The file, which `read_registry` found sound, with the same bounds: it comes from elsewhere."""
    connection = sqlite3.connect(f"file:{quote(os.fsencode(path))}?mode=ro&immutable=1", uri=True)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_TEXT)
    ends = time.monotonic() + MOST_S
    connection.set_progress_handler(lambda: time.monotonic() > ends, 100_000)
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def _rows(connection: sqlite3.Connection, columns: Columns) -> Iterator[tuple[int, list[Row]]]:
    """The rows of `raw` by visit."""
    there = {str(row[1]).lower() for row in connection.execute("PRAGMA table_info(raw)")}
    times = [name if name.lower() in there else "NULL" for name in ("taiObs", "expTime")]
    names = ", ".join(f'"{name}"' for name in ("visit", *columns.key, *columns.of_visit))
    cursor = connection.execute(f"SELECT {names}, {', '.join(times)} FROM raw ORDER BY visit")
    cut = 1 + len(columns.key)
    for visit, some in groupby(cursor, lambda row: row[0]):
        yield visit, [Row(row[1:cut], row[cut:-2], row[-2], row[-1]) for row in some]


def _visit_table(connection: sqlite3.Connection) -> dict[int, list[Mapping[str, Any]]] | None:
    """The rows of `raw_visit` by visit, each by the names of its columns in small letters; None without that table."""
    if not _is_table(connection, "raw_visit"):
        return None
    cursor = connection.execute(f"SELECT * FROM raw_visit LIMIT {2 * MOST_VISITS}")
    names = [str(one[0]).lower() for one in cursor.description]
    found: dict[int, list[Mapping[str, Any]]] = {}
    for row in cursor:
        said = dict(zip(names, row, strict=True))
        if isinstance(visit := said.get("visit"), int):
            found.setdefault(visit, []).append(said)
    return found


def _is_table(connection: sqlite3.Connection, name: str) -> bool:
    query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ? COLLATE NOCASE"
    row = connection.execute(query, (name,)).fetchone()
    return row is not None and str(row[0]).upper().split()[:2] != ["CREATE", "VIRTUAL"]


def _problems(connection: sqlite3.Connection, table: Mapping[int, Any] | None) -> Iterator[str]:
    """What is wrong with the file as a whole."""
    if table is None:
        yield "there is no table raw_visit, by which readers find visits"
    if _is_table(connection, "raw_skyTile"):
        query = "SELECT count(*) FROM raw_skyTile WHERE id NOT IN (SELECT id FROM raw)"
        with suppress(sqlite3.OperationalError):  # a table of that name with other columns
            (count,) = connection.execute(query).fetchone()
            if count:
                yield f"raw_skyTile has {counted(count, 'row')} of images that raw does not have"


# --------------------------------------------------------------------------------------- what is proven


def _proven(connection: Connection, plans: Sequence[Plan], columns: Columns) -> Proven:
    """The files of these manifests that are proven, wherever."""
    found: Proven = {}
    for plan in plans:
        for ids, mjd, scale in (_pieces if plan.manifest.kind == "chop" else _files)(connection, plan):
            if isinstance(ids.get("visit"), int) and all(name in ids for name in columns.key):
                key = tuple(ids[name] for name in columns.key)
                found.setdefault(ids["visit"], {})[key] = _taiobs(mjd, scale)
    return found


def _taiobs(mjd: float | None, scale: str | None) -> str | None:
    if mjd is None or scale is None:
        return None
    with suppress(ValueError):
        return taiobs(mjd, scale)
    return None


def _files(connection: Connection, plan: Plan) -> Iterator[tuple[Mapping[str, Any], float | None, str | None]]:
    query = sa.text("""
        SELECT i.ids, m.mjd, m.scale FROM items i
        LEFT JOIN images m ON m.host = :host AND m.path = i.destination
        WHERE i.manifest_id = :id AND i.state = 'done' AND i.ids IS NOT NULL""")
    for ids, mjd, scale in connection.execute(query, {"id": plan.id, "host": plan.host}):
        yield json.loads(ids), mjd, scale


def _pieces(connection: Connection, plan: Plan) -> Iterator[tuple[Mapping[str, Any], float | None, str | None]]:
    query = sa.text("""
        SELECT i.ids, c.path, m.mjd, m.scale FROM items i JOIN copies c ON c.piece_of = i.id
        LEFT JOIN images m ON m.host = c.host AND m.path = c.path
        WHERE i.manifest_id = :id AND (i.state = 'done' OR i.kind = 'lost') AND c.trouble IS NULL""")
    assert plan.camera is not None  # only such plans are held against
    for ids, path, mjd, scale in connection.execute(query, {"id": plan.id}):
        identified = plan.camera.identify(decode_path(path))
        yield {**json.loads(ids or "{}"), **(identified[1] if identified else {})}, mjd, scale
