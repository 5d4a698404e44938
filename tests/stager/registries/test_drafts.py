"""A file comes into place whole or not at all, whatever happens meanwhile, here and at a host."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stager.registries import drafts
from stager.registries.drafts import drafted, location
from stager.registries.errors import RegistryError
from tests.sshd import Sshd
from tests.stager.registries.archive import IMSIM_CARDS, Archive, imsim, rows
from tests.stager.site import Site
from tests.stager.test_over_ssh import over_ssh
from tests.waiting import LATE_S, until
from transfers.errors import TransferError

ROOT = Path(__file__).resolve().parents[3]


def write(output: Path, text: str) -> None:
    with drafted(str(output)) as draft:
        draft.file.write_text(text)
        draft.keep()


def test_a_draft_that_is_kept_takes_the_place_of_the_old_file_and_its_permissions(tmp_path: Path) -> None:
    output = tmp_path / "r"
    write(output, "one")
    assert stat.S_IMODE(output.stat().st_mode) == 0o666 & ~_umask()
    output.chmod(0o640)
    with output.open() as reader, drafted(str(output)) as draft:
        assert draft.before == output
        draft.file.write_text("two")
        draft.keep()
        assert output.read_text() == "one"
    assert output.read_text() == "two"
    assert stat.S_IMODE(output.stat().st_mode) == 0o640
    assert [one.name for one in tmp_path.iterdir()] == ["r"]
    assert reader.closed


def keep_and_fail(output: Path) -> None:
    with drafted(str(output)) as draft:
        draft.file.write_text("two")
        draft.keep()
        raise RegistryError("halfway")


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def test_who_reads_the_old_file_reads_on_in_it(tmp_path: Path) -> None:
    output = tmp_path / "r"
    write(output, "one")
    with output.open() as reader:
        write(output, "two")
        assert reader.read() == "one"


def test_a_draft_that_is_not_kept_or_fails_leaves_all_as_it_was(tmp_path: Path) -> None:
    output = tmp_path / "r"
    write(output, "one")
    inode = output.stat().st_ino
    with drafted(str(output)) as draft:
        draft.file.write_text("two")
    with pytest.raises(RegistryError):
        keep_and_fail(output)
    assert (output.read_text(), output.stat().st_ino) == ("one", inode)
    assert [one.name for one in tmp_path.iterdir()] == ["r"]


def test_a_link_stays_a_link_and_leads_to_the_new_file(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    write(tmp_path / "there" / "r", "one")
    (tmp_path / "r").symlink_to("there/r")
    write(tmp_path / "r", "two")
    assert (tmp_path / "r").is_symlink()
    assert (tmp_path / "there" / "r").read_text() == "two"


@pytest.mark.parametrize("place", ["folder", "no/r", "file/r", "locked/r", "pipe"])
def test_a_place_where_no_file_can_be_is_said(tmp_path: Path, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "locked").mkdir(mode=0o500)
    os.mkfifo(tmp_path / "pipe")
    if place == "locked/r" and os.geteuid() == 0:
        (tmp_path / "locked").rmdir()  # root may write anywhere; a folder that is gone is refused likewise
    with pytest.raises(RegistryError) as refused, drafted(str(tmp_path / place)):
        raise AssertionError
    assert str(tmp_path / place) in str(refused.value)


def test_an_empty_file_counts_as_none(tmp_path: Path) -> None:
    """A reader who opened a registry that was not there yet left it."""
    (tmp_path / "r").touch()
    with drafted(str(tmp_path / "r")) as draft:
        assert draft.before is None


def test_something_else_with_the_name_of_the_draft_is_refused(tmp_path: Path) -> None:
    part = tmp_path / ".r.stager.part"
    (tmp_path / "precious").write_text("precious")
    part.hardlink_to(tmp_path / "precious")
    with pytest.raises(RegistryError, match="remove it"), drafted(str(tmp_path / "r")):
        raise AssertionError
    part.unlink()
    part.symlink_to("precious")
    with pytest.raises(RegistryError, match="cannot be written"), drafted(str(tmp_path / "r")):
        raise AssertionError
    assert (tmp_path / "precious").read_text() == "precious"


def test_what_a_killed_process_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".r.stager.part").write_text("rubbish that is longer")
    write(tmp_path / "r", "one")
    assert (tmp_path / "r").read_text() == "one"
    assert [one.name for one in tmp_path.iterdir()] == ["r"]


def test_one_draft_of_a_file_at_a_time_and_the_second_sees_the_first(tmp_path: Path) -> None:
    output = tmp_path / "r"
    begun, seen = threading.Barrier(9), list[str]()

    def add() -> None:
        begun.wait()
        with drafted(str(output)) as draft:
            before = draft.before.read_text() if draft.before else ""
            time.sleep(0.01)
            draft.file.write_text(before + "x")
            draft.keep()
            seen.append(before)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    begun.wait()
    for thread in threads:
        thread.join()
    assert seen == ["x" * count for count in range(8)]
    assert output.read_text() == "x" * 8


WRITER = """
import sys, time
from stager.registries.drafts import drafted
for turn in range(1 << 20):
    with drafted(sys.argv[1]) as draft:
        with draft.file.open("wb", buffering=0) as file:
            for block in range(16):
                file.write(b"%08d" % turn * 512)
                time.sleep(0.001)
        draft.keep()
"""


def test_a_killed_process_never_leaves_half_a_file_under_the_name(tmp_path: Path) -> None:
    output, part, halves = tmp_path / "r", tmp_path / ".r.stager.part", 0
    for turn in range(8):
        part.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(output)], cwd=ROOT)
        until(lambda: part.exists() and output.exists(), pause_s=0.001)
        time.sleep(0.007 * turn)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        halves += part.exists() and part.stat().st_size < 16 * 8 * 512
        written = output.read_bytes()
        assert len(written) == 16 * 8 * 512
        assert written == written[:8] * (16 * 512)
    assert halves
    write(output, "the end")
    assert [one.name for one in tmp_path.iterdir()] == ["r"]


# ------------------------------------------------------------------------------------------ at a host


def test_an_output_with_a_colon_before_its_first_slash_is_at_a_host(sqlite_site: Site) -> None:
    assert str(location("b:x/r", sqlite_site.config)) == "b:x/r"
    assert location("./b:x", sqlite_site.config) is None
    assert location("/data/b:x", sqlite_site.config) is None
    with pytest.raises(RegistryError, match=r"no host nowhere.*a, b, c, mss.*\./nowhere:x"):
        location("nowhere:x", sqlite_site.config)
    with pytest.raises(RegistryError, match="name a file"):
        location("b:", sqlite_site.config)


def test_a_registry_at_a_host_is_landed_there_and_the_old_one_set_aside(archive: Archive) -> None:
    archive.add("lsst_imsim", imsim(), **IMSIM_CARDS)
    root = archive.folder / "hosts" / "b"
    assert archive.build(output="b:ImSim/registry.sqlite3").added == 12
    file = root / "ImSim" / "registry.sqlite3"
    first = file.read_bytes()
    assert not archive.build(output="b:ImSim/registry.sqlite3").written
    assert file.read_bytes() == first
    assert not (root / ".stager" / "quarantine").exists()
    archive.add("lsst_imsim", imsim(85471049), **IMSIM_CARDS)
    report = archive.build(output="b:ImSim/registry.sqlite3")
    assert (report.added, report.kept) == (12, 12)
    assert rows(file, "SELECT max(id) FROM raw") == [(24,)]
    (aside,) = (one for one in (root / ".stager" / "quarantine").rglob("*") if one.is_file())
    assert aside.read_bytes() == first


@pytest.mark.parametrize("client", ["openssh", "paramiko"])
def test_a_registry_at_a_far_host_is_brought_up_to_date_there(sqlite_site: Site, sshd: Sshd, client: str) -> None:
    site, archive = sqlite_site, Archive(sqlite_site.folder, sqlite_site.database)
    archive.config = over_ssh(site, sshd, "b", client=client)
    archive.add("lsst_imsim", imsim(), **IMSIM_CARDS)
    assert archive.build(output="b:ImSim/registry.sqlite3").added == 12
    archive.add("lsst_imsim", imsim(85471049), **IMSIM_CARDS)
    report = archive.build(output="b:ImSim/registry.sqlite3")
    assert (report.added, report.kept) == (12, 12)
    assert not archive.build(output="b:ImSim/registry.sqlite3").written
    assert rows(site.path("b:ImSim/registry.sqlite3"), "SELECT max(id) FROM raw") == [(24,)]
    assert [one.name for one in site.path("b:ImSim").iterdir()] == ["registry.sqlite3"]


def test_a_foreign_file_at_a_host_is_left_as_it_is(sqlite_archive: Archive) -> None:
    sqlite_archive.add("lsst_imsim", imsim(), **IMSIM_CARDS)
    root = sqlite_archive.folder / "hosts" / "b"
    (root / "notes").write_text("precious")
    with pytest.raises(RegistryError, match="b:notes: no SQLite database"):
        sqlite_archive.build(output="b:notes")
    assert (root / "notes").read_text() == "precious"
    (root / "r").mkdir()
    with pytest.raises(TransferError, match="b:r"):
        sqlite_archive.build(output="b:r")


def test_a_journal_beside_a_registry_at_a_host_is_seen(sqlite_archive: Archive) -> None:
    sqlite_archive.add("lsst_imsim", imsim(), **IMSIM_CARDS)
    sqlite_archive.build(output="b:r")
    (sqlite_archive.folder / "hosts" / "b" / "r-wal").write_text("somebody's")
    with pytest.raises(RegistryError, match="b:r: beside it lies"):
        sqlite_archive.build(output="b:r")


def test_a_disk_that_takes_no_more_is_told_and_nothing_is_left(sqlite_archive: Archive) -> None:
    """The limit is the kernel's, on the size of any file of the process; SQLite cannot write then."""
    sqlite_archive.add(
        "cfht_megacam", ({**one, "visit": visit} for visit in range(400, 430) for one in _cfht()), EXPTIME=1.0
    )
    code = f"""
import resource, signal, sys
from pathlib import Path
from stager.config import read_config
from stager.database import open_database
from stager.registries import making
config = read_config(None)
database = open_database(config.database_url)
resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))
making.registry(config, database, ["D"], {str(sqlite_archive.output)!r})
"""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=sqlite_archive.folder,
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=LATE_S,
    )
    assert "transfers.errors." in ended.stderr.splitlines()[-1], ended.stderr
    assert not sqlite_archive.output.exists()
    assert not list(sqlite_archive.folder.glob(".*.part"))


def _cfht() -> list[dict[str, object]]:
    return [{"field": "D1", "filter": "r", "snap": 0, "ccd": ccd, "amp": amp} for ccd in range(36) for amp in (0, 1)]


def test_the_names_of_journals_are_those_of_sqlite(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "r", isolation_level=None)
    connection.execute("CREATE TABLE x (y)")
    connection.execute("BEGIN")
    connection.execute("INSERT INTO x VALUES (1)")
    assert (tmp_path / f"r{drafts.JOURNALS[0]}").exists()
    connection.execute("COMMIT")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("INSERT INTO x VALUES (2)")
    assert (tmp_path / f"r{drafts.JOURNALS[1]}").exists()
    connection.close()
