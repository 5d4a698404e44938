"""`stager status` over millions of items, against counting them, on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from benchmarks.measuring import Way, command, side_by_side, stager
from benchmarks.places import Place, manifest_text, write_config
from benchmarks.results import Figure, Goal, time_of
from manifests.reading import read_text
from stager import revising
from stager.database import Database, insert_many, open_database
from stager.status import reading, snapshot
from stager.submitting import CHUNK, COLUMNS

SUBJECT = "status"
ITEMS = 5_000_000
MANIFESTS = 20
AT_ONCE = Goal(0.2)  # seconds
POSTGRES = "postgresql+psycopg://postgres@127.0.0.1:5432/postgres"  # or what STAGER_BENCH_POSTGRES says
COUNTED = "SELECT manifest_id, state, missing, count(*), sum(files), sum(bytes) FROM items GROUP BY 1, 2, 3"


def measure(place: Place) -> Iterator[Figure]:
    """The command as people run it, the look at the database in it, and what counting would take instead."""
    items = place.sized(ITEMS, least=MANIFESTS * 100)
    yield from _on(place, items, "SQLite", "sqlite:///stager.db")
    server = os.environ.get("STAGER_BENCH_POSTGRES", POSTGRES)
    if not answers(server):
        print("status: no PostgreSQL answers (STAGER_BENCH_POSTGRES names one); measured on SQLite alone")
        return
    with new_database(server) as url:
        yield from _on(place, items, "PostgreSQL", url)


def _on(place: Place, items: int, kind: str, url: str) -> Iterator[Figure]:
    folder = place.new(kind)
    config = write_config(folder, {"a": folder / "a", "b": folder / "b"}, url)
    full = url if kind == "PostgreSQL" else f"sqlite:///{folder / 'stager.db'}"
    fill(full, items)
    place.settle()
    ways = [
        Way("stager status", lambda: stager(config, "status")),
        Way("stager status --json", lambda: stager(config, "status", "--json")),
        Way("the snapshot in it", lambda: _look(full)),
        Way("counting the items instead", lambda: _count(full)),
        Way("python -c pass", lambda: command([sys.executable, "-c", "pass"], folder)),
    ]
    taken = side_by_side(ways, max(place.runs, 5) if place.scale == 1 else place.runs)
    for name, runs in taken.items():
        goal = AT_ONCE if name.startswith("stager") else None
        yield time_of(SUBJECT, f"{kind}, {items:,} items: {name}", runs, goal)


def _look(url: str) -> None:
    with reading(url) as connection:
        snapshot(connection)


def _count(url: str) -> None:
    with reading(url) as connection:
        cursor = connection.cursor()
        cursor.execute(COUNTED)
        cursor.fetchall()


# ------------------------------------------------------------------------------------------- items


def fill(url: str, items: int) -> None:
    """Manifests with so many items in all states, written as `submit` writes them: the database counts them itself."""
    database = open_database(url)
    for number in range(MANIFESTS):
        text = manifest_text(f"m{number:02d}", f"a:m{number:02d}/**", f"b:m{number:02d}", lead="DG")
        manifest = read_text(text, "m.toml")
        _, manifest_id = revising.begin(database, manifest)
        count = items // MANIFESTS
        for first in range(0, count, CHUNK):
            rows = [_item(manifest_id, index, number) for index in range(first, min(first + CHUNK, count))]
            with database.write() as connection:
                insert_many(connection, "items", (*COLUMNS, "progressed_at"), rows)
        revising.activate(database, manifest, manifest_id, "")
        _attempts(database, manifest_id)
    database.close()


def _item(manifest_id: int, index: int, number: int) -> tuple[Any, ...]:
    """An item: most are done; in each third manifest all are; of each thousand some wait, run, are held, missing."""
    kind = index % 1000 if number % 3 else 999
    state = "waiting" if kind < 50 else "running" if kind == 50 else "held" if kind == 51 else "done"
    missing = 20 <= kind < 25
    reason = "conflict: another file has the name" if kind in (10, 51) else None
    path = f"m{number:02d}/raw/v{1_000_000 + index // 72}/c{index // 2 % 36:02d}-a{index % 2}.fits"
    digest, size = None, 9_821_000
    return (
        manifest_id, path, path, size, 1_200_000_000_000_000_000, digest, 1, size, None, None,
        state, missing, reason, 1, 0, 0.0, None, 1.2e9 + index,
    )  # fmt: skip


def _attempts(database: Database, manifest_id: int) -> None:
    """A thousand proven files of the last minute, for the rate; dated ahead, so that they stay of the last minute."""
    query = sa.text("SELECT id FROM items WHERE manifest_id = :id AND state = 'done' LIMIT 1000")
    columns = ("item_id", "manifest_id", "epoch", "worker", "ended_at", "seconds", "outcome", "bytes")
    with database.write() as connection:
        done = [row[0] for row in connection.execute(query, {"id": manifest_id})]
        now = float(connection.exec_driver_sql(f"SELECT {database.now}").scalar_one())
        rows = [(item, manifest_id, 1, "w", now + 3600, 1.0, "done", 9_821_000) for item in done]
        insert_many(connection, "attempts", columns, rows)


# ---------------------------------------------------------------------------------------- PostgreSQL


def answers(server: str) -> bool:
    """Whether a PostgreSQL server can be used here."""
    try:
        import psycopg

        psycopg.connect(_conninfo(server), connect_timeout=3).close()
    except (ImportError, psycopg.OperationalError):
        return False
    return True


@contextmanager
def new_database(server: str) -> Iterator[str]:
    """The URL of an empty database, dropped at the end."""
    name = f"stager_bench_{uuid.uuid4().hex}"
    _administer(server, f'CREATE DATABASE "{name}"')
    try:
        yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        _administer(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _administer(server: str, statement: str) -> None:
    import psycopg

    with psycopg.connect(_conninfo(server), autocommit=True) as connection:
        connection.execute(statement.encode())


def _conninfo(url: str) -> str:
    return sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
