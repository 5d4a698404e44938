"""A program on a far host, spoken to over SSH: what the two clients (OpenSSH, paramiko) have in common."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from transfers.errors import TransferError
from transfers.hosts import Buffer

ADDRESS = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]{0,254}")
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}")


@dataclass(frozen=True, slots=True)
class Login:
    """How a host is reached. What is None is left to the site's ssh configuration (OpenSSH) or its defaults.

    `address` may be an alias of that configuration. Neither address nor user can be taken for an option:
    ValueError for those that could.
    """

    address: str
    user: str | None = None
    port: int | None = None
    identity: str | None = None  # a private key's file
    known_hosts: str | None = None  # the file that the host's key must be in
    connect_s: float = 20.0

    def __post_init__(self) -> None:
        if not ADDRESS.fullmatch(self.address):
            raise ValueError(f"{self.address!r} is no address: letters, digits and ._:%- with none of .%- first")
        if self.user is not None and not USER.fullmatch(self.user):
            raise ValueError(f"{self.user!r} is no user name")


class Channel(Protocol):
    """One program on the far side. `read_into` and `write` may be called by two threads at once, not more."""

    def write(self, *parts: Buffer) -> None:
        """Send all of these, one after the other; TransferError when the channel is broken."""
        ...

    def read_into(self, view: memoryview) -> int:
        """Bytes received into the view, at least one; 0 when the far side has ended its output."""
        ...

    def ended(self) -> TransferError:
        """Why the channel ended, as far as it can be told: for who has seen the end, or a broken write."""
        ...

    def kill(self) -> None:
        """End it at once; whoever reads or writes meanwhile gets an end or an error. Called twice, it does nothing."""
        ...

    def is_open(self) -> bool:
        """Whether both sides still seem to be there, told without asking the far one."""
        ...

    def about(self) -> dict[str, str]:
        """Facts for people: `client`, and where they are known `key` (type and SHA256 fingerprint) and `cipher`."""
        ...


class Client(Protocol):
    """A way to reach one host."""

    name: str  # openssh or paramiko

    def run(self, command: str) -> Channel:
        """Begin a program there. TransferError: refused (host key, login), host down, congested, unsupported."""
        ...
