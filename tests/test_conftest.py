"""The fixtures keep their own promises: a database is empty, of the test's own, and gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import URL, create_engine, inspect, text

CONFTEST = Path(__file__).with_name("conftest.py")

NEEDS_POSTGRES = "def test_it(postgres_url):\n    pass\n"
LEAVES_A_CONNECTION_OPEN = """
from sqlalchemy import create_engine
KEPT = []
def test_it(postgres_url):
    KEPT.append(create_engine(postgres_url).connect())
    print("MADE", postgres_url.rsplit("/", 1)[1])
"""


@pytest.mark.parametrize("again", [1, 2])
def test_each_test_gets_an_empty_database(database_url: str, again: int) -> None:
    engine = create_engine(database_url)
    try:
        assert inspect(engine).get_table_names() == []
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE left_behind (id int)"))
    finally:
        engine.dispose()


def test_program_finds_what_only_root_has_on_the_path(program: Callable[[str], str]) -> None:
    assert Path(program("sh")).is_file()


def test_require_skips_or_fails(require: Callable[[str], NoReturn], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STAGER_TEST_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no tape robot"):
        require("no tape robot")
    monkeypatch.setenv("STAGER_TEST_REQUIRE", "1")
    with pytest.raises(pytest.fail.Exception, match="no tape robot"):
        require("no tape robot")


def test_a_server_that_does_not_answer_is_a_skip_with_a_reason(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, NEEDS_POSTGRES, STAGER_TEST_POSTGRES="postgresql+psycopg://x:secret@127.0.0.1:1/x")
    assert ended.returncode == 0, ended.stdout
    assert "1 skipped" in ended.stdout
    assert "no PostgreSQL at postgresql+psycopg://x:***@127.0.0.1:1/x" in ended.stdout


def test_a_server_that_does_not_answer_fails_in_ci(tmp_path: Path) -> None:
    url = "postgresql+psycopg://x@127.0.0.1:1/x"
    ended = run_pytest(tmp_path, NEEDS_POSTGRES, STAGER_TEST_POSTGRES=url, STAGER_TEST_REQUIRE="1")
    assert ended.returncode == 1, ended.stdout
    assert "1 error" in ended.stdout


def test_a_database_is_dropped_under_open_connections(tmp_path: Path, postgres_server: URL) -> None:
    ended = run_pytest(tmp_path, LEAVES_A_CONNECTION_OPEN, "-s")
    name = ended.stdout.split("MADE ")[1].split()[0]
    engine = create_engine(postgres_server)
    try:
        with engine.connect() as connection:
            found = connection.execute(text("SELECT datname FROM pg_database WHERE datname = :name"), {"name": name})
            assert found.all() == []
    finally:
        engine.dispose()


def run_pytest(folder: Path, source: str, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A run of pytest of its own, in a folder with our conftest and one test."""
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "test_inner.py").write_text(source)
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "STAGER_TEST_REQ"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", "-p", "no:xdist", *options, "."],
        cwd=folder,
        env=outer | environ,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
