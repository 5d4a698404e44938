"""The keys that a site knows a host by, as OpenSSH keeps them (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

Read here and not with paramiko.HostKeys, which takes a line marked @revoked for one that it does not
understand, and knows no patterns.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

MOST_BYTES = 64 << 20  # a known_hosts of a million hosts; more is no such file


@dataclass(frozen=True, slots=True)
class HostKey:
    """A public key: its type's name and its blob, as they go over the wire."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """What ssh-keygen -l prints of it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode("ascii").rstrip("=")
        return f"SHA256:{digest}"

    def __str__(self) -> str:
        return f"{self.type} {self.fingerprint}"


@dataclass(slots=True)
class Known:
    """What the files say of one host. A key that is revoked anywhere is revoked."""

    name: str
    files: tuple[str, ...]
    keys: list[HostKey] = field(default_factory=list)
    revoked: list[HostKey] = field(default_factory=list)
    authorities: bool = False  # a certificate authority is trusted for the host

    def __contains__(self, key: HostKey) -> bool:
        return key in self.keys and key not in self.revoked

    @property
    def types(self) -> list[str]:
        return list(dict.fromkeys(key.type for key in self.keys if key not in self.revoked))


def known_name(address: str, port: int) -> str:
    """The name a host has in the files: [address]:port for a port that is not 22."""
    address = address.lower()
    return address if port == 22 else f"[{address}]:{port}"


def read_known(files: Iterable[str], name: str) -> Known:
    """What is known of a host. A file that is not there knows nothing; OSError for one that cannot be read."""
    known = Known(name, tuple(files))
    for file in known.files:
        for marker, names, key in _lines(file):
            if not _matches(names, name):
                continue
            if marker == "@revoked":
                known.revoked.append(key)
            elif marker == "@cert-authority":
                known.authorities = True
            elif marker == "":
                known.keys.append(key)
    return known


def _lines(file: str) -> Iterator[tuple[str, str, HostKey]]:
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as reading:
            text = reading.read(MOST_BYTES)
    except FileNotFoundError:
        return
    for line in text.splitlines():
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#"):
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        yield marker, words[0], HostKey(words[1], blob)


def _matches(names: str, name: str) -> bool:
    """Whether a line is about this host: hashed, or patterns of which none that is negated matches."""
    if names.startswith("|1|"):
        return _hashed(names, name)
    found = False
    for pattern in names.lower().split(","):
        negated = pattern.startswith("!")
        if _glob(pattern.removeprefix("!")).fullmatch(name):
            if negated:
                return False
            found = True
    return found


def _glob(pattern: str) -> re.Pattern[str]:
    """`*` and `?` are wild, and nothing else: the brackets of [host]:port are letters."""
    return re.compile(fnmatch.translate(pattern.replace("[", "[[]")))


def _hashed(names: str, name: str) -> bool:
    try:
        _, _, salt, digest = names.split("|")
        expected = base64.b64decode(digest, validate=True)
        found = hmac.new(base64.b64decode(salt, validate=True), name.encode(), hashlib.sha1).digest()
    except ValueError:
        return False
    return hmac.compare_digest(expected, found)
