"""paramiko as a client: strict about who the host is, clear about who was refused, quick to let go."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sshd import Sshd
from tests.waiting import LATE_S, until
from transfers.errors import Congested, HostDown, Refused, TransferError, Transient, Unsupported
from transfers.ssh.channels import Login
from transfers.ssh.known_hosts import known_name, read_known
from transfers.ssh.paramiko_client import ParamikoChannel, ParamikoClient


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """No thread of a connection outlives its test."""
    before = set(threading.enumerate())
    yield
    until(lambda: set(threading.enumerate()) <= before, lambda: set(threading.enumerate()) - before)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without keys, configuration or agent."""
    (tmp_path / "home/.ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path / "home"


def client(login: Login) -> ParamikoClient:
    return ParamikoClient("there", login)


def refused(login: Login, kind: type[TransferError] = Refused) -> TransferError:
    with pytest.raises(kind) as raised:
        client(login).run("true").kill()
    assert raised.value.host == "there"
    assert raised.value.phase == "connect"
    return raised.value


def output_of(channel: ParamikoChannel) -> bytes:
    """All that the program says, to its end; the channel is killed then."""
    view = memoryview(bytearray(1 << 20))
    data = b""
    while count := channel.read_into(view):
        data += view[:count]
    channel.kill()
    return data


def public_key(path: Path, kind: str = "ed25519") -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def test_program_is_run_and_spoken_to(sshd: Sshd) -> None:
    channel = client(sshd.login()).run("cat")
    data = os.urandom(3 << 20)
    writing = threading.Thread(target=channel.write, args=(data,))
    writing.start()
    view = memoryview(bytearray(len(data)))
    at = 0
    while at < len(data):
        at += channel.read_into(view[at:])
    writing.join()
    assert view == data
    about = channel.about()
    assert about["client"] == "paramiko"
    assert about["key"] == f"ssh-ed25519 {sshd.host_key_fingerprint}"
    assert "gcm" in about["cipher"]
    channel.kill()
    channel.kill()


def test_program_that_fails_says_its_status_and_last_words(sshd: Sshd) -> None:
    channel = client(sshd.login()).run("echo out; printf 'it\\033broke' >&2; exit 3")
    view = memoryview(bytearray(100))
    assert bytes(view[: channel.read_into(view)]) == b"out\n"
    assert channel.read_into(view) == 0
    ended = channel.ended()
    assert isinstance(ended, Transient)
    assert "status 3: it\\x1bbroke" in str(ended)
    channel.kill()


def test_program_that_is_not_there_is_unsupported(sshd: Sshd) -> None:
    channel = client(sshd.login()).run("no-such-program-here")
    assert channel.read_into(memoryview(bytearray(100))) == 0
    assert isinstance(channel.ended(), Unsupported)
    channel.kill()


def test_flood_on_standard_error_neither_blocks_nor_fills_memory(sshd: Sshd) -> None:
    channel = client(sshd.login()).run("head -c 400000000 /dev/zero >&2; echo last words >&2; echo done")
    view = memoryview(bytearray(100))
    assert bytes(view[: channel.read_into(view)]) == b"done\n"
    assert channel.read_into(view) == 0
    channel.ended()
    assert len(channel.tail) <= 8 << 10
    assert channel.tail.endswith(b"last words\n")
    channel.kill()


# Who the host is.


def test_unknown_key_ends_it_before_authentication(make_sshd: Callable[..., Sshd], tmp_path: Path) -> None:
    sshd = make_sshd()
    error = refused(sshd.login(known_hosts=str(tmp_path / "none")))
    assert f"ssh-ed25519 {sshd.host_key_fingerprint}" in error.text
    assert str(tmp_path / "none") in error.text
    assert f"ssh-keyscan -p {sshd.port} {sshd.address}" in error.text
    assert nobody_logged_in(sshd)


def test_changed_key_ends_it_before_authentication(make_sshd: Callable[..., Sshd]) -> None:
    sshd = make_sshd()
    old = sshd.host_key_fingerprint
    sshd.change_host_key()
    error = refused(sshd.login())
    assert old in error.text
    assert sshd.host_key_fingerprint in error.text
    assert "in between" in error.text
    assert nobody_logged_in(sshd)


def nobody_logged_in(sshd: Sshd) -> bool:
    """sshd tells of each key that is offered, and of the user; it heard of neither."""
    until(lambda: "Connection from" in sshd.log())
    time.sleep(0.2)
    log = sshd.log()
    return not any(word in log for word in ("Accepted", "Failed", "Postponed", sshd.user + " from", "publickey"))


def test_known_key_of_one_type_is_asked_for_where_the_host_has_several(
    make_sshd: Callable[..., Sshd], tmp_path: Path
) -> None:
    rsa = public_key(tmp_path / "rsa", "rsa")
    sshd = make_sshd(lines=[f'HostKey "{tmp_path / "rsa"}"'])
    (tmp_path / "known").write_text(f"[{sshd.address}]:{sshd.port} {rsa}\n")
    channel = client(sshd.login(known_hosts=str(tmp_path / "known"))).run("echo hello")
    assert channel.about()["key"].startswith("ssh-rsa SHA256:")
    assert output_of(channel) == b"hello\n"


def test_revoked_key_is_refused_although_it_is_known(sshd: Sshd, tmp_path: Path) -> None:
    line = Path(sshd.known_hosts).read_text()
    (tmp_path / "known").write_text(line + "@revoked * " + line.split(maxsplit=1)[1])
    error = refused(sshd.login(known_hosts=str(tmp_path / "known")))
    assert "@revoked" in error.text


def test_authority_alone_is_said_to_be_out_of_reach(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "known").write_text("@cert-authority " + Path(sshd.known_hosts).read_text())
    assert "@cert-authority" in refused(sshd.login(known_hosts=str(tmp_path / "known"))).text


def test_names_in_known_hosts_are_matched_as_ssh_does(tmp_path: Path) -> None:
    key = public_key(tmp_path / "key")
    file = tmp_path / "known"
    file.write_text(f"[Far.example]:2222 {key}\n*.example,!not.example {key}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True)
    assert "|1|" in file.read_text()
    file.write_text("# a comment\nbroken line\nother ssh-ed25519 !!\n" + file.read_text())
    names = {"far.example": 22, "not.example": 22, "FAR.example": 2222, "other": 22, "f.example": 2222}
    known = {name for name, port in names.items() if read_known([str(file)], known_name(name, port)).keys}
    assert known == {"far.example", "FAR.example"}


# Who we are.


def test_lost_client_key_is_refused_with_its_fingerprint(make_sshd: Callable[..., Sshd]) -> None:
    sshd = make_sshd()
    sshd.forget_client_key()
    error = refused(sshd.login())
    shown = subprocess.run(["ssh-keygen", "-lf", sshd.identity], check=True, capture_output=True, text=True).stdout
    assert shown.split()[1] in error.text
    assert sshd.user in error.text
    assert sshd.identity in error.text


def test_key_file_that_is_missing_or_no_key_is_said(sshd: Sshd, tmp_path: Path) -> None:
    assert "is not there" in refused(sshd.login(identity=str(tmp_path / "none"))).text
    (tmp_path / "text").write_text("a secret that is no key")
    error = refused(sshd.login(identity=str(tmp_path / "text")))
    assert "cannot be used" in error.text
    assert "secret" not in error.text


def test_no_key_at_all_says_what_to_do(sshd: Sshd) -> None:
    assert "name one as identity" in refused(sshd.login(identity=None)).text


def encrypted(sshd: Sshd, path: Path) -> str:
    path.write_bytes(Path(sshd.identity).read_bytes())
    path.chmod(0o600)
    path.with_name(path.name + ".pub").write_bytes(Path(sshd.identity + ".pub").read_bytes())
    change = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "passphrase", "-f", str(path)]
    subprocess.run(change, check=True, capture_output=True)
    return str(path)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A real ssh-agent without keys."""
    path = str(tmp_path / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    until(lambda: Path(path).exists(), "the socket of ssh-agent")
    monkeypatch.setenv("SSH_AUTH_SOCK", path)
    yield path
    process.kill()
    process.wait()


def test_encrypted_key_needs_an_agent_that_holds_it(sshd: Sshd, tmp_path: Path, agent: str) -> None:
    identity = encrypted(sshd, tmp_path / "locked")
    error = refused(sshd.login(identity=identity))
    assert "is encrypted" in error.text
    assert "ssh-add" in error.text
    subprocess.run(["ssh-add", "-q", sshd.identity], check=True)
    assert output_of(client(sshd.login(identity=identity)).run("echo hello")) == b"hello\n"


def test_agent_is_asked_where_no_key_is_named(sshd: Sshd, agent: str) -> None:
    subprocess.run(["ssh-add", "-q", sshd.identity], check=True)
    assert output_of(client(sshd.login(identity=None)).run("echo hello")) == b"hello\n"


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_keys_of_each_kind_open_the_door(make_sshd: Callable[..., Sshd], tmp_path: Path, kind: str) -> None:
    sshd = make_sshd(host_key=kind)
    key = public_key(tmp_path / "key", kind)
    (sshd.folder / "authorized_keys").write_text(key + "\n")
    assert output_of(client(sshd.login(identity=str(tmp_path / "key"))).run("echo hello")) == b"hello\n"


def test_certificate_beside_the_key_opens_the_door(make_sshd: Callable[..., Sshd], tmp_path: Path) -> None:
    authority = public_key(tmp_path / "authority")
    public_key(tmp_path / "key")
    sshd = make_sshd()
    (sshd.folder / "authorized_keys").write_text(f"cert-authority {authority}\n")
    sign = ["ssh-keygen", "-q", "-s", tmp_path / "authority", "-I", "test", "-n", sshd.user, tmp_path / "key.pub"]
    subprocess.run(sign, check=True)
    assert output_of(client(sshd.login(identity=str(tmp_path / "key"))).run("echo hello")) == b"hello\n"


# The site's configuration.


def test_alias_of_the_site_gives_what_the_login_leaves_open(sshd: Sshd, home: Path) -> None:
    (home / ".ssh/more").write_text(f"Host far\n  Port {sshd.port}\n  User {sshd.user}\n")
    (home / ".ssh/config").write_text(
        f"Include more\nHost far\n  HostName {sshd.address}\n  IdentityFile {sshd.identity}\n"
        f"  UserKnownHostsFile {sshd.known_hosts}\nHost *\n  Port 9\n"
    )
    assert output_of(client(Login("far")).run("echo hello")) == b"hello\n"


def test_key_of_the_configuration_that_is_missing_is_passed_over(sshd: Sshd, home: Path, agent: str) -> None:
    (home / ".ssh/config").write_text("Host *\n  IdentityFile ~/.ssh/none\n")
    assert "~" not in refused(sshd.login(identity=None)).text
    subprocess.run(["ssh-add", "-q", sshd.identity], check=True)
    assert output_of(client(sshd.login(identity=None)).run("echo hello")) == b"hello\n"


def test_host_key_alias_is_the_name_that_is_looked_up(sshd: Sshd, home: Path) -> None:
    key = Path(sshd.known_hosts).read_text().split(maxsplit=1)[1]
    (home / ".ssh/known_hosts").write_text(f"the-cluster {key}")
    (home / ".ssh/config").write_text(f"Host {sshd.address}\n  HostKeyAlias the-cluster\n")
    assert output_of(client(sshd.login(known_hosts=None)).run("echo hello")) == b"hello\n"


@pytest.mark.parametrize("line", ["ProxyJump gate", "ProxyCommand nc %h %p", "Include more"])
def test_what_paramiko_cannot_follow_is_unsupported(sshd: Sshd, home: Path, line: str) -> None:
    (home / ".ssh/config").write_text(f"Host {sshd.address}\n  {line}\n")
    assert 'client = "openssh"' in refused(sshd.login(), Unsupported).text


# Hosts that are not there, or too busy.


def test_host_that_is_not_there_is_down(sshd: Sshd) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        refused(sshd.login(port=taken.getsockname()[1]), HostDown)
    assert "cannot be reached" in refused(sshd.login(address="no-such-host.invalid"), HostDown).text


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_speaks_no_ssh_is_down(sshd: Sshd, says: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            taken, _ = server.accept()
            with taken:
                taken.sendall(says)
                taken.recv(1000)
                time.sleep(2 if not says else 0.5)

        answering = threading.Thread(target=answer)
        answering.start()
        refused(sshd.login(port=server.getsockname()[1], connect_s=1), HostDown)
        answering.join()


def test_connection_that_breaks_while_keys_are_exchanged_leaves_no_thread(sshd: Sshd) -> None:
    """Nor does one that waits until the login's time is over, which would keep the process too."""
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            taken, _ = server.accept()
            with taken:
                taken.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                taken.recv(1000)

        hanging_up = threading.Thread(target=hang_up)
        hanging_up.start()
        refused(sshd.login(port=server.getsockname()[1], connect_s=10 * LATE_S), Congested)
        hanging_up.join()
    until(lambda: set(threading.enumerate()) <= before, lambda: set(threading.enumerate()) - before)


def test_host_with_too_many_who_log_in_is_congested(make_sshd: Callable[..., Sshd]) -> None:
    sshd = make_sshd(max_startups="1:100:1")
    with socket.create_connection((sshd.address, sshd.port)) as first:
        first.recv(100)  # it is one that logs in, and takes its time
        refused(sshd.login(), Congested)
    until(lambda: sshd.sessions() == [])
    assert output_of(client(sshd.login()).run("echo hello")) == b"hello\n"


def test_login_without_programs_is_unsupported_or_ends(make_sshd: Callable[..., Sshd]) -> None:
    sshd = make_sshd(sftp_only=True)
    channel = client(sshd.login()).run("echo hello")
    assert b"hello" not in output_of(channel)


# Ends.


@pytest.mark.parametrize("busy", ["reading", "writing"])
def test_kill_unblocks_who_reads_and_who_writes(sshd: Sshd, busy: str) -> None:
    channel = client(sshd.login()).run("sleep 600")
    ends: list[object] = []

    def work() -> None:
        try:
            if busy == "reading":
                ends.append(channel.read_into(memoryview(bytearray(100))))
            else:
                channel.write(bytes(64 << 20))
        except TransferError as error:
            ends.append(error)

    working = threading.Thread(target=work)
    working.start()
    time.sleep(0.5)
    assert working.is_alive()
    channel.kill()
    working.join(LATE_S)
    assert not working.is_alive()
    assert len(ends) == 1


def test_host_that_dies_ends_the_channel(make_sshd: Callable[..., Sshd]) -> None:
    sshd = make_sshd()
    channel = client(sshd.login()).run("sleep 600")
    assert sshd.kill_sessions()
    try:
        assert channel.read_into(memoryview(bytearray(100))) == 0
        error = channel.ended()
    except TransferError as raised:
        error = raised
    assert isinstance(error, Transient | HostDown)
    channel.kill()


def test_host_that_falls_silent_is_down(make_sshd: Callable[..., Sshd], monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped, not ended: TCP goes on acknowledging, and only the keep-alive tells."""
    monkeypatch.setattr("transfers.ssh.paramiko_client.KEEP_ALIVE_S", 1.0)
    sshd = make_sshd()
    channel = client(sshd.login()).run("sleep 600")
    time.sleep(7)  # silent, but answering: that is no reason to end
    assert channel.connection.is_active()
    assert sshd.silence()
    begun = time.monotonic()
    try:
        assert channel.read_into(memoryview(bytearray(100))) == 0
        error = channel.ended()
    except TransferError as raised:
        error = raised
    assert time.monotonic() - begun < LATE_S
    assert isinstance(error, HostDown)
    channel.kill()
