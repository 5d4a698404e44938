"""The set-up of the PT1 page over SSH: lsst10, lsst and abe, and the mass store mss, each behind a proxy and an sshd
where nothing was installed; `here` is this machine."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.proxies import Proxy
from tests.sshd import Sshd
from tests.system.checker import connection
from tests.system.preloaded import Preloaded
from tests.system.sites import Running, Site
from tests.waiting import LATE_S, until

HOSTS = {"here": "local", "lsst10": "local", "lsst": "local", "abe": "local", "mss": "store"}
FAR = ("lsst10", "lsst", "abe", "mss")
TRIGGER = {"queue": "pipeline"}


class Pt1(Site):
    """A site whose hosts but `here` are reached over SSH, each through a proxy of its own."""

    def __init__(self, folder: Path, preloaded: Preloaded, server: Sshd, database: str = "sqlite:///stager.db") -> None:
        self.server = server
        self.proxies = {name: Proxy(server.port) for name in FAR}
        super().__init__(folder, preloaded, database, hosts=dict(HOSTS))
        for name, proxy in self.proxies.items():
            self.over_ssh(server, name, proxy=proxy)

    def close(self) -> None:
        super().close()
        for proxy in self.proxies.values():
            proxy.stop()

    def passed(self, *hosts: str) -> int:
        """The bytes that went to and came from these hosts (all, where none is named) since the beginning."""
        return sum(self.proxies[host].up + self.proxies[host].down for host in hosts or FAR)

    def fill(self, host: str, folder: str, count: int, size: int) -> int:
        """So many files in three folders, no two alike; their bytes."""
        for number in range(count):
            data = random.Random(f"{host}/{folder}/{number}").randbytes(size + number)
            self.write(host, f"{folder}/v{number % 3}/f{number}.dat", data)
        return count * size

    def submit(self, name: str, source: str, destination: str, **said: Any) -> None:
        path = self.manifest(name, **{"source": source, "destination": destination, "trigger": TRIGGER, **said})
        ended = self.run("submit", path.name)
        assert ended.code == 0, ended.err

    @contextmanager
    def daemon(self, *, drain_s: float = 10.0) -> Iterator[Running]:
        """The service, until the end of the `with`; then told to stop, it leaves nothing behind on either side."""
        self.configure(drain_s=drain_s)
        running = self.start("daemon")
        self.until(lambda: "event=started" in running.err)
        yield running
        running.kill(signal.SIGTERM)
        ended = running.end(drain_s + LATE_S)
        assert ended.code == 0, ended.err
        assert "Traceback" not in ended.err, ended.err
        for proxy in self.proxies.values():
            proxy.clear()  # what is stalled there would not let the far side see the end
        self.until_left()

    def until_left(self) -> None:
        """No session and no client of this site is left."""
        self.until(lambda: not self.server.sessions() and not self.clients())

    def complete(self, *names: str) -> bool:
        rows = {row["manifest"]: row["state"] for row in self.status()["datasets"]}
        return {rows.get(name) for name in names or rows} == {"complete"}

    def until_complete(self, *names: str) -> None:
        self.until(lambda: self.complete(*names))

    def trouble(self, host: str) -> Any:
        """What status says is wrong with a host, as (kind, problem); None when nothing is."""
        row = next((one for one in self.status()["hosts"] if one["host"] == host), None)
        return (row["kind"], row["problem"]) if row and row["kind"] else None

    def skip_waits(self) -> int:
        """Let the time pass that breakers and items wait for."""
        with connection(self) as query:
            query("UPDATE hosts SET next_look = 0 WHERE trouble_kind IS NOT NULL")
            query("UPDATE items SET not_before = 0 WHERE state = 'waiting' AND not_before IS NOT NULL")
        return 0

    def clients(self) -> list[int]:
        """The ssh processes that this site's commands run here."""
        mark = f"{self.server.folder}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            with suppress(OSError):
                if folder.name.isdigit() and mark in (said := (folder / "cmdline").read_bytes()):
                    found += [int(folder.name)] * (said.partition(b"\0")[0] == b"ssh")
        return found

    def kill_clients(self) -> int:
        """SIGKILL for all of them; how many there were."""
        found = self.clients()
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(found)

    def tries(self) -> dict[str, int]:
        """How many attempts ended how."""
        with connection(self) as query:
            return dict(query("SELECT outcome, count(*) FROM attempts GROUP BY outcome"))


def nothing_burnt(site: Site) -> None:
    """No item used up a try, and none is held."""
    with connection(site) as query:
        burnt = query("SELECT source, tries, state, reason FROM items WHERE tries > 0 OR state = 'held'")
    assert not burnt, burnt


def skipping_waits(site: Pt1, *names: str) -> None:
    """Until these manifests are complete, with no time lost by waiting."""
    until(lambda: site.complete(*names) or site.skip_waits(), site.status, 2 * LATE_S, pause_s=0.4)
