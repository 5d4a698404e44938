"""A real sshd on a free port of 127.0.0.1, with keys, configuration, log and far home of its own.

    with Sshd.start(folder, max_startups="2:100:2") as sshd:
        subprocess.run(["ssh", "-F", sshd.config, sshd.alias, "true"], check=True)

It runs as whoever runs the tests, root or not, and lets in that user alone, by one key. The far side's HOME is a folder
of its own, so that no start-up file of the real one is read; only the directory a command begins in is the real home.
What it may be asked to be is in Variant. Stopped, it leaves no process: no session, nothing that a session began.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import pwd
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.waiting import LATE_S
from transfers.ssh.channels import Login

SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
FAR_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
# What remains on the PATH of a far side without Python: enough for a shell, and for the wrapper below.
PROGRAMS = (
    "cat cp dd df env false head id ls mkdir mv printf pwd rm rsync sh sha256sum sleep stat sync tr true uname yes"
)
SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/lib/ssh/sftp-server")
# Below the ports that the kernel hands out by itself: between stop and start nobody else is given ours.
PORTS = range(12000, 32000)
START_S = LATE_S


class Broken(Exception):
    """sshd does not start; the text has its own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """How this server differs from a plain one that runs any command and speaks SFTP."""

    program: str | None = None  # the sshd; default STAGER_TEST_SSHD, or the one installed
    host_key: str = "ed25519"  # the only type of its host key: ed25519, rsa, ecdsa
    sftp_only: bool = False  # ForceCommand internal-sftp
    sftp_read_only: bool = False  # the same with -R
    forced_command: str | None = None  # authorized_keys: restrict,command="..."
    max_startups: str = "200"  # no connection is dropped unless a test asks for it
    max_sessions: int = 10  # channels in one connection
    banner: str | None = None  # sent before authentication
    no_python: bool = False  # no python3 on the far PATH
    python: str | None = None  # this Python is the far PATH's python3
    noise: bytes = b""  # what the start-up files print before each command
    garbage: int = 0  # so many random bytes after that
    err_bytes: int = 0  # so many bytes on stderr before the command begins
    slow_s: float = 0.0  # the start-up files take so long
    lines: Sequence[str] = ()  # more lines of sshd_config, which win over ours

    def wraps(self) -> bool:
        """Whether a wrapper script plays the start-up files."""
        return bool(self.noise or self.garbage or self.err_bytes or self.slow_s)


class Sshd:
    """One server; made by `start`, ended by `stop` or the end of its `with`."""

    address = "127.0.0.1"
    alias = "far"  # the name that `config` gives it

    def __init__(self, folder: Path, variant: Variant) -> None:
        self.folder = folder.resolve()
        self.variant = variant
        self.program = variant.program or installed()
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.home = self.folder / "home"
        self.identity = str(self.folder / "client_key")
        self.known_hosts = str(self.folder / "known_hosts")
        self.config = str(self.folder / "ssh_config")
        self.port = 0
        self._listener: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, folder: Path, **variant: Any) -> Self:
        """A server that listens, with all its files in the folder (made if missing).

        Broken when sshd is missing or ends at once; TypeError for a variant that there is not.
        """
        sshd = cls(folder, Variant(**variant))
        sshd.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_key(folder / "host_key", sshd.variant.host_key)
        _make_key(Path(sshd.identity), "ed25519")
        sshd.remember_client_key()
        _far_files(sshd.folder, sshd.variant)
        for last in (False, False, False, True):
            sshd.port = _free_port()
            try:
                sshd._listen()
                break
            except Broken as error:  # somebody was faster, or it cannot be
                if last or "Address already in use" not in str(error):
                    raise
        sshd.trust_host_key()
        Path(sshd.config).write_text(sshd._client_config(sshd.port, sshd.known_hosts))
        return sshd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    # ------------------------------------------------------------------------------ how it is reached

    def login(self, **other: Any) -> Login:
        """How Stager reaches it. With another `port`, a proxy's, the host key is known for that one too."""
        port = other.get("port") or self.port
        known = self.known_hosts if port == self.port else self.known_hosts_for(port)
        own: dict[str, Any] = {"address": self.address, "user": self.user, "port": port, "identity": self.identity}
        return Login(**(own | {"known_hosts": known} | other))

    def known_hosts_for(self, port: int) -> str:
        """A known_hosts file in which the host key belongs to another port, a proxy's in front of this server."""
        path = self.folder / f"known_hosts.{port}"
        path.write_text(self._known(port))
        return str(path)

    def config_for(self, port: int) -> str:
        """An ssh_config whose alias leads through another port, a proxy's in front of this server."""
        path = self.folder / f"ssh_config.{port}"
        path.write_text(self._client_config(port, self.known_hosts_for(port)))
        return str(path)

    @property
    def host_key_fingerprint(self) -> str:
        """Of the key it has now, as ssh-keygen -l and `about()` write it."""
        blob = base64.b64decode((self.folder / "host_key.pub").read_text().split()[1])
        return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")

    def log(self) -> str:
        """All that sshd has said, since the first start."""
        return (self.folder / "sshd.log").read_text(errors="replace")

    # --------------------------------------------------------------------------- what is done to it

    def change_host_key(self) -> None:
        """Another host key, as after a new installation, or as somebody in between would have; known_hosts stays."""
        self.stop()
        _make_key(self.folder / "host_key", self.variant.host_key)
        self._listen()

    def trust_host_key(self) -> None:
        """Put the present host key into known_hosts, in place of what is there."""
        Path(self.known_hosts).write_text(self._known(self.port))

    def forget_client_key(self) -> None:
        """Our key is lost there: from now on nobody is let in."""
        (self.folder / "authorized_keys").write_text("")

    def remember_client_key(self) -> None:
        key = Path(f"{self.identity}.pub").read_text()
        forced = (self.variant.forced_command or "").replace('"', '\\"')
        (self.folder / "authorized_keys").write_text(f'restrict,command="{forced}" {key}' if forced else key)

    def restart(self) -> None:
        """Stopped with all its sessions, and started again on the same port."""
        self.stop()
        self._listen()

    def stop(self) -> None:
        """End it, its sessions and all that these began. Called twice, it does nothing."""
        if self._listener is not None:
            self._listener.send_signal(signal.SIGSTOP)  # so that nothing is accepted behind our back
            _kill([*_freeze(self.sessions()), self._listener.pid, *self._strays()])
            self._listener.wait()
            self._listener = None
        if self._watch is not None:
            self._watch.kill()
            self._watch.communicate()
            self._watch = None

    # ---------------------------------------------------------------------------------- its processes

    @property
    def pid(self) -> int:
        """The process that listens."""
        assert self._listener is not None, "it is stopped"
        return self._listener.pid

    def sessions(self) -> list[int]:
        """A process for each connection that is open now, logged in or not."""
        return [pid for pid, one in _processes().items() if one.parent == self.pid]

    def commands(self) -> list[int]:
        """The programs that sessions are running now: all that is below them and is not sshd."""
        table = _processes()
        return [pid for pid in _below(self.sessions(), table) if not table[pid].name.startswith("sshd")]

    def kill_sessions(self) -> int:
        """SIGKILL for every connection and all that it runs, as a far machine that dies; how many there were."""
        sessions = self.sessions()
        _kill(_freeze(sessions))
        return len(sessions)

    def silence(self) -> int:
        """Stop every connection and all that it runs, as a far machine that hangs; how many processes there were.

        All of them: where sshd does not run as root, a child of the session answers for it.
        """
        return len(_freeze(self.sessions()))

    def kill_commands(self) -> int:
        """SIGKILL for the far programs alone, as out of memory there; how many there were."""
        commands = self.commands()
        _kill(commands)
        return len(commands)

    def _strays(self) -> list[int]:
        """What sessions began and nobody waits for: found by the environment that this server gave."""
        mark = f"SSHD_FOLDER={self.folder}\0".encode()
        return [pid for pid in _processes() if mark in _environ(pid)]

    def _listen(self) -> None:
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # to which it confines what is not logged in yet
        config, log = self.folder / "sshd_config", self.folder / "sshd.log"
        config.write_text(self._server_config())
        begin = log.stat().st_size if log.exists() else 0
        self._listener = subprocess.Popen(
            [self.program, "-D", "-f", config, "-E", log],
            env={"PATH": FAR_PATH},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # A test run that is killed closes this pipe, and the server goes with it.
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -9 "$0"', str(self._listener.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._wait_until_it_listens(log, begin)

    def _wait_until_it_listens(self, log: Path, begin: int) -> None:
        """By its log: a connection to see whether it answers would be a session, and count against MaxStartups."""
        deadline = time.monotonic() + START_S
        while True:
            ended = self._listener is None or self._listener.poll() is not None
            said = log.read_bytes()[begin:].decode(errors="replace") if log.exists() else ""
            if f"Server listening on {self.address} port {self.port}." in said and not ended:
                return
            if ended or time.monotonic() > deadline:
                self.stop()
                raise Broken(f"{self.program} does not listen: {said.strip() or 'it says nothing'}")
            time.sleep(0.002)

    # ------------------------------------------------------------------------------------- its files

    def _server_config(self) -> str:
        variant, folder = self.variant, self.folder
        lines = [
            *variant.lines,
            f"ListenAddress {self.address}:{self.port}",
            f'HostKey "{folder / "host_key"}"',
            "PidFile none",
            "UsePAM no",
            "StrictModes no",  # folders of tests lie in /tmp, where all may write
            "PermitRootLogin prohibit-password",
            f'AuthorizedKeysFile "{folder / "authorized_keys"}"',
            "AuthenticationMethods publickey",
            "PermitUserRC no",
            "UseDNS no",
            "LogLevel VERBOSE",
            f"MaxStartups {variant.max_startups}",
            f"MaxSessions {variant.max_sessions}",
            f'SetEnv "HOME={self.home}" "PATH={_far_path(folder, variant)}" "SSHD_FOLDER={folder}"',
            # The outside program where there is a wrapper, which the start-up files' noise then spoils, as it does.
            f"Subsystem sftp {_sftp_server() if variant.wraps() else 'internal-sftp'}",
        ]
        if variant.sftp_only or variant.sftp_read_only:
            lines.append("ForceCommand internal-sftp" + " -R" * variant.sftp_read_only)
        elif variant.wraps():
            lines.append(f"ForceCommand {shlex.quote(str(folder / 'wrapper'))}")
        if variant.banner is not None:
            lines.append(f'Banner "{folder / "banner"}"')
        if _version(self.program) >= (9, 8):
            lines.append("PerSourcePenalties no")  # all tests come from one address, and some fail to log in
        return "\n".join(lines) + "\n"

    def _client_config(self, port: int, known_hosts: str) -> str:
        lines = [
            f"Host {self.alias}",
            f"HostName {self.address}",
            f"Port {port}",
            f"User {self.user}",
            f'IdentityFile "{self.identity}"',
            "IdentitiesOnly yes",
            "IdentityAgent none",
            f'UserKnownHostsFile "{known_hosts}"',
            "GlobalKnownHostsFile /dev/null",
            "StrictHostKeyChecking yes",
            "UpdateHostKeys no",
            "BatchMode yes",
        ]
        return "\n    ".join(lines) + "\n"

    def _known(self, port: int) -> str:
        kind, key = (self.folder / "host_key.pub").read_text().split()[:2]
        return f"[{self.address}]:{port} {kind} {key}\n"


def installed() -> str:
    """The sshd that STAGER_TEST_SSHD names, or the one installed; Broken when there is none."""
    path = os.environ.get("STAGER_TEST_SSHD") or shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:{SBIN}")
    if not path or not os.access(path, os.X_OK):
        raise Broken(f"{path or 'sshd'} is not installed")
    return str(Path(path).absolute())  # it starts itself again for every connection, and asks for the full path


@functools.cache
def _version(program: str) -> tuple[int, int]:
    said = subprocess.run([program, "-V"], capture_output=True, text=True, check=False)
    found = re.search(r"OpenSSH_(\d+)\.(\d+)", said.stderr + said.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _make_key(path: Path, kind: str) -> None:
    for old in (path, path.with_name(f"{path.name}.pub")):
        old.unlink(missing_ok=True)
    size = ["-b", "2048"] if kind == "rsa" else []
    made = ["ssh-keygen", "-q", "-t", kind, *size, "-N", "", "-C", "stager test", "-f", str(path)]
    subprocess.run(made, check=True, stdin=subprocess.DEVNULL)


def _free_port() -> int:
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _sftp_server() -> str:
    return next((path for path in SFTP_SERVERS if os.access(path, os.X_OK)), "internal-sftp")


# ------------------------------------------------------------------------------------- the far side


def _far_path(folder: Path, variant: Variant) -> str:
    if variant.no_python:
        return str(folder / "bin")
    if variant.python or not shutil.which("python3", path=FAR_PATH):
        return f"{folder / 'bin'}:{FAR_PATH}"
    return FAR_PATH


def _far_files(folder: Path, variant: Variant) -> None:
    bin_ = folder / "bin"
    bin_.mkdir(exist_ok=True)
    if variant.no_python:
        for name in PROGRAMS.split():
            if (found := shutil.which(name, path=FAR_PATH)) and not (bin_ / name).exists():
                (bin_ / name).symlink_to(found)
    else:  # a script: a link to a virtual environment's Python would not find its packages
        _script(bin_ / "python3", f'exec {shlex.quote(variant.python or sys.executable)} "$@"')
    if variant.banner is not None:
        (folder / "banner").write_text(variant.banner)
    (folder / "noise").write_bytes(variant.noise)
    _script(folder / "wrapper", *_start_up(folder, variant), 'exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"')


def _start_up(folder: Path, variant: Variant) -> Iterable[str]:
    """What the start-up files do before a command, as lines of a shell."""
    yield 'cd "$HOME"'
    if variant.slow_s:
        yield f"sleep {variant.slow_s}"
    yield f"cat {shlex.quote(str(folder / 'noise'))}"
    if variant.garbage:
        yield f"head -c {variant.garbage} /dev/urandom"
    if variant.err_bytes:
        yield f"yes 'the start-up files complain of something' | head -c {variant.err_bytes} >&2"


def _script(path: Path, *lines: str) -> None:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


# ---------------------------------------------------------------------------------------- processes


class Process(NamedTuple):
    name: str
    parent: int


def _processes() -> dict[int, Process]:
    """Every process but those that have ended and are not waited for."""
    table = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            head, _, tail = (folder / "stat").read_bytes().decode(errors="replace").rpartition(")")
        except OSError:  # it has just ended
            continue
        state, parent = tail.split()[:2]
        if state not in "ZX":
            table[int(folder.name)] = Process(head.partition("(")[2], int(parent))
    return table


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _below(roots: Iterable[int], table: dict[int, Process]) -> list[int]:
    """Those of the roots that live, and all their descendants."""
    found = [pid for pid in roots if pid in table]
    for above in found:  # grows while it is read
        found += [pid for pid, one in table.items() if one.parent == above and pid not in found]
    return found


def _freeze(roots: Iterable[int]) -> list[int]:
    """Stop the roots and their descendants until no more appear: then none can begin another unseen."""
    roots, frozen = list(roots), list[int]()
    while fresh := [pid for pid in _below(roots, _processes()) if pid not in frozen]:
        _signal(fresh, signal.SIGSTOP)
        frozen += fresh
    return frozen


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _kill(pids: Sequence[int]) -> None:
    """SIGKILL, and wait until they are gone."""
    _signal(pids, signal.SIGKILL)
    deadline = time.monotonic() + START_S
    while not _processes().keys().isdisjoint(pids):
        assert time.monotonic() < deadline, f"some of {pids} do not die"
        time.sleep(0.002)
