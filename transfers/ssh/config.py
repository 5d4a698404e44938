"""The site's ssh configuration, as far as paramiko can follow it: for the client that is not OpenSSH."""

from __future__ import annotations

import getpass
import glob
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass

import paramiko

from transfers.errors import Refused, Unsupported
from transfers.ssh.channels import USER, Login

FILES = ("~/.ssh/config", "/etc/ssh/ssh_config")
KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
IDENTITIES = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
DEEPEST = 16  # files that include each other, as OpenSSH has it
USE_OPENSSH = 'set client = "openssh" for this host, which follows the whole of it'


@dataclass(frozen=True, slots=True)
class Route:
    """A login with everything that it left open decided."""

    address: str
    port: int
    user: str
    key_alias: str | None  # the name of the host's key in known_hosts, where it is not the address
    known_hosts: tuple[str, ...]
    identities: tuple[str, ...]  # private key files that were asked for by name
    named: bool  # by the login itself, so that one that cannot be used is an error
    only_these: bool  # neither an agent's other keys nor the usual files


def route_of(login: Login) -> Route:
    """The login, completed from the site's ssh configuration. Unsupported for what paramiko cannot do.

    What the login says itself goes first. StrictHostKeyChecking is never followed: it is always strict.
    """
    options = _options(login.address)
    for name in ("proxycommand", "proxyjump"):
        if (options.get(name) or "none").lower() != "none":
            raise Unsupported(f"the ssh configuration has a {name} for it; {USE_OPENSSH}", phase="connect")
    user = login.user or options.get("user") or _own_name()
    if not USER.fullmatch(user):
        raise Refused(f"{user!r}, from the ssh configuration, is no user name", phase="connect")
    identities = [login.identity] if login.identity else options.get("identityfile") or []
    only = options.get("identitiesonly", "no").lower() == "yes"
    return Route(
        options.get("hostname", login.address),
        login.port or _port(options),
        user,
        options.get("hostkeyalias"),
        _known_hosts(login, options),
        tuple(os.path.expanduser(path) for path in identities),
        login.identity is not None,
        login.identity is not None or (only and bool(identities)),
    )


def _own_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        text = "this process's user has no name to log in with: name one as user"
        raise Refused(text, phase="connect") from error


def _port(options: paramiko.SSHConfigDict) -> int:
    port = options.get("port", "22")
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise Refused(f"{port!r}, from the ssh configuration, is no port", phase="connect")
    return int(port)


def _known_hosts(login: Login, options: paramiko.SSHConfigDict) -> tuple[str, ...]:
    if login.known_hosts is not None:
        return (os.path.expanduser(login.known_hosts),)
    files: list[str] = []
    for option, usual in zip(("userknownhostsfile", "globalknownhostsfile"), KNOWN_HOSTS, strict=True):
        files += (options.get(option) or usual).split()
    return tuple(os.path.expanduser(file) for file in files if file != "none")


def _options(address: str) -> paramiko.SSHConfigDict:
    lines = [line for file in FILES for line in [*_lines(os.path.expanduser(file), 0), "Host *\n"]]
    try:
        return paramiko.SSHConfig.from_file(io.StringIO("".join(lines))).lookup(address)
    except (paramiko.SSHException, ImportError, ValueError, KeyError) as error:
        text = f"paramiko does not understand the ssh configuration ({error}); {USE_OPENSSH}"
        raise Unsupported(text, phase="connect") from error


def _lines(file: str, depth: int) -> Iterator[str]:
    """A configuration's lines, with those of the files it includes in their place.

    paramiko passes over Include without a word; one inside a Host or Match section cannot be put in its place.
    """
    if depth > DEEPEST:
        raise Unsupported(f"{file}: ssh configurations include each other too deeply", phase="connect")
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as reading:
            lines = reading.readlines()
    except FileNotFoundError:
        return
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}", phase="connect", errno=error.errno) from error
    section = False
    for line in lines:
        words = line.replace("=", " ", 1).split()
        keyword = words[0].lower() if words else ""
        section = section or (keyword in {"host", "match"} and words[1:] != ["*"] and words[1:] != ["all"])
        if keyword != "include":
            yield line.rstrip("\n") + "\n"
            continue
        if section:
            raise Unsupported(f"{file} has an Include inside a Host section; {USE_OPENSSH}", phase="connect")
        for pattern in words[1:]:
            base = os.path.join(os.path.dirname(file), os.path.expanduser(pattern.strip('"')))
            for included in sorted(glob.glob(base)):
                yield from _lines(included, depth + 1)
                yield "Host *\n"
