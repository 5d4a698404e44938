"""What the database knows of a store's bundles and files, and what is added to it. Nothing it knows is ever changed for
what a store says now: the database alone knows what was proven."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from stager import copies
from stager.database import Database, again
from stager.models import BundleState, PathText, decode_path, encode_path
from transfers.bundles import Entry
from transfers.hosts import FileInfo, Receipt

AT_ONCE = 500  # paths in one query
WRITTEN_AT_ONCE = 5000  # members in one transaction
UNREAD = "index"  # the proof of a member that an index tells of, and that nobody has read since


class Known(NamedTuple):
    """A bundle as the database knows it."""

    id: int
    path: str
    state: str
    size: int
    digest: str | None
    trouble: str | None

    @property
    def is_stored(self) -> bool:
        return self.state == BundleState.STORED


class Place(NamedTuple):
    """Where the database has a file of the store: a file of its own, or a member of a bundle."""

    size: int
    digest: str
    bundle_id: int | None
    bundle: str | None


class Found(NamedTuple):
    """A bundle as it was found on a store. `digest` and `proof` as far as they are known; `files`: its members in all,
    of which `entries` are to be known too."""

    host: str
    path: str
    label: str
    size: int
    digest: str | None
    proof: str
    files: int
    entries: Sequence[Entry]


@dataclass(slots=True)
class Added:
    """What became of a bundle's members: how many are new, and those whose path is another file's already."""

    new: int = 0
    elsewhere: list[tuple[Entry, Place]] = field(default_factory=list)


_KNOWN = "SELECT id, path, state, size, digest, trouble FROM bundles WHERE host = :host"


def bundles(database: Database, host: str) -> dict[str, Known]:
    """All bundles of a store by their paths there, those on their way too."""
    with database.read() as connection:
        return {decode_path(row.path): _known(row) for row in connection.execute(sa.text(_KNOWN), {"host": host})}


def bundle(database: Database, host: str, path: str) -> Known | None:
    """One bundle, as it is known now."""
    with database.read() as connection:
        query = sa.text(f"{_KNOWN} AND path = :path")
        row = connection.execute(query, {"host": host, "path": encode_path(path)}).first()
    return _known(row) if row else None


def _known(row: Any) -> Known:
    return Known(row[0], decode_path(row[1]), *row[2:])


def members(database: Database, bundle_id: int) -> list[Entry]:
    """The members that the database has of a bundle, sorted by their paths."""
    query = sa.text("SELECT path, size, mtime_ns, digest, data_offset FROM copies WHERE bundle_id = :id")
    with database.read() as connection:
        rows = connection.execute(query, {"id": bundle_id}).all()
    return sorted(Entry(decode_path(row[0]), row[1], row[2] or 0, row[3], row[4]) for row in rows)


def places(database: Database, host: str, paths: Sequence[str]) -> dict[str, Place]:
    """Where the database has these files of the store; those that it does not know are left out."""
    found: dict[str, Place] = {}
    with database.read() as connection:
        for start in range(0, len(paths), AT_ONCE):
            found |= _places(connection, host, paths[start : start + AT_ONCE])
    return found


def _places(connection: Connection, host: str, paths: Sequence[str]) -> dict[str, Place]:
    query = sa.text("""
        SELECT c.path, c.size, c.digest, c.bundle_id, b.path
        FROM copies c LEFT JOIN bundles b ON b.id = c.bundle_id WHERE c.host = :host AND c.path IN :paths""")
    query = query.bindparams(sa.bindparam("paths", expanding=True, type_=PathText()))
    return {
        decode_path(row[0]): Place(row[1], row[2], row[3], None if row[4] is None else decode_path(row[4]))
        for row in connection.execute(query, {"host": host, "paths": list(paths)})
    }


def add(database: Database, found: Found) -> Added:
    """Write a bundle and those of its members whose paths the database has nowhere yet. With the proof UNREAD the index
    is taken at its word, and nothing counts as proven; else it was read just now.

    A crash leaves some members out, and the next time they are added.
    """
    added = Added()
    for start in range(0, len(found.entries), WRITTEN_AT_ONCE):
        some = _add(database, found, found.entries[start : start + WRITTEN_AT_ONCE])
        added.new += some.new
        added.elsewhere += some.elsewhere
    return added


@again
def _add(database: Database, found: Found, lot: Sequence[Entry]) -> Added:
    with database.write() as connection:
        known: dict[str, Place] = {}
        for start in range(0, len(lot), AT_ONCE):
            known |= _places(connection, found.host, [one.path for one in lot[start : start + AT_ONCE]])
        bundle_id = _add_bundle(database, connection, found)
        new = [_row(found, one, bundle_id) for one in lot if one.path not in known]
        if new:
            connection.execute(_insert(database, found.proof), new)
    return sorted_out(lot, known, bundle_id)


def sorted_out(lot: Sequence[Entry], known: Mapping[str, Place], bundle_id: int | None) -> Added:
    """What becomes of members, given where the database has files of their paths."""
    at = [(one, known[one.path]) for one in lot if one.path in known]
    return Added(
        len(lot) - len(at), [(one, place) for one, place in at if place.bundle_id != bundle_id or bundle_id is None]
    )


def _add_bundle(database: Database, connection: Connection, found: Found) -> int:
    """The id of a bundle's row; one that is there is left as it is, but for a digest that it lacks."""
    at = "NULL" if found.proof == UNREAD else database.now
    statement = sa.text(f"""
        INSERT INTO bundles (host, path, label, manifest_id, state, files, size, digest, proof, made_at, proven_at)
        VALUES (:host, :path, :label, NULL, '{BundleState.STORED}', :files, :size, :digest, :proof, {database.now},
                {at})
        ON CONFLICT (host, path) DO UPDATE SET digest = COALESCE(bundles.digest, excluded.digest) RETURNING id""")
    values = found._asdict() | {"path": encode_path(found.path)}
    del values["entries"]
    return int(connection.execute(statement, values).scalar_one())


def _insert(database: Database, proof: str) -> Any:
    at = "NULL" if proof == UNREAD else database.now
    return sa.text(f"""
        INSERT INTO copies (host, path, size, digest, mtime_ns, proof, proven_at, bundle_id, data_offset)
        VALUES (:host, :path, :size, :digest, :mtime_ns, :proof, {at}, :bundle_id, :offset)
        ON CONFLICT (host, path) DO NOTHING""")


def _row(found: Found, one: Entry, bundle_id: int) -> dict[str, Any]:
    return one._asdict() | {
        "host": found.host,
        "path": encode_path(one.path),
        "proof": found.proof,
        "bundle_id": bundle_id,
    }


@again
def lay_into(database: Database, host: str, bundle: str, moved: Sequence[tuple[Entry, Place]]) -> None:
    """Say that files whose place is no more are members of a bundle: the same bytes, elsewhere on the store."""
    statement = sa.text("""
        UPDATE copies SET bundle_id = (SELECT id FROM bundles WHERE host = :host AND path = :bundle),
               data_offset = :offset, mtime_ns = :mtime_ns, trouble = NULL
        WHERE host = :host AND path = :path AND COALESCE(bundle_id, 0) = :before AND size = :size AND digest = :digest
        """)
    place = {"host": host, "bundle": encode_path(bundle)}
    with database.write() as connection:
        for entry, before in moved:
            values = entry._asdict() | place | {"path": encode_path(entry.path), "before": before.bundle_id or 0}
            connection.execute(statement, values)


@again
def add_files(database: Database, host: str, found: Sequence[tuple[FileInfo, str]], proof: str) -> int:
    """Write copies of files of their own, each with its digest; returns how many were not known."""
    receipts = [Receipt(0, info.path, info.size, digest, info.mtime_ns, proof, False) for info, digest in found]
    with database.write() as connection:
        known = _places(connection, host, [one.path for one in receipts])
        new = [(one, None) for one in receipts if one.path not in known]
        copies.add(database, connection, host, new)
    return len(new)


@again
def set_trouble(database: Database, bundle_id: int, trouble: str | None) -> None:
    """Keep with a bundle what the last look found wrong with it."""
    with database.write() as connection:
        statement = sa.text("UPDATE bundles SET trouble = :trouble WHERE id = :id")
        connection.execute(statement, {"trouble": trouble, "id": bundle_id})


@again
def read_again(database: Database, bundle_id: int, rotten: Collection[str] = ()) -> None:
    """The members of a bundle were read just now, and are what they were, but for those that are rotten: these keep
    what is known of them, and the bundle as a whole does. Where very many are rotten, all do."""
    if len(rotten) > AT_ONCE:
        return
    with database.write() as connection:
        proof = f"proof = CASE WHEN proof = '{UNREAD}' THEN 'reread' ELSE proof END"
        proven = f"SET proven_at = {database.now}, {proof}"
        statement = sa.text(f"UPDATE copies {proven} WHERE bundle_id = :id AND path NOT IN :rotten")
        statement = statement.bindparams(sa.bindparam("rotten", expanding=True, type_=PathText()))
        connection.execute(statement, {"id": bundle_id, "rotten": list(rotten)})
        if not rotten:
            connection.execute(sa.text(f"UPDATE bundles {proven} WHERE id = :id"), {"id": bundle_id})
