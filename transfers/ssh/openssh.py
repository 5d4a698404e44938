"""The OpenSSH client as a way to a far host: it knows the site's configuration, jump hosts, agents and tickets.

What Stager must not leave to that configuration is said on the command line, where it comes first: host keys are
checked strictly and never learned, nobody is asked anything, nothing is forwarded.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from transfers.agent import Buffer, write_parts
from transfers.errors import Congested, HostDown, Refused, TransferError, Transient, Unsupported, shown
from transfers.ssh.channels import Channel, Login

OPTIONS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "UpdateHostKeys=no",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "Tunnel=no",
    "PermitLocalCommand=no",
    "RemoteCommand=none",
    "ControlMaster=no",  # each stream has a connection of its own, so that several processors cipher
    "ControlPath=none",
    "EscapeChar=none",
    "LogLevel=INFO",
)
KEEP_ALIVE_S = 15  # whole seconds between questions whether the host is still there, when it says nothing
UNANSWERED = 4  # of them, one after the other: it is gone
UNSPEAKABLE = re.compile(r'["\\\0-\x1f]|\$\{')  # in a path
AES_FIRST = "Ciphers=^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
PIPE_BYTES = 1 << 20
TAIL_BYTES = 8192  # of standard error that are kept

UNKNOWN_KEY = (
    "the host's key is not known here, so the connection was ended before anything was said: ask its owner for the "
    "key's fingerprint, compare it with `ssh-keyscan HOST | ssh-keygen -lf -`, then add the key to the known_hosts file"
)
CHANGED_KEY = (
    "the host shows another key than the one that is known: somebody may stand in between, or it was set up anew. Ask "
    "its owner for the new fingerprint; only if it is this one, take the old key out with `ssh-keygen -R HOST` and add "
    "the new one"
)
LOGIN_REFUSED = "the host did not let us in: see that our public key is in its authorized_keys, and the user is right"

# What the client says when it ends, most telling first: pattern, error, the sentence that goes before its own words.
# The far shell's complaints stand beside the client's own, so that a pattern must be one of ssh's whole phrases.
ENDINGS: tuple[tuple[str, type[TransferError], str], ...] = (
    ("HOST IDENTIFICATION HAS CHANGED|[Hh]ost key for .* has changed|is marked as revoked", Refused, CHANGED_KEY),
    ("Host key verification failed|[Nn]o .* host key is known", Refused, UNKNOWN_KEY),
    (r"Permission denied \([\w,-]+\)|Too many authentication failures", Refused, LOGIN_REFUSED),
    ("Unable to negotiate|no matching .* found", Refused, "the two sides have no method in common"),
    (
        r"[Bb]ad configuration option|terminating, \d+ bad|Bad owner or permissions on|command-line: line \d+: ",
        Refused,
        "ssh is set up wrongly",
    ),
    ("Could not resolve", HostDown, "the host's name is not known to this machine"),
    ("Connection refused", HostDown, "nothing listens there"),
    ("timed out|Timeout, server|[Cc]onnection timeout", HostDown, "the host does not answer"),
    ("No route to host|Network is unreachable|Network is down", HostDown, "there is no way to the host"),
    ("MaxStartups|exchange_identification", Congested, "the host ended the connection before it began"),
    ("Connection (closed|reset) by|Broken pipe|Connection to .* closed", Transient, "the connection broke off"),
)
# What ssh says at length of a changed key, and we have said in the sentence before.
LECTURE = re.compile("@|IT IS POSSIBLE|Someone could be|It is also possible|Please contact|Add correct host key")
AFTER_LOGIN = (HostDown, Transient)  # what a connection that had come about can end with


class OpenSSHClient:
    """Begins programs on one host by the `ssh` command."""

    name = "openssh"

    def __init__(self, host_name: str, login: Login, program: str = "ssh") -> None:
        self.host_name = host_name
        self.login = login
        self.program = program

    def run(self, command: str) -> Channel:
        return OpenSSHChannel(self, [*self.arguments, *self._cipher, *self._destination, command])

    @property
    def arguments(self) -> list[str]:
        """The command line up to the destination. Nothing in it is secret: a key is named by its file."""
        login = self.login
        options = [*OPTIONS, f"ServerAliveInterval={KEEP_ALIVE_S}", f"ServerAliveCountMax={UNANSWERED}"]
        options.append(f"ConnectTimeout={max(1, round(login.connect_s))}")
        if login.identity:
            options += [f"IdentityFile={self._quoted(login.identity)}", "IdentitiesOnly=yes"]
        if login.known_hosts:
            options += [f"UserKnownHostsFile={self._quoted(login.known_hosts)}", "GlobalKnownHostsFile=/dev/null"]
        if login.user:
            options.append(f"User={login.user}")
        if login.port:
            options.append(f"Port={login.port}")
        return [self.program, "-T", "-x", "-a", *(part for option in options for part in ("-o", option))]

    def _quoted(self, path: str) -> str:
        """A path as the configuration's syntax wants it: in quotes; its % signs are no tokens.

        Refused for one that the syntax has no spelling for in every version of the client.
        """
        if UNSPEAKABLE.search(path):
            text = f"ssh cannot be told the path {path!r}: no quotes, backslashes, ${{...}} or newlines"
            raise Refused(text, host=self.host_name, side="local", phase="connect")
        return '"' + path.replace("%", "%%") + '"'

    @property
    def _destination(self) -> tuple[str, str]:
        return ("--", self.login.address)

    @cached_property
    def _cipher(self) -> tuple[str, ...]:
        """AES-GCM first where this processor has AES and the site's configuration says nothing of ciphers."""
        if not _processor_has_aes():
            return ()
        asked = self._configured([*self.arguments[1:], *self._destination])
        default = self._configured(["-F", "none", "localhost"])
        return ("-o", AES_FIRST) if asked and asked == default else ()

    def _configured(self, arguments: list[str]) -> str | None:
        """The ciphers that the client would offer, as `ssh -G` has them."""
        with suppress(OSError, subprocess.SubprocessError):
            command = [self.program, "-G", *arguments]
            ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, env=_environment())
            return next((line for line in ended.stdout.splitlines() if line.startswith("ciphers ")), None)
        return None

    @cached_property
    def facts(self) -> dict[str, str]:
        """The host's key, the cipher and the client's version, as a connection of its own tells them."""
        facts = {"client": self.name}
        command = [*self.arguments, *self._cipher, "-v", *self._destination, "exit 0"]
        with suppress(OSError, subprocess.SubprocessError):
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False, env=_environment()
            )
            said = ended.stderr.decode("utf-8", "replace")
            for name, pattern in (
                ("key", r"Server host key: (\S+ SHA256:\S+)"),
                ("cipher", r"kex: client->server cipher: (\S+)"),
                ("version", r"^(OpenSSH_[^,\s]+)"),
            ):
                if found := re.findall(pattern, said, re.MULTILINE):
                    facts[name] = shown(found[-1])  # the last: a jump host's come first
            if "version" in facts:
                facts["client"] = f"openssh ({facts.pop('version')})"
        return facts


def _environment() -> dict[str, str]:
    """The environment without what could ask a person, and with messages that can be read by a program."""
    kept = {name: value for name, value in os.environ.items() if name not in ("SSH_ASKPASS", "DISPLAY")}
    return kept | {"LC_ALL": "C", "SSH_ASKPASS_REQUIRE": "never"}


def _processor_has_aes() -> bool:
    """Whether the processor has instructions for AES, from a file that a hardened service may read (/proc/cpuinfo is
    hidden from one): features by number, arch/x86/include/asm/cpufeatures.h (4 * 32 + 25) and asm/hwcap.h (3)."""
    with suppress(OSError):
        modalias = Path("/sys/devices/system/cpu/modalias").read_text("ascii", "replace").strip()
        of_type = {"x86": "0099", "aarch64": "0003"}.get(
            modalias.removeprefix("cpu:type:").partition(":")[0].partition(",")[0]
        )
        return of_type in modalias.rpartition(":feature:")[2].split(",")
    return False


class OpenSSHChannel:
    """One `ssh` process: its pipes are the channel."""

    def __init__(self, client: OpenSSHClient, command: list[str]) -> None:
        self._client = client
        self._host = client.host_name
        if shutil.which(command[0]) is None:
            raise Unsupported(f"there is no program {command[0]} on this machine", host=self._host, side="local")
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=_environment(),
                start_new_session=True,  # no terminal to ask at; Ctrl-C is for Stager alone
            )
        except OSError as error:
            raise Congested(
                f"ssh could not be started: {error.strerror}",
                host=self._host,
                side="local",
                phase="connect",
                errno=error.errno,
            ) from error
        assert self._process.stdin
        assert self._process.stdout
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._in, self._out):
            with suppress(OSError):  # a user's pipes may have reached their limit
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._lock = threading.Lock()
        self._users = 0
        self._killed = False
        self._heard = False  # something came: the host let us in
        self._tail = bytearray()
        self._listener = threading.Thread(target=self._listen, name="ssh-stderr", daemon=True)
        self._listener.start()

    def write(self, *parts: Buffer) -> None:
        try:
            with self._in_use():
                write_parts(self._in, *parts)
        except OSError as error:
            raise self.ended() from error

    def read_into(self, view: memoryview) -> int:
        try:
            with self._in_use():
                count = os.readv(self._out, [view])
        except OSError as error:
            raise self.ended() from error
        self._heard = self._heard or count > 0
        return count

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        """The pipes stay open while somebody is at them: a number that is closed may be another file's by then."""
        with self._lock:
            if self._killed:
                raise BrokenPipeError
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._killed and not self._users:
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):
                    if pipe:
                        pipe.close()

    def kill(self) -> None:
        with self._lock:
            if self._killed:
                return
            self._killed = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join(5)
        with self._lock:
            self._close_if_unused()

    def ended(self) -> TransferError:
        """The client's last words, and what they mean."""
        try:
            status = self._process.wait(0 if self._killed else 10)
        except subprocess.TimeoutExpired:
            return Transient("the channel was closed, ssh goes on", host=self._host, side="route", phase="channel")
        self._listener.join(5)
        said = _last_lines(self._tail)
        if self._killed and status < 0:
            return Transient("the channel was ended from here", host=self._host, side="route", phase="channel")
        if status == 255:
            return self._client_error(said)
        return self._far_error(status, said)

    def _client_error(self, said: str) -> TransferError:
        other = (Transient, "the connection ended, or the program there was killed")  # ssh tells them apart by nothing
        endings = [ending for ending in ENDINGS if not self._heard or ending[1] in AFTER_LOGIN]
        kind, sentence = next((ending[1:] for ending in endings if re.search(ending[0], said)), other)
        side = "route" if kind in (HostDown, Congested, Transient) else ""
        phase = "channel" if self._heard else "connect"
        return kind(f"{sentence}. ssh said: {said or 'nothing'}", host=self._host, side=side, phase=phase)

    def _far_error(self, status: int, said: str) -> TransferError:
        how = f"by signal {status - 128}" if 128 < status < 160 else f"with status {status}"
        what = f"the ssh client was killed by signal {-status}" if status < 0 else f"the program there ended {how}"
        text, facts = f"{what}; it said: {said or 'nothing'}", {"status": status}
        return Transient(text, host=self._host, side="route", phase="channel", facts=facts)

    def is_open(self) -> bool:
        return not self._killed and self._process.poll() is None

    def about(self) -> dict[str, str]:
        return self._client.facts

    def _listen(self) -> None:
        """Read standard error to its end and keep the last of it: however much comes, nobody is held up by it."""
        stderr = self._process.stderr
        assert stderr
        with suppress(OSError, ValueError):
            while data := os.read(stderr.fileno(), 1 << 16):
                self._tail = (self._tail + data)[-TAIL_BYTES:]
        stderr.close()


def _last_lines(tail: bytes | bytearray) -> str:
    """The last lines of what was said, fit for people."""
    said = (line.strip() for line in tail.decode("utf-8", "replace").splitlines())
    lines = [shown(line) for line in said if line and not LECTURE.match(line)]
    return "; ".join(lines[-12:])[-1500:]
