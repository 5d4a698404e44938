"""Told to stop, to read again, to watch: signals, a second daemon, the supervisor."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import pytest

from tests.system.checker import check, connection
from tests.system.sites import Running, Site
from tests.system.tracing import traced
from tests.waiting import LATE_S, until

MANY = 300


def many_files(site: Site, count: int = MANY) -> None:
    for number in range(count):
        site.write("lsst10", f"raw/v{number % 3}/f{number}.dat", bytes([number % 251]) * 3000)
    site.manifest("job", source="lsst10:raw/**", destination="abe:new", trigger={"queue": "pipeline"})
    assert site.run("submit", "job.toml").code == 0


def counts(site: Site) -> dict[str, int]:
    row = site.status("job")
    return dict(row["files"]) if row else {}


@contextmanager
def slow_daemon(site: Site, log: Path, delay_us: int = 400_000) -> Iterator[Running]:
    """A daemon whose every fsync takes a while, in the middle of its first batch."""
    running = site.start("daemon", waits=True)
    with traced(running.pid, log, "-e", "trace=fsync", "-e", f"inject=fsync:delay_enter={delay_us}"):
        running.kill(signal.SIGUSR1)
        part = site.root("abe") / "new"
        site.until(lambda: part.is_dir() and any(part.rglob("*.dat")))
        yield running


@pytest.mark.usefixtures("strace")
def test_sigterm_gives_the_leases_back_and_burns_no_try(site: Site, tmp_path: Path) -> None:
    site.configure(drain_s=0.5)
    many_files(site)
    with slow_daemon(site, tmp_path / "log") as running:
        running.kill(signal.SIGTERM)
        ended = running.end()
    assert ended.code == 0, ended.err
    _nothing_burnt(site)
    check(site)


@pytest.mark.usefixtures("strace")
def test_a_second_sigterm_does_not_wait(site: Site, tmp_path: Path) -> None:
    site.configure(drain_s=600.0)
    many_files(site)
    with slow_daemon(site, tmp_path / "log") as running:
        running.kill(signal.SIGTERM)
        site.until(lambda: "event=stopping" in running.err)  # two signals at once would be one
        running.kill(signal.SIGTERM)
        ended = running.end()
    assert ended.code == 0, ended.err
    _nothing_burnt(site)
    check(site)


def _nothing_burnt(site: Site) -> None:
    with connection(site) as reading:
        assert reading("SELECT count(*) FROM items WHERE state = 'running' OR worker IS NOT NULL") == [(0,)]
        assert reading("SELECT count(*) FROM items WHERE tries > 0 OR reason IS NOT NULL") == [(0,)]
        assert reading("SELECT count(*) FROM attempts WHERE outcome <> 'done'") == [(0,)]
        assert reading("SELECT count(*) FROM workers") == [(0,)]
    found = counts(site)
    assert found["waiting"] > 0, "all was done before the signal: nothing was tested"
    assert not list(site.root("abe").rglob("*.part"))


def test_sighup_takes_a_good_configuration_and_leaves_a_bad_one(site: Site) -> None:
    site.write("lsst10", "raw/a.dat", b"a" * 1000)
    running = site.start_real("daemon")
    site.until(lambda: "event=started" in running.err)
    good = (site.folder / "stager.toml").read_text()
    (site.folder / "stager.toml").write_text(good + "[hosts.typo]\nknd = 1\n")
    running.kill(signal.SIGHUP)
    site.until(lambda: "was not changed" in running.err)
    assert "hosts.typo" in running.err
    (site.folder / "stager.toml").write_text(good + '[queues.second]\nkind = "table"\n')
    running.kill(signal.SIGHUP)
    site.until(lambda: "was read again" in running.err)
    site.manifest("job", "incoming", source="lsst10:raw/**", destination="abe:new", trigger={"queue": "second"})
    site.until(lambda: (row := site.status("job")) and row["state"] == "complete")
    site.until(lambda: site.run("queue", "claim", "second").code == 0)
    running.kill(signal.SIGTERM)
    assert running.end().code == 0
    check(site)


def test_a_second_daemon_on_one_sqlite_database_is_refused(site: Site) -> None:
    first = site.start_real("daemon")
    site.until(lambda: "event=started" in first.err)
    second = site.start_real("daemon").end()
    assert second.code == 2
    assert second.err.strip().splitlines() == [
        f"another daemon (process {first.pid}) works on sqlite:///{site.folder}/stager.db; one is enough"
    ]
    first.kill(signal.SIGTERM)
    assert first.end().code == 0
    third = site.start_real("daemon", "--once").end()
    assert third.code == 0


def test_run_beside_a_daemon_submits_and_watches(site: Site) -> None:
    site.write("lsst10", "raw/a.dat", b"a" * 1000)
    daemon = site.start_real("daemon")
    site.until(lambda: "event=started" in daemon.err)
    site.manifest("job", source="lsst10:raw/**", destination="abe:new", trigger={"queue": "pipeline"})
    ended = site.start_real("run", "job.toml").end()
    assert ended.code == 0, ended.err
    assert f"the daemon (process {daemon.pid})" in ended.out
    assert "100" in ended.out
    assert sqlite3.connect(site.folder / "stager.db").execute(
        "SELECT count(DISTINCT worker) FROM attempts"
    ).fetchone() == (1,)
    daemon.kill(signal.SIGTERM)
    assert daemon.end().code == 0
    check(site)


def test_an_idle_daemon_is_idle(site: Site) -> None:
    many_files(site, 20)
    daemon = site.start_real("daemon")
    site.until(lambda: counts(site)["done"] == 20)
    shares: list[float] = []

    def is_idle() -> bool:
        before, begun = _cpu_seconds(daemon.pid), time.monotonic()
        time.sleep(5)
        shares.append((_cpu_seconds(daemon.pid) - before) / (time.monotonic() - begun))
        return shares[-1] < 0.02

    until(is_idle, lambda: [f"{share:.1%} of a core" for share in shares])
    daemon.kill(signal.SIGTERM)
    assert daemon.end().code == 0


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Supervisor:
    """What systemd would hear: a datagram socket, and the messages on it."""

    def __init__(self, folder: Path) -> None:
        self.address = folder / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.address))
        self.messages: list[str] = []
        self.unread = 0  # messages that `until` has not yet looked at

    def hear(self, seconds: float) -> list[str]:
        """The messages of the next so many seconds."""
        end = time.monotonic() + seconds
        heard = []
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                heard.append(self.socket.recv(4096).decode())
            except TimeoutError:
                break
        self.messages += heard
        return heard

    def until(self, word: str) -> None:
        """Hear messages up to one with this word, from the last one that was waited for."""

        def is_heard() -> bool:
            for number in range(self.unread, len(self.messages)):
                self.unread = number + 1
                if word in self.messages[number]:
                    return True
            self.hear(0.1)
            return False

        until(is_heard, lambda: f"no {word} in {self.messages}")

    def is_fed(self, seconds: float = 3.0) -> bool:
        """Whether the watchdog is fed in the next so many seconds."""
        return any("WATCHDOG=1" in message for message in self.hear(seconds))


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    folder = Path(mkdtemp(prefix="stager-test-", dir="/tmp"))
    made = Supervisor(folder)
    yield made
    made.socket.close()
    shutil.rmtree(folder)


def _supervised(site: Site, supervisor: Supervisor) -> Running:
    return site.start_real("daemon", NOTIFY_SOCKET=str(supervisor.address), WATCHDOG_USEC="1000000")


def test_the_supervisor_hears_how_it_stands(site: Site, supervisor: Supervisor) -> None:
    site.configure(lease_s=2.0)
    daemon = _supervised(site, supervisor)
    supervisor.until("READY=1")
    until(lambda: sum("WATCHDOG=1" in message for message in supervisor.hear(6)) >= 4, lambda: supervisor.messages)
    assert any(message.startswith("STATUS=") for message in supervisor.messages)
    daemon.kill(signal.SIGHUP)
    supervisor.until("RELOADING=1")
    supervisor.until("READY=1")
    daemon.kill(signal.SIGTERM)
    supervisor.until("STOPPING=1")
    assert daemon.end().code == 0


def test_the_watchdog_is_not_fed_while_leases_cannot_be_renewed(site: Site, supervisor: Supervisor) -> None:
    site.configure(lease_s=2.0)
    daemon = _supervised(site, supervisor)
    supervisor.until("WATCHDOG=1")
    locked = sqlite3.connect(site.folder / "stager.db", isolation_level=None, timeout=LATE_S)
    locked.execute("BEGIN IMMEDIATE")  # the scheduler only reads, and goes on; the renewer waits
    until(lambda: not supervisor.is_fed())  # the last lease runs out
    assert not supervisor.is_fed()
    locked.execute("ROLLBACK")
    locked.close()
    supervisor.unread = len(supervisor.messages)
    supervisor.until("WATCHDOG=1")
    daemon.kill(signal.SIGTERM)
    assert daemon.end().code == 0
