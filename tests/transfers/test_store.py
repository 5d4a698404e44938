"""A mass store behind a folder keeps the contract."""

from __future__ import annotations

from pathlib import Path

from tests.transfers.contract import DiskContract, frames_of
from tests.transfers.contract_moves import IdentityContract
from transfers.errors import Conflict
from transfers.hosts import Host
from transfers.store import DirectoryStore


class TestDirectoryStore(DiskContract, IdentityContract):
    def make(self, root: Path, **options: object) -> Host:
        return DirectoryStore("mss", str(root), **options)  # type: ignore[arg-type] # options differ by test

    def test_its_errors_say_that_it_was_the_store(self, host: Host, root: Path) -> None:
        (root / "a").write_bytes(b"other")
        (error,) = host.land(frames_of("a", b"data"))
        assert isinstance(error, Conflict)
        assert (error.side, error.host, host.kind) == ("store", "mss", "store")
