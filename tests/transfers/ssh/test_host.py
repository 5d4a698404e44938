"""A host over SSH passes the contract of every host, by both clients, against a real sshd."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sshd import Sshd
from tests.transfers.contract import HostContract, files_in, sha256, wants_of
from tests.transfers.contract_moves import IdentityContract, MoveContract, OnDiskContract
from transfers.copying import copy
from transfers.errors import SourceChanged, TransferError, Transient
from transfers.hosts import Host, Receipt, Want, only
from transfers.local import LocalHost
from transfers.ssh.channels import Client
from transfers.ssh.host import SshHost
from transfers.ssh.openssh import OpenSSHClient
from transfers.ssh.paramiko_client import ParamikoClient
from transfers.streams import Streams


class SshContract(HostContract):
    """The contract between two names of one far root, so that every byte crosses the network twice."""

    python = "python3"
    changed_bytes = 31 << 20

    @pytest.fixture(autouse=True)
    def _server(self, sshd: Sshd) -> Iterator[None]:
        self.server = sshd
        self.made: list[SshHost] = []
        yield
        for host in self.made:
            host.close()

    def client(self) -> Client:
        return OpenSSHClient("here", self.server.login())

    def make(self, root: Path, **options: object) -> SshHost:
        host = SshHost("here", str(root), self.client(), python=self.python, **options)  # type: ignore[arg-type] # differ by test
        self.made.append(host)
        return host

    def copied(self, host: Host, wants: list[Want], **options: object) -> dict[str, Receipt | TransferError]:
        twin = self.make(Path(host.root))
        twin.name = "there"
        twin.open(None)
        results = list(copy(host, twin, wants, **options))  # type: ignore[arg-type] # options differ by test
        assert sorted(want.destination for want, _ in results) == sorted(want.destination for want in wants)
        return {want.destination: result for want, result in results}


class TestOpenSSH(SshContract, OnDiskContract):
    pass


class TestParamiko(SshContract):
    def client(self) -> Client:
        return ParamikoClient("here", self.server.login())


def an_old_python() -> str | None:
    """The oldest python from 3.6 to 3.8 that is on this machine."""
    for version in ("3.6", "3.7", "3.8"):
        known = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
        path = str(known[0]) if known else shutil.which(f"python{version}")
        if path and subprocess.run([path, "-c", ""], check=False, capture_output=True).returncode == 0:
            return path
    return None


@pytest.mark.skipif(an_old_python() is None, reason="there is no Python from 3.6 to 3.8 here to be the far side")
class TestOldPython(SshContract, MoveContract, IdentityContract):
    """The far side may be as old as 3.6."""

    python = an_old_python() or ""


class TestCarriedWithinTheHost(SshContract):
    """The same contract where source and destination are one host: nothing crosses the network."""

    def copied(self, host: Host, wants: list[Want], **options: object) -> dict[str, Receipt | TransferError]:
        return HostContract.copied(self, host, wants, **options)

    def test_source_changed_while_it_is_read_is_not_landed(self, host: Host, root: Path) -> None:
        """Bytes are told of when they have landed, so that the change comes from beside."""
        (root / "a").write_bytes(bytes(256 << 20))
        wants = wants_of(host, "a", "out")
        over = threading.Event()

        def touch() -> None:
            while not over.is_set():
                with (root / "a").open("r+b") as file:
                    file.write(os.urandom(8))
                os.utime(root / "a", ns=(wants[0].mtime_ns or 0, wants[0].mtime_ns or 0))

        changing = threading.Thread(target=touch)
        changing.start()
        try:
            assert isinstance(self.copied(host, wants)["out/a"], SourceChanged)
        finally:
            over.set()
            changing.join()
        assert set(files_in(root)) == {"a"}

    def test_stop_ends_promptly_and_leaves_no_part(self, host: Host, root: Path) -> None:
        for number in range(40):
            (root / f"f{number:02}").write_bytes(bytes(16 << 20))
        begun = time.monotonic()
        results = self.copied(host, wants_of(host, "", "out"), stop=lambda: time.monotonic() - begun > 0.4)
        stopped = [result for result in results.values() if isinstance(result, Transient)]
        assert stopped
        assert {error.phase for error in stopped} == {"stopped"}
        assert not list(root.rglob("*.part"))


# Files that are cut over several streams.


@pytest.fixture
def make_host(sshd: Sshd) -> Iterator[Callable[..., SshHost]]:
    made = []

    def make(name: str, root: Path, login: object = None) -> SshHost:
        root.mkdir(exist_ok=True)
        host = SshHost(name, str(root), OpenSSHClient(name, login or sshd.login()))  # type: ignore[arg-type] # a Login
        made.append(host)
        host.open(None)
        return host

    yield make
    for host in made:
        host.close()


@pytest.mark.parametrize("size", [(32 << 20), (100 << 20) + 13])
@pytest.mark.parametrize("streams", [2, 5])
def test_large_file_is_cut_over_all_streams(
    make_host: Callable[..., SshHost], tmp_path: Path, size: int, streams: int
) -> None:
    source, target = make_host("a", tmp_path / "a"), make_host("b", tmp_path / "b")
    data = os.urandom(1 << 20) * (size >> 20) + os.urandom(size % (1 << 20))
    (tmp_path / "a" / "large").write_bytes(data)
    (tmp_path / "a" / "small").write_bytes(b"small")
    seen: list[int] = []
    wants = wants_of(source, "", "in")
    results = dict(copy(source, target, wants, streams=Streams(streams, streams), on_bytes=seen.append))
    assert all(isinstance(result, Receipt) and result.proof == "reread" for result in results.values())
    assert (tmp_path / "b/in/large").read_bytes() == data
    assert (tmp_path / "b/in/large").stat().st_mtime_ns == (tmp_path / "a/large").stat().st_mtime_ns
    assert sum(seen) == size + 5
    assert set(files_in(tmp_path / "b")) == {"in/large", "in/small"}


def test_cut_file_that_changes_is_not_landed(make_host: Callable[..., SshHost], tmp_path: Path) -> None:
    source, target = make_host("a", tmp_path / "a"), make_host("b", tmp_path / "b")
    (tmp_path / "a" / "large").write_bytes(bytes(64 << 20))
    wants = wants_of(source, "", "in")

    def touch(_: int) -> None:
        with (tmp_path / "a/large").open("r+b") as file:
            file.seek(60 << 20)
            file.write(os.urandom(8))

    ((_, result),) = copy(source, target, wants, streams=Streams(3, 3), on_bytes=touch)
    assert isinstance(result, TransferError)
    assert result.kind in ("source changed", "corrupted on the way")
    assert files_in(tmp_path / "b") == {}


def test_cut_file_with_another_digest_than_listed_is_corrupt(make_host: Callable[..., SshHost], tmp_path: Path) -> None:
    source, target = make_host("a", tmp_path / "a"), make_host("b", tmp_path / "b")
    (tmp_path / "a" / "large").write_bytes(bytes(40 << 20))
    wants = [want._replace(digest="sha256:" + "0" * 64) for want in wants_of(source, "", "in")]
    ((_, result),) = copy(source, target, wants, streams=Streams(2, 2))
    assert isinstance(result, TransferError)
    assert (result.kind, result.side, result.host) == ("source corrupt", "source", "a")
    assert files_in(tmp_path / "b") == {}


# Members, and which file is which.


@pytest.mark.parametrize("streams", [1, 3])
def test_large_member_is_not_cut(make_host: Callable[..., SshHost], tmp_path: Path, streams: int) -> None:
    source, target = make_host("a", tmp_path / "a"), make_host("b", tmp_path / "b")
    data = os.urandom(1 << 20) * 40 + b"end"
    (tmp_path / "a/bundle").write_bytes(b"before" + data + b"behind")
    want = Want(1, 1, "bundle", "large", len(data), 10**18, sha256(data), stretch=(6, len(data)))
    ((_, result),) = copy(source, target, [want], streams=Streams(streams, streams))
    assert isinstance(result, Receipt)
    assert (tmp_path / "b/large").read_bytes() == data


def test_files_of_this_machine_are_the_same_by_ssh_and_without(
    make_host: Callable[..., SshHost], tmp_path: Path
) -> None:
    far, here = make_host("a", tmp_path / "a"), LocalHost("here", str(tmp_path / "b"))
    (tmp_path / "a/f").write_bytes(b"data")
    (tmp_path / "b").mkdir()
    os.link(tmp_path / "a/f", tmp_path / "b/g")
    here.open(None)
    assert only(far.identify(["f"])) == only(here.identify(["g"]))
