"""Which workers live. A worker that died is known to be dead at once, not only when its leases run out.

SQLite has one daemon, which holds the lock file: every other worker of the database is dead. On PostgreSQL
each worker holds an advisory lock on a session of its own, which the server frees when the process is gone.
"""

from __future__ import annotations

import os
import secrets
import socket
import zlib
from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from stager.database import Database, again

NAMESPACE = 0x57A6E4  # of the advisory locks; the second key is made of the worker's name


def new_name() -> str:
    """A name for this worker that no other has: host, process, a random part."""
    return f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(3)}"


class Presence:
    """A worker's sign of life, from `start` to `stop`."""

    def __init__(self, database: Database, worker: str) -> None:
        self.database = database
        self.worker = worker
        self._session: Connection | None = None

    def start(self) -> None:
        self.hold()  # first: one that is known of and has no lock is taken for dead
        _register(self.database, self.worker)

    def hold(self) -> None:
        """Take the lock, anew where the session was lost."""
        if self.database.is_sqlite:
            return
        with suppress(DBAPIError):
            if self._session is not None:
                self._session.exec_driver_sql("SELECT 1")
                return
        self._close()
        session = self.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._session = session
        session.execute(sa.text("SELECT pg_advisory_lock(:space, :key)"), _keys(self.worker))

    def stop(self) -> None:
        self._close()
        with suppress(DBAPIError):
            _unregister(self.database, self.worker)

    def _close(self) -> None:
        if self._session is not None:
            with suppress(DBAPIError):
                self._session.invalidate()  # the lock is of the session: it must not go back to the pool
                self._session.close()
            self._session = None


@again
def _register(database: Database, worker: str) -> None:
    statement = sa.text(f"""
        INSERT INTO workers (name, started_at, seen_at) VALUES (:name, {database.now}, {database.now})""")
    with database.write() as connection:
        connection.execute(statement, {"name": worker})


@again
def _unregister(database: Database, worker: str) -> None:
    with database.write() as connection:
        connection.execute(sa.text("DELETE FROM workers WHERE name = :name"), {"name": worker})


def dead(database: Database, me: str) -> list[str]:
    """The workers, other than this one, that are known to be dead."""
    with database.read() as connection:
        names = [row[0] for row in connection.execute(sa.text("SELECT name FROM workers"))]
        others = [name for name in names if name != me]
        if database.is_sqlite:
            return others
        return [name for name in others if _lock_is_free(connection, name)]


def _lock_is_free(connection: Connection, worker: str) -> bool:
    taken = sa.text("SELECT pg_try_advisory_xact_lock(:space, :key)")  # freed with this transaction
    return bool(connection.execute(taken, _keys(worker)).scalar())


def _keys(worker: str) -> dict[str, int]:
    return {"space": NAMESPACE, "key": zlib.crc32(worker.encode()) - (1 << 31)}


@again
def bury(database: Database, names: list[str]) -> None:
    """Forget dead workers, after their items were taken back."""
    if names:
        statement = sa.text("DELETE FROM workers WHERE name IN :names")
        with database.write() as connection:
            connection.execute(statement.bindparams(sa.bindparam("names", names, expanding=True)))
