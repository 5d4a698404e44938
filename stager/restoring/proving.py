"""Prove again what manifests have in place: each file is read where it lies, or, proven a moment ago, looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import sqlalchemy as sa

from stager import scrubbing
from stager.database import Database
from stager.items import LOST
from stager.models import decode_path
from stager.opening import Hosts
from stager.restoring import bringing
from stager.restoring.amounts import Amount
from stager.scrubbing import Checked, Known
from transfers.errors import TransferError
from transfers.hosts import FileInfo

ROWS = 1000  # asked of the database at a time
MOST_FILES = 64  # of a lot that is read together: between two lots it is seen whether to stop...
MOST_BYTES = 1 << 30
STREAM = "stream"  # the proof of a file that was hashed as it was written, and never read back

Stop = Callable[[], bool]


class Due(NamedTuple):
    """A copy that is to be proven again; `look`: a look at it is enough, `stream`: its receipt says that it was never
    read back."""

    copy: Known
    mtime_ns: int | None
    look: bool
    stream: bool


@dataclass(slots=True)
class Proof:
    """What proving again came to: what was read, what was looked at alone, and what was found bad: `aside` are the
    places of corrupt ones in quarantine, `stuck` why others could not be moved there, `unknown` why copies could not be
    read at all."""

    read: Amount = field(default_factory=Amount)
    looked: Amount = field(default_factory=Amount)
    gone: int = 0
    corrupt: int = 0
    aside: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        return self.gone + self.corrupt

    def __add__(self, other: Proof) -> Proof:
        """Both, but for what could not be read: that is as it was last."""
        return Proof(
            self.read + other.read,
            self.looked + other.looked,
            self.gone + other.gone,
            self.corrupt + other.corrupt,
            self.aside + other.aside,
            other.stuck,
            other.unknown,
        )


@dataclass(frozen=True, slots=True)
class Since:
    """From when on a proof counts (Unix seconds of the database): one of this run needs no other, one of `trusted` or
    later is looked at."""

    run: float
    trusted: float


def since(database: Database, trust_s: float) -> Since:
    """Now, for a run that begins now."""
    with database.read() as connection:
        now = float(connection.exec_driver_sql(f"SELECT {database.now}").scalar_one())
    return Since(now, now - trust_s)


# What a manifest has in place, or had: its items that are done, and those whose copy was found gone or bad.
_IN_PLACE = f"i.manifest_id = :manifest AND (i.state = 'done' OR (i.state = 'held' AND i.kind = '{LOST}'))"
# Their copies (of the manifest m), where they are to be proven again.
_DUE = f"""c.host = m.destination_host AND c.path = i.destination
    AND (c.proven_at IS NULL OR c.proven_at < :run OR c.trouble IS NOT NULL OR c.proof = '{STREAM}')"""


def amount(database: Database, manifests: Sequence[int], since: Since) -> Amount:
    """How much is to be proven again."""
    query = sa.text(f"""
        SELECT count(*), COALESCE(sum(c.size), 0) FROM items i JOIN manifests m ON m.id = i.manifest_id
        JOIN copies c ON {_DUE} WHERE {_IN_PLACE}""")
    total = Amount()
    with database.read() as connection:
        for manifest in manifests:
            files, nbytes = connection.execute(query, {"manifest": manifest, "run": since.run}).one()
            total += Amount(int(files), int(nbytes))
    return total


def due(database: Database, manifest: int, since: Since, read: Collection[int], before: float) -> Iterator[Due]:
    """The copies of a manifest that are to be proven again: those last proven `before` that time, and those that are
    in trouble. Those of `read`, hashed once as they were written, were read back in this run."""
    # Page by page of the index of destinations, so that a page costs the same however many items there are.
    query = sa.text(f"""
        SELECT i.destination, c.id, c.host, c.path, c.size, c.digest, c.mtime_ns, c.proven_at, c.trouble, c.proof
        FROM (SELECT i.destination FROM items i WHERE {_IN_PLACE} AND i.destination > :last
              ORDER BY i.destination LIMIT {ROWS}) i
        JOIN manifests m ON m.id = :manifest LEFT JOIN copies c ON {_DUE} ORDER BY i.destination""")
    last = ""
    while True:
        with database.read() as connection:
            rows = connection.execute(query, {"manifest": manifest, "run": before, "last": last}).all()
        for row in rows:
            if row.id is None or (row.proof == STREAM and row.trouble is None and row.id in read):
                continue
            copy = Known(row.id, row.host, decode_path(row.path), row.size, row.digest)
            lately = row.proven_at is not None and since.trusted <= row.proven_at < since.run
            yield Due(copy, row.mtime_ns, lately and row.trouble is None, row.proof == STREAM)
        if len(rows) < ROWS:
            return
        last = rows[-1].destination


class Prover:
    """Proves again, lot by lot; `moved` is told of every lot."""

    def __init__(self, database: Database, hosts: Hosts, since: Since, moved: Callable[[Amount], None]) -> None:
        self.database = database
        self.hosts = hosts
        self.since = since
        self._moved = moved
        self._before = since.run  # a proof of before that is due; once all was looked at, one of before `trusted`
        self._read: set[int] = set()  # copies proven by "stream" that were seen to: no receipt says so

    def prove(self, manifests: Sequence[int], stop: Stop) -> Proof:
        """Prove again all that is due of these manifests, unless it is to stop; what is gone or bad is waiting to be
        brought again when this returns, and what was corrupt is set aside. Raises TransferError where a destination
        cannot be used."""
        proof = Proof()
        for manifest in manifests:
            for lot in _lots(due(self.database, manifest, self.since, self._read, self._before)):
                if stop():
                    return proof
                self._lot(proof, manifests, lot)
                self._moved(Amount(len(lot), sum(one.copy.size for one in lot)))
        self._before = self.since.trusted
        return proof

    def is_due(self, manifests: Sequence[int]) -> bool:
        """Whether anything of these manifests is still to be proven again."""
        every = (due(self.database, one, self.since, self._read, self._before) for one in manifests)
        return any(True for some in every for _ in some)

    def _lot(self, proof: Proof, manifests: Sequence[int], lot: Sequence[Due]) -> None:
        self.hosts[lot[0].copy.host]  # one that is down would make an error of each of its files
        to_read = self._look(proof, lot)
        checked = list(scrubbing.check(self.database, self.hosts, [one.copy for one in to_read]))
        again = [one.copy.id for one in checked if one.trouble and self._is_out_of_the_way(proof, one)]
        for one in checked:
            if one.trouble is None:
                proof.read.add(one.copy.size)
        well = {one.copy.id for one in checked if one.trouble is None}
        self._read |= {one.copy.id for one in to_read if one.stream} & well
        if again:
            bringing.wake_lost(self.database, manifests, again)

    def look_over(self, manifests: Sequence[int], stop: Stop) -> list[str]:
        """Look once more at all that these manifests have in place, as it may be long since it was proven: what is not
        as it was is read, and is due where it is gone or bad. Returns why others could not be read at all. Raises
        TransferError where a destination cannot be used."""
        unknown: list[str] = []
        for manifest in manifests:
            every = due(self.database, manifest, self.since, (), math.inf)
            for lot in _lots(every, ROWS, None):
                if stop():
                    return unknown
                as_it_was = self._as_it_was(lot)
                others = [one.copy for one in lot if one.copy.id not in as_it_was]
                checked = scrubbing.check(self.database, self.hosts, others)
                unknown += [_sentence(one) for one in checked if one.unknown]
        return unknown

    def _as_it_was(self, lot: Sequence[Due]) -> set[int]:
        """The copies of a lot that are there with the size and the time that were proven."""
        found = list(self.hosts[lot[0].copy.host].find([one.copy.path for one in lot]))
        return {
            one.copy.id for one, info in zip(lot, found, strict=True) if isinstance(info, FileInfo) and _same(one, info)
        }

    def _look(self, proof: Proof, lot: Sequence[Due]) -> list[Due]:
        """Look at those for which that is enough; returns those that are to be read, and those that are not as they
        were."""
        trusted = [one for one in lot if one.look]
        if not trusted:
            return list(lot)
        try:
            as_it_was = self._as_it_was(trusted)
        except TransferError:
            return list(lot)  # reading will say why
        for one in trusted:
            if one.copy.id in as_it_was:
                proof.looked.add(one.copy.size)
        self._read |= {one.copy.id for one in trusted if one.stream} & as_it_was
        return [one for one in lot if one.copy.id not in as_it_was]

    def _is_out_of_the_way(self, proof: Proof, bad: Checked) -> bool:
        """Whether a bad copy's place is free for a good one; notes how it stands."""
        if bad.unknown:
            proof.unknown.append(_sentence(bad))
            return False
        if bad.trouble != "corrupt":
            proof.gone += 1
            return True
        proof.corrupt += 1
        try:
            proof.aside.append(bringing.set_aside(self.hosts, bad))
        except TransferError as error:
            proof.stuck.append(f"{bad.copy.host}:{bad.copy.path} is corrupt and cannot be set aside: {error}")
            return False
        return True


def _sentence(bad: Checked) -> str:
    """Where a copy is, and what is wrong with it."""
    return f"{bad.copy.host}:{bad.copy.path}: {bad.trouble}"


def _same(one: Due, info: FileInfo) -> bool:
    """Whether a file has the size and, to the second, the time that were proven."""
    same_time = one.mtime_ns is None or one.mtime_ns // 10**9 == info.mtime_ns // 10**9
    return info.size == one.copy.size and same_time


def _lots(every: Iterator[Due], files: int = MOST_FILES, nbytes: int | None = MOST_BYTES) -> Iterator[list[Due]]:
    """Lots of not too many files and bytes (None: of any), but at least one file."""
    lot: list[Due] = []
    size = 0
    for one in every:
        if lot and (len(lot) >= files or (nbytes is not None and size + one.copy.size > nbytes)):
            yield lot
            lot, size = [], 0
        lot.append(one)
        size += one.copy.size
    if lot:
        yield lot


def unproven(database: Database, manifest: int, since: Since) -> Iterator[tuple[str, str]]:
    """(location, trouble) of what a manifest has done and was not proven well in this run, or lately enough."""
    query = sa.text("""
        SELECT m.destination_host, i.destination, c.trouble FROM items i JOIN manifests m ON m.id = i.manifest_id
        LEFT JOIN copies c ON c.host = m.destination_host AND c.path = i.destination
        WHERE i.manifest_id = :manifest AND i.state = 'done'
          AND (c.id IS NULL OR c.trouble IS NOT NULL OR c.proven_at IS NULL OR c.proven_at < :trusted)
        ORDER BY i.id""")
    with database.read() as connection:
        rows = connection.execute(query, {"manifest": manifest, "trusted": since.trusted})
        for host, path, trouble in rows:
            yield f"{host}:{decode_path(path)}", trouble or "it was not proven again"
