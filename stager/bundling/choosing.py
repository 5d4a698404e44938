"""Which items are packed into the next bundle of a manifest. What was chosen stands in the database before anything is
packed, so that a bundle that a crash cut short is made again of the same files, and comes out the same to the byte."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.manifest import Manifest
from manifests.parts import Bundling
from stager import items
from stager.database import Database, again
from stager.items import Claimed
from stager.models import BundleState, decode_path, encode_path
from transfers import bundles
from transfers.hosts import Want

MOST_KEYS = 100  # groups that one choice looks at: those that are not ready are put off, and not looked at again soon
LOOK_AGAIN_S = 60.0  # an incomplete group is looked at anew after this long at the latest


@dataclass(frozen=True, slots=True)
class Chosen:
    """A bundle to be packed, its members on lease, in the order of their paths on the store."""

    id: int
    host: str
    path: str
    label: str
    members: tuple[Claimed, ...]


class Row(NamedTuple):
    """An item as a choice sees it."""

    id: int
    state: str
    missing: bool
    destination: str
    size: int
    mtime_ns: int | None
    due: bool


@dataclass(frozen=True, slots=True)
class Ready:
    """What is to be done about a group: pack these items now, or look again after `wait_s`, for this reason."""

    ids: tuple[int, ...] = ()
    wait_s: float = 0.0
    reason: str | None = None


def decide(rule: Bundling, rows: Sequence[Row], others: int, label: str, now_s: float) -> Ready:
    """Pure: `rows` are the items of one group that can be packed now, in the order in which they are; of more than a
    bundle may have, the first. `others` are those of it that are not done yet and cannot be packed.

    A group that is whole is packed; one that is not is when it fills a bundle, or its oldest file is older than
    the manifest allows to wait.
    """
    taken: list[int] = []
    total = bundles.ENDING_BYTES
    for row in rows:
        size = bundles.member_size(row.destination, row.size, row.mtime_ns or 0)
        if taken and (total + size > rule.bytes or len(taken) >= rule.files):
            return Ready(tuple(taken))
        taken.append(row.id)
        total += size
    if len(taken) >= rule.files or total >= rule.bytes or not others:
        return Ready(tuple(taken))
    oldest = min((row.mtime_ns for row in rows if row.mtime_ns is not None), default=0) / 1e9
    wait_s = oldest + rule.age_s - now_s
    if not taken or wait_s <= 0:
        return Ready(tuple(taken), wait_s=LOOK_AGAIN_S)
    text = f"waits to be bundled with {others} more of {label or 'the manifest'}"
    return Ready(wait_s=min(wait_s, LOOK_AGAIN_S), reason=text)


@again
def choose(database: Database, manifest_id: int, manifest: Manifest, worker: str, *, lease_s: float) -> Chosen | None:
    """Lease the members of one bundle to a worker: of one that was begun before, else of the first group that is ready;
    None where there is none."""
    assert manifest.bundle is not None  # the caller knows
    with database.write() as connection:
        if not _is_active(connection, manifest_id):
            return None
        begun = _begun(database, connection, manifest_id, manifest)
        if begun is None:
            begun = _new(database, connection, manifest_id, manifest)
        if begun is None:
            return None
        bundle_id, path, label, members = begun
        claimed = items.lease(database, connection, members, worker, lease_s)
    in_order = sorted(claimed, key=lambda one: one.destination or "")
    return Chosen(bundle_id, manifest.destination.host, path, label, tuple(in_order))


def _is_active(connection: Connection, manifest_id: int) -> bool:
    query = sa.text("SELECT 1 FROM manifests WHERE id = :id AND intent = 'active'")
    return connection.execute(query, {"id": manifest_id}).first() is not None


Begun = tuple[int, str, str, list[int]]  # bundle, path, label, items


def _begun(database: Database, connection: Connection, manifest_id: int, manifest: Manifest) -> Begun | None:
    """A bundle that was begun and given back. One whose members are no longer what they were is given up."""
    skip = "" if database.is_sqlite else "FOR UPDATE SKIP LOCKED"
    query = sa.text(f"""
        SELECT id, path, label FROM bundles b WHERE manifest_id = :manifest
          AND (state = '{BundleState.PACKING}' OR EXISTS (SELECT 1 FROM items i WHERE i.bundle_id = b.id))
        ORDER BY id {skip}""")
    for row in connection.execute(query, {"manifest": manifest_id}).all():
        members = _read(
            database, connection, "bundle_id = :bundle ORDER BY destination, id", "FOR UPDATE", bundle=row.id
        )
        if any(one.state == "running" for one in members):
            continue
        waiting = [one for one in members if one.state == "waiting" and not one.missing]
        if not members or len(waiting) < len(members) or path_of(manifest, row.label, members) != decode_path(row.path):
            give_up(connection, row.id)
        elif all(one.due for one in waiting):
            return row.id, decode_path(row.path), row.label, [one.id for one in waiting]
    return None


def give_up(connection: Connection, bundle_id: int) -> None:
    """Forget a bundle that is not stored: its items are free to be chosen anew."""
    connection.execute(sa.text("UPDATE items SET bundle_id = NULL WHERE bundle_id = :id"), {"id": bundle_id})
    query = sa.text(f"DELETE FROM bundles WHERE id = :id AND state = '{BundleState.PACKING}'")
    connection.execute(query, {"id": bundle_id})


def _new(database: Database, connection: Connection, manifest_id: int, manifest: Manifest) -> Begun | None:
    rule = manifest.bundle
    assert rule is not None
    for _ in range(MOST_KEYS):
        label = _next_key(database, connection, manifest_id)
        if label is None:
            return None
        rows = _next_rows(database, connection, manifest_id, label, rule.files + 1)
        if grown := [row.id for row in rows if row.size >= rule.below]:  # since it was planned
            _leave_out(connection, grown)
            continue
        # Of more than a bundle may have it does not matter how many: they fill one.
        others = 0 if len(rows) > rule.files else _count(database, connection, manifest_id, label) - len(rows)
        ready = decide(rule, rows, others, label, time.time())
        if ready.ids:
            ids = set(ready.ids)
            members = [row for row in rows if row.id in ids]
            path = path_of(manifest, label, members)
            return _insert(database, connection, manifest_id, manifest, label, path, members)
        _put_off(database, connection, manifest_id, label, ready)
    return None


def _next_key(database: Database, connection: Connection, manifest_id: int) -> str | None:
    query = sa.text(f"""
        SELECT bundle_key FROM items WHERE manifest_id = :manifest AND state = 'waiting' AND NOT missing
          AND bundle_key IS NOT NULL AND bundle_id IS NULL AND not_before <= {database.now}
        ORDER BY not_before, id LIMIT 1""")
    found = connection.execute(query, {"manifest": manifest_id}).first()
    return None if found is None else str(found[0])


# The items of a group that are not done, and in no bundle.
_OF_GROUP = (
    "manifest_id = :manifest AND bundle_key = :label AND bundle_id IS NULL AND state NOT IN ('done', 'excluded')"
)
# On PostgreSQL those that another worker is just choosing are left to it.
_LEFT = "FOR UPDATE SKIP LOCKED"


def _next_rows(database: Database, connection: Connection, manifest_id: int, label: str, most: int) -> list[Row]:
    """The first items of a group that can be packed now."""
    which = f"{_OF_GROUP} AND state = 'waiting' AND NOT missing AND not_before <= {database.now}"
    values = {"manifest": manifest_id, "label": label, "most": most}
    return _read(database, connection, f"{which} ORDER BY id LIMIT :most", _LEFT, **values)


def _count(database: Database, connection: Connection, manifest_id: int, label: str) -> int:
    """How many items of a group are not done, and in no bundle."""
    skip = "" if database.is_sqlite else _LEFT
    query = sa.text(f"SELECT count(*) FROM (SELECT id FROM items WHERE {_OF_GROUP} {skip}) AS left_over")
    return int(connection.execute(query, {"manifest": manifest_id, "label": label}).scalar_one())


def _leave_out(connection: Connection, ids: Sequence[int]) -> None:
    """Have these go as files of their own."""
    for lot in items.lots(ids):
        statement = sa.text("UPDATE items SET bundle_key = NULL WHERE id IN :ids")
        connection.execute(statement.bindparams(sa.bindparam("ids", lot, expanding=True)))


def _read(database: Database, connection: Connection, which: str, lock: str, **values: Any) -> list[Row]:
    """Items, locked as it says on PostgreSQL; SQLite has one writer at a time."""
    query = sa.text(f"""
        SELECT id, state, missing, destination, COALESCE(size, 0), mtime_ns, not_before <= {database.now}
        FROM items WHERE {which} {"" if database.is_sqlite else lock}""")
    return [
        Row(row[0], row[1], bool(row[2]), decode_path(row[3]), row[4], row[5], bool(row[6]))
        for row in connection.execute(query, values)
    ]


def path_of(manifest: Manifest, label: str, members: Sequence[Row | Claimed | Want]) -> str:
    """Where the bundle of these members lies, on whatever store."""
    facts = [(one.destination or "", one.size or 0, one.mtime_ns or 0) for one in members]
    return posixpath.join(manifest.destination.path, bundles.name_of(label, facts))


def _insert(
    database: Database,
    connection: Connection,
    manifest_id: int,
    manifest: Manifest,
    label: str,
    path: str,
    members: Sequence[Any],
) -> Begun:
    statement = sa.text(f"""
        INSERT INTO bundles (host, path, label, manifest_id, state, files, size, made_at)
        VALUES (:host, :path, :label, :manifest, '{BundleState.PACKING}', :files, :size, {database.now})
        ON CONFLICT (host, path) DO UPDATE SET manifest_id = excluded.manifest_id  -- stored before: it will be adopted
        RETURNING id""")
    values = {"host": manifest.destination.host, "path": encode_path(path), "label": label, "manifest": manifest_id}
    values |= {"files": len(members), "size": sum(one.size for one in members)}
    bundle_id = int(connection.execute(statement, values).scalar_one())
    ids = [int(one.id) for one in members]
    for lot in items.lots(ids):
        statement = sa.text("UPDATE items SET bundle_id = :bundle WHERE id IN :ids")
        connection.execute(statement.bindparams(sa.bindparam("ids", lot, expanding=True)), {"bundle": bundle_id})
    return bundle_id, path, label, ids


def _put_off(database: Database, connection: Connection, manifest_id: int, label: str, ready: Ready) -> None:
    statement = sa.text(f"""
        UPDATE items SET not_before = {database.now} + :wait, reason = COALESCE(:reason, reason)
        WHERE manifest_id = :manifest AND bundle_key = :label AND bundle_id IS NULL AND state = 'waiting'
          AND NOT missing AND not_before <= {database.now}""")
    values = {"wait": ready.wait_s, "reason": ready.reason, "manifest": manifest_id, "label": label}
    connection.execute(statement, values)


@again
def shrink(database: Database, chosen: Chosen, manifest: Manifest, kept: set[int]) -> Chosen:
    """The bundle without the members that are not among the items `kept`: another one, of another name."""
    with database.write() as connection:
        give_up(connection, chosen.id)
        left = [one for one in chosen.members if one.id in kept]
        path = path_of(manifest, chosen.label, left)
        bundle_id, *_ = _insert(database, connection, chosen.members[0].manifest_id, manifest, chosen.label, path, left)
    return Chosen(bundle_id, chosen.host, path, chosen.label, tuple(left))


@again
def let_go(database: Database, chosen: Chosen) -> None:
    """Give a bundle up: its members are chosen anew, each when it is due."""
    with database.write() as connection:
        give_up(connection, chosen.id)
