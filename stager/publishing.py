"""From a written trigger to one that can be claimed: its inventory is landed at the destination first.

The inventory is a `sha256sum` list of the group's files, paths relative to the host's root, so that
`sha256sum -c` there proves the dataset by itself. It is landed like any other file; made again it is the
same bytes, and is adopted.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from manifests.cameras import load
from manifests.manifest import Manifest
from stager import triggers
from stager.config import Config
from stager.database import Database, again
from stager.models import PathText, TriggerState
from stager.opening import Hosts
from transfers.copying import land_bytes
from transfers.digests import list_line
from transfers.errors import Conflict, TransferError

FOLDER = ".stager/inventories"


def pending(database: Database) -> list[str]:
    """The ids of triggers whose inventory is not yet at the destination, the oldest first; those of hosts that are
    paused or in trouble are left out."""
    query = sa.text(f"""
        SELECT id FROM triggers t WHERE state = '{TriggerState.PENDING}' AND NOT EXISTS (
            SELECT 1 FROM hosts h WHERE h.name = t.host AND (h.paused OR h.trouble_kind IS NOT NULL))
        ORDER BY created_at, id""")
    with database.read() as connection:
        return [row[0] for row in connection.execute(query)]


def held_up(database: Database) -> set[str]:
    """The hosts in trouble that a trigger's inventory waits for."""
    query = sa.text(f"""
        SELECT DISTINCT t.host FROM triggers t JOIN hosts h ON h.name = t.host
        WHERE t.state = '{TriggerState.PENDING}' AND h.trouble_kind IS NOT NULL AND NOT h.paused""")
    with database.read() as connection:
        return {row[0] for row in connection.execute(query)}


def publish(database: Database, hosts: Hosts, trigger_id: str) -> None:
    """Land the inventory and make the trigger ready. Raises TransferError when the destination cannot take it."""
    query = sa.text("""
        SELECT t.*, m.document FROM triggers t JOIN manifests m ON m.id = t.manifest_id WHERE t.id = :id""")
    with database.read() as connection:
        row = connection.execute(query, {"id": trigger_id}).one()
        lines = [list_line(one.digest, one.path) for one in _files(connection, hosts.config, row)]
    wanted = json.loads(row.data)["files"]
    if len(lines) != wanted:
        raise Conflict(
            f"the group was whole with {wanted} files, and {len(lines)} are known now; `stager verify` tells which",
            host=row.host,
            side="local",
            phase="inventory",
        )
    path = inventory_path(row)
    host = hosts[row.host]
    epoch = int(row.id[:7], 16)  # the trigger's own, so that the part a crash left is known by it
    host.sweep(posixpath.dirname(path), lambda item, part_epoch: (item, part_epoch) == (0, epoch))
    land_bytes(host, path, b"".join(lines), epoch)
    _ready(database, trigger_id, f"{row.host}:{path}")


def _files(connection: Any, config: Config, row: Any) -> Iterator[triggers.Proven]:
    manifest = Manifest.from_canonical(row.document)
    camera = load(manifest.camera, config.camera_folders) if manifest.camera else None
    return triggers.group_files(connection, row.group_id, json.loads(row.data)["group"], camera)


def inventory_path(row: Any) -> str:
    """Where the inventory of a trigger lies below the host's root: readable, and never that of another."""
    name = f"{_plain(row.dataset)}-{hashlib.sha256(row.dataset.encode()).hexdigest()[:8]}"
    label = _plain(row.group_label) if row.group_label else "whole"
    return f"{FOLDER}/{name}/r{row.revision}/{label}-{row.id[:8]}.sha256"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9=._-]+", "_", text)[:80].lstrip(".") or "_"


@again
def _ready(database: Database, trigger_id: str, inventory: str) -> None:
    with database.write() as connection:
        statement = sa.text(f"""
            UPDATE triggers SET state = '{TriggerState.READY}', inventory = :inventory, ready_at = {database.now}
            WHERE id = :id AND state = '{TriggerState.PENDING}'""").bindparams(
            sa.bindparam("inventory", type_=PathText())
        )
        connection.execute(statement, {"inventory": inventory, "id": trigger_id})


def publish_all(database: Database, hosts: Hosts) -> tuple[int, list[TransferError]]:
    """Publish what is pending; (how many became ready, what went wrong with the others)."""
    published, errors = 0, list[TransferError]()
    for trigger_id in pending(database):
        try:
            publish(database, hosts, trigger_id)
            published += 1
        except TransferError as error:
            errors.append(error)
    return published, errors
