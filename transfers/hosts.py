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
    Limits,
    Opened,
    Piece,
    Receipt,
    Skipped,
    Space,
    Stop,
    Want,
    never,
)
from transfers.errors import TransferError

T = TypeVar("T")

__all__ = [
    "LIMITS",
    "Buffer",
    "Clock",
    "Cut",
    "Fault",
    "FileInfo",
    "Filled",
    "Frame",
    "Hdu",
    "Host",
    "Limits",
    "Opened",
    "Piece",
    "Receipt",
    "Skipped",
    "Space",
    "Stop",
    "Want",
    "never",
    "only",
]


def only(results: Iterable[T]) -> T:
    """The one result of a call that was asked for one. Taken to its end: a far host's conversation is not kept else."""
    (result,) = results
    return result


class Clock(NamedTuple):
    """A host's clock against this machine's: seconds ahead (None: it has none to ask), and the round trip's length."""

    offset_s: float | None
    round_trip_s: float


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
    def round_trip_s(self) -> float:
        """How long a question and its answer took when that was last seen; 0 for what is near, or not yet asked."""
        ...

    def open(self, marker: str | None) -> str: ...

    def scan(self, prefix: str = "") -> Iterator[FileInfo | Skipped]: ...

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
        self, paths: Iterable[str], algorithm: str = "sha256", reread: bool = False, stop: Stop = never
    ) -> Iterator[tuple[str, int, str] | TransferError]: ...

    def headers(self, paths: Iterable[str], limits: Limits = LIMITS) -> Iterator[tuple[Hdu, ...] | TransferError]:
        """The HDUs of each FITS file. Sums that `limits` asks for are made where the file lies, over SFTP here.

        What a file is not sound for is SourceCorrupt, with a `code` in its facts, and the number of the `hdu`.
        """
        ...

    def gunzip(self, want: Want, most: int, stop: Stop = never) -> str:
        """Unpack a .gz file into a scratch file beside it: see the agent's. Unsupported where there is no agent."""
        ...

    def remove(self, paths: Iterable[str]) -> Iterator[str | TransferError]: ...

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
