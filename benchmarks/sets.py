"""Sets of files that are brought over SSH, the server that they are brought to, and the proof that they arrived."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.copies import write_files
from benchmarks.measuring import CHUNK, warm
from benchmarks.places import Place, Unavailable
from tests.proxies import ProxyProcess
from tests.sshd import Broken, Sshd
from transfers.ssh.channels import Login

HEAD = 16  # bytes that tell a set's files apart: each begins with its number
# What sshd has without a configuration, where the tests' server has something else.
AS_INSTALLED = ("LogLevel INFO", "MaxStartups 10:30:100")

MANY_FILES = 1000
FREED_S = 6.0  # ext4 gives out no inode that was freed in the last five seconds, and searches long for others meanwhile


class Wrong(Exception):
    """A way ended without an error, and its files are not there, or not as they should be."""


@dataclass(frozen=True)
class Far:
    """The server, as it is reached: at its own port, or through a proxy's."""

    server: Sshd
    port: int
    config: str  # an ssh_config in which it is `alias`

    @property
    def alias(self) -> str:
        return self.server.alias

    @property
    def login(self) -> Login:
        return self.server.login(port=self.port)


@dataclass(frozen=True)
class Set:
    """Files of one size. `grows`: at another scale it is their size that changes, not their number."""

    count: int
    size: int
    text: str
    grows: bool = False

    @property
    def small(self) -> bool:
        return self.size < CHUNK

    def counted(self, place: Place) -> int:
        return self.count if self.grows else place.sized(self.count, least=3)

    def sized(self, place: Place) -> int:
        return place.sized(self.size, least=4096) if self.grows else self.size

    def title(self, place: Place, up: bool) -> str:
        text = self.text if place.scale == 1 else f"{self.sized(place)} B"
        return f"{self.counted(place)} x {text} {'up' if up else 'down'}"

    def made(self, place: Place, far: Far, name: str = "source") -> Work:
        """The set's files in a folder of that name, to be brought up."""
        root = place.new(name)
        names = [str(path.relative_to(root)) for path in write_files(root, self.counted(place), self.sized(place))]
        return Work(place, root, tuple(names), self, far)


@dataclass(frozen=True)
class Work:
    """A set of files to bring: up to the far host, or down from it. They lie in `root`/data and go to `out`/data."""

    place: Place
    root: Path
    names: tuple[str, ...]
    of: Set
    host: Far
    up: bool = True

    @property
    def out(self) -> Path:
        return self.place.folder / "out"

    @property
    def site(self) -> Path:
        """Where what a way needs for itself lies: a configuration, a database."""
        return self.place.folder / "site"

    @property
    def paths(self) -> Iterator[Path]:
        return (self.root / name for name in self.names)

    @property
    def title(self) -> str:
        return self.of.title(self.place, self.up)

    def going(self, up: bool) -> Work:
        return replace(self, up=up)

    def part(self, count: int) -> Work:
        """The first so many files, as a tree of their own."""
        root = self.place.new(f"{self.root.name}-{count}")
        for name in self.names[:count]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(self.root / name, root / name)
        return replace(self, root=root, names=self.names[:count])

    def prepare(self) -> None:
        """Empty folders, nothing of the run before still to be written, the source in the page cache."""
        for folder in (self.out, self.site):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        self.place.settle()
        if len(self.names) > MANY_FILES:
            time.sleep(FREED_S)
        warm(self.paths)

    def check(self) -> None:
        """Wrong, unless all files are there: names, sizes, and the beginning of each, which is its number."""
        there = {str(path.relative_to(self.out)) for path in (self.out / "data").rglob("*") if path.is_file()}
        if there != set(self.names):
            raise Wrong(f"{len(there)} files arrived, {len(self.names)} were to: {self._first(there)}")
        for name in self.names:
            if _seen(self.root / name) != _seen(self.out / name):
                raise Wrong(f"{name} arrived as another file")

    def _first(self, there: set[str]) -> str:
        return ", ".join(sorted(there ^ set(self.names))[:3])


def _seen(path: Path) -> tuple[int, bytes]:
    with open(path, "rb", buffering=0) as file:
        return os.fstat(file.fileno()).st_size, file.read(HEAD)


@contextmanager
def server(folder: Path) -> Iterator[Sshd]:
    """A real sshd with the settings that one has without a configuration. Unavailable where there is none."""
    try:
        started = Sshd.start(folder, lines=AS_INSTALLED)
    except (Broken, FileNotFoundError) as error:
        raise Unavailable(f"no sshd: {error}") from error
    with started:
        yield started


@contextmanager
def reached(folder: Path, round_trip_s: float = 0.0) -> Iterator[Far]:
    """The same, from as far away."""
    with server(folder) as started:
        if not round_trip_s:
            yield Far(started, started.port, started.config)
            return
        with ProxyProcess(started.port, latency_s=round_trip_s / 2) as proxy:
            yield Far(started, proxy.port, started.config_for(proxy.port))
