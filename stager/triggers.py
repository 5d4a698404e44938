"""Which groups became whole, and the trigger that each puts on its queue: exactly one, with the completion.

A trigger's id is made of what it is for, so the same one can never be made twice; the row is written in the
transaction that proves the last of the group. It is `pending` until its inventory lies at the destination.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.cameras import Camera, load
from manifests.manifest import Manifest
from stager.database import Database
from stager.models import TriggerState, decode_path
from transfers.digests import list_line

AT_ONCE = 500  # groups looked at by one query
EVENT_TYPE = "org.stager.dataset.complete"
Ids = dict[str, Any]


def label_of(ids: Mapping[str, Any]) -> str:
    """A group's name from its ids, in their order: `visit=1257365 ccd=3`; "" is the whole dataset."""
    return " ".join(f"{name}={value}" for name, value in ids.items())


def trigger_id(dataset: str, revision: int, label: str, queue: str) -> str:
    """The one id of a trigger for this dataset, revision, group and queue."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "stager:" + json.dumps([dataset, revision, label, queue])))


@dataclass(frozen=True, slots=True)
class Proven:
    """A file of a group, as its receipt says."""

    path: str
    size: int
    digest: str


def lock_groups(connection: Connection, groups: Collection[int]) -> None:
    """Let no other transaction finish items of these groups until this one ends, so that one of them sees the
    group whole. SQLite has one writer at a time anyway."""
    if groups and connection.dialect.name != "sqlite":
        query = sa.text("SELECT id FROM groups WHERE id IN :ids ORDER BY id FOR UPDATE")
        connection.execute(query.bindparams(sa.bindparam("ids", list(groups), expanding=True)))


def write_whole(
    database: Database, connection: Connection, groups: Sequence[int], folders: Sequence[Path] = ()
) -> list[str]:
    """Write the triggers of those of the groups that are whole; returns the ids of new ones. `folders` are where
    cameras of one's own lie.

    Whole: at least one item, all of them proven but for the excluded ones. A revision that was superseded or
    cancelled gives no more triggers.
    """
    if not groups:
        return []
    query = sa.text("""
        SELECT g.id FROM groups g JOIN manifests m ON m.id = g.manifest_id
        WHERE g.id IN :ids AND m.intent IN ('active', 'held')
          AND NOT EXISTS (SELECT 1 FROM items i WHERE i.group_id = g.id AND i.state NOT IN ('done', 'excluded'))
          AND EXISTS (SELECT 1 FROM items i WHERE i.group_id = g.id AND i.state = 'done')
        ORDER BY g.id""").bindparams(sa.bindparam("ids", list(groups), expanding=True))
    whole = [row[0] for row in connection.execute(query)]
    return [new for group in whole for new in _write(database, connection, group, folders)]


def write_whole_of(database: Database, connection: Connection, manifest_id: int, folders: Sequence[Path]) -> None:
    """Write the triggers of all groups of a manifest that are whole and have none yet."""
    query = sa.text("""
        SELECT g.id FROM groups g WHERE g.manifest_id = :id
          AND NOT EXISTS (SELECT 1 FROM triggers t WHERE t.group_id = g.id) ORDER BY g.id""")
    groups = [row[0] for row in connection.execute(query, {"id": manifest_id})]
    for start in range(0, len(groups), AT_ONCE):
        lot = groups[start : start + AT_ONCE]
        lock_groups(connection, lot)
        write_whole(database, connection, lot, folders)


def _write(database: Database, connection: Connection, group_id: int, folders: Sequence[Path]) -> Iterator[str]:
    query = sa.text("""
        SELECT m.id, m.name, m.revision, m.dataset, m.destination_host, m.document, g.ids
        FROM groups g JOIN manifests m ON m.id = g.manifest_id WHERE g.id = :id""")
    row = connection.execute(query, {"id": group_id}).one()
    manifest = Manifest.from_canonical(row.document)
    if manifest.trigger is None:
        return
    excluded = _excluded(connection, group_id)
    for ids, files, size in _parts(connection, group_id, json.loads(row.ids), manifest, folders):
        label = label_of(ids)
        data = {
            "dataset": row.dataset,
            "revision": row.revision,
            "group": ids,
            "manifest": row.name,
            "host": row.destination_host,
            "files": files,
            "bytes": size,
            "excluded": [one for one in excluded if _agrees(one["ids"], ids)],
        }
        if _told_before(connection, row, group_id, label, ids, data["excluded"], manifest, folders):
            continue
        new = trigger_id(row.dataset, row.revision, label, manifest.trigger.queue)
        statement = sa.text(f"""
            INSERT INTO triggers (id, manifest_id, group_id, dataset, revision, group_label, queue, host, data,
                                  state, created_at, claims)
            VALUES (:id, :manifest, :group, :dataset, :revision, :label, :queue, :host, :data,
                    '{TriggerState.PENDING}', {database.now}, 0)
            ON CONFLICT DO NOTHING""")
        values = {"id": new, "manifest": row.id, "group": group_id, "dataset": row.dataset}
        values |= {"revision": row.revision, "label": label, "queue": manifest.trigger.queue}
        values |= {"host": row.destination_host, "data": json.dumps(data)}
        if connection.execute(statement, values).rowcount == 1:
            yield new


def _told_before(
    connection: Connection,
    row: Any,
    group_id: int,
    label: str,
    ids: Ids,
    excluded: Sequence[Any],
    manifest: Manifest,
    folders: Sequence[Path],
) -> bool:
    """Whether the last trigger of this group told of the very same files: it becomes this revision's, and no second
    one is given for what a revision made again and found as it was, nor for some of what was evicted and came back."""
    assert manifest.trigger is not None
    if _all_carried(connection, group_id, label, manifest.trigger.queue):
        return True
    query = sa.text("""
        SELECT id, content, data FROM triggers
        WHERE dataset = :dataset AND group_label = :label AND queue = :queue AND host = :host AND revision < :revision
        ORDER BY revision DESC LIMIT 1""")
    values = {"dataset": row.dataset, "label": label, "queue": manifest.trigger.queue}
    values |= {"host": row.destination_host, "revision": row.revision}
    before = connection.execute(query, values).first()
    if before is None or before.content is None or json.loads(before.data)["excluded"] != excluded:
        return False
    camera = load(manifest.camera, folders) if manifest.camera else None
    if content_of(group_files(connection, group_id, ids, camera)) != before.content:
        return False
    moved = sa.text("UPDATE triggers SET group_id = :group WHERE id = :id")
    connection.execute(moved, {"group": group_id, "id": before.id})
    return True


def _all_carried(connection: Connection, group_id: int, label: str, queue: str) -> bool:
    """Whether a trigger of the revision before became this group's, and all that is done in it was done for that."""
    query = sa.text("""
        SELECT EXISTS (SELECT 1 FROM triggers WHERE group_id = :group AND group_label = :label AND queue = :queue)
           AND NOT EXISTS (SELECT 1 FROM items WHERE group_id = :group AND state = 'done' AND carried_from IS NULL)""")
    return bool(connection.execute(query, {"group": group_id, "label": label, "queue": queue}).scalar())


def content_of(files: Iterable[Proven]) -> str:
    """What a group holds, in one digest: the sha256 of its inventory."""
    digest = hashlib.sha256()
    for one in files:
        digest.update(list_line(one.digest, one.path))
    return digest.hexdigest()


def _parts(
    connection: Connection, group_id: int, ids: Ids, manifest: Manifest, folders: Sequence[Path]
) -> Iterator[tuple[Ids, int, int]]:
    """(ids, files, bytes) for each trigger that a whole group gives.

    One as a rule. Where the manifest asks for one a CCD and an item is a whole focal plane, the group is the
    focal plane and gives one for each CCD in it.
    """
    per = manifest.trigger.per if manifest.trigger else ()
    if set(per) == set(ids) or not per:
        query = sa.text("SELECT sum(files), sum(bytes) FROM items WHERE group_id = :id AND state = 'done'")
        files, size = connection.execute(query, {"id": group_id}).one()
        yield ids, int(files), int(size)
        return
    totals: dict[tuple[Any, ...], list[int]] = {}
    camera = load(manifest.camera, folders) if manifest.camera else None
    for proven in group_files(connection, group_id):
        found = {**ids, **_file_ids(camera, proven.path)}
        total = totals.setdefault(tuple(found.get(name) for name in per), [0, 0])
        total[0] += 1
        total[1] += proven.size
    for key, (files, size) in sorted(totals.items(), key=lambda entry: str(entry[0])):
        yield dict(zip(per, key, strict=True)), files, size


def group_files(
    connection: Connection, group_id: int, ids: Ids | None = None, camera: Camera | None = None
) -> Iterator[Proven]:
    """The proven files of a group in the order of their paths; with ids, only those that have these."""
    query = sa.text("""
        SELECT c.path, c.size, c.digest FROM items i
        JOIN manifests m ON m.id = i.manifest_id
        JOIN copies c ON c.host = m.destination_host AND c.path = i.destination
        WHERE i.group_id = :id AND i.state = 'done' AND m.kind <> 'chop'
        UNION ALL
        SELECT c.path, c.size, c.digest FROM items i JOIN copies c ON c.piece_of = i.id
        WHERE i.group_id = :id AND i.state = 'done'
        UNION ALL  -- pieces that a later revision carried over before this one's inventory was written
        SELECT c.path, c.size, c.digest FROM items i JOIN items n ON n.carried_from = i.id
        JOIN copies c ON c.piece_of = n.id WHERE i.group_id = :id AND i.state = 'done'
        ORDER BY 1""")
    for path, size, digest in connection.execute(query, {"id": group_id}):
        proven = Proven(decode_path(path), size, digest)
        if not ids or camera is None or _agrees(_file_ids(camera, proven.path), ids):
            yield proven


def _file_ids(camera: Camera | None, path: str) -> Ids:
    found = camera.identify(path) if camera else None
    return dict(found[1]) if found else {}


def _agrees(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether two sets of ids say nothing different of the ids that both have."""
    return all(str(found[name]) == str(value) for name, value in wanted.items() if name in found)


def _excluded(connection: Connection, group_id: int) -> list[dict[str, Any]]:
    query = sa.text("""
        SELECT source, ids, reason FROM items WHERE group_id = :id AND state = 'excluded' ORDER BY source""")
    return [
        {"path": decode_path(row.source), "ids": json.loads(row.ids or "{}"), "reason": row.reason}
        for row in connection.execute(query, {"id": group_id})
    ]


def event(row: Any) -> dict[str, Any]:
    """The trigger as a CloudEvent 1.0 in JSON form; `row` is of `triggers`, with its host's `root` beside it."""
    data = json.loads(row.data)
    data |= {"root": row.root, "inventory": row.inventory}
    subject = f"{row.dataset}/{row.group_label}" if row.group_label else row.dataset
    return {
        "specversion": "1.0",
        "id": row.id,
        "source": f"stager://{row.host}",
        "type": EVENT_TYPE,
        "subject": subject,
        "time": datetime.fromtimestamp(row.created_at, UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": data,
    }
