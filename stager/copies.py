"""Where receipts say that files are: the only writer of copies but for what a later look finds (`scrubbing.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from stager.database import Database
from stager.models import Copy
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


def add(database: Database, connection: Connection, host: str, receipts: Sequence[tuple[Receipt, int | None]]) -> None:
    """Write the copies at a host that receipts tell of, each with the focal plane's item that it is a piece of.

    A copy that is known is proven anew; whose piece it is stays, where the new receipt does not say.
    """
    rows = [
        {
            "host": host,
            "path": receipt.path,
            "size": receipt.size,
            "digest": receipt.digest,
            "mtime_ns": receipt.mtime_ns,
            "proof": receipt.proof,
            "piece_of": piece_of,
        }
        for receipt, piece_of in receipts
    ]
    if not rows:
        return
    update = "size = excluded.size, digest = excluded.digest, mtime_ns = excluded.mtime_ns, proof = excluded.proof, "
    update += "proven_at = excluded.proven_at, trouble = NULL, piece_of = COALESCE(excluded.piece_of, copies.piece_of)"
    statement = sa.text(f"""
        INSERT INTO copies (host, path, size, digest, mtime_ns, proof, proven_at, piece_of)
        VALUES (:host, :path, :size, :digest, :mtime_ns, :proof, {database.now}, :piece_of)
        ON CONFLICT (host, path) DO UPDATE SET {update}""").bindparams(sa.bindparam("path", type_=table.c.path.type))
    connection.execute(statement, rows)
