"""A host of this machine keeps the contract."""

from __future__ import annotations

from pathlib import Path

from tests.transfers.contract import DiskContract
from tests.transfers.contract_moves import IdentityContract
from transfers.hosts import Host
from transfers.local import LocalHost


class TestLocalHost(DiskContract, IdentityContract):
    def make(self, root: Path, **options: object) -> Host:
        return LocalHost("here", str(root), **options)  # type: ignore[arg-type] # options differ by test
