"""Commands typed in a terminal: where -c may stand, that `run` ends, what a database that is away gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import LATE_S

ROOT = Path(__file__).resolve().parents[2]


def stager(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stager", *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=LATE_S,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a configuration of two hosts, a file and a manifest that copies it."""
    hosts = "".join(f'[hosts.{name}]\nkind = "local"\nroot = "{tmp_path / name}"\n' for name in "ab")
    (tmp_path / "stager.toml").write_text(hosts)
    (tmp_path / "a" / "raw").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "raw" / "x").write_text("x")
    said = 'name = "m"\nkind = "copy"\ndataset = "d"\nsource = "a:raw"\ndestination = "b:raw"\n'
    (tmp_path / "m.toml").write_text(said)
    return tmp_path


def test_run_ends_by_itself_and_prints_a_table_and_no_log(folder: Path) -> None:
    ended = stager(folder, "run", "m.toml")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert "complete" in ended.stdout
    assert "started" not in ended.stdout
    assert (folder / "b" / "raw" / "x").read_text() == "x"


def test_the_configuration_may_be_named_before_the_command_and_after_it(folder: Path) -> None:
    named = str(folder / "stager.toml")
    for arguments in (("-c", named, "hosts"), ("hosts", "-c", named), ("--config", named, "hosts")):
        assert stager(Path("/"), *arguments).returncode == 0
    assert stager(Path("/"), "-c", "/nowhere.toml", "hosts").returncode == 2


def test_the_version_is_told(folder: Path) -> None:
    assert stager(folder, "--version").stdout.startswith("stager 0.")


@pytest.mark.parametrize("command", [["status"], ["wait", "d", "--timeout", "1"], ["show", "m"], ["daemon"]])
@pytest.mark.parametrize("url", ["sqlite:///stager.toml", "postgresql+psycopg://u:secret@127.0.0.1:1/x"])
def test_a_database_that_cannot_be_used_is_a_sentence_and_exit_1(folder: Path, url: str, command: list[str]) -> None:
    """1 and not 2: the service is then started again until the database is back."""
    (folder / "other.toml").write_text(f'[stager]\ndatabase = "{url}"\n')
    ended = stager(folder, "-c", "other.toml", *command)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "secret" not in ended.stderr
    assert ended.stderr
