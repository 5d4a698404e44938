"""Ends what was broken off: every file whose tombstone is neither here nor there is put where that says it is.

Done under the lock of a host (`alone_at`), so that what is found unfinished is nobody's work any more: an eviction that
was killed, or a step of it that failed a moment ago. What goes together goes in full, or comes back in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog

from stager import scrubbing
from stager.database import Database
from stager.evicting import tombstones
from stager.evicting.tombstones import Tombstone
from stager.opening import Hosts
from stager.scrubbing import Known
from transfers.errors import TransferError
from transfers.hosts import FileInfo, Host, Identity

log = structlog.get_logger("stager")


@contextmanager
def alone_at(database: Database, host: str) -> Iterator[None]:
    """Wait until nobody else moves evicted files at a host, on whichever machine; none is held beside it."""
    with database.alone(f"evictions at {host}"):
        yield


@dataclass(slots=True)
class Standing:
    """Where the file of a tombstone is found."""

    tombstone: Tombstone
    moved: FileInfo | None  # in quarantine
    there: FileInfo | None  # at its place
    listed: bool  # whether a copy is known there


def recover(database: Database, hosts: Hosts, host: Host, grace_s: float) -> None:
    """End all that is unfinished at a host. Call it with the lock of that host alone."""
    for unit in tombstones.units(tombstones.unfinished(database, host.name)):
        settle(database, hosts, host, unit, grace_s)


def settle(
    database: Database, hosts: Hosts, host: Host, unit: Sequence[Tombstone], grace_s: float, *, back: bool = False
) -> bool:
    """End one unit: finished where all of its files are in quarantine, unless it is to come `back`; else each file is
    put back. Whether it is evicted now. Raises TransferError where the host cannot do it: then it stays unfinished."""
    found = look(database, host, unit)
    leaving = [one for one in found if one.tombstone.evicted_at is None]
    if not leaving:
        _put_back(database, hosts, host, found)
        return False
    whole = all(one.moved and not one.there and one.listed for one in found)
    if whole and not back and tombstones.finish(database, unit, grace_s):
        return True
    _undo(database, host, found)
    return False


def look(database: Database, host: Host, unit: Sequence[Tombstone]) -> list[Standing]:
    """Where each file is. One that has both names, for a move was broken off, is left the one at its place."""
    moved = _found(host, [one.quarantine for one in unit])
    there = _found(host, [one.path for one in unit])
    listed = tombstones.listed(database, unit)
    standings = [Standing(one, away, at, one.id in listed) for one, away, at in zip(unit, moved, there, strict=True)]
    for one in standings:
        if one.moved and one.there and _is_one_file(host, one.tombstone):
            _done(host.remove([one.tombstone.quarantine]))
            one.moved = None
    return standings


def _found(host: Host, paths: Sequence[str]) -> list[FileInfo | None]:
    found: list[FileInfo | None] = []
    for one in host.find(paths):
        if isinstance(one, TransferError):
            raise one
        found.append(one)
    return found


def _is_one_file(host: Host, one: Tombstone) -> bool:
    first, second = host.identify([one.quarantine, one.path])
    return isinstance(first, Identity) and first == second


def _done(results: Iterator[str | TransferError]) -> None:
    """Raise the first error of some, when all are done."""
    errors = [one for one in list(results) if isinstance(one, TransferError)]
    if errors:
        raise errors[0]


def _undo(database: Database, host: Host, found: Sequence[Standing]) -> None:
    """Put the files of an eviction that did not come off back, and forget it."""
    away = [one.tombstone for one in found if one.moved and not one.there]
    _done(host.move([(one.quarantine, one.path) for one in away]))
    taken = [one.tombstone for one in found if one.moved and one.there]  # by what came there since
    tombstones.keep(database, taken)
    tombstones.drop(database, [one.tombstone for one in found if one.tombstone not in taken])
    for one in away:
        log.info("an eviction that was broken off was undone", host=one.host, path=one.path)


def _put_back(database: Database, hosts: Hosts, host: Host, found: Sequence[Standing]) -> None:
    """Put files that lay in quarantine back, and list them as copies again; what is not as it was is found out."""
    taken = [one.tombstone for one in found if one.moved and one.there]
    away = [one.tombstone for one in found if one.moved and not one.there]
    _done(host.move([(one.quarantine, one.path) for one in away]))
    tombstones.keep(database, taken)
    gone = [one.tombstone for one in found if not one.moved and not one.there]
    tombstones.removed(database, gone, "it was in quarantine no more when it was to be put back")
    back = [one.tombstone for one in found if one.tombstone not in taken and one.tombstone not in gone]
    if not back:
        return
    ids = tombstones.returned(database, back)
    infos = {one.tombstone.id: one.moved or one.there for one in found}
    odd = [
        Known(number, one.host, one.path, one.size, one.digest)
        for number, one in zip(ids, back, strict=True)
        if not is_as_it_was(one, infos[one.id])
    ]
    list(scrubbing.check(database, hosts, odd))


class Proven(Protocol):
    """What was proven of a file: a Candidate, or a Tombstone."""

    @property
    def size(self) -> int: ...
    @property
    def mtime_ns(self) -> int | None: ...


def is_as_it_was(copy: Proven, info: FileInfo | None) -> bool:
    """Whether a file has the size and the time that it was proven with."""
    return info is not None and info.size == copy.size and copy.mtime_ns in (None, info.mtime_ns)
