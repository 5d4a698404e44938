"""From a written trigger to its queue: its inventory is landed at the destination first.

The inventory is a `sha256sum` list of the group's files, paths relative to the host's root, so that
`sha256sum -c` there proves the dataset by itself. It is landed like any other file; made again it is the
same bytes, and is adopted. Then a trigger of the built-in queue may be claimed; one of a queue that is a folder is
delivered there.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from manifests.cameras import load
from manifests.manifest import Manifest
from stager import breakers, triggers
from stager.config import Config, FolderQueue
from stager.counts import counted
from stager.database import Database, again
from stager.models import PathText, TriggerState, decode_path
from stager.opening import Hosts
from stager.queues.announcing import Announced, Group, announce
from stager.queues.delivering import Telling, deliver
from stager.queues.errors import FolderTrouble, QueueError, Undeliverable
from transfers.copying import land_bytes
from transfers.digests import list_line
from transfers.errors import Conflict, TransferError
from transfers.hosts import Host

FOLDER = ".stager/inventories"


class Lane(NamedTuple):
    """Triggers that wait for the same host and the same queue: one such lane never holds up another."""

    host: str
    queue: str


# The queues there are, from the index alone: a plain DISTINCT would read every trigger.
_QUEUES = """
    WITH RECURSIVE queues(name) AS (
        SELECT min(queue) FROM triggers
        UNION ALL SELECT (SELECT min(t.queue) FROM triggers t WHERE t.queue > queues.name) FROM queues
        WHERE queues.name IS NOT NULL)"""
_WAITING = f"""
    {_QUEUES}
    SELECT {{columns}} FROM triggers t
    WHERE ((t.state = '{TriggerState.PENDING}' AND t.queue IN (SELECT name FROM queues WHERE name IS NOT NULL))
           OR (t.state = '{TriggerState.READY}' AND t.queue IN :folders))
      AND {{host}}"""
_HOST_IS_WELL = """
    (t.inventory IS NOT NULL OR NOT EXISTS (
        SELECT 1 FROM hosts h WHERE h.name = t.host AND (h.paused OR h.trouble_kind IS NOT NULL)))"""


def lanes(database: Database, config: Config) -> list[Lane]:
    """Where triggers wait for their inventory or for delivery; those of hosts that are paused or in trouble are left
    out."""
    query = sa.text(_WAITING.format(columns="DISTINCT t.host, t.queue", host=_HOST_IS_WELL) + " ORDER BY 1, 2")
    with database.read() as connection:
        return [Lane(*row) for row in connection.execute(query.bindparams(*_folders(config)))]


def pending(database: Database, config: Config, lane: Lane) -> list[str]:
    """The ids of the triggers that wait in a lane, the oldest first."""
    host = f"{_HOST_IS_WELL} AND t.host = :host AND t.queue = :queue"
    query = sa.text(_WAITING.format(columns="t.id", host=host) + " ORDER BY t.created_at, t.id")
    with database.read() as connection:
        found = connection.execute(query.bindparams(*_folders(config)), lane._asdict())
        return [row[0] for row in found]


def _folders(config: Config) -> list[sa.BindParameter[Any]]:
    names = [name for name, queue in config.queues.items() if isinstance(queue, FolderQueue)]
    return [sa.bindparam("folders", names, type_=sa.String(), expanding=True)]


def held_up(database: Database) -> set[str]:
    """The hosts in trouble that a trigger's inventory waits for."""
    query = sa.text(f"""
        SELECT DISTINCT t.host FROM triggers t JOIN hosts h ON h.name = t.host
        WHERE t.state = '{TriggerState.PENDING}' AND h.trouble_kind IS NOT NULL AND NOT h.paused""")
    with database.read() as connection:
        return {row[0] for row in connection.execute(query)}


def publish_all(
    database: Database, hosts: Hosts, only: Lane | None = None, *, stop: Callable[[], bool] = bool
) -> tuple[int, list[TransferError]]:
    """Publish what waits, in all lanes or in one; (how many are on their queues, what went wrong with the others).

    Trouble of a host or of a folder ends its lane: it would be that of all that follow. `stop` is asked before each.
    """
    published, errors = 0, list[TransferError]()
    for lane in [only] if only else lanes(database, hosts.config):
        for trigger_id in pending(database, hosts.config, lane):
            if stop():
                return published, errors
            try:
                publish(database, hosts, trigger_id)
                published += 1
            except TransferError as error:
                errors.append(error)
                _note(database, lane, trigger_id, error)
                if breakers.is_of_host(error) or isinstance(error, FolderTrouble):
                    break
    return published, errors


def publish(database: Database, hosts: Hosts, trigger_id: str) -> bool:
    """Land the inventory and put the trigger on its queue; False where another worker did, or a folder had this
    delivery already.

    Raises TransferError when the destination cannot take the one, or the queue the other.
    """
    row = _row(database, trigger_id)
    queue = hosts.config.queues.get(row.queue)
    if queue is None:
        raise Undeliverable(f"the configuration has no queue {row.queue}", phase="publish")
    if row.state != TriggerState.PENDING and not (row.state == TriggerState.READY and isinstance(queue, FolderQueue)):
        return False
    files = _files(database, hosts.config, row)
    inventory = b"".join(list_line(one.digest, one.path) for one in files)
    content = hashlib.sha256(inventory).hexdigest()
    if row.inventory is None or not isinstance(queue, FolderQueue):
        _land(hosts[row.host], row, inventory)
    location = f"{row.host}:{inventory_path(row)}"
    if not isinstance(queue, FolderQueue):
        _ready(database, trigger_id, location, content)
        return True
    _landed(database, trigger_id, location, content)
    told = telling(hosts.config, queue, row, location, _sources(database, row, files), row.claims + 1)
    new = deliver(database, row.queue, queue, told)
    _delivered(database, row, f"{_count(told.announced)} to {queue.folder}")
    return new


def _row(database: Database, trigger_id: str) -> Any:
    query = sa.text("SELECT t.*, m.document FROM triggers t JOIN manifests m ON m.id = t.manifest_id WHERE t.id = :id")
    with database.read() as connection:
        return connection.execute(query, {"id": trigger_id}).one()


def _files(database: Database, config: Config, row: Any) -> list[triggers.Proven]:
    """The files of a trigger's group, all of them. Raises Conflict where they are not as many as when it was whole."""
    manifest = Manifest.from_canonical(row.document)
    camera = load(manifest.camera, config.camera_folders) if manifest.camera else None
    data = json.loads(row.data)
    with database.read() as connection:
        files = list(triggers.group_files(connection, row.group_id, data["group"], camera))
    if len(files) != data["files"]:
        raise Conflict(
            f"the group was whole with {counted(data['files'], 'file')}, and {len(files)} "
            f"{'is' if len(files) == 1 else 'are'} known now; `stager verify` tells which",
            host=row.host,
            side="local",
            phase="inventory",
        )
    return files


def _land(host: Host, row: Any, inventory: bytes) -> None:
    path = inventory_path(row)
    epoch = int(row.id[:7], 16)  # the trigger's own, so that the part a crash left is known by it
    host.sweep(posixpath.dirname(path), lambda item, part_epoch: (item, part_epoch) == (0, epoch))
    land_bytes(host, path, inventory, epoch)


def inventory_path(row: Any) -> str:
    """Where the inventory of a trigger lies below the host's root: readable, and never that of another."""
    name = f"{_plain(row.dataset)}-{hashlib.sha256(row.dataset.encode()).hexdigest()[:8]}"
    label = _plain(row.group_label) if row.group_label else "whole"
    return f"{FOLDER}/{name}/r{row.revision}/{label}-{row.id[:8]}.sha256"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9=._-]+", "_", text)[:80].lstrip(".") or "_"


# ----------------------------------------------------------------------------------------- as datasets


def telling(
    config: Config, queue: FolderQueue, row: Any, inventory: str, files: Sequence[tuple[str, str]], number: int
) -> Telling:
    """What is delivered of a trigger for the number-th time; `files` as `_sources` gives them. Raises Undeliverable."""
    manifest = Manifest.from_canonical(row.document)
    camera = load(manifest.camera, config.camera_folders) if manifest.camera else None
    announced = announce(queue, Group(json.loads(row.data), manifest, camera, files))
    label = row.group_label or "whole"
    name = f"{_plain(row.dataset)}-{_plain(label)}-r{row.revision}-{row.id[:8]}{f'-{number}' if number > 1 else ''}"
    about = [f"{row.dataset}, revision {row.revision}: {label}", f"trigger {row.id}, inventory {inventory}"]
    return Telling(f"{row.id}-{number}", announced, about, name)


def tell(database: Database, config: Config, queue: FolderQueue, trigger_id: str) -> Telling:
    """What would be delivered of a trigger, by the datasets as such a queue tells them. Raises TransferError."""
    row = _row(database, trigger_id)
    files = _sources(database, row, _files(database, config, row))
    return telling(config, queue, row, row.inventory or f"{row.host}:{inventory_path(row)}", files, 1)


def _sources(database: Database, row: Any, files: Sequence[triggers.Proven]) -> list[tuple[str, str]]:
    """Each file with its path at the source; a piece of a focal plane has only its own."""
    query = sa.text("SELECT destination, source FROM items WHERE group_id = :id AND state = 'done'")
    with database.read() as connection:
        found = connection.execute(query, {"id": row.group_id})
        sources = {decode_path(at): decode_path(source) for at, source in found if at is not None}
    return [(one.path, sources.get(one.path, one.path)) for one in files]


def _count(announced: Announced) -> str:
    count = len(announced.datasets)
    return f"{counted(count, 'dataset')}{f' ({announced.remark})' if announced.remark else ''}"


# -------------------------------------------------------------------------------------------- states


@again
def _ready(database: Database, trigger_id: str, inventory: str, content: str) -> None:
    with database.write() as connection:
        statement = sa.text(f"""
            UPDATE triggers SET state = '{TriggerState.READY}', inventory = :inventory, content = :content,
                   ready_at = {database.now}, note = NULL
            WHERE id = :id AND state = '{TriggerState.PENDING}'""").bindparams(
            sa.bindparam("inventory", type_=PathText())
        )
        connection.execute(statement, {"inventory": inventory, "content": content, "id": trigger_id})


@again
def _landed(database: Database, trigger_id: str, inventory: str, content: str) -> None:
    with database.write() as connection:
        statement = sa.text("""
            UPDATE triggers SET inventory = :inventory, content = :content
            WHERE id = :id AND (inventory IS NULL OR content IS NULL)""").bindparams(
            sa.bindparam("inventory", type_=PathText())
        )
        connection.execute(statement, {"inventory": inventory, "content": content, "id": trigger_id})


@again
def _delivered(database: Database, row: Any, note: str) -> None:
    with database.write() as connection:
        statement = sa.text(f"""
            UPDATE triggers SET state = '{TriggerState.DELIVERED}', claims = claims + 1, note = :note,
                   ready_at = COALESCE(ready_at, {database.now}), ended_at = {database.now}
            WHERE id = :id AND claims = :claims AND state IN ('{TriggerState.PENDING}', '{TriggerState.READY}')""")
        connection.execute(statement, {"id": row.id, "claims": row.claims, "note": note})


@again
def _note(database: Database, lane: Lane, trigger_id: str, error: TransferError) -> None:
    """Keep why a trigger waits, or all of its lane where that is its queue's folder: `status` tells it. Trouble of a
    host is told of the host."""
    if breakers.is_of_host(error):
        return
    which = "queue = :queue" if isinstance(error, FolderTrouble) else "id = :id"
    with database.write() as connection:
        statement = sa.text(f"""
            UPDATE triggers SET note = :note WHERE {which} AND COALESCE(note, '') <> :note
              AND state IN ('{TriggerState.PENDING}', '{TriggerState.READY}')""")
        connection.execute(statement, {"note": str(error), "queue": lane.queue, "id": trigger_id})


@again
def replay(database: Database, queue: str, trigger_id: str) -> None:
    """Have a trigger of a queue that is a folder delivered once more, with the id it always had. Raises QueueError."""
    with database.write() as connection:
        query = sa.text("SELECT state FROM triggers WHERE id = :id AND queue = :queue")
        found = connection.execute(query, {"id": trigger_id, "queue": queue}).scalar()
        if found is None:
            raise QueueError(f"queue {queue} has no trigger {trigger_id}; `stager queue list {queue}` shows them")
        if found == TriggerState.PENDING:
            raise QueueError(f"trigger {trigger_id} is pending: it has not been delivered yet")
        connection.execute(
            sa.text(f"""
            UPDATE triggers SET state = '{TriggerState.PENDING}', note = NULL, claimed_by = NULL, claimed_until = NULL,
                   ended_at = NULL WHERE id = :id"""),
            {"id": trigger_id},
        )
