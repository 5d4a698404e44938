"""A host of this machine: the agent, run in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from transfers.agent import (
    LIMITS,
    Agent,
    Fault,
    FileInfo,
    Filled,
    Frame,
    Hdu,
    Identity,
    Limits,
    Opened,
    Place,
    Receipt,
    Skipped,
    Space,
    Stop,
    Want,
    never,
)
from transfers.disks import OnDisk
from transfers.errors import TransferError, from_fault, from_os_error
from transfers.hosts import Clock

T = TypeVar("T")


class LocalHost(OnDisk):
    """Files beneath a folder of this machine. Here the agent's faults become this host's errors."""

    kind = "local"
    far = False
    cuts = True
    round_trip_s = 0.0
    reread = "reread"
    side = ""  # the side that errors name, where it is not the fault's own

    def __init__(
        self,
        name: str,
        root: str,
        *,
        links: bool = False,
        file_mode: int | None = None,
        folder_mode: int | None = None,
        instance: str = "00000000",
    ) -> None:
        self.name = name
        self.root = root
        self.agent = Agent(root, links, file_mode, folder_mode, instance)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.root!r})"

    def open(self, marker: str | None, marks: bool = True) -> str | None:
        with self._border("open"):
            return self.agent.open(marker, marks)

    def scan(self, prefix: str = "") -> Iterator[FileInfo | Skipped]:
        with self._border("scan"):
            yield from self.agent.scan(prefix)

    def find(self, paths: Iterable[str]) -> Iterator[FileInfo | TransferError | None]:
        yield from self._each("find", self.agent.find(paths))

    def read(self, wants: Iterable[Want]) -> Iterator[Frame]:
        with self._border("read"):
            yield from self.agent.read(wants)

    def land(
        self, frames: Iterable[Frame], proof: str = "reread", stop: Stop = never
    ) -> Iterator[Receipt | TransferError | Opened]:
        with self._border("land"):
            for result in self.agent.land(frames, proof, stop):
                yield self._error(result) if isinstance(result, Fault) else result

    def fill(self, frames: Iterable[Frame], stop: Stop = never) -> Iterator[Filled | TransferError]:
        yield from self._each("land", self.agent.fill(frames, stop))

    def carry(
        self, wants: Iterable[Want], proof: str = "reread", stop: Stop = never
    ) -> Iterator[Receipt | TransferError]:
        yield from self._each("land", self.agent.carry(wants, proof, stop))

    def digest(
        self, places: Iterable[Place], algorithm: str = "sha256", reread: bool = False, stop: Stop = never
    ) -> Iterator[tuple[str, int, str] | TransferError]:
        yield from self._each("digest", self.agent.digest(places, algorithm, reread, stop))

    def headers(self, places: Iterable[Place], limits: Limits = LIMITS) -> Iterator[tuple[Hdu, ...] | TransferError]:
        yield from self._each("headers", self.agent.headers(places, limits))

    def gunzip(self, want: Want, most: int, stop: Stop = never) -> str:
        with self._border("unpack"):
            return self.agent.gunzip(want, most, stop)

    def remove(self, paths: Iterable[str]) -> Iterator[str | TransferError]:
        yield from self._each("remove", self.agent.remove(paths))

    def move(self, pairs: Iterable[tuple[str, str]]) -> Iterator[str | TransferError]:
        yield from self._each("move", self.agent.move(pairs))

    def identify(self, paths: Iterable[str]) -> Iterator[Identity | TransferError | None]:
        yield from self._each("identify", self.agent.identify(paths))

    def space(self) -> Space:
        with self._border("space"):
            return self.agent.space()

    def clock(self) -> Clock:
        return Clock(0.0, 0.0)

    def about(self) -> dict[str, str]:
        return {"client": "none: files of this machine"}

    def prepare(self, streams: int) -> None:
        """There is nothing to connect to."""

    def close(self) -> None:
        """Nothing is kept open."""

    def sweep(self, prefix: str, dead: Callable[[int, int], bool]) -> list[str]:
        with self._border("sweep"):
            return self.agent.sweep(prefix, dead)

    def _each(self, phase: str, results: Iterator[T | Fault]) -> Iterator[T | TransferError]:
        with self._border(phase):
            for result in results:
                yield self._error(result) if isinstance(result, Fault) else result

    @contextmanager
    def _border(self, phase: str) -> Iterator[None]:
        try:
            yield
        except Fault as fault:
            raise self._error(fault) from fault
        except OSError as error:
            raise from_os_error(error, self.name, self.side or "local", phase) from error

    def _error(self, fault: Fault) -> TransferError:
        error = from_fault(fault, self.name)
        if error.host == self.name and error.side != "route":
            error.side = self.side or error.side
        return error
