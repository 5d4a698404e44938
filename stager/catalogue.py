"""Where the members of a store's bundles lie, as the database knows it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from stager.database import Database
from stager.models import BundleState, PathText, decode_path, encode_path
from transfers.bundles.store import Placed

AT_ONCE = 500  # paths looked up in one query
LISTED_AT_ONCE = 10_000  # members in one lot of a listing

# Not a join, for which PostgreSQL might go through all bundles for each path, as long as it knows no better.
_MEMBERS = f"""
    SELECT c.path, c.size, c.mtime_ns, c.digest, c.data_offset,
           (SELECT b.path FROM bundles b WHERE b.id = c.bundle_id AND b.state = '{BundleState.STORED}') AS bundle
    FROM copies c WHERE c.host = :host AND c.bundle_id IS NOT NULL"""


class DatabaseCatalog:
    """The members of one store's bundles. Every call is a transaction of its own, and short."""

    def __init__(self, database: Database, host: str) -> None:
        self.database = database
        self.host = host

    def find(self, paths: Sequence[str]) -> dict[str, Placed]:
        """Those of the paths that are members of a bundle, with where they lie."""
        found: dict[str, Placed] = {}
        query = sa.text(f"{_MEMBERS} AND c.path IN :paths").bindparams(
            sa.bindparam("paths", expanding=True, type_=PathText())
        )
        with self.database.read() as connection:
            for start in range(0, len(paths), AT_ONCE):
                values = {"host": self.host, "paths": list(paths[start : start + AT_ONCE])}
                found |= {one.path: one for one in _placed(connection.execute(query, values))}
        return found

    def below(self, prefix: str) -> Iterator[Placed]:
        """Every member below a folder ("": the root), or the one of that path, in the order of their bytes."""
        text = encode_path(prefix)
        last = ""
        # By bytes, whatever the database's collation is: the index is one of bytes too.
        after, before, order = (">", "<", "") if self.database.is_sqlite else ("~>~", "~<~", "USING ~<~")
        below = f"AND (c.path = :exact OR (c.path {after} :from AND c.path {before} :upto))" if text else ""
        query = sa.text(f"{_MEMBERS} AND c.path {after} :last {below} ORDER BY c.path {order} LIMIT {LISTED_AT_ONCE}")
        while True:
            values = {"host": self.host, "last": last}
            if text:  # "0" comes after "/"
                values |= {"exact": text, "from": f"{text}/", "upto": f"{text}0"}
            with self.database.read() as connection:
                rows = connection.execute(query, values).all()
            yield from _placed(rows)
            if len(rows) < LISTED_AT_ONCE:
                return
            last = rows[-1].path

    def bundles(self) -> frozenset[str]:
        """The paths of all bundles of the store, as they lie there; those on their way too."""
        with self.database.read() as connection:
            rows = connection.execute(sa.text("SELECT path FROM bundles WHERE host = :host"), {"host": self.host})
            return frozenset(decode_path(row.path) for row in rows)


def _placed(rows: Iterable[Any]) -> Iterator[Placed]:
    for row in rows:
        if row.bundle is not None:  # else it is not proven yet
            path, bundle = decode_path(row.path), decode_path(row.bundle)
            yield Placed(path, row.size, row.mtime_ns, row.digest, bundle, row.data_offset)
