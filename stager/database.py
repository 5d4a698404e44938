"""Open a database and bring it up to date; transactions; the database's clock.

SQLite: WAL, `synchronous=FULL`, every writing transaction begins IMMEDIATE (it waits for its turn at the
start, and never fails halfway for having read first). PostgreSQL: READ COMMITTED, rows locked where it
matters. No transaction is open while bytes are moved.

A process that is frozen (a machine that was suspended, SIGSTOP) holds up nobody for long on PostgreSQL: the server ends
its session after FROZEN_S, and with it the transaction that it was in, or the lock that it held.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
import threading
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import tenacity
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

Row = tuple[Any, ...]

BUSY_SECONDS = 90  # how long a transaction waits for another's to end
FROZEN_S = 30.0  # of silence in a transaction, or beside a lock: then the process that has it is taken for frozen
ALONE = 7821134 << 32  # of PostgreSQL's advisory locks: those of `Database.alone` begin here
_RETRIED = ("deadlock", "could not serialize", "database is locked", "database table is locked")


class DatabaseError(Exception):
    """The database cannot be used; the sentence says what to do."""


class Database:
    """A database of Stager's: `write()` and `read()` give a connection inside a transaction."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = sa.create_engine(self.url, **self._engine_options())
        self._reader = self.engine.execution_options(stager_reads=True)
        if self.is_sqlite:
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            sa.event.listen(self.engine, "begin", _begin_sqlite)
        self.instance = ""

    def _engine_options(self) -> dict[str, Any]:
        if self.is_sqlite:
            return {"connect_args": {"timeout": BUSY_SECONDS, "check_same_thread": False}}
        return {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}

    @property
    def now(self) -> str:
        """SQL for the database's own time, Unix seconds."""
        if self.is_sqlite:
            return "((julianday('now') - 2440587.5) * 86400.0)"
        return "extract(epoch from clock_timestamp())::float8"

    @property
    def file(self) -> Path | None:
        """The SQLite file, where there is one."""
        return Path(self.url.database) if self.is_sqlite and self.url.database else None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed at the end, or rolled back when the block raises."""
        with self.engine.begin() as connection:
            if not self.is_sqlite:
                _set(connection, "idle_in_transaction_session_timeout", FROZEN_S, local=True)
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads: one consistent view, never in a writer's way."""
        with self._reader.connect() as connection:
            yield connection

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Wait until nobody else does `what` on this database, and keep others from it meanwhile. The lock is the
        kernel's or the server's, and goes with the process however it ends; the server's also with one that is frozen,
        which then goes on without it: what must not be done twice is decided in transactions."""
        key = zlib.crc32(what.encode("utf-8", "surrogateescape"))
        if self.file:
            with open(self.file.with_name(self.file.name + ".lock"), "ab") as lock:
                # A lock on one byte that belongs to the open file, so that it parts threads too (struct flock).
                byte = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, key, 1, 0)
                fcntl.fcntl(lock, fcntl.F_OFD_SETLKW, byte)
                yield
        else:
            with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
                _set(session, "idle_session_timeout", FROZEN_S)
                session.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": ALONE + key})
                try:
                    with _heard_of(session):
                        yield
                finally:
                    with suppress(SQLAlchemyError):  # the session is gone, and the lock with it
                        session.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": ALONE + key})
                        _set(session, "idle_session_timeout", 0)

    def close(self) -> None:
        self.engine.dispose()


def _set(connection: Connection, name: str, seconds: float, *, local: bool = False) -> None:
    """Set one of PostgreSQL's times, of the session or the transaction, where the server knows it (14 and newer)."""
    known = "EXISTS (SELECT 1 FROM pg_settings WHERE name = :name)"
    statement = sa.text(f"SELECT set_config(:name, :value, :local) WHERE {known}")
    connection.execute(statement, {"name": name, "value": f"{round(seconds * 1000)}ms", "local": local})


@contextmanager
def _heard_of(session: Connection) -> Iterator[None]:
    """Let the server hear of this process from a thread meanwhile: it works, and is not frozen."""
    over = threading.Event()

    def speak() -> None:
        with suppress(DBAPIError):
            while not over.wait(FROZEN_S / 3):
                session.exec_driver_sql("SELECT 1")

    thread = threading.Thread(target=speak, name="alone", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, OperationalError | DBAPIError) and any(word in str(error).lower() for word in _RETRIED)


# A whole transaction that lost a race (a deadlock, a lock that came too late) is done again from its start.
again = tenacity.retry(
    retry=tenacity.retry_if_exception(_is_passing),
    stop=tenacity.stop_after_attempt(6),
    wait=tenacity.wait_random_exponential(multiplier=0.05, max=2),
    reraise=True,
)


def open_database(url: str) -> Database:
    """The database at `url`, made if need be and brought up to the newest revision.

    Raises DatabaseError when it cannot be reached, or is newer than this Stager.
    """
    database = Database(url)
    try:
        if database.file:
            database.file.parent.mkdir(parents=True, exist_ok=True)
        migrate(database)
        database.instance = _instance(database)
    except DatabaseError:
        database.close()
        raise
    except (DBAPIError, OSError) as error:
        database.close()
        cause = error.orig if isinstance(error, DBAPIError) else error
        where = database.url.render_as_string(hide_password=True)
        raise DatabaseError(f"the database {where} cannot be opened: {str(cause).strip()}") from error
    return database


def migrate(database: Database) -> None:
    """Bring the tables up to the newest revision; safe beside other processes doing the same."""
    with database.read() as connection:
        current = _revision(connection)
    if current == NEWEST:
        return
    from alembic import command  # imported late: it takes as long as everything else of a short command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with database.write() as connection:
        if not database.is_sqlite:  # one process at a time makes the tables
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7821134)")
        found = _revision(connection)
        if found is not None and found > NEWEST:
            raise DatabaseError(
                f"the database is of revision {found}, newer than this Stager knows ({NEWEST}): "
                "use the newer Stager that made it"
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


NEWEST = "0006"  # of migrations/versions; a test holds the two equal


def _revision(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()


def _instance(database: Database) -> str:
    query = "SELECT value FROM facts WHERE key = 'instance'"
    with database.read() as connection:
        found = connection.exec_driver_sql(query).scalar()
    if found:
        return str(found)
    with database.write() as connection:
        insert = sa.text("INSERT INTO facts (key, value) VALUES ('instance', :v) ON CONFLICT DO NOTHING")
        connection.execute(insert, {"v": uuid.uuid4().hex[:8]})
        return str(connection.exec_driver_sql(query).scalar())


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # this module says BEGIN itself
    _to_wal(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("PRAGMA cache_size=-16384")  # 16 MiB: more makes a plan of a million no quicker, only larger


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_BUSY


@tenacity.retry(
    retry=tenacity.retry_if_exception(_is_busy),
    stop=tenacity.stop_after_delay(BUSY_SECONDS),
    wait=tenacity.wait_random(0.01, 0.1),
    reraise=True,
)
def _to_wal(connection: sqlite3.Connection) -> None:
    """Another process that does the same at this moment is not waited for by SQLite itself: a new database's first two
    would be told that it is locked."""
    connection.execute("PRAGMA journal_mode=WAL")


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("stager_reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


class DaemonLock:
    """The one daemon of an SQLite database; on PostgreSQL any number may run and this locks nothing.

    The lock is the kernel's and goes with the process, however it ends.
    """

    def __init__(self, database: Database) -> None:
        self.path = database.file.with_name(database.file.name + ".daemon") if database.file else None
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Whether this process now is the one; False when another holds the lock."""
        if self.path is None or self._descriptor is not None:
            return True
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return True

    def holder(self) -> str:
        """The process id the present holder wrote down, or "unknown"."""
        try:
            return self.path.read_text("ascii").strip() or "unknown" if self.path else "unknown"
        except (OSError, UnicodeDecodeError):
            return "unknown"

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def insert_many(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Row]) -> int:
    """Insert rows as quickly as the database can take them; returns how many.

    One statement for a PostgreSQL COPY, so that the triggers that count items run once for all of them.
    """
    names = ", ".join(columns)
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(columns))
        rows = list(rows)
        if rows:
            connection.exec_driver_sql(f"INSERT INTO {table} ({names}) VALUES ({marks})", rows)
        return len(rows)
    count = 0
    driver: Any = connection.connection.driver_connection
    statement = f"COPY {table} ({names}) FROM STDIN"
    errors: Any = connection.dialect.dbapi  # its errors are made SQLAlchemy's, as those of any other statement are
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
                count += 1
    except errors.Error as error:
        raise DBAPIError.instance(statement, None, error, errors.Error, dialect=connection.dialect) from error
    return count


def id_of(connection: Connection, name: str, column: str = "i.ids") -> str:
    """SQL for an id out of the JSON in a column, as text; null where it has none."""
    if connection.dialect.name == "sqlite":
        return f"CAST(json_extract({column}, '$.{name}') AS TEXT)"
    return f"({column}::json ->> '{name}')"
