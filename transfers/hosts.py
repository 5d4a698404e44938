"""What a host is: a named place that holds files under one root.

Hosts are plain: no retries, no database, no manifests. A method raises a TransferError when the whole call
failed, and yields one in the place of the single result that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol, TypeVar

from transfers.agent import (
    LIMITS,
    Buffer,
    Cut,
    Fault,
    FileInfo,
    Filled,
    Frame,
    Hdu,
    Identity,
    Limits,
    Member,
    Opened,
    Piece,
    Place,
    Receipt,
    Skipped,
    Space,
    Stop,
    Want,
    never,
)
from transfers.errors import TransferError, Unsupported

T = TypeVar("T")

UNKNOWN = 2**63 - 1  # in a Space: bytes of a store that does not say how much room it has

__all__ = [
    "LIMITS",
    "UNKNOWN",
    "Buffer",
    "Clock",
    "Cut",
    "Fault",
    "FileInfo",
    "Filled",
    "Frame",
    "Hdu",
    "Host",
    "Identity",
    "Limits",
    "Lost",
    "Member",
    "Opened",
    "Piece",
    "Place",
    "Receipt",
    "Residency",
    "Skipped",
    "Space",
    "Stop",
    "Want",
    "identity_of",
    "never",
    "only",
]


def only(results: Iterable[T]) -> T:
    """The one result of a call that was asked for one. Taken to its end: a far host's conversation is not kept else."""
    (result,) = results
    return result


def identity_of(host: Host, path: str = "") -> Identity | None:
    """Which file this is and on which file system it lies ("" is the root); None where there is none, or where the host
    cannot tell. Raises TransferError for what else went wrong."""
    try:
        found = only(host.identify([path]))
    except Unsupported:
        return None
    if isinstance(found, TransferError) and not isinstance(found, Unsupported):
        raise found
    return found if isinstance(found, Identity) else None


class Clock(NamedTuple):
    """A host's clock against this machine's: seconds ahead (None: it has none to ask), and the round trip's length."""

    offset_s: float | None
    round_trip_s: float


class Residency(NamedTuple):
    """Where a store has a file now: "online" (it can be read at once), "offline" (on tape), "staging" (on its way from
    there) or "lost". `volume` and `position` say where on tape, where the store tells."""

    state: str
    volume: str | None = None
    position: int | None = None


class Lost(NamedTuple):
    """A file that should be there, by what is known of the host, and is not, or not whole."""

    path: str
    size: int
    mtime_ns: int
    why: str


class Host(Protocol):
    """The promises of each method are those of `transfers.agent.Agent`, with TransferError for Fault.

    Paths are texts relative to the root. Methods may be called by several threads at once.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str:
        """local, ssh or store."""
        ...

    @property
    def root(self) -> str: ...

    @property
    def far(self) -> bool:
        """Whether its bytes cross a network, so that several streams may be quicker than one."""
        ...

    @property
    def cuts(self) -> bool:
        """Whether one of its files can be read and filled by several streams at once."""
        ...

    @property
    def reread(self) -> str:
        """What its receipts call a proof by reading back: "reread" there, by who asks the disk; "wire" from here."""
        ...

    @property
    def stages(self) -> bool:
        """Whether its files may be offline, to be asked for before they can be read."""
        ...

    @property
    def seeks(self) -> bool:
        """Whether a stretch of a file can be read without bringing all of it here."""
        ...

    @property
    def own_digest(self) -> str | None:
        """The algorithm of a digest that the store itself makes of its files: what a proof by "store" rests on."""
        ...

    @property
    def round_trip_s(self) -> float:
        """How long a question and its answer took when that was last seen; 0 for what is near, or not yet asked."""
        ...

    def open(self, marker: str | None, marks: bool = True) -> str | None: ...

    def scan(self, prefix: str = "") -> Iterator[FileInfo | Skipped | Lost]:
        """Only a store whose bundles are known can say what is Lost."""
        ...

    def find(self, paths: Iterable[str]) -> Iterator[FileInfo | TransferError | None]: ...

    def read(self, wants: Iterable[Want]) -> Iterator[Frame]: ...

    def land(
        self, frames: Iterable[Frame], proof: str = "reread", stop: Stop = never
    ) -> Iterator[Receipt | TransferError | Opened]:
        """Errors of single files carry the facts item, epoch and destination. Opened answers an "open" alone."""
        ...

    def fill(self, frames: Iterable[Frame], stop: Stop = never) -> Iterator[Filled | TransferError]:
        """Errors of single stretches carry the facts part and offset."""
        ...

    def carry(
        self, wants: Iterable[Want], proof: str = "reread", stop: Stop = never
    ) -> Iterator[Receipt | TransferError]:
        """Bring files from one place of this host to another; their bytes stay where they are."""
        ...

    def digest(
        self, places: Iterable[Place], algorithm: str = "sha256", reread: bool = False, stop: Stop = never
    ) -> Iterator[tuple[str, int, str] | TransferError]:
        """(path, size, "algorithm:hex") of each file; of a member, its name, size and digest."""
        ...

    def headers(self, places: Iterable[Place], limits: Limits = LIMITS) -> Iterator[tuple[Hdu, ...] | TransferError]:
        """The HDUs of each FITS file. Sums that `limits` asks for are made where the file lies, over SFTP here.

        What a file is not sound for is SourceCorrupt, with a `code` in its facts, and the number of the `hdu`.
        """
        ...

    def gunzip(self, want: Want, most: int, stop: Stop = never) -> str:
        """Unpack a .gz file into a scratch file beside it: see the agent's. Unsupported where there is no agent."""
        ...

    def remove(self, paths: Iterable[str]) -> Iterator[str | TransferError]: ...

    def move(self, pairs: Iterable[tuple[str, str]]) -> Iterator[str | TransferError]:
        """Give files other paths beneath the root, durably and never replacing one; the new path of each."""
        ...

    def identify(self, paths: Iterable[str]) -> Iterator[Identity | TransferError | None]:
        """On which file system each file lies, and which file it is there; None where there is none. Two copies of one
        `system` are lost together."""
        ...

    def lies_in(self, paths: Iterable[str]) -> Iterator[str]:
        """The file of the host that each path lies in: itself, or on a store the bundle that it is a member of."""
        ...

    def residency(self, paths: Iterable[str]) -> Iterator[Residency | TransferError]:
        """Where the store has each file now, by its path as it lies there (see `lies_in`)."""
        ...

    def stage(self, paths: Iterable[str]) -> Iterator[TransferError | None]:
        """Ask for files to be brought online, waiting for none: None for each that was asked for."""
        ...

    def space(self) -> Space: ...

    def clock(self) -> Clock: ...

    def about(self) -> dict[str, str]:
        """Facts for people: how the host is spoken to, its key, what runs there."""
        ...

    def prepare(self, streams: int) -> None:
        """So many streams are about to be used: connect, without waiting, where that takes time."""
        ...

    def close(self) -> None:
        """End what is open to it; it opens again when it is next used."""
        ...

    def sweep(self, prefix: str, dead: Callable[[int, int], bool]) -> list[str]: ...
