"""Hosts whose files lie on disk, to be read at any time and any place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from transfers.errors import TransferError
from transfers.hosts import Residency

ONLINE = Residency("online")


class OnDisk:
    """What a Host of disks says of its files to who would have to wait for those of a tape."""

    stages = False
    seeks = True
    own_digest: str | None = None

    def lies_in(self, paths: Iterable[str]) -> Iterator[str]:
        """Each file is one of its own."""
        yield from paths

    def residency(self, paths: Iterable[str]) -> Iterator[Residency | TransferError]:
        """Online, all of them, and also those that are not there: nothing is looked at."""
        for _ in paths:
            yield ONLINE

    def stage(self, paths: Iterable[str]) -> Iterator[TransferError | None]:
        """There is nothing to ask for."""
        for _ in paths:
            yield None
