"""Room that is promised: work asks for what it will write before it begins, so that no two count on the same bytes.

Hosts that lie on one file system share its room. What is promised stays so until the work ends, also the bytes of it
that are written by then and no longer free: for a while less is counted on than there is, never more.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from stager import workers
from stager.config import Config
from stager.database import Database, again
from transfers.errors import NoSpace, TransferError
from transfers.hosts import UNKNOWN, Host, identity_of

SPARE_BYTES = 64 << 10  # beyond what files hold, for folders and names...
SPARE_SHARE = 1000  # ...and a thousandth, for what a file system needs to find their blocks
TOLD_AGAIN_S = 10.0  # a sentence that stays true is written again after this, so that it is known to be so still

_mine: set[tuple[str, str, int]] = set()  # the reservations that this process holds: database, worker, number
_lock = threading.Lock()  # held from before one is written until it is in `_mine`


class Room(NamedTuple):
    """What there is of a file system's room, in bytes."""

    free: int
    promised: int
    floor: int

    @property
    def left(self) -> int:
        """What may still be promised; of a store that does not say how much room it has, any amount."""
        if self.free >= UNKNOWN:
            return UNKNOWN
        return max(0, self.free - self.promised - self.floor)


@contextmanager
def reserved(
    database: Database, config: Config, host: Host, worker: str, nbytes: int, files: Sequence[tuple[str, int]] = ()
) -> Iterator[None]:
    """Have `nbytes` promised at a host within the block; raises NoSpace, and begins nothing, when there is no room.

    `worker` is one that says that it lives (`workers.Presence`): what the dead were promised counts no more. `files`
    are the paths and sizes of what will be written, where known: those that are there already need no room, which is
    looked for when there is not enough of it. That there is none is kept with the host for who asks, until there is.
    """
    try:
        number = _reserve(database, config, host, worker, nbytes, files)
    except NoSpace as error:
        _tell(database, host.name, str(error))
        raise
    _tell(database, host.name, None)
    try:
        yield
    finally:
        if number is not None:
            _mine.discard((database.instance, worker, number))
            with suppress(DBAPIError):  # what is left of it goes when this worker next asks for room, or is dead
                _release(database, number)


def room(database: Database, config: Config, host: Host) -> int:
    """Bytes that new work at a host could be promised now; 2**63-1 where a store does not say. Promises nothing."""
    left = room_at(database, config, host).left
    return left if left == UNKNOWN else max(0, left - spare(left))


def room_at(database: Database, config: Config, host: Host) -> Room:
    """What there is now of the room of the file system that a host lies on."""
    promised, _ = _promised(database, system_of(host), "")
    return Room(host.space().free, sum(promised.values()), config.hosts[host.name].floor)


def problem(database: Database, config: Config, host: Host) -> str | None:
    """Why nothing more is to be brought to a host just now, as a sentence, which is kept with the host for who asks;
    None when more may be."""
    text = _why(host.name, room_at(database, config, host))
    if text:
        _tell(database, host.name, text)
    return text


def _why(name: str, there: Room) -> str | None:
    if there.free < there.floor:
        return f"{name}: below its floor ({_size(there.free)} free, {_size(there.floor)} kept): work to it waits"
    if there.promised and not there.left:
        kept = f", {_size(there.floor)} kept by its floor" if there.floor else ""
        return (
            f"{name}: its room is promised to work under way ({_size(there.free)} free, {_size(there.promised)} "
            f"promised{kept}): more waits"
        )
    return None


# -------------------------------------------------------------------------------------------- asking


def _reserve(
    database: Database, config: Config, host: Host, worker: str, nbytes: int, files: Sequence[tuple[str, int]]
) -> int | None:
    """The number of a new reservation; None at a store that does not say how much room it has."""
    try:
        return _try(database, config, host, worker, nbytes)
    except NoSpace:
        there = _there(host, files)
        if not there:
            raise
    return _try(database, config, host, worker, max(0, nbytes - there))


def _there(host: Host, files: Sequence[tuple[str, int]]) -> int:
    """Bytes of those files that are there already, with the size that they will have."""
    found = host.find([path for path, _ in files]) if files else iter(())
    return sum(
        size
        for (_, size), info in zip(files, list(found), strict=True)
        if info is not None and not isinstance(info, TransferError) and info.size == size
    )


def _try(database: Database, config: Config, host: Host, worker: str, nbytes: int) -> int | None:
    system = system_of(host)
    # One at a time for each file system, and promises are read before the room is looked at: what was still free then,
    # and is written and given back right after, counts as promised.
    with database.alone(f"room of {system}"):
        before, stale = _promised(database, system, worker)
        free = host.space().free
        if free >= UNKNOWN:
            return None
        there = Room(free, sum(before.values()), config.hosts[host.name].floor)
        if there.left < nbytes + spare(nbytes):
            raise _refused(host, nbytes, there)
        with _lock:
            number = _write(database, host.name, system, worker, nbytes, stale)
            _mine.add((database.instance, worker, number))
        return number


def spare(nbytes: int) -> int:
    """Bytes that must be left beside so many that are promised."""
    return nbytes // SPARE_SHARE + SPARE_BYTES


def _refused(host: Host, nbytes: int, there: Room) -> NoSpace:
    parts = [f"{_size(there.promised)} of them promised to other work"] if there.promised else []
    parts += [f"{_size(there.floor)} kept by its floor"] if there.floor else []
    text = f"needs {_size(nbytes)}; {', '.join([f'{_size(there.free)} are free there', *parts])}"
    facts = {"needed": nbytes, "free": there.free, "promised": there.promised, "floor": there.floor}
    side = "store" if host.kind == "store" else "destination"
    return NoSpace(text, host=host.name, side=side, phase="reserve", facts=facts)


def system_of(host: Host) -> str:
    """The file system that a host's root lies on; the host itself, where it cannot tell."""
    found = identity_of(host)
    return found.system if found else f"host {host.name}"


def _size(count: int) -> str:
    from stager.drawing import size  # imported late: it is needed where there is no room, and loads what draws

    return size(count)


# ------------------------------------------------------------------------------------ in the database


def _promised(database: Database, system: str, me: str) -> tuple[dict[int, int], list[int]]:
    """What is promised of a file system, by number; and the numbers of promises to workers that are no more, or that
    this worker (`me`) could not give back."""
    query = sa.text("SELECT id, worker, bytes FROM reservations WHERE system = :system")
    with _lock, database.read() as connection:
        rows = connection.execute(query, {"system": system}).all()
        mine = set(_mine)
    if not rows:
        return {}, []
    others = _alive(database, me) - {me}
    kept = {row.id for row in rows if row.worker in others or (database.instance, row.worker, row.id) in mine}
    return {row.id: row.bytes for row in rows if row.id in kept}, [row.id for row in rows if row.id not in kept]


def _alive(database: Database, me: str) -> set[str]:
    """The workers that live. Who is no worker (`me` is empty) cannot tell on SQLite, and takes all known ones for such.

    To be asked after the promises were read: whoever was promised anything was known as a worker before.
    """
    with database.read() as connection:
        known = set(connection.scalars(sa.text("SELECT name FROM workers")))
    return known - set(workers.dead(database, me)) if me or not database.is_sqlite else known


@again
def _write(database: Database, host: str, system: str, worker: str, nbytes: int, stale: Sequence[int]) -> int:
    statement = sa.text(f"""
        INSERT INTO reservations (host, system, worker, bytes, made_at)
        VALUES (:host, :system, :worker, :bytes, {database.now}) RETURNING id""")
    gone = sa.text("DELETE FROM reservations WHERE id IN :stale").bindparams(sa.bindparam("stale", expanding=True))
    with database.write() as connection:
        if stale:
            connection.execute(gone, {"stale": list(stale)})
        values = {"host": host, "system": system, "worker": worker, "bytes": nbytes}
        return int(connection.execute(statement, values).scalar_one())


@again
def _release(database: Database, number: int) -> None:
    with database.write() as connection:
        connection.execute(sa.text("DELETE FROM reservations WHERE id = :id"), {"id": number})


@again
def _tell(database: Database, host: str, text: str | None) -> None:
    """Keep the sentence with the host; nothing is written where nothing changed."""
    query = sa.text(f"SELECT no_room, {database.now} - no_room_at FROM hosts WHERE name = :host")
    with database.read() as connection:
        known, ago = connection.execute(query, {"host": host}).first() or (None, None)
    if text == known and (text is None or (ago is not None and ago < TOLD_AGAIN_S)):
        return
    statement = sa.text(f"UPDATE hosts SET no_room = :text, no_room_at = {database.now} WHERE name = :host")
    with database.write() as connection:
        connection.execute(statement, {"text": text, "host": host})
