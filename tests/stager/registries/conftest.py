"""Fixtures for the tests of registries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stager.database import open_database
from tests.stager.registries.archive import Archive


@pytest.fixture
def archive(tmp_path: Path, url: str) -> Iterator[Archive]:
    """An archive on each kind of database in turn."""
    database = open_database(url)
    yield Archive(tmp_path, database)
    database.close()


@pytest.fixture
def sqlite_archive(tmp_path: Path, made_sqlite: str) -> Iterator[Archive]:
    """The same on SQLite alone."""
    database = open_database(made_sqlite)
    yield Archive(tmp_path, database)
    database.close()
