"""What a host is: a named place that holds files under one root.

Hosts are plain: no retries, no database, no manifests. A method raises a TransferError when the whole call
failed, and yields one in the place of the single result that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from transfers.agent import (
    LIMITS,
    Buffer,
    Cut,
    Fault,
    FileInfo,
    Frame,
    Hdu,
    Limits,
    Piece,
    Receipt,
    Skipped,
    Space,
    Stop,
    Want,
    never,
)
from transfers.errors import TransferError

__all__ = [
    "LIMITS",
    "Buffer",
    "Cut",
    "Fault",
    "FileInfo",
    "Frame",
    "Hdu",
    "Host",
    "Limits",
    "Piece",
    "Receipt",
    "Skipped",
    "Space",
    "Stop",
    "Want",
    "never",
]


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

    def open(self, marker: str | None) -> str: ...

    def scan(self, prefix: str = "") -> Iterator[FileInfo | Skipped]: ...

    def find(self, paths: Iterable[str]) -> Iterator[FileInfo | TransferError | None]: ...

    def read(self, wants: Iterable[Want]) -> Iterator[Frame]: ...

    def land(
        self, frames: Iterable[Frame], proof: str = "reread", stop: Stop = never
    ) -> Iterator[Receipt | TransferError]:
        """Errors of single files carry the facts item, epoch and destination."""
        ...

    def digest(
        self, paths: Iterable[str], algorithm: str = "sha256", reread: bool = False, stop: Stop = never
    ) -> Iterator[tuple[str, int, str] | TransferError]: ...

    def headers(self, paths: Iterable[str], limits: Limits = LIMITS) -> Iterator[tuple[Hdu, ...] | TransferError]: ...

    def remove(self, paths: Iterable[str]) -> Iterator[str | TransferError]: ...

    def space(self) -> Space: ...

    def sweep(self, prefix: str, dead: Callable[[int, int], bool]) -> list[str]: ...
