"""A host behind an sshd that gives SFTP and nothing else keeps the contract, as far as SFTP can."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.sshd import Sshd
from tests.transfers.contract import DiskContract, files_in, frames_of, sha256, wants_of
from transfers.copying import copy
from transfers.errors import HostDown, NoSpace, ReadOnly, Refused, TransferError, Transient, Unsupported
from transfers.hosts import FileInfo, Frame, Host, Receipt, Want
from transfers.local import LocalHost
from transfers.sftp.host import SftpHost
from transfers.ssh.paramiko_client import ParamikoClient


@pytest.fixture(scope="module")
def sshd(sshd_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """SFTP and nothing else."""
    with Sshd.start(tmp_path_factory.mktemp("sshd"), program=sshd_program, sftp_only=True) as sshd:
        yield sshd


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def hosts(sshd: Sshd) -> Iterator[list[SftpHost]]:
    """The hosts that a test makes; closed when it is over, so that no connection outlives it."""
    made: list[SftpHost] = []
    yield made
    for host in made:
        host.close()


def far(sshd: Sshd, root: Path, **options: object) -> SftpHost:
    return SftpHost("there", str(root), ParamikoClient("there", sshd.login()), **options)  # type: ignore[arg-type]


class TestSftpHost(DiskContract):
    @pytest.fixture(autouse=True)
    def _far_side(self, sshd: Sshd, hosts: list[SftpHost]) -> None:
        self.sshd = sshd
        self.hosts = hosts

    def make(self, root: Path, **options: object) -> Host:
        host = far(self.sshd, root, **options)
        self.hosts.append(host)
        return host

    def copied(self, host: Host, wants: list[Want], **options: object) -> dict[str, Receipt | TransferError]:
        """To a twin, whose bytes come here and go back; within one host the bytes are not seen on the way."""
        twin = self.make(Path(host.root))
        assert isinstance(twin, SftpHost)
        twin.name = "twin"
        twin.open(None)
        results = list(copy(host, twin, wants, **options))  # type: ignore[arg-type] # options differ by test
        assert sorted(want.destination for want, _ in results) == sorted(want.destination for want in wants)
        return {want.destination: result for want, result in results}

    # SFTP tells times in whole seconds: what the contract asks to the nanosecond is asked to the second here.

    def test_scan_is_sorted_and_leaves_hidden_names_out(self, host: Host, root: Path) -> None:
        for name in ("b/2", "b/1", "a", "c/d/e", ".hidden", "b/.part", ".h/x"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(name)
        assert [found.path for found in host.scan("")] == ["a", "b/1", "b/2", "c/d/e"]
        assert [found.path for found in host.scan("b")] == ["b/1", "b/2"]
        (only,) = host.scan("b/2")
        assert only == FileInfo("b/2", 3, int((root / "b/2").stat().st_mtime) * 10**9)

    def test_find_tells_files_from_nothing_and_folders(self, host: Host, root: Path) -> None:
        (root / "d").mkdir()
        (root / "d/f").write_bytes(b"abc")
        file, nothing, below_file, folder = host.find(["d/f", "d/g", "d/f/g", "d"])
        assert file == FileInfo("d/f", 3, int((root / "d/f").stat().st_mtime) * 10**9)
        assert nothing is None
        assert below_file is None
        assert isinstance(folder, Refused)

    @pytest.mark.parametrize("proof", ["reread", "stream"])
    @pytest.mark.parametrize("size", [0, 1, 2880, (1 << 20) + 1, (65 << 20) + 7])
    def test_receipt_says_what_is_there(self, host: Host, root: Path, size: int, proof: str) -> None:
        data = os.urandom(size)
        (root / "a").write_bytes(data)
        os.utime(root / "a", ns=(1, 1_234_567_890_123_456_000))
        seen: list[int] = []
        results = self.copied(host, wants_of(host, "a", "out"), proof=proof, on_bytes=seen.append)
        said = "wire" if proof == "reread" else proof
        receipt = Receipt(1, "out/a", size, sha256(data), 1_234_567_890 * 10**9, said, False)
        assert results == {"out/a": receipt}
        assert (root / "out/a").read_bytes() == data
        assert (root / "out/a").stat().st_mtime_ns == receipt.mtime_ns
        assert list(host.digest(["out/a"])) == [("out/a", size, sha256(data))]

    def test_wrong_expectations_are_told_apart_and_hold_up_nobody(self, host: Host, root: Path) -> None:
        # A second more, not a nanosecond more, is another time here; the contract's `stamp + 1` is another anyway.
        super().test_wrong_expectations_are_told_apart_and_hold_up_nobody(host, root)
        stamp = int((root / "time").stat().st_mtime)
        later = Want(1, 1, "time", "out/later", 4, (stamp + 1) * 10**9)
        now = Want(2, 1, "time", "out/now", 4, stamp * 10**9)
        results = self.copied(host, [later, now])
        assert isinstance(results["out/later"], TransferError)
        assert isinstance(results["out/now"], Receipt)

    def test_gzip_file_is_unpacked_where_it_lies(self, host: Host, root: Path) -> None:
        """No program runs there: what must be unpacked is unpacked here."""
        with pytest.raises(Unsupported):
            host.gunzip(Want(7, 1, "a.gz", ""), 4 << 20)

    @pytest.mark.parametrize("damage", ["short"])
    def test_damaged_gzip_file_leaves_nothing(self, host: Host, root: Path, damage: str) -> None:
        with pytest.raises(Unsupported):
            host.gunzip(Want(7, 1, f"{damage}.gz", ""), 4 << 20)
        assert files_in(root) == {}

    def test_which_file_is_which_is_not_told(self, host: Host, root: Path) -> None:
        """SFTP has no device numbers and no inodes."""
        with pytest.raises(Unsupported, match="independent"):
            list(host.identify([""]))


# What SFTP is: other servers, lost connections.


def local(root: Path) -> LocalHost:
    host = LocalHost("here", str(root))
    host.open(None)
    return host


def test_server_that_changes_nothing_is_read_and_says_so(
    root: Path, make_sshd: Callable[..., Sshd], hosts: list[SftpHost]
) -> None:
    (root / "a").write_bytes(b"data")
    host = far(make_sshd(sftp_read_only=True), root)
    hosts.append(host)
    marker = host.open(None)
    assert host.open(marker) == marker
    assert list(host.digest(["a"])) == [("a", 4, sha256(b"data"))]
    (refused,) = host.land(frames_of("b", b"x"))
    (kept,) = host.remove(["a"])
    assert isinstance(refused, ReadOnly)
    assert "the server is read-only" in refused.text
    assert isinstance(kept, Refused)
    assert files_in(root) == {"a": b"data"}


@pytest.mark.parametrize("lost", ["fsync", "statvfs"])
def test_server_that_offers_less_is_landed_on_and_says_so(
    root: Path, make_sshd: Callable[..., Sshd], hosts: list[SftpHost], lost: str
) -> None:
    """`-P` takes an extension away from OpenSSH's server, as others lack it."""
    host = far(make_sshd(lines=[f"ForceCommand internal-sftp -P {lost}"]), root)
    hosts.append(host)
    host.open(None)
    (result,) = host.land(frames_of("a", b"data"))
    assert isinstance(result, Receipt)
    assert result.proof == "wire"
    assert host.about()["fsync"].startswith("no" if lost == "fsync" else "yes")
    if lost == "statvfs":
        with pytest.raises(Unsupported, match="statvfs@openssh"):
            host.space()


def test_server_without_hard_links_is_read_but_not_landed_on(
    root: Path, make_sshd: Callable[..., Sshd], hosts: list[SftpHost]
) -> None:
    """There is no other way of SFTP to give a name that is surely not somebody else's."""
    (root / "a").write_bytes(b"data")
    host = far(make_sshd(lines=["ForceCommand internal-sftp -P hardlink"]), root)
    hosts.append(host)
    marker = host.open(None)
    assert host.open(marker) == marker
    assert list(host.digest(["a"])) == [("a", 4, sha256(b"data"))]
    (result,) = host.land(frames_of("b", b"data"))
    assert isinstance(result, Unsupported)
    assert "hardlink@openssh.com" in result.text
    assert host.about()["landing"].startswith("no")
    assert files_in(root) == {"a": b"data"}


def test_connection_killed_in_a_landing_leaves_nothing_and_the_next_try_is_right(
    root: Path, make_sshd: Callable[..., Sshd], hosts: list[SftpHost]
) -> None:
    sshd = make_sshd(sftp_only=True)
    data = os.urandom(24 << 20)
    host = far(sshd, root)
    hosts.append(host)
    host.open(None)
    killed = []

    def broken() -> Iterator[Frame]:
        yield from frames_of("whole", b"whole", 1)
        begin, (_, body), _ = frames_of("cut", data, 2)
        yield begin
        for at in range(0, len(body), 1 << 20):
            if at == 12 << 20:
                killed.append(sshd.kill_sessions())
            yield "data", body[at : at + (1 << 20)]
        yield "end", {"size": len(body), "digest": sha256(body)}

    with pytest.raises((Transient, HostDown)):
        list(host.land(broken()))
    assert killed
    assert killed[0] >= 1
    left = files_in(root)
    assert "cut" not in left
    assert not [name for name in left if name.endswith(".part")], "parts are removed over another connection"
    again = list(host.land([*frames_of("whole", b"whole", 1, 2), *frames_of("cut", data, 2, 2)]))
    assert all(isinstance(one, Receipt) for one in again)
    assert files_in(root) == {"whole": b"whole", "cut": data}


def test_reading_left_early_discards_the_session_and_the_next_is_right(
    root: Path, sshd: Sshd, hosts: list[SftpHost]
) -> None:
    (root / "a").write_bytes(os.urandom(16 << 20))
    host = far(sshd, root)
    hosts.append(host)
    host.open(None)
    frames = host.read([Want(1, 1, "a", "b")])
    assert next(iter(frames))[0] == "file"
    assert next(iter(frames))[0] == "data"
    frames.close()  # type: ignore[attr-defined] # it is a generator
    expected = sha256((root / "a").read_bytes())
    assert list(host.digest(["a"])) == [("a", 16 << 20, expected)]


def test_host_that_was_restarted_is_spoken_to_again(
    root: Path, make_sshd: Callable[..., Sshd], hosts: list[SftpHost]
) -> None:
    sshd = make_sshd(sftp_only=True)
    host = far(sshd, root)
    hosts.append(host)
    marker = host.open(None)
    sshd.stop()
    with pytest.raises((HostDown, Transient)):
        list(host.scan(""))
    sshd.restart()
    assert host.open(marker) == marker


def test_copies_between_here_and_there_arrive_whole(
    tmp_path: Path, root: Path, sshd: Sshd, hosts: list[SftpHost]
) -> None:
    (tmp_path / "mine").mkdir()
    here = local(tmp_path / "mine")
    for number in range(40):
        (tmp_path / f"mine/f{number:02}").write_bytes(os.urandom(number * 10_000))
    there = far(sshd, root)
    hosts.append(there)
    there.open(None)
    out = list(copy(here, there, wants_of(here, "", "in"), streams=3))
    assert all(isinstance(result, Receipt) for _, result in out)
    back = list(copy(there, here, wants_of(there, "in", "back"), streams=3))
    assert all(isinstance(result, Receipt) for _, result in back)
    for number in range(40):
        name = f"f{number:02}"
        assert (tmp_path / "mine/back/in" / name).read_bytes() == (tmp_path / "mine" / name).read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
@pytest.mark.parametrize("limit", ["size=2m", "nr_inodes=6"])
def test_full_disk_is_no_space_and_goes_on_when_there_is_room(
    root: Path, limit: str, sshd: Sshd, hosts: list[SftpHost], require: Callable[[str], NoReturn]
) -> None:
    """A status of SFTP says only "failure"; what it was is found by asking for the room."""
    mount = ["mount", "-t", "tmpfs", "-o", limit, "tmpfs", str(root)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        require("a tmpfs cannot be mounted here")
    try:
        host = far(sshd, root)
        hosts.append(host)
        host.open(None)
        frames = [frame for n in range(6) for frame in frames_of(f"d/{n}", bytes(700_000), n)]
        assert {type(result) for result in host.land(frames)} == {Receipt, NoSpace}
        assert not list(root.rglob(".*.part"))
        subprocess.run(["mount", "-o", "remount,size=40m,nr_inodes=100", str(root)], check=True)
        assert {type(result) for result in host.land(frames)} == {Receipt}
    finally:
        subprocess.run(["umount", str(root)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_file_system_that_became_read_only_is_told_as_such(
    root: Path, sshd: Sshd, hosts: list[SftpHost], require: Callable[[str], NoReturn]
) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(root)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        require("a tmpfs cannot be mounted here")
    try:
        host = far(sshd, root)
        hosts.append(host)
        host.open(None)
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        results = [*host.land(frames_of("a", b"data")), *host.land(frames_of("d/b", b"data"))]
        assert {(type(result), getattr(result, "text", "")) for result in results} == {
            (ReadOnly, "the file system is read-only")
        }
        subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)
        assert {type(result) for result in host.land(frames_of("a", b"data"))} == {Receipt}
    finally:
        subprocess.run(["umount", str(root)], check=True)


def test_carrying_within_the_host_lands_too(root: Path, sshd: Sshd, hosts: list[SftpHost]) -> None:
    (root / "a").write_bytes(b"data")
    host = far(sshd, root)
    hosts.append(host)
    host.open(None)
    (receipt,) = host.carry([Want(1, 1, "a", "b/a")])
    assert isinstance(receipt, Receipt)
    assert files_in(root) == {"a": b"data", "b/a": b"data"}


def test_about_says_what_is_proven_and_how(sshd: Sshd, root: Path, hosts: list[SftpHost]) -> None:
    host = far(sshd, root)
    hosts.append(host)
    about = host.about()
    assert about["client"] == "paramiko, sftp"
    assert about["key"] == f"ssh-ed25519 {sshd.host_key_fingerprint}"
    assert about["fsync"] == "yes"
    assert "read back over the wire" in about["proof"]
    clock = host.clock()
    assert clock.offset_s is None
    assert 0 < clock.round_trip_s < 5
