"""The database: made by its migrations as the models say, opened by many at once, never by an older Stager."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlmodel import SQLModel

from stager import breakers, models, status
from stager import database as module
from stager.database import DaemonLock, Database, DatabaseError, insert_many, open_database
from tests.waiting import LATE_S, until

ROOT = Path(__file__).parents[2]


def test_the_migrations_make_the_tables_that_the_models_say(database_url: str) -> None:
    database = open_database(database_url)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, SQLModel.metadata) == []
    database.close()
    assert models.Item.__tablename__ in SQLModel.metadata.tables


def migrated(url: str, revision: str) -> Database:
    """A database brought up to a revision and no further."""
    made = Database(url)
    config = Config()
    config.set_main_option("script_location", str(Path(module.__file__).parent / "migrations"))
    with made.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    return made


def test_what_an_older_stager_wrote_is_kept(database_url: str) -> None:
    """From the first revision: hosts in use and paused, a manifest with work left."""
    old = migrated(database_url, "0001")
    with old.write() as connection:
        for statement in (
            "INSERT INTO facts (key, value) VALUES ('instance', 'cafe0123')",
            "INSERT INTO hosts (name, root, marker, paused) VALUES ('a', '/data', 'mark', false)",
            "INSERT INTO hosts (name, paused, reason) VALUES ('b', true, 'disks')",
            """INSERT INTO manifests (id, name, revision, kind, dataset, lead, source, destination, source_host,
                   destination_host, document, digest, intent, priority)
               VALUES (1, 'm', 1, 'copy', 'd', '', 'a:raw/**', 'b:new', 'a', 'b', '{}', '', 'active', 0)""",
            """INSERT INTO items (id, manifest_id, source, destination, size, files, bytes, state, missing, epoch,
                   tries, not_before)
               VALUES (1, 1, 'raw/1', 'new/1', 5, 1, 5, 'waiting', false, 3, 2, 0)""",
        ):
            connection.exec_driver_sql(statement)
    old.close()
    with status.reading(database_url) as connection:  # before any newer daemon opened it
        seen = status.snapshot(connection)
    assert ([row.state for row in seen.datasets], seen.hosts, seen.routes) == (["paused"], [], [])
    database = open_database(database_url)
    assert database.instance == "cafe0123"
    assert breakers.known(database)["a"] == breakers.Known(False, breakers.Breaker(), 0.0)
    assert breakers.unusable(database) == {"b"}
    with database.read() as connection:
        kept = connection.exec_driver_sql("SELECT name, root, marker, reason, looks FROM hosts ORDER BY name").all()
        item = connection.exec_driver_sql("SELECT state, epoch, tries FROM items").one()
    assert [tuple(row) for row in kept] == [("a", "/data", "mark", None, 0), ("b", None, None, "disks", 0)]
    assert tuple(item) == ("waiting", 3, 2)
    with status.reading(database_url) as connection:
        seen = status.snapshot(connection)
    assert [(host.host, host.paused, host.files) for host in seen.hosts] == [("a", False, 1), ("b", True, 1)]
    assert [(route.source, route.destination, route.waiting) for route in seen.routes] == [("a", "b", 1)]
    database.close()


def test_what_an_older_stager_found_in_headers_becomes_findings(database_url: str) -> None:
    """From the second revision: a bad image that was copied, and one of the two pieces of a chop."""
    old = migrated(database_url, "0002")
    manifest = """INSERT INTO manifests (id, name, revision, kind, dataset, lead, source, destination, source_host,
                      destination_host, document, digest, intent, priority)
                  VALUES ({0}, 'm{0}', 1, '{1}', 'd', '', 'a:raw', 'b:new', 'a', 'b', '{{}}', '', 'active', 0)"""
    item = """INSERT INTO items (id, manifest_id, source, destination, files, state, missing, epoch, tries)
              VALUES ({0}, {0}, 'raw/{0}', '{1}', 1, 'done', false, 1, 0)"""
    image = """INSERT INTO images (dataset, host, path, camera, layout, ids, problem)
               VALUES ('d', 'b', '{0}', 'lsst_imsim', 'raw', '{{}}', {1})"""
    with old.write() as connection:
        for statement in (
            "INSERT INTO facts (key, value) VALUES ('instance', 'cafe0123')",
            manifest.format(1, "copy"),
            item.format(1, "new/x"),
            image.format("new/x", "'MJD-OBS is zero'"),
            manifest.format(2, "chop"),
            item.format(2, "new/c"),
            image.format("new/c/0", "NULL"),
            image.format("new/c/1", "'no time'"),
            "INSERT INTO copies (host, path, size, digest, proof, piece_of) VALUES ('b', 'new/c/1', 1, 'x', 'y', 2)",
        ):
            connection.exec_driver_sql(statement)
    old.close()
    database = open_database(database_url)
    with database.read() as connection:
        query = "SELECT item_id, manifest_id, path, severity, text FROM findings ORDER BY item_id"
        found = [tuple(row) for row in connection.exec_driver_sql(query)]
    assert found == [(1, 1, "new/x", "warn", "MJD-OBS is zero"), (2, 2, "new/c/1", "warn", "no time")]
    database.close()


def test_the_newest_revision_is_the_head_of_the_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(module.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [module.NEWEST]


def test_opening_again_changes_nothing(database_url: str) -> None:
    first = open_database(database_url)
    second = open_database(database_url)
    assert len(first.instance) == 8
    assert first.instance == second.instance
    first.close()
    second.close()


def test_two_processes_may_open_a_new_database_at_once(database_url: str) -> None:
    program = "import sys; from stager.database import open_database; print(open_database(sys.argv[1]).instance)"
    opening = [
        subprocess.Popen([sys.executable, "-c", program, database_url], stdout=subprocess.PIPE, cwd=ROOT)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=LATE_S)[0] for process in opening]
    assert [process.returncode for process in opening] == [0] * 2
    assert len(set(said)) == 1
    assert len(said[0].strip()) == 8


def test_a_database_of_a_newer_stager_is_refused_and_left_alone(database_url: str) -> None:
    database = open_database(database_url)
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(DatabaseError, match="revision 9999, newer than this Stager"):
        open_database(database_url)


@pytest.mark.parametrize(
    "url",
    ["sqlite:////proc/nowhere/stager.db", "postgresql+psycopg://postgres:secret@127.0.0.1:1/none"],
)
def test_a_database_that_cannot_be_reached_is_said_so_without_its_password(url: str) -> None:
    with pytest.raises(DatabaseError, match="cannot be opened") as caught:
        open_database(url)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "stager.db").write_text("SIMPLE  =                    T" * 100)
    with pytest.raises(DatabaseError, match="not a database"):
        open_database(f"sqlite:///{tmp_path / 'stager.db'}")


def test_sqlite_is_durable_and_keeps_its_references(sqlite_url: str) -> None:
    database = open_database(sqlite_url)
    with database.read() as connection:
        said = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    database.close()
    assert said == ["wal", 2, 1]


def test_a_writer_waits_for_another_and_never_fails_halfway(database: Database) -> None:
    inside, read, seen = threading.Event(), threading.Event(), []

    def slow() -> None:
        with database.write() as connection:
            connection.exec_driver_sql("INSERT INTO workers (name) VALUES ('slow')")
            inside.set()
            assert read.wait(LATE_S)
            time.sleep(0.3)  # while the other begins to write

    thread = threading.Thread(target=slow)
    thread.start()
    assert inside.wait(LATE_S)
    with database.read() as connection:  # a reader is in nobody's way
        assert connection.exec_driver_sql("SELECT count(*) FROM workers").scalar() == 0
    read.set()
    with database.write() as connection:
        connection.exec_driver_sql("INSERT INTO workers (name) VALUES ('quick')")
        seen = [row[0] for row in connection.exec_driver_sql("SELECT name FROM workers")]
    thread.join()
    assert "quick" in seen


def test_a_block_that_raises_writes_nothing(database: Database) -> None:
    def write_and_fail() -> None:
        with database.write() as connection:
            connection.exec_driver_sql("INSERT INTO workers (name) VALUES ('w')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM workers").scalar() == 0


def test_the_clock_is_the_databases_own_in_unix_seconds(database: Database) -> None:
    before = time.time()
    with database.read() as connection:
        said = connection.exec_driver_sql(f"SELECT {database.now}").scalar()
    assert before - 2 < said < time.time() + 2


def test_many_rows_that_break_a_rule_raise_the_same_error_everywhere(database: Database) -> None:
    with pytest.raises(sa.exc.IntegrityError), database.write() as connection:
        insert_many(connection, "workers", ("name",), [("a",), ("b",), ("a",)])
    with database.write() as connection:
        assert insert_many(connection, "workers", ("name",), iter([("a",), ("b",)])) == 2
        assert insert_many(connection, "workers", ("name",), []) == 0


def test_what_is_done_alone_waits_and_other_things_do_not(database: Database) -> None:
    order: list[str] = []

    def second() -> None:
        with database.alone("submit x"):
            order.append("second")

    with database.alone("submit x"):
        thread = threading.Thread(target=second)
        thread.start()
        with database.alone("submit y"):
            time.sleep(0.2)
            order.append("first")
    thread.join(LATE_S)
    assert order == ["first", "second"]


def test_one_daemon_has_a_sqlite_database_and_its_lock_goes_with_it(sqlite_url: str) -> None:
    database = open_database(sqlite_url)
    first, second = DaemonLock(database), DaemonLock(database)
    assert first.acquire()
    assert first.acquire()  # it is the one already
    assert not second.acquire()
    assert second.holder().isdigit()
    first.release()
    assert second.acquire()
    second.release()
    database.close()


HOLDS = """
import sys, time
from stager import database as module
module.FROZEN_S = 4.0
database = module.open_database(sys.argv[1])
with database.{held} as connection:
    if connection:
        connection.exec_driver_sql("INSERT INTO facts VALUES ('x', '1')")
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("held", ['alone("submit x")', "write()"])
def test_a_process_that_is_frozen_does_not_hold_up_others_for_ever(postgres_url: str, held: str) -> None:
    database = open_database(postgres_url)
    program = HOLDS.format(held=held)
    with subprocess.Popen([sys.executable, "-c", program, postgres_url], stdout=subprocess.PIPE, cwd=ROOT) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            if held.startswith("alone"):
                time.sleep(6)  # it sleeps, and is heard of: the lock is still its own
                key = module.ALONE + zlib.crc32(b"submit x")
                with database.read() as connection:
                    free = connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({key})").scalar()
                assert not free
            holder.send_signal(signal.SIGSTOP)
            with database.alone("submit x"), database.write() as connection:
                connection.exec_driver_sql("INSERT INTO facts VALUES ('x', '2')")
        finally:
            holder.kill()
    database.close()


def test_who_was_alone_goes_on_when_the_server_ended_the_session(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does with one that was frozen for a while, and is not any more."""
    monkeypatch.setattr(module, "FROZEN_S", 3.0)
    database = open_database(postgres_url)
    with database.alone("submit x"):
        with database.write() as connection:
            ended = connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            ).all()
        assert len(ended) == 1
        until(lambda: not any(thread.name == "alone" for thread in threading.enumerate()))  # it was told
    with database.alone("submit x"):
        pass
    database.close()
