"""What a store must bring from tape before files can come: distinct files of the store, a bundle being one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy as sa

from stager.database import Database
from stager.models import decode_path
from stager.planning import Planned
from stager.restoring.amounts import Amount
from stager.restoring.places import among, listed
from transfers.errors import TransferError
from transfers.hosts import Host, Residency

AT_ONCE = 1000  # files of a store asked about in one conversation
MOST_NAMED = 100  # files of a store that are lost, or that it says nothing about


@dataclass(slots=True)
class Recalls:
    """Files of a store that are not online. `volumes` are the tapes that it names, `troubles` sentences about files
    that it has lost or says nothing of, the first of them, and `troubled` is how many there are."""

    recall: Amount = field(default_factory=Amount)
    staging: int = 0  # of them, those that are on their way from tape already
    volumes: set[str] = field(default_factory=set)
    troubled: int = 0
    troubles: list[str] = field(default_factory=list)

    def add(self, host: str, path: str, size: int, found: Residency | TransferError) -> None:
        """Count one file of the store."""
        if isinstance(found, TransferError):
            self._trouble(str(found))
        elif found.state == "lost":
            self._trouble(f"{host}:{path}: the store has lost it")
        elif found.state != "online":
            self.recall.add(size)
            self.staging += found.state == "staging"
            if found.volume:
                self.volumes.add(found.volume)

    def _trouble(self, sentence: str) -> None:
        self.troubled += 1
        if len(self.troubles) < MOST_NAMED:
            self.troubles.append(sentence)


class _Bundle(NamedTuple):
    path: str
    size: int
    residency: Residency | TransferError


class Store:
    """One store, asked about each of its files once, whichever manifests it is needed for. Where its files are always
    online it is asked nothing."""

    def __init__(self, database: Database, host: Host) -> None:
        self.database = database
        self.host = host
        self.all = Recalls()  # of all manifests together
        self._bundles: dict[int, _Bundle] = {}
        self._plain: set[int] = set()  # hashes of paths

    def needed(self) -> Needed:
        """What one manifest needs, to be counted."""
        return Needed(self)

    def learn(self, bundles: Sequence[int]) -> None:
        """Ask about bundles that were not asked about before."""
        new = [one for one in bundles if one not in self._bundles]
        for start in range(0, len(new), AT_ONCE):
            rows = self._rows(new[start : start + AT_ONCE])
            found = self.host.residency([path for _, path, _ in rows])
            for (number, path, size), residency in zip(rows, found, strict=True):
                self._bundles[number] = _Bundle(path, size, residency)
                self.all.add(self.host.name, path, size, residency)

    def _rows(self, bundles: Sequence[int]) -> list[tuple[int, str, int]]:
        query = sa.text("SELECT id, path, size FROM bundles WHERE id IN :ids").bindparams(
            sa.bindparam("ids", list(bundles), expanding=True)
        )
        with self.database.read() as connection:
            return [(row.id, decode_path(row.path), row.size) for row in connection.execute(query)]

    def bundle(self, number: int) -> _Bundle | None:
        """What was learned of a bundle."""
        return self._bundles.get(number)

    def plain(self, path: str, size: int, found: Residency | TransferError) -> None:
        """Count a file that is in no bundle, once. Files that are online are not remembered."""
        if isinstance(found, Residency) and found.state == "online":
            return
        if hash(path) not in self._plain:
            self._plain.add(hash(path))
            self.all.add(self.host.name, path, size, found)


class Needed:
    """The files of a store that one manifest needs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recalls = Recalls()
        self._bundles: set[int] = set()

    def add(self, lot: Sequence[Planned], lie_in: Mapping[int, int] | None = None) -> None:
        """Count items that are to come. `lie_in`: the bundles that they lie in, each with how many, where known."""
        host = self._store.host
        if not lot or not host.stages:
            return
        paths = [one.source for one in lot]
        bundles = self._bundles_of(paths) if lie_in is None else {one: lie_in[one] for one in lie_in if one}
        self._bundles.update(bundles)
        if sum(bundles.values()) == len(lot):
            return
        bundled = self._bundled(paths) if bundles else set()
        plain = [one for one in lot if one.source not in bundled]
        for one, found in zip(plain, host.residency([one.source for one in plain]), strict=True):
            self._recalls.add(host.name, one.source, one.size or 0, found)
            self._store.plain(one.source, one.size or 0, found)

    def recalls(self) -> Recalls:
        """All that was counted; bundles are asked about now."""
        self._store.learn(sorted(self._bundles))
        for bundle in self._learned():
            self._recalls.add(self._store.host.name, bundle.path, bundle.size, bundle.residency)
        self._bundles.clear()
        return self._recalls

    def _learned(self) -> Iterator[_Bundle]:
        for number in sorted(self._bundles):
            if bundle := self._store.bundle(number):
                yield bundle

    def _bundles_of(self, paths: Sequence[str]) -> dict[int, int]:
        """The bundles that these paths are members of, each with how many of them."""
        rows = self._members(paths, "bundle_id, count(*)", "GROUP BY bundle_id")
        return {int(bundle): int(count) for bundle, count in rows}

    def _bundled(self, paths: Sequence[str]) -> set[str]:
        """Those of the paths that are members of a bundle."""
        return {decode_path(path) for (path,) in self._members(paths, "path")}

    def _members(self, paths: Sequence[str], columns: str, grouped: str = "") -> list[Any]:
        database = self._store.database
        query = sa.text(f"""
            SELECT {columns} FROM copies
            WHERE host = :host AND bundle_id IS NOT NULL AND path {among(database)} {grouped}""")
        with database.read() as connection:
            values = {"host": self._store.host.name, "paths": listed(database, paths)}
            return list(connection.execute(query, values))
