"""Look again for what was missing at the source: a late file must tell somebody."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from manifests.cameras import load
from manifests.manifest import Manifest
from manifests.patterns import Pattern
from stager import breakers
from stager.database import Database, again
from stager.focal_planes import look
from stager.models import ItemState, PathText, decode_path
from stager.opening import Hosts
from stager.planning import UNKNOWN, Planned, plan_focal_plane
from transfers.errors import TransferError, shown
from transfers.hosts import FileInfo, Host, only

AT_ONCE = 1000  # missing items looked for in one conversation


def rescan(database: Database, hosts: Hosts) -> int:
    """Look for the missing items of every active manifest; returns how many were found. A host that is paused or
    cannot be used is left for the next time."""
    query = sa.text("""
        SELECT m.id, m.document FROM manifests m JOIN tallies t ON t.manifest_id = m.id
        WHERE m.intent = 'active' AND t.state = 'missing' AND t.items > 0""")
    with database.read() as connection:
        rows = connection.execute(query).all()
    found = 0
    unreadable = breakers.unreadable(database) if rows else set()
    for manifest_id, document in rows:
        manifest = Manifest.from_canonical(document)
        if manifest.source.host in unreadable:
            continue
        try:
            source = hosts[manifest.source.host]
            found += _rescan(database, hosts.config.camera_folders, source, manifest_id, manifest)
        except TransferError:
            continue
    return found


def _rescan(database: Database, folders: Sequence[Path], source: Host, manifest_id: int, manifest: Manifest) -> int:
    found = 0
    for lot in _missing(database, manifest_id):
        for item_id, info in _seek(source, lot):
            if manifest.kind == "chop":
                found += _found_focal_plane(database, folders, source, manifest, item_id, info)
            else:
                found += _found(database, item_id, info, _destination(manifest, info.path), info.size, None)
    return found


def _missing(database: Database, manifest_id: int) -> Iterator[list[tuple[int, str]]]:
    """Lots of (item, source path) of what is missing."""
    last = 0
    while True:
        query = sa.text("""
            SELECT id, source FROM items WHERE manifest_id = :manifest AND missing AND id > :last
            ORDER BY id LIMIT :most""")
        with database.read() as connection:
            rows = connection.execute(query, {"manifest": manifest_id, "last": last, "most": AT_ONCE}).all()
        if not rows:
            return
        last = rows[-1][0]
        yield [(row[0], decode_path(row[1])) for row in rows]


def _seek(source: Host, lot: list[tuple[int, str]]) -> Iterator[tuple[int, FileInfo]]:
    """The items of a lot that are there now. A path with unknown ids stands for the one file that fits it."""
    known = [(item, path) for item, path in lot if UNKNOWN not in path]
    for (item, _), info in zip(known, source.find([path for _, path in known]), strict=True):
        if isinstance(info, FileInfo):
            yield item, info
    unknown = [(item, Pattern(path)) for item, path in lot if UNKNOWN in path]
    for fixed in {pattern.fixed for _, pattern in unknown}:
        listing = [info for info in source.scan(fixed) if isinstance(info, FileInfo)]
        for item, pattern in unknown:
            fitting = [info for info in listing if pattern.matches(info.path)] if pattern.fixed == fixed else []
            if len(fitting) == 1:
                yield item, fitting[0]


def _destination(manifest: Manifest, path: str) -> str:
    prefix = manifest.destination.path + "/" if manifest.destination.path else ""
    if manifest.files is not None:
        inside = path.removeprefix(manifest.source.path + "/") if manifest.source.path else path
        return prefix + inside
    return prefix + manifest.pattern.relative(path)


def _found_focal_plane(
    database: Database, folders: Sequence[Path], source: Host, manifest: Manifest, item_id: int, info: FileInfo
) -> int:
    assert manifest.camera is not None
    camera = load(manifest.camera, folders)
    plane, *left_out = plan_focal_plane(manifest, only(look(source, [info], manifest, camera)), camera)
    if plane.destination is None:
        return _settled(database, item_id, plane.state, plane.reason or "")
    _leave_out(database, item_id, left_out)
    return _found(database, item_id, info, plane.destination, None, dict(plane.ids or {}), plane.files)


@again
def _leave_out(database: Database, item_id: int, pieces: Sequence[Planned]) -> None:
    """Write the files of a focal plane that are excluded, into its group, before it is carried out."""
    statement = sa.text(f"""
        INSERT INTO items (manifest_id, source, destination, files, ids, group_id, state, missing, reason, epoch, tries,
                           not_before)
        SELECT manifest_id, :source, :destination, 1, :ids, group_id, 'excluded', :no, :reason, 0, 0, {database.now}
        FROM items WHERE id = :id ON CONFLICT DO NOTHING""").bindparams(
        sa.bindparam("source", type_=PathText()), sa.bindparam("destination", type_=PathText())
    )
    with database.write() as connection:
        for one in pieces:
            values = {"source": one.source, "destination": one.destination, "ids": json.dumps(dict(one.ids or {}))}
            connection.execute(statement, {**values, "reason": one.reason, "no": False, "id": item_id})


def _found(
    database: Database,
    item_id: int,
    info: FileInfo,
    destination: str,
    size: int | None,
    ids: dict[str, Any] | None,
    files: int = 1,
) -> int:
    statement = sa.text(f"""
        UPDATE items SET missing = :no, reason = NULL, source = :source, destination = :destination, size = :of_source,
               mtime_ns = :mtime_ns, bytes = :bytes, files = :files, ids = COALESCE(:ids, ids),
               not_before = {database.now}
        WHERE id = :id AND missing""").bindparams(
        sa.bindparam("source", type_=PathText()), sa.bindparam("destination", type_=PathText())
    )
    values = {"no": False, "source": info.path, "destination": destination, "of_source": info.size}
    values |= {
        "mtime_ns": info.mtime_ns,
        "bytes": size,
        "files": files,
        "ids": json.dumps(ids) if ids else None,
    }
    try:
        return _write(database, statement, {**values, "id": item_id})
    except IntegrityError:
        return _settled(
            database, item_id, ItemState.HELD, f"another item has the destination {shown(destination)} already"
        )


def _settled(database: Database, item_id: int, state: str, reason: str) -> int:
    """Hold a missing item that was found, or leave it out."""
    statement = sa.text("UPDATE items SET missing = :no, state = :state, reason = :reason WHERE id = :id AND missing")
    return _write(database, statement, {"no": False, "state": str(state), "reason": reason, "id": item_id})


@again
def _write(database: Database, statement: Any, values: dict[str, Any]) -> int:
    with database.write() as connection:
        return int(connection.execute(statement, values).rowcount)
