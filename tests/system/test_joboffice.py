"""A job office takes from its folder while Stager delivers, is killed, runs twice and meets a failing disk: each
dataset comes exactly once."""

from __future__ import annotations

import fcntl
import json
import random
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stager.queues import paf
from tests.system.checker import check
from tests.system.preloaded import Preloaded
from tests.system.sites import Running, Site
from tests.system.tracing import DURABLE, calls_by_path, kill_at, run_faulty, run_traced
from tests.waiting import LATE_S

CALLS = ("openat", "write", "mkdir", *DURABLE)
SAMPLE = 12  # positions that are tried in one round


class JobOffice:
    """What a job office does with dataAvailable: takes the first of the order, reads it, forgets it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.taken: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> JobOffice:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            ends = self._stop.is_set()  # asked before the last look
            while self._take():
                pass
            if ends:
                return
            time.sleep(0.002)

    def _take(self) -> bool:
        place = self.folder / "dataAvailable"
        names = [path.name for path in place.glob("[!._]*")]
        if not names:
            return False
        gone = (place / names[0]).rename(place / f".del.{names[0]}")
        self.taken.append(json.dumps(paf.read(gone.read_text())["DATASET"]["ids"], sort_keys=True))
        gone.unlink()
        return True


def queue(folder: Path, name: str = "isr", kind: str = "joboffice") -> str:
    return f'[queues.{name}]\nkind = "{kind}"\nfolder = "{folder}"\nids = ["visit", "ccd", "amp"]\n'


def raw(site: Site, visits: int) -> None:
    """Files of so many visits, to be told a visit."""
    for visit in range(1, visits + 1):
        for ccd in (0, 1):
            site.write("lsst10", f"D1/raw/v{visit}-fr/s00/c{ccd:02d}-a0.fits", bytes([visit, ccd]) * 100)
    site.manifest(
        "job", source="lsst10:D1/raw/**", destination="abe:D1/raw", camera="cfht_megacam", check="none",
        trigger={"queue": "isr", "per": ["visit"]},
    )  # fmt: skip


def wanted(visits: int) -> Counter[str]:
    ids = [{"visit": visit, "ccd": ccd, "amp": 0} for visit in range(1, visits + 1) for ccd in (0, 1)]
    return Counter(json.dumps(one, sort_keys=True) for one in ids)


@pytest.fixture
def office(tmp_path: Path) -> Path:
    folder = tmp_path / "joboffices_1" / "PT1Pipe-joboffice"
    folder.parent.mkdir()
    return folder


@pytest.fixture
def site(tmp_path: Path, preloaded: Preloaded, office: Path) -> Iterator[Site]:
    made = Site(tmp_path / "site", preloaded, more=queue(office))
    yield made
    made.close()


def anew(site: Site, office: Path) -> None:
    site.restore()
    shutil.rmtree(office, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("takes", [True, False], ids=["taken at once", "taken at the end"])
def test_a_kill_at_any_call_in_the_folder_doubles_and_loses_nothing(
    site: Site, office: Path, tmp_path: Path, rounds: int, takes: bool
) -> None:
    raw(site, 2)
    assert site.run("submit", "job.toml").code == 0
    site.save()
    ended = run_traced(site, tmp_path / "calls", ["-y", "-e", f"trace={','.join(CALLS)}"], "daemon", "--once")
    assert ended.code == 0, ended.err
    calls = [(call, path, count) for (call, path), count in sorted(calls_by_path(tmp_path / "calls").items())]
    positions = [(c, p, n) for c, p, count in calls if p.startswith(str(office)) for n in range(1, count + 1)]
    assert len(positions) > 40
    chosen = random.Random(rounds + takes).sample(positions, min(len(positions), SAMPLE * rounds))
    killed = 0
    for call, path, number in chosen:
        anew(site, office)
        job_office = JobOffice(office)
        if takes:
            with job_office:
                hit = kill_at(site, tmp_path / "killed", call, path, number)
                check(site)
        else:
            hit = kill_at(site, tmp_path / "killed", call, path, number)
            check(site)
            with job_office:
                pass
        killed += hit
        assert Counter(job_office.taken) == wanted(2), f"killed at {call} {path} {number}"
        assert not list(office.rglob(".add.*"))
    print(f"{len(positions)} positions, {len(chosen)} tried, {killed} killed")
    assert killed >= len(chosen) // 2, "too few faults fired"


FAULTS = {
    "disk is full": ("write", "ENOSPC", "dataAvailable/.add.raw-amp0-ccd1-visit1.paf", "No space left on device"),
    "sync fails": ("fsync", "EIO", "dataAvailable/.add.raw-amp0-ccd1-visit1.paf", "Input/output error"),
    "rename fails": ("renameat2", "EIO", "dataAvailable", "Input/output error"),
    "order cannot be written": ("openat", "EACCES", "dataAvailable/.order.list.new", "Permission denied"),
    "folder is read-only": ("mkdir", "EROFS", "jobsDone", "Read-only file system"),
    "line cannot be written": ("write", "ENOSPC", ".stager/delivered", "No space left on device"),
}


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_folder_is_said_and_mended_by_time(site: Site, office: Path, tmp_path: Path, fault: str) -> None:
    call, error, path, said = FAULTS[fault]
    raw(site, 2)
    assert site.run("submit", "job.toml").code == 0
    options = ["-e", f"trace={call}", "-P", str(office / path), "-e", f"inject={call}:error={error}:when=1"]
    with JobOffice(office) as job_office:
        ended = run_faulty(site, tmp_path / "log", options, "daemon", "--once")
        assert ended.code == 1, ended.err
        (row,) = site.status()["queues"]
        assert (row["queue"], said in row["problem"]) == ("isr", True), row
        assert f"queue isr: {row['triggers']} trigger" in site.run("status").out
        check(site)
    assert Counter(job_office.taken) == wanted(2)
    assert site.status()["queues"] == []


def test_a_folder_that_hangs_holds_up_no_other_queue(site: Site, office: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    site.more += queue(lists, "lists", "lists")
    site.configure()
    raw(site, 1)
    site.manifest(
        "other", dataset="other", source="lsst10:D1/raw/**", destination="mss:D1", kind="archive",
        camera="cfht_megacam", check="none", trigger={"queue": "lists", "per": ["visit"]},
    )  # fmt: skip
    (office / ".stager").mkdir(parents=True)
    daemon = site.start("daemon")
    with open(office / ".stager" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as a process would that hangs on a dead disk
        assert site.run("submit", "job.toml", "other.toml").code == 0
        site.until(lambda: list(lists.glob("*.txt")))
        site.until(lambda: site.status("job")["state"] == "complete")
        assert states(site)["isr"] == ["pending"]
    site.until(lambda: states(site)["isr"] == ["delivered"])
    daemon.kill(15)
    assert daemon.end().code == 0
    check(site)


def states(site: Site) -> dict[str, list[str]]:
    with sqlite3.connect(site.folder / "stager.db", timeout=LATE_S) as reading:
        rows: list[Any] = reading.execute("SELECT queue, state FROM triggers ORDER BY queue, group_label").fetchall()
    return {name: [state for one, state in rows if one == name] for name, _ in rows}


def test_two_daemons_on_one_database_deliver_once(
    tmp_path: Path, preloaded: Preloaded, postgres_url: str, office: Path
) -> None:
    site = Site(tmp_path / "site", preloaded, postgres_url, more=queue(office))
    try:
        raw(site, 24)
        daemons = [site.start("daemon") for _ in range(3)]
        for daemon in daemons:
            site.until(lambda daemon=daemon: "event=started" in daemon.err)
        with JobOffice(office) as job_office:
            assert site.run("submit", "job.toml").code == 0
            site.until(lambda: site.status("job") and site.status("job")["state"] == "complete")
            site.until(lambda: len(job_office.taken) >= 48)
            time.sleep(1)
            for daemon in daemons:
                daemon.kill(15)
                assert daemon.end().code == 0
            check(site)
        assert Counter(job_office.taken) == wanted(24)
    finally:
        site.close()


def until_some_are_taken(job_office: JobOffice, running: Running) -> None:
    """Wait until the job office took more than it had, or the command ended."""
    seen = len(job_office.taken)
    while len(job_office.taken) == seen and running.waiting(0) is None:
        time.sleep(0.002)


@pytest.mark.slow
def test_kills_at_any_moment_double_and_lose_nothing(site: Site, office: Path, rounds: int) -> None:
    raw(site, 30)
    assert site.run("submit", "job.toml").code == 0
    site.save()
    chance = random.Random(rounds)
    unfinished = 0
    for _ in range(4 * rounds):
        anew(site, office)
        with JobOffice(office) as job_office:
            for _ in range(6):
                running = site.start("daemon", "--once")
                until_some_are_taken(job_office, running)
                time.sleep(chance.uniform(0, 0.05))
                running.kill()
                running.end()
                unfinished += 0 < len(job_office.taken) < 60
            check(site)
        assert Counter(job_office.taken) == wanted(30)
    assert unfinished >= 4 * rounds, "no kill came in the midst of a delivery"
