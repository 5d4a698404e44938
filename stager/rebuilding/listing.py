"""What lies on a store: its bundles and indexes, and, kept in a file so that memory stays flat, all other files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from transfers.bundles import BUNDLE, INDEX
from transfers.hosts import FileInfo, Host, Skipped

FILES_AT_ONCE = 500


class Listing:
    """One listing of a store as it lies there, hidden names left out. Closed at the end."""

    def __init__(self) -> None:
        self.bundles: dict[str, FileInfo] = {}
        self.indexes: set[str] = set()
        self.skipped: list[Skipped] = []
        self._others = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115  closed by `close`

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._others.close()

    def read(self, host: Host) -> None:
        """List all of the store; raises the TransferError that it ended with."""
        for found in host.scan(""):
            if not isinstance(found, FileInfo):
                self.skipped.append(Skipped(found.path, found.why))
            elif found.path.endswith(BUNDLE):
                self.bundles[found.path] = found
            elif found.path.endswith(INDEX):
                self.indexes.add(found.path)
            else:
                self._others.write(json.dumps(found) + "\n")

    def others(self) -> Iterator[list[FileInfo]]:
        """The files that are neither, some hundred at a time."""
        self._others.seek(0)
        lot: list[FileInfo] = []
        for line in self._others:
            lot.append(FileInfo(*json.loads(line)))
            if len(lot) == FILES_AT_ONCE:
                yield lot
                lot = []
        if lot:
            yield lot
