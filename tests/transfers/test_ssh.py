"""A host over SSH passes the contract of every host, by both clients, against a real sshd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sshd import Sshd
from tests.transfers.contract import HostContract
from transfers.copying import copy
from transfers.errors import TransferError
from transfers.hosts import Host, Receipt, Want
from transfers.openssh import OpenSSHClient
from transfers.ssh import SshHost


class SshContract(HostContract):
    """The contract between two names of one far root, so that every byte crosses the network twice."""

    @pytest.fixture(autouse=True)
    def _server(self, sshd: Sshd) -> Iterator[None]:
        self.server = sshd
        self.made: list[SshHost] = []
        yield
        for host in self.made:
            host.close()

    def client(self, name: str) -> OpenSSHClient:
        return OpenSSHClient(name, self.server.login())

    def make(self, root: Path, **options: object) -> SshHost:
        host = SshHost("here", str(root), self.client("here"), **options)  # type: ignore[arg-type] # options differ by test
        self.made.append(host)
        return host

    def copied(self, host: Host, wants: list[Want], **options: object) -> dict[str, Receipt | TransferError]:
        twin = self.make(Path(host.root))
        twin.name = "there"
        twin.open(None)
        results = list(copy(host, twin, wants, **options))  # type: ignore[arg-type] # options differ by test
        assert sorted(want.destination for want, _ in results) == sorted(want.destination for want in wants)
        return {want.destination: result for want, result in results}


class TestOpenSSH(SshContract):
    pass


class TestCarriedWithinTheHost(SshContract):
    """The same contract where source and destination are one host: nothing crosses the network."""

    def copied(self, host: Host, wants: list[Want], **options: object) -> dict[str, Receipt | TransferError]:
        return HostContract.copied(self, host, wants, **options)
