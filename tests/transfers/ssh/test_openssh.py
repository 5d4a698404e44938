"""The OpenSSH client: strict about who the host is, clear about why it ended, and nothing of ours given away."""

from __future__ import annotations

import os
import signal
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
from transfers.ssh import openssh
from transfers.ssh.channels import Channel, Login
from transfers.ssh.openssh import OpenSSHChannel, OpenSSHClient


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """No thread, descriptor or process of a channel outlives its test."""
    before = threads(), descriptors(), clients()
    yield
    until(lambda: added(before) == (0, 0, []), lambda: added(before))


def added(before: tuple[int, int, list[int]]) -> tuple[int, int, list[int]]:
    """What there is now and was not before; what an earlier test left may have gone meanwhile."""
    new = [pid for pid in clients() if pid not in before[2]]
    return max(0, threads() - before[0]), max(0, descriptors() - before[1]), new


def threads() -> int:
    return len([thread for thread in threading.enumerate() if thread.name.startswith("ssh-")])


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  its own descriptor counts both times


def clients() -> list[int]:
    """The ssh processes that this process began, zombies too."""
    me, found = os.getpid(), []
    for folder in Path("/proc").iterdir():
        try:
            name, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if name == "ssh" and int(rest.split()[1]) == me:
            found.append(int(folder.name))
    return sorted(found)


def client(login: Login) -> OpenSSHClient:
    return OpenSSHClient("there", login)


def output_of(channel: Channel) -> bytes:
    """All that the program says, to its end; the channel is killed then."""
    view, data = memoryview(bytearray(1 << 20)), b""
    try:
        while count := channel.read_into(view):
            data += view[:count]
        channel.ended()
    finally:
        channel.kill()
    return data


def ending(login: Login, command: str = "exit 0") -> TransferError:
    """Why a channel ended that said nothing."""
    channel = client(login).run(command)
    try:
        assert channel.read_into(memoryview(bytearray(100))) == 0
        return channel.ended()
    finally:
        channel.kill()


def nobody_logged_in(sshd: Sshd) -> bool:
    return not any(word in sshd.log() for word in ("Accepted", "Failed", "Postponed", "userauth"))


def test_program_is_run_and_spoken_to(sshd: Sshd) -> None:
    channel = client(sshd.login()).run("cat")
    data = os.urandom(3 << 20)
    writing = threading.Thread(target=channel.write, args=(data,))
    writing.start()
    view, at = memoryview(bytearray(len(data))), 0
    while at < len(data):
        at += channel.read_into(view[at:])
    writing.join()
    assert view == data
    channel.kill()
    channel.kill()


def test_facts_name_key_cipher_and_version(sshd: Sshd) -> None:
    channel = client(sshd.login()).run("cat")
    about = channel.about()
    assert about["client"].startswith("openssh (OpenSSH_")
    assert about["key"] == f"ssh-ed25519 {sshd.host_key_fingerprint}"
    assert about["cipher"]
    channel.kill()


def test_program_that_fails_says_its_status_and_last_words(sshd: Sshd) -> None:
    error = ending(sshd.login(), "printf 'it\\033[2Jbroke' >&2; exit 3")
    assert isinstance(error, Transient)
    assert (error.host, error.side, error.facts) == ("there", "route", {"status": 3})
    assert "status 3; it said: it\\x1b[2Jbroke" in str(error)


def test_program_that_is_killed_says_so(sshd: Sshd) -> None:
    error = ending(sshd.login(), "kill -9 $$")
    assert isinstance(error, Transient)
    assert "the program there was killed" in error.text


def test_flood_on_standard_error_neither_blocks_nor_fills_memory(sshd: Sshd) -> None:
    channel = client(sshd.login()).run("head -c 300000000 /dev/zero >&2; echo last words >&2; echo done")
    assert isinstance(channel, OpenSSHChannel)
    view = memoryview(bytearray(100))
    assert bytes(view[: channel.read_into(view)]) == b"done\n"
    assert channel.read_into(view) == 0
    assert "last words" in str(channel.ended())
    assert len(channel._tail) <= openssh.TAIL_BYTES
    channel.kill()


# Who the host is, and whether it lets us in.


def test_unknown_key_ends_it_before_authentication(make_sshd: Callable[..., Sshd], tmp_path: Path) -> None:
    sshd = make_sshd()
    (tmp_path / "none").write_text("")
    error = ending(sshd.login(known_hosts=str(tmp_path / "none")))
    assert isinstance(error, Refused)
    assert (error.host, error.phase) == ("there", "connect")
    assert "ssh-keyscan" in error.text
    assert nobody_logged_in(sshd)
    assert (tmp_path / "none").read_text() == "", "nothing is learned"


def test_changed_key_ends_it_before_authentication(make_sshd: Callable[..., Sshd]) -> None:
    sshd = make_sshd()
    known = Path(sshd.known_hosts).read_bytes()
    sshd.change_host_key()
    error = ending(sshd.login())
    assert isinstance(error, Refused)
    assert "ssh-keygen -R" in error.text
    assert "stand in between" in error.text
    assert nobody_logged_in(sshd)
    assert Path(sshd.known_hosts).read_bytes() == known, "nothing is learned"


def test_lost_client_key_is_refused(make_sshd: Callable[..., Sshd]) -> None:
    sshd = make_sshd()
    sshd.forget_client_key()
    error = ending(sshd.login())
    assert isinstance(error, Refused)
    assert "authorized_keys" in error.text


def test_encrypted_key_without_an_agent_is_refused_and_nobody_is_asked(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, asked = tmp_path / "key", tmp_path / "asked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "planted-passphrase", "-f", key], check=True)
    (tmp_path / "askpass").write_text(f"#!/bin/sh\ntouch {asked}\necho planted-passphrase\n")
    (tmp_path / "askpass").chmod(0o755)
    monkeypatch.setenv("SSH_ASKPASS", str(tmp_path / "askpass"))
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    begun = time.monotonic()
    assert isinstance(ending(sshd.login(identity=str(key))), Refused)
    assert time.monotonic() - begun < LATE_S
    assert not asked.exists()


@pytest.mark.parametrize(
    ("line", "kind"),
    [("Ciphers aes256-cbc", Refused), ("BadOption yes", Refused)],
    ids=["no method in common", "ssh set up wrongly"],
)
def test_what_a_person_must_put_right_is_refused(
    make_sshd: Callable[..., Sshd], monkeypatch: pytest.MonkeyPatch, line: str, kind: type[TransferError]
) -> None:
    option = line.replace(" ", "=")
    monkeypatch.setattr(openssh, "OPTIONS", (*openssh.OPTIONS, option))
    sshd = make_sshd(lines=["Ciphers aes128-ctr"])
    assert isinstance(ending(sshd.login()), kind)


# Whether it is there.


def test_nothing_listens(sshd: Sshd) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        error = ending(sshd.login(port=free.getsockname()[1]))
    assert isinstance(error, HostDown)
    assert error.side == "route"


def test_name_that_is_unknown(sshd: Sshd) -> None:
    assert isinstance(ending(sshd.login(address="no-such-host.invalid")), HostDown)


def test_host_that_never_answers_is_down_in_time(sshd: Sshd) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        begun = time.monotonic()
        error = ending(sshd.login(port=mute.getsockname()[1], connect_s=1))
    assert isinstance(error, HostDown)
    assert time.monotonic() - begun < LATE_S


def test_what_speaks_no_ssh_is_an_error_of_the_route(sshd: Sshd) -> None:
    with socket.socket() as web:
        web.bind(("127.0.0.1", 0))
        web.listen()

        def serve() -> None:
            taken, _ = web.accept()
            with taken:
                taken.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 3)
                taken.settimeout(LATE_S)
                taken.recv(100)

        serving = threading.Thread(target=serve)
        serving.start()
        error = ending(sshd.login(port=web.getsockname()[1], connect_s=LATE_S))
        serving.join()
    assert isinstance(error, Congested | HostDown | Transient)
    assert error.side == "route"


def test_too_many_who_log_in_is_congested(make_sshd: Callable[..., Sshd]) -> None:
    sshd = make_sshd(max_startups="1:100:1")
    with socket.create_connection((sshd.address, sshd.port)) as first:
        first.recv(100)
        assert isinstance(ending(sshd.login()), Congested)
    until(lambda: sshd.sessions() == [])
    assert output_of(client(sshd.login()).run("echo hello")) == b"hello\n"


def test_complaints_of_the_far_shell_are_not_taken_for_the_clients_own(make_sshd: Callable[..., Sshd]) -> None:
    """A start-up file that says "Permission denied", and a connection that breaks: nothing for a person to do."""
    sshd = make_sshd()
    says = "echo 'bash: line 3: /x: Permission denied'; echo 'bash: Connection timed out'; echo 'Bad owner'"
    for out in ("", "echo hello; "):
        channel = client(sshd.login()).run(f"{out}({says}) >&2; exec sleep 600")
        assert isinstance(channel, OpenSSHChannel)
        until(lambda channel=channel: b"Bad owner" in channel._tail)
        if out:
            channel.read_into(memoryview(bytearray(100)))
        assert sshd.kill_sessions() == 1
        assert channel.read_into(memoryview(bytearray(100))) == 0
        assert type(channel.ended()) in {Transient, HostDown}
        channel.kill()


# What ends it from here.


@pytest.mark.parametrize("busy", ["read", "write"])
def test_kill_unblocks_who_reads_and_who_writes(sshd: Sshd, busy: str) -> None:
    channel = client(sshd.login()).run("sleep 600")
    ended: list[object] = []

    def work() -> None:
        try:
            if busy == "read":
                ended.append(channel.read_into(memoryview(bytearray(100))))
            else:
                channel.write(bytes(64 << 20))
        except TransferError as error:
            ended.append(error)

    working = threading.Thread(target=work)
    working.start()
    time.sleep(0.5)
    channel.kill()
    working.join(LATE_S)
    assert not working.is_alive()
    assert ended == [0] or isinstance(ended[0], Transient)


def test_client_that_is_killed_is_transient(sshd: Sshd) -> None:
    channel = client(sshd.login()).run("echo hello; sleep 600")
    view = memoryview(bytearray(100))
    channel.read_into(view)
    (pid,) = clients()
    os.kill(pid, signal.SIGKILL)
    assert channel.read_into(view) == 0
    error = channel.ended()
    assert isinstance(error, Transient)
    assert "killed by signal 9" in error.text
    channel.kill()


def test_no_client_on_this_machine_is_unsupported(sshd: Sshd, tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as raised:
        OpenSSHClient("there", sshd.login(), str(tmp_path / "no-ssh")).run("true")
    assert raised.value.side == "local"


# What could be executed, or given away.


@pytest.mark.parametrize(
    "address",
    [
        "-oProxyCommand=touch x",
        "-oProxyCommand=touch\tx",
        "",
        " ",
        "a b",
        "a;touch x",
        "$(touch x)",
        "a\nb",
        "`x`",
        "-F/x",
    ],
)
def test_address_that_is_an_option_or_a_command_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        Login(address)


@pytest.mark.parametrize("user", ["-oProxyCommand=x", "", "a b", "a;b", "$(x)", "a\nb", "-l", "a'b"])
def test_user_that_is_an_option_or_a_command_is_no_user(user: str) -> None:
    with pytest.raises(ValueError, match="is no user"):
        Login("host", user=user)


@pytest.mark.parametrize(
    "name", ["with space", "100%h %d", "it's", "a=b", "#x", "-rf", "$HOME", "ümlaut", "a;b&c", "*?"]
)
def test_paths_of_keys_are_taken_as_they_are(sshd: Sshd, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for path in (sshd.identity, sshd.known_hosts):
        (folder / Path(path).name).write_bytes(Path(path).read_bytes())
    (folder / "client_key").chmod(0o600)
    login = sshd.login(identity=str(folder / "client_key"), known_hosts=str(folder / "known_hosts"))
    assert output_of(client(login).run("echo hello")) == b"hello\n"


@pytest.mark.parametrize("name", ['a"b', "a\\b", "${HOME}x", "a\nb", 'x" ProxyCommand="touch y'])
@pytest.mark.parametrize("which", ["identity", "known_hosts"])
def test_paths_that_ssh_cannot_be_told_are_refused(sshd: Sshd, tmp_path: Path, name: str, which: str) -> None:
    with pytest.raises(Refused, match="cannot be told the path") as raised:
        client(sshd.login(**{which: str(tmp_path / name)})).run("true")
    assert raised.value.side == "local"
    assert str(raised.value).isprintable()


def test_process_table_holds_no_secret(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_ASKPASS", "/bin/false")
    channel = client(sshd.login()).run("cat")
    channel.write(b"x")
    channel.read_into(memoryview(bytearray(1)))
    (pid,) = clients()
    told = Path(f"/proc/{pid}/cmdline").read_bytes()
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    secret = "".join(Path(sshd.identity).read_text().splitlines()[1:-1]).encode()
    for piece in (secret[at : at + 20] for at in range(0, len(secret) - 20, 20)):
        assert piece not in told + environment
    assert sshd.identity.encode() in told
    options = told.split(b"\0")
    for option in (b"BatchMode=yes", b"StrictHostKeyChecking=yes", b"ForwardAgent=no", b"ForwardX11=no"):
        assert option in options
    assert b"SSH_ASKPASS=" not in environment
    channel.kill()


def test_configuration_of_the_site_cannot_loosen_what_matters(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ssh takes the first value that it is told: ours. What a site may say besides (an alias) goes on working."""
    touched = tmp_path / "touched"
    config = tmp_path / "config"
    config.write_text(
        f"Host site-alias\n HostName {sshd.address}\n"
        "Host *\n StrictHostKeyChecking no\n ForwardAgent yes\n ForwardX11 yes\n BatchMode no\n"
        f" PermitLocalCommand yes\n LocalCommand touch {touched}\n RemoteCommand false\n EscapeChar ~\n"
        " RequestTTY force\n"
    )
    monkeypatch.setattr(OpenSSHClient, "arguments", property(with_config(str(config))))
    login = sshd.login(address="site-alias")
    name = f"[{sshd.address}]:{sshd.port}"
    assert name in Path(sshd.known_hosts).read_text()
    assert output_of(client(login).run("echo hello; printf '~.\\n'")) == b"hello\n~.\n"
    assert not touched.exists()
    empty = tmp_path / "empty"
    empty.write_text("")
    assert isinstance(ending(sshd.login(address="site-alias", known_hosts=str(empty))), Refused)
    assert empty.read_text() == ""


def with_config(path: str) -> Callable[[OpenSSHClient], list[str]]:
    """The command line with another file for the user's configuration."""
    plain = OpenSSHClient.arguments.fget
    assert plain is not None
    return lambda client: [*plain(client), "-F", path]
