"""SSH by paramiko: where there is no OpenSSH client, or where it was asked for.

The host's key is checked before anything of a login is sent. There are no passwords, no forwarding of an
agent, and none of paramiko's policies for unknown keys. Everything that paramiko raises becomes an error of
the host here.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import paramiko
from paramiko.common import cMSG_GLOBAL_REQUEST

from transfers.errors import Congested, HostDown, Refused, TransferError, Transient, Unsupported, shown
from transfers.hosts import Buffer
from transfers.ssh.channels import Login
from transfers.ssh.config import Route, route_of
from transfers.ssh.keys import Keys
from transfers.ssh.known_hosts import HostKey, Known, known_name, read_known

KEEP_ALIVE_S = 15.0
UNANSWERED = 4  # keep-alives in a row without a word from the host: it is gone
WINDOW = 8 << 20  # bytes that the far side may send before they are read
PACKET = 32 << 10  # what OpenSSH takes at most; larger ones are no faster from it either
KEPT = 8 << 10  # bytes of a program's last words on its standard error
TEXT = 500  # characters of a far text that an error repeats
LAST_WORDS_S = 2.0  # a program's exit status comes after the end of its output

TOO_MANY = ("MaxStartups", "Not allowed at this time")  # what sshd says before it hangs up, if it says anything

# An own logger that says nothing unless it is asked: what paramiko logs as errors, with tracebacks, comes to
# whoever called as an exception.
QUIET = "transfers.paramiko"
logging.getLogger(QUIET).addHandler(logging.NullHandler())
logging.getLogger(QUIET).propagate = False


def quoted(text: str | bytes) -> str:
    """A far side's text, bounded and escaped."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = " ".join(text.split())
    return shown(text if len(text) <= TEXT else text[:TEXT] + "...")


class Connection(paramiko.Transport):  # type: ignore[misc] # paramiko carries no types
    """A transport that prefers what is fast and sound, shows no certificates, and notices a host that is gone."""

    _preferred_ciphers = (
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "aes128-ctr",
        "aes256-ctr",
        "aes192-ctr",
    )
    _preferred_macs = (
        "hmac-sha2-256-etm@openssh.com",
        "hmac-sha2-512-etm@openssh.com",
        "hmac-sha2-256",
        "hmac-sha2-512",
    )

    def __init__(self, sock: socket.socket, key_types: tuple[str, ...]) -> None:
        self._preferred_keys = key_types
        super().__init__(sock, default_window_size=WINDOW, default_max_packet_size=PACKET)
        self.set_log_channel(QUIET)
        self.greeting = ""  # lines before the one that says SSH
        self.farewell = ""  # why the host hung up, if it said so
        self.unanswered = 0
        self.silent = False
        self.closing = threading.Lock()

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """Host key types to ask for. paramiko adds certificates of each, which it cannot check."""
        return tuple(self._preferred_keys)

    def _log(self, level: int, message: str | list[str], *args: object) -> None:
        """Kept quiet, as errors come to the caller; it is the only place where a wrong greeting can be seen."""
        if isinstance(message, str) and message.startswith("Banner: "):
            self.greeting = (self.greeting + message.removeprefix("Banner: ") + " ")[:TEXT]
        if isinstance(message, str) and message.startswith("Disconnect (code"):
            self.farewell = message[:TEXT]
        super()._log(logging.DEBUG, message, *args)

    def keep_alive(self) -> None:
        """Ask to be answered from now on whenever nothing was heard for a while."""
        self.packetizer.set_keepalive(KEEP_ALIVE_S, self._ask)

    def _ask(self) -> None:
        """Runs in the transport's thread; paramiko's own keep-alive takes no note of the answer."""
        if self.unanswered >= UNANSWERED:
            self.silent = True
            self.saved_exception = EOFError()
            self.packetizer.close()
            return
        self.unanswered += 1
        message = paramiko.Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        self._send_message(message)

    def _parse_request_success(self, message: paramiko.Message) -> None:
        self.unanswered = 0
        super()._parse_request_success(message)

    def _parse_request_failure(self, message: paramiko.Message) -> None:
        self.unanswered = 0
        super()._parse_request_failure(message)

    def close(self) -> None:
        """End it at once; its thread is gone when this returns. May be called twice, by several threads."""
        with self.closing:
            with suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread, which reads with a time limit
            if self.is_alive():
                super().close()
            else:
                self.packetizer.close()
            if self.is_alive() and threading.current_thread() is not self:
                self.join(LAST_WORDS_S)
            self.packetizer.complete_handshake()  # else a thread waits for the limit of one that was broken off
            self.sock.close()


class ParamikoChannel:
    """A program on the far side, with a connection of its own."""

    def __init__(self, host_name: str, connection: Connection, channel: paramiko.Channel) -> None:
        self.host_name = host_name
        self.connection = connection
        self.channel = channel
        self.killed = False
        self.tail = b""
        # Standard error shares the channel's window: left unread, it would stop the output.
        self.draining = threading.Thread(target=self._drain, name=f"stderr of {host_name}", daemon=True)
        self.draining.start()

    def write(self, *parts: Buffer) -> None:
        try:
            for part in parts:
                self._send(memoryview(part).cast("B"))
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self.ended() from error

    def _send(self, view: memoryview) -> None:
        while len(view):
            sent = self.channel.send(bytes(view[:PACKET]))
            if sent == 0:
                raise EOFError
            view = view[sent:]

    def read_into(self, view: memoryview) -> int:
        try:
            data = self.channel.recv(len(view))
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise self.ended() from error
        view[: len(data)] = data
        return len(data)

    def ended(self) -> TransferError:
        if self.killed:
            return Transient("stopped", host=self.host_name, side="local", phase="stopped")
        ended = self.channel.status_event.wait(LAST_WORDS_S)
        self.draining.join(LAST_WORDS_S)
        said = f": {quoted(self.tail)}" if self.tail else ""
        status = self.channel.exit_status
        if ended and status >= 0:
            kind = Unsupported if status in {126, 127} else Transient
            text = f"the program there ended with status {status}{said}"
            return kind(text, host=self.host_name, phase="run", facts={"status": status})
        if not self.connection.is_active():
            return broken(self.connection, self.host_name)
        text = "the program there was killed" if ended else "the program there has closed its output"
        return Transient(text + said, host=self.host_name, phase="run")

    def kill(self) -> None:
        self.killed = True
        self.connection.close()
        # Only once the transport is down: paramiko's channel would wait to say goodbye.
        self.channel.close()
        self.draining.join(LAST_WORDS_S)

    def is_open(self) -> bool:
        return not self.killed and not self.channel.closed and self.connection.is_active()

    def about(self) -> dict[str, str]:
        return about(self.connection)

    def _drain(self) -> None:
        try:
            while data := self.channel.recv_stderr(PACKET):
                self.tail = (self.tail + data)[-KEPT:]
        except (OSError, EOFError, paramiko.SSHException):
            return


def about(connection: Connection) -> dict[str, str]:
    """What is known of a connection: client, key, cipher."""
    return {
        "client": "paramiko",
        "key": str(shown_key(connection)),
        "cipher": str(connection.remote_cipher),
    }


def shown_key(connection: Connection) -> HostKey:
    """The key that the host has shown, and proven to hold, in the key exchange."""
    key = connection.get_remote_server_key()
    return HostKey(key.get_name(), key.asbytes())


def broken(connection: Connection, host_name: str) -> TransferError:
    """Why a connection that was up is not any more."""
    if connection.silent:
        text = f"nothing was heard from it for {KEEP_ALIVE_S * (UNANSWERED + 1):.0f} s"
        return HostDown(text, host=host_name, side="route", phase="run")
    error = connection.saved_exception
    number = error.errno if isinstance(error, OSError) else None
    kind = HostDown if number in {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH} else Transient
    why = f": {quoted(str(error))}" if error is not None and str(error) else ""
    return kind(f"the connection broke{why}", host=host_name, side="route", phase="run", errno=number)


class ParamikoClient:
    """A way to reach one host by paramiko. Each program and each SFTP session has a connection of its own."""

    name = "paramiko"

    def __init__(self, host_name: str, login: Login) -> None:
        self.host_name = host_name
        self.login = login

    def __repr__(self) -> str:
        return f"ParamikoClient({self.host_name!r}, {self.login!r})"

    def run(self, command: str) -> ParamikoChannel:
        connection = self.connect()
        try:
            channel = connection.open_session(timeout=self.login.connect_s)
            channel.exec_command(command)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self.not_begun(connection, "a program", error) from error
        return ParamikoChannel(self.host_name, connection, channel)

    def not_begun(self, connection: Connection, what: str, error: Exception) -> TransferError:
        """Why a session did not begin on a connection that is up, which is closed."""
        active = connection.is_active()
        connection.close()
        if isinstance(error, paramiko.ChannelException):
            text = f"the host opens no session ({quoted(str(error))}): too many at once, or the account may have none"
            return Congested(text, host=self.host_name, phase="connect")
        if active:
            text = f"the host runs {what} for nobody with this login"
            return Unsupported(text, host=self.host_name, phase="connect")
        return broken(connection, self.host_name)

    def connect(self) -> Connection:
        """A connection that is logged in: the host's key known, then the user let in. Else TransferError."""
        try:
            route = route_of(self.login)
            known = self._known(route)
            connection = self._negotiated(route, known)
            try:
                self._check(known, shown_key(connection), route)
                self._log_in(connection, route)
                connection.keep_alive()
            except BaseException:
                connection.close()
                raise
        except TransferError as error:
            error.host = self.host_name
            raise
        return connection

    def _known(self, route: Route) -> Known:
        name = route.key_alias or known_name(route.address, route.port)
        try:
            return read_known(route.known_hosts, name)
        except OSError as error:
            text = f"{error.filename} cannot be read, so the host's key cannot be checked: {error.strerror}"
            raise Refused(text, phase="connect", errno=error.errno) from error

    def _negotiated(self, route: Route, known: Known) -> Connection:
        """A connection whose keys are exchanged. Nothing of the login is sent, and nothing is believed yet."""
        connection = Connection(self._socket(route), key_types(known))
        limit = self.login.connect_s
        connection.banner_timeout = connection.handshake_timeout = connection.auth_timeout = limit
        begun = time.monotonic()
        try:
            connection.start_client(timeout=2 * limit)
            if not connection.initial_kex_done:
                raise TimeoutError
        except (paramiko.SSHException, OSError, EOFError) as error:
            connection.close()
            raise not_negotiated(error, connection.greeting, time.monotonic() - begun >= limit) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _socket(self, route: Route) -> socket.socket:
        place = f"{route.address} port {route.port}"
        try:
            sock = socket.create_connection((route.address, route.port), self.login.connect_s)
        except (OSError, UnicodeError) as error:
            why = "no answer in time" if isinstance(error, TimeoutError) else getattr(error, "strerror", error)
            number = getattr(error, "errno", None) if not isinstance(error, socket.gaierror) else None
            text = f"{place} cannot be reached: {why}"
            raise HostDown(text, side="route", phase="connect", errno=number) from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # bytes that nobody acknowledges for so long: a dead route
            limit = int(KEEP_ALIVE_S * (UNANSWERED + 1) * 1000)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)
        return sock

    def _check(self, known: Known, key: HostKey, route: Route) -> None:
        if key not in known:
            raise Refused(
                not_known(known, key, route),
                host=self.host_name,
                phase="connect",
                facts={"key": str(key), "known": [str(one) for one in known.keys]},
            )

    def _log_in(self, connection: Connection, route: Route) -> None:
        """Try the keys in turn; Refused, with their fingerprints, when the host takes none of them."""
        tried: list[str] = []
        with Keys(route) as keys:
            for key, where in keys.in_turn():
                tried.append(f"{key.get_name()} {key.fingerprint} ({where})")
                with self._logging_in(connection, route, tried):
                    more = connection.auth_publickey(route.user, key)
                    if not more:
                        return
                    raise paramiko.BadAuthenticationType("more is asked for", more)
            raise Refused(
                not_let_in(route, tried, keys.passed_over),
                host=self.host_name,
                phase="connect",
                facts={"tried": tried},
            )

    @contextmanager
    def _logging_in(self, connection: Connection, route: Route, tried: list[str]) -> Iterator[None]:
        """One key's turn: that it was not taken is no error yet, as long as the host still listens."""
        try:
            yield
        except paramiko.BadAuthenticationType as error:
            text = (
                f"the host asks {route.user} for {quoted(', '.join(error.allowed_types))}, "
                f"and Stager logs in with one key only; tried: {'; '.join(tried)}"
            )
            raise Refused(text, host=self.host_name, phase="connect") from error
        except (paramiko.SSHException, OSError, EOFError, ValueError) as error:
            if connection.is_active() and isinstance(error, paramiko.SSHException | ValueError):
                return
            if isinstance(error, paramiko.AuthenticationException) and connection.farewell:
                text = not_let_in(route, tried, ["the host hung up then"])
                raise Refused(text, host=self.host_name, phase="connect", facts={"tried": tried}) from error
            raise broken(connection, self.host_name) from error


def key_types(known: Known) -> tuple[str, ...]:
    """The host key types to ask for: those that are known first, as a host may have one of each type."""
    usual = tuple(paramiko.Transport._preferred_keys)
    first = tuple(name for name in usual if type_of(name) in known.types)
    return first + tuple(name for name in usual if name not in first)


def type_of(algorithm: str) -> str:
    """The key type that a signature algorithm is of: RSA signs in several ways, none of them SHA-1 here."""
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def not_known(known: Known, key: HostKey, route: Route) -> str:
    """What to say, and to do, when a host shows a key that it is not known by."""
    files = ", ".join(known.files) or "no file at all"
    if key in known.revoked:
        return f"the key that {route.address} shows, {key}, is marked @revoked in {files}: it must not be used any more"
    if known.keys:
        have = "; ".join(str(one) for one in known.keys)
        return (
            f"the key of {known.name} has changed: it shows {key}, and {files} know it by {have}. Somebody may be in "
            "between. Nothing was sent. Ask those who run the host whether its key was changed, and compare the "
            f"fingerprint; only then take the old key out (ssh-keygen -R '{known.name}' -f {files}) and add the new one"
        )
    authority = (
        " (a @cert-authority is, which paramiko cannot check: use the openssh client)" if known.authorities else ""
    )
    port = f"-p {route.port} " if route.port != 22 else ""
    return (
        f"the key that {known.name} shows is not known: {key} is in none of {files}{authority}. Nothing was sent. "
        "Compare the fingerprint with those who run the host, by another way than this network; then add the key "
        f"(ssh-keyscan {port}{route.address} >> {known.files[0] if known.files else 'known_hosts'}, "
        "and ssh-keygen -lf to see what was added)"
    )


def not_let_in(route: Route, tried: list[str], passed_over: list[str]) -> str:
    """What to say when no key opens the door."""
    if tried:
        text = f"the host let {route.user} in with none of the keys tried: {'; '.join(tried)}"
        text += "; see that our public key is in its authorized_keys, and the user is right"
    else:
        text = f"there is no key to log in as {route.user} with: name one as identity, or have an ssh agent hold it"
    return f"{text}. {'; '.join(passed_over)}".rstrip(". ")


def not_negotiated(error: Exception, greeting: str, late: bool) -> TransferError:
    """Why no keys were exchanged. A host that hangs up before has too many who want in (MaxStartups)."""
    text = quoted(str(error))
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return Unsupported(f"it shares no algorithm with paramiko: {text}", phase="connect")
    if isinstance(error, TimeoutError) or late:
        text = "it takes connections but does not speak SSH in time"
        return HostDown(text, side="route", phase="connect")
    if greeting.strip() and not any(words in greeting for words in TOO_MANY):
        return HostDown(f"what answers there is no SSH server: {quoted(greeting)}", side="route", phase="connect")
    if isinstance(error, paramiko.ssh_exception.MessageOrderError):
        return Transient(f"the key exchange was disturbed: {text}", side="route", phase="connect")
    why = f" ({text})" if text else ""
    return Congested(f"it hung up before keys were exchanged{why}: too many log in at once", phase="connect")
