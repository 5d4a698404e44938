"""A site whose store is a tape store: the simulator, used as a host in this process.

What the simulator is asked for it keeps itself, in the order in which it was asked. What is on tape cannot be read.
"""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from stager.catalogue import DatabaseCatalog
from stager.config import Config, StoreHost
from stager.database import Database, open_database
from stager.demo import tape
from stager.demo.tape import Library, Trouble
from stager.opening import Hosts
from stager.recalls import stepping, table, telling
from tests.stager.site import Site
from tests.waiting import until
from transfers.bundles.store import BundledStore
from transfers.errors import HostDown, Refused, SourceMissing, TransferError
from transfers.hosts import Frame, Host, Residency, Want
from transfers.store import DirectoryStore

STATES = {"resident": "online", "migrated": "offline", "staging": "staging", "lost": "lost"}


class Tape(DirectoryStore):
    """The simulator as a host: a folder of files, and where each of them is now."""

    stages = True

    def __init__(self, state: Path) -> None:
        state.mkdir(exist_ok=True)
        self.state = state
        self.before_stage: Callable[[], object] = bool  # what goes wrong before a request is taken...
        self.after_stage: Callable[[], object] = bool  # ...and after it
        self.calls: list[list[str]] = []  # the files of each request
        super().__init__("mss", str(self.library().files))
        self.open(None)

    def library(self) -> Library:
        """Opened for each call: it may be used by one thread alone."""
        return Library(self.state)

    def _up(self) -> Library:
        library = self.library()
        with library.alone():
            if library.setting("down") == "yes":
                raise HostDown("cannot connect to the store", host=self.name, side="store", phase="stage")
        return library

    def residency(self, paths: Iterable[str]) -> Iterator[Residency | TransferError]:
        library = self._up()
        with library.alone():
            for path in paths:
                try:
                    row = library.known(f"/{path}")
                except Trouble as trouble:
                    yield SourceMissing(str(trouble), host=self.name, side="store", phase="residency", path=path)
                else:
                    yield Residency(STATES[row.state], row.volume, row.position)

    def stage(self, paths: Iterable[str]) -> Iterator[TransferError | None]:
        library = self._up()
        paths = list(paths)
        self.calls.append(paths)
        self.before_stage()
        for path in paths:
            try:
                with library.alone():
                    library.ask(f"/{path}")
            except Trouble as trouble:
                yield Refused(str(trouble), host=self.name, side="store", phase="stage", path=path)
            else:
                yield None
        self.after_stage()

    def read(self, wants: Iterable[Want]) -> Iterator[Frame]:
        yield from super().read(self._read(want) for want in wants)

    def _read(self, want: Want) -> Want:
        library = self.library()
        with library.alone():
            assert library.row(f"/{want.source}").state == "resident", f"{want.source} is read, and is on tape"
        return want


class TapeHosts(Hosts):
    """The hosts of a configuration, with the store mss on tape."""

    def __init__(self, database: Database, config: Config, tape: Tape) -> None:
        super().__init__(database, config)
        self.tape = tape
        self._store = BundledStore(tape, DatabaseCatalog(database, "mss"))

    def __getitem__(self, name: str) -> Host:
        return self._store if name == "mss" else super().__getitem__(name)


def on_tape(config: Config, state: Path, **said: Any) -> Config:
    """The configuration with the files of the store mss below a simulator's folder."""
    described = config.hosts["mss"]
    assert isinstance(described, StoreHost)
    mss = described.model_copy(update={"root": str(state / "files"), **said})
    return config.model_copy(update={"hosts": config.hosts | {"mss": mss}})


class Tapes:
    """A site with a tape store, and what works on it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.tape = Tape(site.folder / "tape")
        self.set(latency=0, drives=100)
        self.configure()

    def configure(self, **said: Any) -> None:
        self.site.config = on_tape(self.site.config, self.tape.state, **said)
        self.site.hosts = TapeHosts(self.site.database, self.site.config, self.tape)

    # ------------------------------------------------------------------------------- the simulator

    def control(self, *words: object) -> str:
        """A command that controls the simulator; what it prints."""
        out, err = io.StringIO(), io.StringIO()
        assert tape.main(["--state", str(self.tape.state), *map(str, words)], out, err) == 0, err.getvalue()
        return out.getvalue()

    def set(self, **settings: object) -> None:
        for key, value in settings.items():
            self.control("set", key, value)

    def put(self, path: str, volume: str | None = None, position: int | None = None, data: bytes | None = None) -> None:
        """A file of the store, on tape where a volume is given."""
        place = self.tape.state / "files" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(os.fsencode(path) * 50 if data is None else data)
        if volume is not None:
            self.migrate(path, volume, position)

    def migrate(self, path: str, volume: str = "V1", position: int | None = None) -> None:
        self.control("migrate", f"/{path}", "--volume", volume, *(() if position is None else ("--position", position)))

    def mark(self, path: str, **values: Any) -> None:
        """Change what the store knows of a file: its state, or whether its staging is refused."""
        with (library := self.tape.library()).alone():
            library.write(library.known(f"/{path}")._replace(**values))

    def bad(self, volume: str, how: str = "stuck") -> None:
        """What becomes of the files of a volume: see the simulator; "good": they come."""
        self.control("bad", volume, "--how", how)

    def forget(self, count: int) -> None:
        """Have the store take so many requests and do nothing."""
        self.control("fail", "forget", count)

    def requests(self) -> list[str]:
        """What the store was asked for, in that order."""
        asked = sorted(json.loads(self.control("log"))["requests"], key=lambda one: one["asked"])
        return [one["path"].removeprefix("/") for one in asked]

    def outstanding(self) -> list[str]:
        """What it was asked for and has not brought."""
        listed = self.control("ls", "-R", "/").splitlines()
        return [line.split(" ", 6)[6].removeprefix("/") for line in listed if line.startswith("staging ")]

    # ------------------------------------------------------------------------------------ the work

    def restore(self, name: str = "m", **said: Any) -> None:
        """Submit a restore of mss:raw/** to b:new."""
        self.site.submit(name, **{"kind": "restore", "source": "mss:raw/**", "trigger": None, **said})

    def work(self) -> None:
        """Carry out what is due; what is on tape waits."""
        self.site.work()

    def step(self, *, gathered: bool = True) -> int:
        """One step of the store's job; what is wanted was wanted long enough ago to be asked for, if `gathered`."""
        if gathered:
            self.age(2.0)
        return stepping.step(self.site.database, self.site.hosts, self.site.config, "mss")

    def age(self, seconds: float) -> None:
        """So many seconds go by for all recalls."""
        times = ("wanted_at", "asked_at", "not_before")
        self.site.change(f"UPDATE recalls SET {', '.join(f'{name} = {name} - :s' for name in times)}", s=seconds)

    def settle(self, name: str = "m", expected: str = "done") -> None:
        """Work and step until all items of a manifest are in a state; fails when they do not get there."""

        def there() -> bool:
            if set(self.site.states(name).values()) == {expected}:
                return True
            self.work()
            self.step()
            return False

        until(there, lambda: (self.site.states(name), self.rows()), pause_s=0.0)

    def rows(self) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.site.rows("SELECT path, state, asks, reason FROM recalls ORDER BY path")]

    def lines(self) -> list[str]:
        return telling.lines(table.told(self.site.database))


def step_and_die(url: str, config: Config, state: Path) -> None:
    """What a worker does that is killed right after it asked the store for files, before it wrote that down."""
    database = open_database(url)
    tape = Tape(state)
    tape.after_stage = lambda: os.kill(os.getpid(), signal.SIGKILL)
    stepping.step(database, TapeHosts(database, config, tape), config, "mss")
