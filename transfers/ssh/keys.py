"""The keys that a login may use, in turn: the one that was named, an agent's, the usual files."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator
from typing import Any

import paramiko

from transfers.errors import Refused, shown
from transfers.ssh.config import IDENTITIES, Route


class Encrypted(Exception):
    """The key file cannot be read without its passphrase, which Stager never asks for."""


class Keys:
    """The keys for one login; an agent is asked only when its turn comes, and left when it is over."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.passed_over: list[str] = []  # keys that could not be tried, and why
        self.agent: paramiko.Agent | None = None
        self.held: list[Any] = []
        self.asked = False

    def __enter__(self) -> Keys:
        return self

    def __exit__(self, *error: object) -> None:
        if self.agent is not None:
            self.agent.close()

    def in_turn(self) -> Iterator[tuple[Any, str]]:
        """(key, where it is from). Refused for a key that was named and cannot be used."""
        seen: set[bytes] = set()
        for key, where in self._all():
            blob = key.asbytes()
            if blob not in seen:
                seen.add(blob)
                yield key, where

    def _all(self) -> Iterator[tuple[Any, str]]:
        for path in self.route.identities:
            try:
                yield from self._asked_for(path)
            except Refused as error:
                if self.route.named:
                    raise
                self.passed_over.append(error.text)  # the site's configuration may name more than there is
        if self.route.only_these:
            return
        for key in self._agent_keys():
            yield key, "from the ssh agent"
        for path in map(os.path.expanduser, IDENTITIES):
            if path not in self.route.identities and os.path.exists(path):
                yield from self._usual(path)

    def _asked_for(self, path: str) -> Iterator[tuple[Any, str]]:
        """A key that was asked for by its file. One that is encrypted may be held by an agent."""
        try:
            yield read_key(path), path
        except FileNotFoundError as error:
            # Where only the public half lies here, the agent has the other.
            held = self._held(path)
            if held is None:
                raise Refused(f"the key file {path} is not there", phase="connect") from error
            yield held, f"{path}, from the ssh agent"
        except Encrypted as error:
            held = self._held(path)
            if held is None:
                text = (
                    f"the key file {path} is encrypted and no ssh agent holds its key: add it to one "
                    "(ssh-add) that SSH_AUTH_SOCK leads to, or give Stager a key without a passphrase"
                )
                raise Refused(text, phase="connect") from error
            yield held, f"{path}, from the ssh agent"
        except (OSError, ValueError, paramiko.SSHException) as error:
            raise Refused(f"the key file {path} cannot be used: {why(error)}", phase="connect") from error

    def _usual(self, path: str) -> Iterator[tuple[Any, str]]:
        try:
            yield read_key(path), path
        except Encrypted:
            self.passed_over.append(f"{path} is encrypted and was passed over")
        except (OSError, ValueError, paramiko.SSHException) as error:
            self.passed_over.append(f"{path} was passed over: {why(error)}")

    def _held(self, path: str) -> Any:
        """The agent's key of this file, known by the public half beside it."""
        try:
            with open(path + ".pub", encoding="ascii", errors="replace") as reading:
                blob = base64.b64decode(reading.read(1 << 16).split()[1])
        except (OSError, IndexError, binascii.Error):
            return None
        return next((key for key in self._agent_keys() if key.asbytes() == blob), None)

    def _agent_keys(self) -> list[Any]:
        if not self.asked:
            self.asked = True
            try:
                self.agent = paramiko.Agent()
                self.held = [key for key in self.agent.get_keys() if key.inner_key is not None]
            except (paramiko.SSHException, OSError) as error:
                self.passed_over.append(f"the ssh agent could not be asked: {why(error)}")
        return self.held


def read_key(path: str) -> Any:
    """The private key in a file, with the certificate beside it where there is one; Encrypted if it is."""
    try:
        return paramiko.PKey.from_path(path)
    except paramiko.PasswordRequiredException as error:
        raise Encrypted from error
    except (TypeError, ValueError) as error:
        # cryptography says it in words only, and as TypeError or ValueError by the file's format.
        if "password" in str(error).lower():
            raise Encrypted from error
        raise ValueError("it is no private key that is understood here") from error
    except paramiko.pkey.UnknownKeyType as error:
        raise ValueError("keys of its type cannot be used by paramiko") from error


def why(error: Exception) -> str:
    """An error's words, without the whole of a file in them."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shown(text[:200])
