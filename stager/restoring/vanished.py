"""Files of their own that were proven at a store and are not there any more: a listing says nothing of what it does not
have. Members of bundles that are gone it tells itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from manifests.manifest import Manifest
from stager.database import Database
from stager.models import decode_path
from stager.restoring.places import among, below, listed
from transfers.errors import TransferError
from transfers.hosts import Host

AT_ONCE = 5000


class Vanished:
    """Counts those of a source's known files that are listed, and looks for the others where there are any."""

    def __init__(self, database: Database, source: Host, manifest: Manifest) -> None:
        self._database = database
        self._source = source
        self._manifest = manifest
        self._seen = 0
        self._folder = manifest.source.path if manifest.files else manifest.pattern.fixed
        self._known, self._own = self._count_below()

    def see(self, paths: Sequence[str]) -> dict[int, int]:
        """So many paths were listed; returns in which bundles those of them lie that are known, each with how many, 0
        being none."""
        if not self._known:
            return {}
        query = sa.text(f"""
            SELECT COALESCE(bundle_id, 0), count(*) FROM copies
            WHERE host = :host AND path {among(self._database)} GROUP BY 1""")
        with self._database.read() as connection:
            values = {"host": self._source.name, "paths": listed(self._database, paths)}
            found = {int(bundle): int(count) for bundle, count in connection.execute(query, values)}
        self._seen += found.get(0, 0)
        return found

    def paths(self) -> Iterator[tuple[str, str]]:
        """(path, why) of each file that the manifest means, that was proven at the source, and that is not there.

        Asked for once everything was listed. Raises TransferError where the source cannot be asked."""
        if self._manifest.files is not None:  # a list says itself what should be there
            return
        if self._own == self._seen or sum(len(lot) for lot in self._meant()) == self._seen:
            return
        for lot in self._meant():
            for path, found in zip(lot, self._source.find(lot), strict=True):
                if found is None:
                    yield path, "it was proven there, and is not there any more"
                elif isinstance(found, TransferError):
                    yield path, found.text

    def _meant(self) -> Iterator[list[str]]:
        """Lots of the known paths that the manifest's pattern means, but for those of members."""
        matches = self._manifest.pattern.matches
        last = ""
        after = ">" if self._database.is_sqlite else "~>~"
        order = "" if self._database.is_sqlite else "USING ~<~"
        condition, values = below(self._database, self._folder)
        query = sa.text(f"""
            SELECT path FROM copies WHERE host = :host AND bundle_id IS NULL AND path {after} :last AND {condition}
            ORDER BY path {order} LIMIT {AT_ONCE}""")
        while True:
            with self._database.read() as connection:
                rows = list(connection.scalars(query, {"host": self._source.name, "last": last, **values}))
            yield [path for path in map(decode_path, rows) if matches(path)]
            if len(rows) < AT_ONCE:
                return
            last = rows[-1]

    def _count_below(self) -> tuple[int, int]:
        """How many files are known there, and how many of them are no members."""
        condition, values = below(self._database, self._folder)
        query = sa.text(f"""
            SELECT count(*), COALESCE(sum(CASE WHEN bundle_id IS NULL THEN 1 ELSE 0 END), 0)
            FROM copies WHERE host = :host AND {condition}""")
        with self._database.read() as connection:
            known, own = connection.execute(query, {"host": self._source.name, **values}).one()
        return int(known), int(own)
