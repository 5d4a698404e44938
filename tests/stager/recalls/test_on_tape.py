"""Restores from a tape store that programs speak to, by the daemon itself."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stager.config import Config, parse_config
from stager.daemon import Daemon, standing
from stager.demo import tape
from stager.recalls import table
from tests.stager.site import Site, document
from tests.tapes import Tapes as Simulators
from tests.waiting import until


@pytest.fixture(scope="module")
def simulators() -> Iterator[Simulators]:
    with Simulators() as simulators:
        yield simulators


class Library:
    """A site whose store mss is the simulator, spoken to by the driver "command"."""

    def __init__(self, site: Site, simulators: Simulators, **said: Any) -> None:
        self.site = site
        self.state = site.folder / "tape"
        self.state.mkdir()
        self.control("set", "drives", 8)
        (self.state / "files/lsst").mkdir(parents=True)
        commands = simulators.commands(self.state)
        mss = {"kind": "store", "driver": "command", "root": "/lsst", "commands": commands, **said}
        site.config = self.configured(mss)
        site.hosts = type(site.hosts)(site.database, site.config)

    def configured(self, mss: dict[str, Any]) -> Config:
        hosts = {name: {"kind": "local", "root": str(self.site.folder / "hosts" / name)} for name in ("a", "b", "c")}
        stager = {"database": self.site.config.stager.database, "lease_s": 60.0}
        said: dict[str, Any] = {"stager": stager, "hosts": hosts | {"mss": mss}}
        path = self.site.folder / "stager.toml"
        path.write_text(document(said))
        return parse_config(said, path)

    def control(self, *words: object) -> str:
        out, err = io.StringIO(), io.StringIO()
        assert tape.main(["--state", str(self.state), *map(str, words)], out, err) == 0, err.getvalue()
        return out.getvalue()

    def put(self, path: str, volume: str, position: int) -> None:
        place = self.state / "files/lsst" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(os.urandom(500))
        self.control("migrate", f"/lsst/{path}", "--volume", volume, "--position", position)

    def requests(self) -> list[str]:
        asked = sorted(json.loads(self.control("log"))["requests"], key=lambda one: one["asked"])
        return [one["path"].removeprefix("/lsst/") for one in asked if "/.stager/" not in one["path"]]

    def restore(self, name: str = "m", **said: Any) -> int:
        """The number of the manifest."""
        self.site.submit(name, **{"kind": "restore", "source": "mss:raw/**", "trigger": None, **said})
        return int(self.site.value("SELECT max(id) FROM manifests"))

    def are_equal(self, folder: Path, count: int) -> bool:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        there = self.state / "files/lsst/raw"
        return len(files) == count and all(
            f.read_bytes() == (there / f.relative_to(folder)).read_bytes() for f in files
        )


def test_the_daemon_restores_from_tape_in_the_order_of_the_tapes(site: Site, simulators: Simulators) -> None:
    library = Library(site, simulators)
    for number in (5, 1, 9, 3):
        for volume in ("V2", "V1"):
            library.put(f"raw/{volume}/{number}", volume, number)
    number = library.restore()
    Daemon(site.database, site.config, spool=False, only=[number]).run(once=True)
    assert standing(site.database) == 0
    assert library.are_equal(site.path("b:new"), 8)
    assert library.requests() == [f"raw/{volume}/{number}" for volume in ("V1", "V2") for number in (1, 3, 5, 9)]
    assert json.loads(library.control("log"))["calls"]["stage"] == 1
    assert site.value("SELECT count(*) FROM attempts WHERE outcome <> 'done'") == 0


def test_a_bad_tape_and_refused_files_do_not_hold_up_the_rest(sqlite_site: Site, simulators: Simulators) -> None:
    site = sqlite_site
    library = Library(site, simulators, recalls=4)
    library.control("bad", "V1")
    for number in range(4):
        library.put(f"raw/bad/{number}", "V1", number)
        library.put(f"raw/good/{number}", "V2", number)
    library.put("raw/good/no", "V2", 9)
    library.control("refuse", "/lsst/raw/good/no")
    library.restore()
    daemon = Daemon(site.database, site.config, spool=False, only=[1])

    def enough() -> bool:
        daemon.step()
        states = site.states()
        done = all(states[f"raw/good/{number}"] == "done" for number in range(4))
        return done and any("refused" in line for line in lines())

    def lines() -> list[str]:
        return [line for one in table.told(site.database) for line in (one.sentence, *one.troubles)]

    until(enough, lambda: (site.states(), lines()))
    daemon.stop()
    daemon.run()
    states = site.states()
    assert {name for name, state in states.items() if state != "done"} == {
        "raw/good/no",
        *(f"raw/bad/{number}" for number in range(4)),
    }
    (line,) = [line for line in lines() if "raw/good/no" in line]
    assert "refused, asked again in" in line
    assert "stage refused" in line


def test_a_daemon_that_is_killed_again_and_again_restores_everything(sqlite_site: Site, simulators: Simulators) -> None:
    site = sqlite_site
    library = Library(site, simulators)
    library.control("set", "drives", 1)
    library.control("set", "latency", 0.2)
    for number in range(12):
        library.put(f"raw/{number:02d}", f"V{number % 3}", number)
    library.restore()
    killed_at = [
        "SELECT count(*) FROM recalls",
        "SELECT count(*) FROM recalls WHERE state = 'asked'",
        "SELECT count(*) FROM items WHERE state = 'done'",
        "SELECT count(*) = 12 FROM items WHERE state = 'done'",
    ]
    program = [sys.executable, "-m", "stager", "-c", str(site.folder / "stager.toml"), "daemon"]
    for moment in killed_at:
        with subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
            try:
                until(lambda moment=moment: site.value(moment), moment)
            finally:
                daemon.send_signal(signal.SIGKILL)
    assert library.are_equal(site.path("b:new"), 12)
    assert sorted(library.requests()) == [f"raw/{number:02d}" for number in range(12)]
