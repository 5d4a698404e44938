"""What the tests of the service share: an open database on each server in turn, and a site around it.

The tables are made once a session and emptied or copied for each test, for making them takes longer than most
tests; `test_database.py` makes them anew every time.
"""

from __future__ import annotations

import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import sqlalchemy as sa

from stager import cli, models
from stager.database import Database, open_database
from tests.stager.site import Site, configuration


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database with all tables and nothing in them."""
    file = tmp_path_factory.mktemp("template") / "stager.db"
    open_database(f"sqlite:///{file}").close()
    return file


@pytest.fixture(scope="session")
def postgres_tables(postgres_server: sa.URL) -> Iterator[str]:
    """The URL of a PostgreSQL database with all tables, dropped at the end."""
    import psycopg  # not before the server is known to be there

    name = f"stager_test_{uuid.uuid4().hex}"
    server = postgres_server.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        url = postgres_server.set(database=name).render_as_string(hide_password=False)
        open_database(url).close()
        yield url
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


@pytest.fixture
def made_sqlite(sqlite_template: Path, sqlite_url: str) -> str:
    """The URL of an empty SQLite database of the test's own, its tables made."""
    shutil.copyfile(sqlite_template, sqlite_url.removeprefix("sqlite:///"))
    return sqlite_url


@pytest.fixture
def made_postgres(postgres_tables: str) -> str:
    """The URL of a PostgreSQL database whose tables are empty."""
    import psycopg

    tables = ", ".join(table.name for table in models.SQLModel.metadata.sorted_tables if table.name != "facts")
    with psycopg.connect(postgres_tables.replace("+psycopg", "")) as connection:
        connection.execute(f"TRUNCATE {tables} RESTART IDENTITY".encode())
    return postgres_tables


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database with tables, on each kind of server in turn."""
    made: str = request.getfixturevalue(f"made_{request.param}")
    return made


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """An open, empty database: SQLite and PostgreSQL in turn."""
    opened = open_database(url)
    yield opened
    opened.close()


def _site(folder: Path, url: str) -> Iterator[Site]:
    opened = open_database(url)
    site = Site(folder, opened, configuration(folder, url))
    yield site
    site.hosts.close()
    opened.close()


@pytest.fixture
def site(tmp_path: Path, url: str) -> Iterator[Site]:
    """Hosts a, b, c and the store mss, with an empty database of each kind in turn."""
    yield from _site(tmp_path, url)


@pytest.fixture
def sqlite_site(tmp_path: Path, made_sqlite: str) -> Iterator[Site]:
    """The same on SQLite alone, for what does not depend on the database."""
    yield from _site(tmp_path, made_sqlite)


@pytest.fixture
def postgres_site(tmp_path: Path, made_postgres: str) -> Iterator[Site]:
    """The same on PostgreSQL alone, for what only many writers show."""
    yield from _site(tmp_path, made_postgres)


class Said(NamedTuple):
    code: int
    out: str
    err: str


Stager = Callable[..., Said]


@pytest.fixture
def stager(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Stager:
    """Runs a command in this process, in the site's folder, with its configuration."""
    monkeypatch.chdir(site.folder)
    monkeypatch.delenv("STAGER_CONFIG", raising=False)
    monkeypatch.setenv("COLUMNS", "160")

    def run(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["stager", *words])
        capsys.readouterr()
        code: object = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return Said(int(str(code)), said.out, said.err)

    return run
