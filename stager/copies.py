"""Where receipts say that files are: the only writer of copies but for what a later look finds (`scrubbing.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from stager.database import Database
from stager.models import BundleState, Copy, encode_path
from transfers.bundles import Entry
from transfers.hosts import Receipt

table = Copy.__table__  # type: ignore[attr-defined]  # SQLModel gives its tables no static type


class Stated(Protocol):
    """A file as it was listed: an item on lease, for one."""

    @property
    def source(self) -> str: ...
    @property
    def size(self) -> int | None: ...
    @property
    def mtime_ns(self) -> int | None: ...


def proven(database: Database, host: str, files: Sequence[Stated], *, kept: bool = False) -> dict[str, str]:
    """The digests that files at a host are expected to hold because Stager itself proved them there, by path.

    A file may have been rewritten on purpose since: then its size or time tells, and nothing is expected of it. Where
    files are `kept`, as on a store, what was proven is what must be there.
    """
    query = sa.select(table.c.path, table.c.size, table.c.mtime_ns, table.c.digest).where(
        table.c.host == host, table.c.path.in_([one.source for one in files])
    )
    with database.read() as connection:
        known = {row.path: row for row in connection.execute(query)}
    return {
        one.source: known[one.source].digest
        for one in files
        if one.source in known
        and (kept or (known[one.source].size, known[one.source].mtime_ns) == (one.size, one.mtime_ns))
    }


@dataclass(frozen=True, slots=True)
class Stored:
    """A bundle that was proven on a store, with the places of its members. `id` None: of a second store, or found."""

    host: str
    path: str
    label: str
    size: int
    digest: str
    proof: str
    members: Sequence[Entry]
    manifest_id: int | None = None


def add_bundle(database: Database, connection: Connection, bundle: Stored) -> int:
    """Write a bundle as stored, and the copies that its members are; returns its id. A member that was a file of its
    own before, or one of another bundle, is a member of this one from now on."""
    statement = sa.text(f"""
        INSERT INTO bundles (host, path, label, manifest_id, state, files, size, digest, proof, made_at, proven_at)
        VALUES (:host, :path, :label, :manifest, '{BundleState.STORED}', :files, :size, :digest, :proof, {database.now},
                {database.now})
        ON CONFLICT (host, path) DO UPDATE SET state = excluded.state, files = excluded.files, size = excluded.size,
            digest = excluded.digest, proof = excluded.proof, proven_at = excluded.proven_at, trouble = NULL
        RETURNING id""")
    values: dict[str, Any] = {"host": bundle.host, "path": encode_path(bundle.path), "label": bundle.label}
    values |= {"manifest": bundle.manifest_id, "files": len(bundle.members), "size": bundle.size}
    values |= {"digest": bundle.digest, "proof": bundle.proof}
    bundle_id = int(connection.execute(statement, values).scalar_one())
    _write(
        database,
        connection,
        [
            _row(bundle.host, one.path, one.size, one.digest, one.mtime_ns, bundle.proof)
            | {"bundle_id": bundle_id, "data_offset": one.offset}
            for one in bundle.members
        ],
    )
    return bundle_id


def add(database: Database, connection: Connection, host: str, receipts: Sequence[tuple[Receipt, int | None]]) -> None:
    """Write the copies at a host that receipts tell of, each with the focal plane's item that it is a piece of.

    A copy that is known is proven anew; whose piece it is stays, where the new receipt does not say.
    """
    rows = []
    for receipt, piece_of in receipts:
        row = _row(host, receipt.path, receipt.size, receipt.digest, receipt.mtime_ns, receipt.proof)
        rows.append(row | {"piece_of": piece_of, "adopted": receipt.adopted})
    _write(database, connection, rows)


def _row(host: str, path: str, size: int, digest: str, mtime_ns: int | None, proof: str) -> dict[str, Any]:
    row = {"host": host, "path": path, "size": size, "digest": digest, "mtime_ns": mtime_ns, "proof": proof}
    return row | {"piece_of": None, "bundle_id": None, "data_offset": None, "adopted": False}


def _write(database: Database, connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    # What was found in place is where it was: in its bundle, if it is a member of one.
    where = "CASE WHEN :adopted THEN copies.{0} ELSE excluded.{0} END"
    update = "size = excluded.size, digest = excluded.digest, mtime_ns = excluded.mtime_ns, proof = excluded.proof, "
    update += (
        "proven_at = excluded.proven_at, trouble = NULL, piece_of = COALESCE(excluded.piece_of, copies.piece_of), "
    )
    update += ", ".join(f"{name} = {where.format(name)}" for name in ("bundle_id", "data_offset"))
    statement = sa.text(f"""
        INSERT INTO copies (host, path, size, digest, mtime_ns, proof, proven_at, piece_of, bundle_id, data_offset)
        VALUES (:host, :path, :size, :digest, :mtime_ns, :proof, {database.now}, :piece_of, :bundle_id, :data_offset)
        ON CONFLICT (host, path) DO UPDATE SET {update}""").bindparams(sa.bindparam("path", type_=table.c.path.type))
    connection.execute(statement, rows)


def proofs_of(connection: Connection, items: Sequence[int]) -> dict[int, str]:
    """How the copies of these items at their destination were proven, by item; those that have none are left out."""
    query = sa.text("""
        SELECT i.id, c.proof FROM items i JOIN manifests m ON m.id = i.manifest_id
        JOIN copies c ON c.host = m.destination_host AND c.path = i.destination
        WHERE i.id IN :items AND i.state = 'done'
        UNION SELECT piece_of, proof FROM copies WHERE piece_of IN :items""")
    rows = connection.execute(query.bindparams(sa.bindparam("items", list(items) or [0], expanding=True)))
    return {row.id: row.proof for row in rows}
