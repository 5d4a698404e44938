"""Re-prove copies: read each one again where it lies, and remember what was found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.parts import Location
from manifests.patterns import Pattern
from stager import items
from stager.database import Database, again
from stager.models import EvictionState, decode_path
from stager.opening import Hosts
from transfers.errors import SourceCorrupt, SourceMissing, TransferError

AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Known:
    """A copy as the database knows it."""

    id: int
    host: str
    path: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Checked:
    """A copy that was read again: `trouble` is None where it is as it was proven, else missing, corrupt or a
    sentence about why it could not be read (then nothing is known of it). `of_host`: no copy there could be."""

    copy: Known
    trouble: str | None
    unknown: bool = False
    of_host: bool = False


def copies_of_dataset(database: Database, dataset: str) -> list[Known]:
    """The copies that a dataset's manifests (or the manifest of that name) have proven, newest revisions only."""
    query = sa.text("""
        SELECT c.id, c.host, c.path, c.size, c.digest FROM copies c
        WHERE EXISTS (SELECT 1 FROM items i JOIN manifests m ON m.id = i.manifest_id
                      WHERE m.intent IN ('active', 'held') AND (m.dataset = :name OR m.name = :name)
                        AND (i.state = 'done' OR i.kind = 'lost')
                        AND m.destination_host = c.host AND i.destination = c.path)
           OR EXISTS (SELECT 1 FROM items i JOIN manifests m ON m.id = i.manifest_id
                      WHERE i.id = c.piece_of AND m.intent IN ('active', 'held')
                        AND (m.dataset = :name OR m.name = :name))
        ORDER BY c.host, c.path""")
    with database.read() as connection:
        rows = connection.execute(query, {"name": dataset})
        return [Known(row[0], row[1], decode_path(row[2]), row[3], row[4]) for row in rows]


def copies_at(database: Database, location: Location) -> list[Known]:
    """The known copies on a host that a location, or a pattern, names."""
    matches = Pattern(location.path).matches if location.path else lambda _: True
    query = sa.text("SELECT id, host, path, size, digest FROM copies WHERE host = :host ORDER BY path")
    with database.read() as connection:
        rows = connection.execute(query, {"host": location.host})
        known = (Known(row[0], row[1], decode_path(row[2]), row[3], row[4]) for row in rows)
        return [copy for copy in known if matches(copy.path)]


def check(database: Database, hosts: Hosts, copies: list[Known]) -> Iterator[Checked]:
    """Read every copy again and remember the outcome. A host that is down leaves what is known as it was."""
    for host in dict.fromkeys(copy.host for copy in copies):
        mine = [copy for copy in copies if copy.host == host]
        for start in range(0, len(mine), AT_ONCE):
            checked = list(_check(hosts, host, mine[start : start + AT_ONCE]))
            _remember(database, checked)
            yield from checked


def _check(hosts: Hosts, name: str, copies: list[Known]) -> Iterator[Checked]:
    try:
        found = list(hosts[name].digest([copy.path for copy in copies], reread=True))
    except TransferError as error:
        yield from (Checked(copy, str(error), unknown=True, of_host=True) for copy in copies)
        return
    for copy, result in zip(copies, found, strict=True):
        if isinstance(result, TransferError):
            known = {SourceMissing: "missing", SourceCorrupt: "corrupt"}.get(type(result))  # cut short, of a member
            yield Checked(copy, known or str(result), unknown=known is None)
        elif result[1:] == (copy.size, copy.digest):
            yield Checked(copy, None)
        else:
            yield Checked(copy, "corrupt")


@again
def _remember(database: Database, checked: list[Checked]) -> None:
    with database.write() as connection:
        known = _to_be_known(connection, checked)
        for one in known:
            proven = f", proven_at = {database.now}" if one.trouble is None else ""
            statement = sa.text(f"UPDATE copies SET trouble = :trouble{proven} WHERE id = :id")
            connection.execute(statement, {"trouble": one.trouble, "id": one.copy.id})
        items.mark_lost(connection, [one.copy.id for one in known if one.trouble])
        items.mark_found(connection, [one.copy.id for one in known if not one.trouble])


def _to_be_known(connection: Connection, checked: list[Checked]) -> list[Checked]:
    """What was found out, but for files that are on their way into quarantine: these are missing for a moment only."""
    missing = [one.copy.id for one in checked if one.trouble == "missing" and not one.unknown]
    leaving: set[int] = set()
    if missing:
        query = sa.text(f"""
            SELECT c.id FROM copies c JOIN evictions e ON e.host = c.host AND e.path = c.path
            WHERE c.id IN :ids AND e.state = '{EvictionState.QUARANTINED}' AND e.evicted_at IS NULL""")
        leaving.update(connection.scalars(query.bindparams(sa.bindparam("ids", missing, expanding=True))))
    return [one for one in checked if not one.unknown and one.copy.id not in leaving]
