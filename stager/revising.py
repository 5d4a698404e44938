"""Revisions of a manifest: begun, compared with the one before, made the newest, or dropped.

What the revision before had proven, and what did not change, is carried over and not done again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.manifest import Manifest
from stager import items, triggers
from stager.database import Database, again
from stager.evicting.revisions import carry_evicted
from stager.models import Intent

# An item of the new revision (n) is the same work as one of the old (o).
_SAME = """o.source = n.source AND o.files = n.files AND o.size = n.size AND o.mtime_ns = n.mtime_ns
       AND COALESCE(o.digest, '') = COALESCE(n.digest, '')"""


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision of a manifest that was planned."""

    id: int
    revision: int
    digest: str
    intent: str
    document: str


def latest(database: Database, name: str) -> Revision | None:
    """The newest planned revision of that name; None for a name never submitted."""
    query = sa.text("""
        SELECT id, revision, digest, intent, document FROM manifests
        WHERE name = :name AND intent <> 'planning' ORDER BY revision DESC LIMIT 1""")
    with database.read() as connection:
        row = connection.execute(query, {"name": name}).first()
    return Revision(*row) if row else None


def other_trigger(database: Database, manifest: Manifest) -> str | None:
    """The name of another manifest that triggers the same queue for the same dataset, None where there is none."""
    query = sa.text("""
        SELECT name, document FROM manifests
        WHERE dataset = :dataset AND name <> :name AND intent IN ('active', 'held')""")
    with database.read() as connection:
        rows = connection.execute(query, {"dataset": manifest.dataset, "name": manifest.name}).all()
    for name, document in rows:
        trigger = json.loads(document).get("trigger")
        if manifest.trigger and trigger and trigger["queue"] == manifest.trigger.queue:
            return str(name)
    return None


@again
def begin(database: Database, manifest: Manifest) -> tuple[int, int]:
    """A new revision in planning; one of that name left over from a crash is swept away. (revision, id)"""
    with database.write() as connection:
        left = sa.text("SELECT id FROM manifests WHERE name = :name AND intent = 'planning'")
        for (old,) in connection.execute(left, {"name": manifest.name}).all():
            _delete(connection, old)
        top = sa.text("SELECT COALESCE(max(revision), 0) + 1 FROM manifests WHERE name = :name")
        revision = int(connection.execute(top, {"name": manifest.name}).scalar_one())
        insert = sa.text(f"""
            INSERT INTO manifests (name, revision, kind, dataset, lead, source, destination, source_host,
                destination_host, document, digest, intent, priority, submitted_at)
            VALUES (:name, :revision, :kind, :dataset, :lead, :source, :destination, :source_host,
                :destination_host, :document, :digest, '{Intent.PLANNING}', :priority, {database.now})
            RETURNING id""")
        values = {
            "name": manifest.name,
            "revision": revision,
            "kind": str(manifest.kind),
            "dataset": manifest.dataset,
            "lead": manifest.lead,
            "source": str(manifest.source),
            "destination": str(manifest.destination),
            "source_host": manifest.source.host,
            "destination_host": manifest.destination.host,
            "document": manifest.canonical(),
            "digest": manifest.digest(),
            "priority": manifest.priority,
        }
        return revision, int(connection.execute(insert, values).scalar_one())


@again
def drop(database: Database, manifest_id: int) -> None:
    """Forget a revision in planning."""
    with database.write() as connection:
        _delete(connection, manifest_id)


def _delete(connection: Connection, manifest_id: int) -> None:
    for statement in (
        "DELETE FROM items WHERE manifest_id = :id",
        "DELETE FROM groups WHERE manifest_id = :id",
        "DELETE FROM tallies WHERE manifest_id = :id",
        "DELETE FROM manifests WHERE id = :id AND intent = 'planning'",
    ):
        connection.execute(sa.text(statement), {"id": manifest_id})


# What was proven, also of what made room since: a change of its source is brought.
_WAS_PROVEN = f"o.state = 'done' OR COALESCE(o.kind, '') = '{items.EVICTED}'"
# The source was proven with other bytes since: made again by a chop, it has the size and time it had before.
_PROVEN_OTHERWISE = """EXISTS (
    SELECT 1 FROM manifests m JOIN copies s ON s.host = m.source_host AND s.path = o.source
    JOIN copies d ON d.host = m.destination_host AND d.path = o.destination
    WHERE m.id = o.manifest_id AND m.kind <> 'chop' AND s.digest <> d.digest)"""
# A focal plane that was cut by another rule of its camera than the one of now.
_MADE_OTHERWISE = "EXISTS (SELECT 1 FROM makings k WHERE k.item_id = o.id AND k.camera_digest <> :rule)"


def differs(database: Database, new: int, old: int, rule: str = "") -> bool:
    """Whether the new plan has anything that the old does not: a file more, or one that changed since it was
    proven, or that its camera would cut otherwise now (`rule`: the digest of how it cuts). Files that are gone from
    the source are no difference: what is proven stays proven."""
    query = sa.text(f"""
        SELECT EXISTS (SELECT 1 FROM items o WHERE o.manifest_id = :old AND o.state = 'done'
                       AND ({_MADE_OTHERWISE} OR {_PROVEN_OTHERWISE}))
            OR EXISTS (SELECT 1 FROM items n WHERE n.manifest_id = :new AND NOT n.missing
              AND NOT EXISTS (SELECT 1 FROM items o WHERE o.manifest_id = :old AND o.destination = n.destination
                              AND (NOT ({_WAS_PROVEN}) OR ({_SAME})))
              AND (n.destination IS NULL AND (n.source, n.size, n.mtime_ns) IN (
                    SELECT o.source, o.size, o.mtime_ns FROM items o WHERE o.manifest_id = :old)) IS NOT TRUE
              AND (n.ids IN (SELECT o.ids FROM items o WHERE o.manifest_id = :old AND o.missing)) IS NOT TRUE)""")
    with database.read() as connection:
        return bool(connection.execute(query, {"new": new, "old": old, "rule": rule}).scalar())


@again
def activate(
    database: Database, manifest: Manifest, manifest_id: int, note: str, folders: Sequence[Path] = (), rule: str = ""
) -> int:
    """Make a planned revision the one that is carried out; returns how many items were carried over as proven.
    `folders` are where cameras of one's own lie, `rule` is the digest of how the camera cuts."""
    with database.write() as connection:
        row = connection.execute(
            sa.text("""SELECT id, document FROM manifests WHERE name = :name AND id <> :id AND intent <> 'planning'
                       ORDER BY revision DESC LIMIT 1"""),
            {"name": manifest.name, "id": manifest_id},
        ).first()
        carried = 0
        old = None if row is None else Manifest.from_canonical(row.document)
        if row is not None and old is not None and _same_work(manifest, old):
            carried = _carry(connection, manifest_id, row.id, rule)
            carry_evicted(connection, manifest_id, row.id)
        told = old is not None and (old.dataset, old.trigger) == (manifest.dataset, manifest.trigger)
        connection.execute(
            sa.text("UPDATE manifests SET intent = 'superseded' WHERE name = :name AND id <> :id"),
            {"name": manifest.name, "id": manifest_id},
        )
        connection.execute(
            sa.text(
                f"UPDATE manifests SET intent = 'active', note = :note, planned_at = {database.now} WHERE id = :id"
            ),
            {"note": note or None, "id": manifest_id},
        )
        groups = _groups_to_check(connection, manifest_id, row.id if row and told else None)
        triggers.write_whole(database, connection, groups, folders)
    return carried


def _same_work(new: Manifest, old: Manifest) -> bool:
    """Whether what the old revision proved holds for the new one: same hosts, same way of making the files."""
    ends = new.source.host == old.source.host and new.destination.host == old.destination.host
    made = (new.kind, new.camera, new.chop, new.ids, new.proof) == (
        old.kind,
        old.camera,
        old.chop,
        old.ids,
        old.proof,
    )
    return ends and made


def _carry(connection: Connection, new: int, old: int, rule: str) -> int:
    values = {"new": new, "old": old, "rule": rule, "no": False}
    carried = connection.execute(
        sa.text(f"""
        UPDATE items SET state = 'done', missing = :no, reason = NULL,
               carried_from = (SELECT o.id FROM items o
                               WHERE o.manifest_id = :old AND o.destination = items.destination),
               bytes = (SELECT o.bytes FROM items o WHERE o.manifest_id = :old AND o.destination = items.destination)
        WHERE manifest_id = :new AND state = 'waiting' AND EXISTS (
            SELECT 1 FROM items o WHERE o.manifest_id = :old AND o.destination = items.destination
            AND o.state = 'done' AND {_SAME.replace("n.", "items.")}
            AND NOT {_MADE_OTHERWISE} AND NOT {_PROVEN_OTHERWISE})"""),
        values,
    ).rowcount
    connection.execute(
        sa.text("""
        UPDATE copies SET piece_of = (SELECT n.id FROM items n
                                      WHERE n.carried_from = copies.piece_of AND n.manifest_id = :new)
        WHERE piece_of IN (SELECT n.carried_from FROM items n
                           WHERE n.manifest_id = :new AND n.carried_from IS NOT NULL)"""),
        {"new": new},
    )
    for table in ("findings", "makings"):  # what is known of the file goes on to the item that stands for it now
        of_manifest = ", manifest_id = :new" if table == "findings" else ""
        connection.execute(
            sa.text(f"""
        UPDATE {table} SET item_id = (SELECT n.id FROM items n
                                      WHERE n.carried_from = {table}.item_id AND n.manifest_id = :new){of_manifest}
        WHERE item_id IN (SELECT n.carried_from FROM items n
                          WHERE n.manifest_id = :new AND n.carried_from IS NOT NULL)"""),
            {"new": new},
        )
    return carried


def _groups_to_check(connection: Connection, new: int, old: int | None) -> list[int]:
    """The groups that may be whole already and whose trigger was not given before.

    A group that is in every item the one that the revision before (`old`) triggered gives no second trigger: the
    one it gave becomes the new group's. `old` is None where that one told of another dataset, or another queue.
    """
    values = {"new": new, "old": old or 0}
    unchanged: dict[int, int] = {
        row[0]: row[1]
        for row in connection.execute(
            sa.text("""
        SELECT g.id, p.id FROM groups g JOIN groups p ON p.manifest_id = :old AND p.label = g.label
        WHERE g.manifest_id = :new
          AND EXISTS (SELECT 1 FROM triggers t WHERE t.group_id = p.id)
          AND NOT EXISTS (SELECT 1 FROM items i WHERE i.group_id = g.id AND i.state = 'done' AND i.carried_from IS NULL)
          AND (SELECT count(*) FROM items i WHERE i.group_id = g.id AND i.state = 'done')
            = (SELECT count(*) FROM items i WHERE i.group_id = p.id AND i.state = 'done')
          AND (SELECT count(*) FROM items i WHERE i.group_id = g.id)
            = (SELECT count(*) FROM items i WHERE i.group_id = p.id)"""),
            values,
        )
    }
    for group, before in unchanged.items():
        moved = sa.text("UPDATE triggers SET group_id = :group WHERE group_id = :before")
        connection.execute(moved, {"group": group, "before": before})
    query = sa.text("""
        SELECT g.id FROM groups g WHERE g.manifest_id = :new
          AND EXISTS (SELECT 1 FROM items i WHERE i.group_id = g.id AND i.state = 'done')""")
    return [row[0] for row in connection.execute(query, values) if row[0] not in unchanged]
