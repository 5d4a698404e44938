"""Disks that fail, fill up and lie: each fault is kept as an attempt with its side and errno, and mended by time."""

from __future__ import annotations

import errno
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

from tests.system.checker import check, connection
from tests.system.sites import Site, sha256
from tests.system.tracing import fired, run_faulty


class Case(NamedTuple):
    """A fault of the kernel, where it strikes, and what must be kept of it."""

    calls: str
    fault: str
    where: str  # "part", "source", "folder" (the destination's) or "name" (the source's, as it is opened)
    kind: str
    side: str
    errno: int | None
    state: str = "waiting"  # of the item, if it is looked at before it is tried again


CASES = {
    "fsync fails": Case("fsync", "error=EIO:when=1", "part", "transient", "destination", errno.EIO),
    "write fails": Case("write", "error=EIO:when=1", "part", "transient", "destination", errno.EIO),
    "disk is full": Case("write", "error=ENOSPC:when=1", "part", "no space", "destination", errno.ENOSPC),
    "quota is used up": Case("write", "error=EDQUOT:when=1", "part", "no space", "destination", errno.EDQUOT),
    "write lies": Case("write", "retval=100:when=1", "part", "corrupted on the way", "destination", None),
    "bit flips on the re-read": Case(
        "read", "poke_exit=@arg2=ff00ff00ff:when=1", "part", "corrupted on the way", "route", None
    ),
    "re-read fails": Case("read", "error=EIO:when=1", "part", "transient", "destination", errno.EIO),
    "rename fails": Case("renameat2", "error=EIO:when=1", "folder", "transient", "destination", errno.EIO),
    "folder cannot be synced": Case("fsync", "error=EIO:when=1", "folder", "transient", "destination", errno.EIO),
    "source cannot be read": Case(
        "read,preadv,pread64", "error=EIO:when=1", "source", "transient", "source", errno.EIO
    ),
    "source may not be opened": Case(
        "openat", "error=EACCES:when=1", "name", "refused", "source", errno.EACCES, "held"
    ),
    "destination is read-only": Case(
        "openat", "error=EROFS:when=1", "part name", "refused", "destination", errno.EROFS, "held"
    ),
}


def prepare(site: Site) -> None:
    for number in range(3):
        site.write("lsst10", f"raw/f{number}.dat", random.Random(number).randbytes(30_000 + number))
    site.manifest("job", source="lsst10:raw/**", destination="abe:new", trigger={"queue": "pipeline"})
    assert site.run("submit", "job.toml").code == 0


def target(site: Site, where: str) -> str:
    """What strace is to look for: the second of the three files, on its way or where it lies."""
    with connection(site) as reading:
        instance = reading("SELECT value FROM facts WHERE key = 'instance'")[0][0]
        item = reading("SELECT id FROM items WHERE source = 'raw/f1.dat'")[0][0]
    part = f".f1.dat.{item}-1.{instance}.part"
    folder = site.root("abe") / "new"
    return {
        "part": str(folder / part),
        "part name": part,
        "folder": str(folder),
        "source": str(site.root("lsst10") / "raw/f1.dat"),
        "name": "f1.dat",
    }[where]


def failures(site: Site) -> list[dict[str, Any]]:
    return [one for one in site.show("job")["attempts"] if one["outcome"] != "done"]


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_fault_is_kept_and_got_over(site: Site, tmp_path: Path, case: Case) -> None:
    prepare(site)
    log = tmp_path / "log"
    injects = [f"-einject={call}:{case.fault}" for call in case.calls.split(",")]
    options = [f"-etrace={case.calls}", "-P", target(site, case.where), *injects]
    ended = run_faulty(site, log, options, "daemon", "--once")
    assert fired(log), "no fault fired"
    found = failures(site)
    assert found, "nothing was kept of the fault"
    for one in found:
        assert (one["kind"], one["side"], one["errno"]) == (case.kind, case.side, case.errno), one
    if case.state == "held":
        assert ended.code == 1
        assert site.status("job")["files"] | {"done": 2, "held": 1} == site.status("job")["files"]
        assert site.run("release", "job").code == 0
    elif case.kind == "no space":
        assert ended.code in (1, 3), "neither in trouble still, nor looked at and found to have room"
        item = next(item for item in site.show("job")["items"] if item["source"] == "raw/f1.dat")
        assert (item["state"], item["tries"]) == ("waiting", 0)
        assert not list(site.root("abe").rglob("*.part"))
        assert site.run("retry", "job").code == 0
    else:
        assert ended.code == 0, "it was not tried again by itself"
    check(site)


def test_other_bytes_under_the_name_are_a_conflict_and_stay(site: Site) -> None:
    prepare(site)
    there = site.write("abe", "new/f1.dat", b"somebody else's work")
    before = sha256(there)
    ended = site.start_real("daemon", "--once").end()
    assert ended.code == 1
    (one,) = failures(site)
    assert (one["kind"], one["side"]) == ("conflict", "destination")
    assert "new/f1.dat" in one["text"]
    assert sha256(there) == before
    check(site, code=1)
    there.unlink()
    del site.sources[there]
    assert site.run("release", "job").code == 0
    check(site)


def test_the_same_bytes_under_the_name_are_adopted(site: Site) -> None:
    prepare(site)
    there = site.root("abe") / "new/f1.dat"
    there.parent.mkdir()
    there.write_bytes((site.root("lsst10") / "raw/f1.dat").read_bytes())
    inode = there.stat().st_ino
    check(site)
    assert there.stat().st_ino == inode


@pytest.fixture
def small_disk(site: Site, require: Callable[[str], NoReturn]) -> Iterator[Path]:
    """The root of abe as a file system of 4 MB."""
    root = site.root("abe")
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "stager-test", str(root)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        require(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield root
    subprocess.run(["umount", "-l", str(root)], check=True)


@pytest.mark.slow
def test_a_full_disk_and_a_lost_mount_are_waited_for(site: Site, small_disk: Path) -> None:
    """No space at abe, nothing mounted at mss; the daemon goes on by itself once both are mended."""
    for number in range(8):
        site.write("lsst10", f"raw/f{number}.dat", random.Random(number).randbytes(1_000_000))
    site.manifest("job", source="lsst10:raw/**", destination="abe:new", trigger={"queue": "pipeline"})
    site.manifest("first", kind="archive", source="lsst10:raw/f0.dat", destination="mss:first")
    site.manifest("store", kind="archive", source="lsst10:raw/**", destination="mss:new")
    assert site.run("run", "first.toml").code == 0
    assert site.run("submit", "job.toml", "store.toml").code == 0
    mounted = site.root("mss").rename(site.root("mss").with_name("mss-away"))
    site.root("mss").mkdir()
    daemon = site.start_real("daemon")
    reasons = site.until(
        lambda: (a := site.status("job")["last_error"]) and (b := site.status("store")["last_error"]) and (a, b)
    )
    assert "no space" in reasons[0]
    assert "host down" in reasons[1]
    with connection(site) as reading:
        assert reading("SELECT count(*) FROM items WHERE tries > 0 OR state = 'held' OR missing") == [(0,)]
    site.until(lambda: not list(small_disk.rglob("*.part")))  # of files that were on their way beside the one told of
    assert not list(site.root("mss").iterdir()), "something was written where nothing is mounted"
    subprocess.run(["mount", "-o", "remount,size=40m", str(small_disk)], check=True)
    site.root("mss").rmdir()
    mounted.rename(site.root("mss"))
    site.until(lambda: {row["state"] for row in site.status()["datasets"]} == {"complete"})
    daemon.kill(signal.SIGTERM)
    assert daemon.end().code == 0
    check(site)
