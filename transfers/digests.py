"""Digests as text ("algorithm:hex"), and lists of them as sha256sum and md5sum write them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# Hex digits of each algorithm that a list may bring.
ALGORITHMS = {"sha256": 64, "md5": 32, "sha1": 40, "sha512": 128, "adler32": 8, "crc32": 8}
PRINTED_AS_NUMBERS = frozenset({"adler32", "crc32"})  # by many programs: without the zeros that they begin with
BY_LENGTH = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}
LINE_BYTES = 1 << 16

GNU = re.compile(r"(\\?)([0-9a-fA-F]{8,128}) [ *](.+)", re.DOTALL)
BSD = re.compile(r"(\\?)([A-Za-z0-9]+) \((.+)\) = ([0-9a-fA-F]{8,128})", re.DOTALL)
ESCAPED = re.compile(r"\\(.)", re.DOTALL)
UNESCAPES = {"n": "\n", "r": "\r", "\\": "\\"}


class Digest(NamedTuple):
    """An algorithm's name and the digest in lower-case hex; `str` gives "algorithm:hex"."""

    algorithm: str
    hex: str

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


class Listed(NamedTuple):
    """One line of a list: a path, and its digest "algorithm:hex" if the list has digests."""

    path: str
    digest: str | None


class ListError(ValueError):
    """A line of a list that says neither a digest and a path nor a path; `line` counts from 1."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(f"line {line}: {text}")
        self.line = line
        self.text = text


def parse(text: str) -> Digest:
    """The digest of "algorithm:hex"; ValueError says what is wrong with it."""
    algorithm, colon, digits = text.partition(":")
    length = ALGORITHMS.get(algorithm)
    if not colon or length is None:
        raise ValueError(f"{text!r} is not algorithm:hex with one of {', '.join(ALGORITHMS)}")
    if not is_digest(algorithm, digits):
        raise ValueError(f"a {algorithm} digest has {length} hex digits, unlike {digits!r}")
    return Digest(algorithm, digits.lower())


def as_printed(algorithm: str | None, digits: str) -> str:
    """The hex digits that a program printed, in lower case; where it printed a number, with the zeros it left out."""
    digits = digits.lower()
    if algorithm in PRINTED_AS_NUMBERS and re.fullmatch("[0-9a-f]+", digits):
        return digits.zfill(ALGORITHMS[algorithm])
    return digits


def is_digest(algorithm: str | None, digits: str) -> bool:
    """Whether digits could be a digest of the algorithm: so many of hex as it has."""
    return re.fullmatch(f"[0-9a-fA-F]{{{ALGORITHMS.get(algorithm or '', 0)}}}", digits) is not None


def listed(lines: Iterable[bytes], algorithm: str | None = None) -> Iterator[Listed]:
    """The entries of a list, one line at a time.

    The first entry decides: a list of digests (GNU `hex  path`, BSD `SHA256 (path) = hex`), where every line
    must be one, or a list of bare paths. Empty lines and lines that begin with # are left out, and a leading
    `./`. The algorithm of a GNU line is told by its length, unless it is given.
    """
    with_digests: bool | None = None
    for number, line in enumerate(lines, 1):
        if len(line) > LINE_BYTES:
            raise ListError(number, f"the line is longer than {LINE_BYTES} bytes")
        text = os.fsdecode(line.rstrip(b"\r\n"))
        if not text.strip() or text.startswith("#"):
            continue
        entry = _digest_line(number, text, algorithm)
        if with_digests is None:
            with_digests = entry is not None
        if with_digests and entry is None:
            raise ListError(number, "expected a digest and a path, as sha256sum writes them")
        yield entry if entry is not None and with_digests else Listed(text.removeprefix("./"), None)


def read_list(path: str, algorithm: str | None = None) -> Iterator[Listed]:
    """The entries of a list in a file, read as they are asked for."""
    with open(path, "rb") as file:
        yield from listed(iter(lambda: file.readline(LINE_BYTES + 1), b""), algorithm)


def list_line(digest: str, path: str) -> bytes:
    """The line that sha256sum would write, newline and all: `sha256sum -c` reads it back."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "\\" if escaped != path else ""
    return os.fsencode(f"{mark}{parse(digest).hex}  {escaped}\n")


def _digest_line(number: int, text: str, algorithm: str | None) -> Listed | None:
    gnu = GNU.fullmatch(text)
    if gnu is not None:
        mark, digits, path = gnu.groups()
        name = algorithm or BY_LENGTH.get(len(digits))
    else:
        bsd = BSD.fullmatch(text)
        if bsd is None:
            return None
        mark, name, path, digits = bsd.groups()
        name = name.lower()
    if name is None or ALGORITHMS.get(name) != len(digits):
        return None
    if mark:
        path = ESCAPED.sub(lambda match: _unescaped(number, match), path)
    return Listed(path.removeprefix("./"), f"{name}:{digits.lower()}")


def _unescaped(number: int, match: re.Match[str]) -> str:
    try:
        return UNESCAPES[match[1]]
    except KeyError:
        raise ListError(number, f"{match[0]!r} is not an escape that sha256sum writes") from None
