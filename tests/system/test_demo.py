"""`stager demo` as its user meets it: a process, its output, its folder; and what it says of a damaged folder."""

from __future__ import annotations

import fcntl
import functools
import io
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stager.demo.checking import Check, verify
from stager.demo.documents import Paths
from stager.demo.processes import Shell, environment
from stager.demo.story import run_demo
from tests.waiting import LATE_S, until

STAGER = [sys.executable, "-m", "stager"]


class Shown(NamedTuple):
    paths: Paths
    code: int
    output: str


def demo(folder: Path | None, **options: Any) -> subprocess.Popen[str]:
    arguments = [*STAGER, "demo", *([str(folder)] if folder else [])]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(arguments, env=environment(), **{**pipes, **options})


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """One demo that ran to its end."""
    folder = tmp_path_factory.mktemp("demo") / "first run"  # a blank in the path must not matter
    process = demo(folder, cwd=folder.parent)
    output, _ = process.communicate(timeout=600)
    return Shown(Paths(folder), process.returncode, output)


def is_locked(folder: Path) -> bool:
    """Whether a daemon has the folder's database."""
    with (folder / "stager.db.daemon").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@functools.cache
def asked(folder: Path) -> Callable[..., Any]:
    """`stager ... --json` in the demo's folder, each question asked once."""
    return functools.cache(Shell(folder).ask)


def wrong(shown: Shown, ask: Callable[..., Any] | None = None) -> list[Check]:
    return [check for check in verify(shown.paths, ask or asked(shown.paths.folder)) if not check.sound]


def test_the_demo_shows_the_whole_job_and_verifies_it(shown: Shown) -> None:
    assert shown.code == 0, shown.output
    assert "WRONG" not in shown.output
    assert shown.output.count("  ok     ") == 10
    for line in (
        "72/72",
        "64/96",
        "66.6",
        "org.stager.dataset.complete",
        "32 files: MJD-OBS is zero",
        "What is where",
        "from tape: 1 file of the store",
        "in a bundle",
    ):
        assert line in shown.output, line


def test_no_daemon_is_left(shown: Shown) -> None:
    assert not is_locked(shown.paths.folder)


def test_its_tables_fit_eighty_columns(shown: Shown) -> None:
    output = re.sub(r"^\$ stager restore .*?^$", "", shown.output, flags=re.MULTILINE | re.DOTALL)  # sentences
    table_lines = [line for line in output.splitlines() if not re.match(r"[${} ]*(cp |\"|cd |stager\(\))", line)]
    assert max(map(len, table_lines)) <= 80, max(table_lines, key=len)


def test_it_finds_nothing_wrong_where_nothing_is(shown: Shown) -> None:
    assert wrong(shown) == []


@contextmanager
def damaged(path: Path, change: Callable[[bytes], bytes]) -> Iterator[None]:
    """The file with other bytes, size and time as they were where the change allows it; mended afterwards."""
    before, info = path.read_bytes(), path.stat()
    path.write_bytes(change(before))
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    try:
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def flipped(content: bytes) -> bytes:
    return content[:-2000] + bytes([content[-2000] ^ 1]) + content[-1999:]


NAME = "v1038843-fr/s00/c17-a1.fits"


def flipped_member(content: bytes) -> bytes:
    """A bundle of which one member has one bit flipped."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        (member,) = [one for one in tar if one.name.endswith(NAME)]
        end = member.offset_data + member.size
    return flipped(content[:end]) + content[end:]


@pytest.mark.parametrize("host", ["lsst10", "lsst", "abe", "mss"])
def test_one_flipped_bit_in_a_copy_is_found_and_named(shown: Shown, host: str) -> None:
    folder = shown.paths.amplifiers[host]
    path, change = (folder / NAME, flipped) if host != "mss" else (next(folder.glob("*.tar")), flipped_member)
    with damaged(path, change):
        found = wrong(shown)
    assert found
    assert all("c17-a1.fits" in check.wrong for check in found)


def test_a_copy_that_is_gone_is_found_in_bytes_and_in_percent(shown: Shown) -> None:
    path = shown.paths.amplifiers["lsst"] / NAME
    aside = path.with_name(".aside")
    path.rename(aside)
    try:
        found = wrong(shown)
    finally:
        aside.rename(path)
    assert [check.what.split()[0] for check in found] == ["the", "every"]
    assert "c17-a1.fits is not there" in found[0].wrong
    assert "cfht-d3-lsst says 100.0 %" in found[1].wrong


def test_a_file_too_many_and_a_part_left_behind_are_found(shown: Shown) -> None:
    extra = shown.paths.folder / "lsst" / "ImSim" / "raw" / "extra.fits"
    part = shown.paths.folder / "abe" / ".a.fits.1-1.00000000.part"
    extra.touch()
    part.touch()
    try:
        found = wrong(shown)
    finally:
        extra.unlink()
        part.unlink()
    assert any("extra.fits should not be there" in check.wrong for check in found)
    assert any(part.name in check.wrong for check in found)


@pytest.mark.parametrize(
    ("statement", "back", "named"),
    [
        ("UPDATE triggers SET state = 'ready'", "UPDATE triggers SET state = 'acked'", "one trigger"),
        ("UPDATE tallies SET files = 71 WHERE files = 72", "UPDATE tallies SET files = 72 WHERE files = 71", "percent"),
        (
            (
                "INSERT INTO findings (item_id, manifest_id, host, path, code, severity, hdus, text) "
                "SELECT id, manifest_id, 'lsst10', source, 'x', 'warn', '[]', 'x' FROM items WHERE state = 'done' "
                "LIMIT 1"
            ),
            "DELETE FROM findings WHERE code = 'x'",
            "bad times",
        ),
    ],
)
def test_a_database_that_says_otherwise_is_found(shown: Shown, statement: str, back: str, named: str) -> None:
    with sqlite3.connect(shown.paths.folder / "stager.db") as connection:
        connection.execute(statement)
    try:
        found = wrong(shown, Shell(shown.paths.folder).ask)
    finally:
        with sqlite3.connect(shown.paths.folder / "stager.db") as connection:
            connection.execute(back)
        connection.close()
    assert any(named in check.what for check in found), found


def test_what_it_says_to_try_next_works(shown: Shown) -> None:
    lines = shown.output.split("What to try next")[1].split("All of it")[0].splitlines()
    commands = [line.strip() for line in lines if line.strip() and "less " not in line]
    assert len(commands) >= 8
    script = "set -e\n" + "\n".join(commands)
    ended = subprocess.run(
        ["bash", "-c", script], env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "ImSim raw/visit=85471048: 96 files" in ended.stdout
    assert "1 file, 130 kB to come, of them 1 file, 130 kB that were proven and are gone or changed" in ended.stdout
    assert "all 72 files are in place and proven" in ended.stdout


def test_an_interrupt_leaves_no_daemon(tmp_path: Path) -> None:
    # A shell that runs the tests in the background has them ignore SIGINT, and what they start with them.
    listening = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = demo(tmp_path / "cut short", start_new_session=True, preexec_fn=listening)
    log = tmp_path / "cut short" / "daemon.log"
    until(lambda: log.is_file() and "started" in log.read_text())
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=LATE_S)
    assert process.returncode == 130, output
    assert "interrupted" in output
    assert not is_locked(tmp_path / "cut short")


def test_a_folder_that_cannot_be_made_is_a_sentence_and_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_demo(Path("/proc/no/demo")) == 1
    assert "the demo failed" in capsys.readouterr().err


def test_a_folder_that_is_taken_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stager.demo import story

    monkeypatch.chdir(tmp_path)
    taken = tmp_path / "demo"
    taken.mkdir()
    (taken / "mine").write_text("mine")
    (tmp_path / "demo-2").write_text("a file")
    assert story._new_folder(Path("demo")) == tmp_path / "demo-3"
    assert (taken / "mine").read_text() == "mine"
