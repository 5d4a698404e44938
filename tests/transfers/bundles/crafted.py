"""Bundles for tests: sound ones as Stager packs them, and tars that no Stager would make."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transfers.bundles.frames import Packing
from transfers.bundles.headers import END, padding
from transfers.bundles.index import FORMAT, LAST, Entry, Index, Layout, layout_of
from transfers.bundles.store import Placed
from transfers.copying import land_bytes
from transfers.hosts import Host, Receipt, Want, only
from transfers.local import LocalHost
from transfers.store import DirectoryStore

T0_NS = 1_277_078_400_123_456_789  # 2010-06-21, with parts of a second


class Shelf:
    """A catalog in memory."""

    def __init__(self) -> None:
        self.members: dict[str, Placed] = {}
        self.known: set[str] = set()
        self.asked: list[int] = []  # how many paths each time

    def add(self, bundle: str, index: Index) -> None:
        self.known.add(bundle)
        for one in index.entries:
            self.members[one.path] = Placed(one.path, one.size, one.mtime_ns, one.digest, bundle, one.offset)

    def find(self, paths: Sequence[str]) -> dict[str, Placed]:
        self.asked.append(len(paths))
        return {path: self.members[path] for path in paths if path in self.members}

    def below(self, prefix: str) -> Iterator[Placed]:
        for path in sorted(self.members, key=os.fsencode):
            if prefix in ("", path) or path.startswith(f"{prefix}/"):
                yield self.members[path]

    def bundles(self) -> set[str]:
        return set(self.known)


def local(folder: Path, name: str = "lsst10") -> LocalHost:
    folder.mkdir(exist_ok=True)
    host = LocalHost(name, str(folder))
    host.open(None)
    return host


def store(folder: Path) -> DirectoryStore:
    folder.mkdir(exist_ok=True)
    host = DirectoryStore("mss", str(folder))
    host.open(None)
    return host


def write(root: Path, files: Mapping[str, bytes], mtime_ns: int = T0_NS) -> None:
    """Files with times of their own, a nanosecond apart."""
    for number, (name, data) in enumerate(files.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, ns=(mtime_ns, mtime_ns + number))


def planned(source: Host, label: str = "visit=1") -> tuple[Layout, list[Want]]:
    """The bundle of all that a host has, and what is wanted for it."""
    found = [info for info in source.find([one.path for one in source.scan("")]) if info is not None]
    layout = layout_of(label, found)  # type: ignore[arg-type] # FileInfo is path, size, mtime_ns
    wants = [
        Want(number, 1, one.path, one.path, one.size, one.mtime_ns) for number, one in enumerate(layout.members, 11)
    ]
    return layout, wants


def packed(source: Host, onto: Host, folder: str = "D1", label: str = "visit=1") -> tuple[str, Index]:
    """All that a host has as a bundle on another, with the file beside it: its path there, and its index."""
    layout, wants = planned(source, label)
    path = f"{folder}/{layout.name}"
    packing = Packing(layout, Want(1, 1, "", path), source.name)
    receipt = only(onto.land(packing.frames(source.read(wants))))
    assert isinstance(receipt, Receipt), receipt
    assert (receipt.size, receipt.digest) == (layout.size, packing.digest)
    assert packing.index is not None
    assert packing.beside is not None
    land_bytes(onto, f"{path}.index", packing.beside)
    return path, packing.index


def bytes_read() -> int:
    """What this process has read so far, of files and of all else, as the kernel counts it."""
    facts = dict(line.split(": ") for line in Path("/proc/self/io").read_text("ascii").splitlines())
    return int(facts["rchar"])


# Tars that are not as they should be.


def block(name: bytes, size: bytes | int = 0, kind: bytes = b"0", **fields: bytes) -> bytes:
    """A ustar header with a right sum, whatever else is in it. Fields by name: mtime, magic, link, prefix."""
    octal = b"%011o\0" % size if isinstance(size, int) else size
    data = b"".join(
        (
            name.ljust(100, b"\0"),
            fields.get("mode", b"0000644\0") + b"0000000\0" * 2,
            octal,
            fields.get("mtime", b"%011o\0" % 10**9),
            b" " * 8,
            kind,
            fields.get("link", b"").ljust(100, b"\0"),
            fields.get("magic", b"ustar\x0000"),
            fields.get("user", b"").ljust(64, b"\0"),
            b"0000000\0" * 2,
            fields.get("prefix", b"").ljust(155, b"\0"),
            bytes(12),
        )
    )
    assert len(data) == 512
    return data[:148] + b"%06o\0 " % sum(data) + data[156:]


def pax(records: bytes) -> bytes:
    """A pax header with these records."""
    return block(b"././@PaxHeader", len(records), b"x", mtime=b"%011o\0" % 0) + records + padding(len(records))


def record(keyword: bytes, value: bytes) -> bytes:
    """One pax record of less than 100 bytes, with its length."""
    rest = b" " + keyword + b"=" + value + b"\n"
    return b"%d" % (len(rest) + (1 if len(rest) < 9 else 2)) + rest


def tar(*parts: bytes) -> bytes:
    """A tar of headers and data, each filled up to its block, with a right end."""
    return b"".join(part + padding(len(part)) for part in parts) + END


# Indexes that are not as they should be.


def signed(lines: bytes, size: int, **facts: Any) -> bytes:
    """Lines with a last one that is right for them and a bundle of this size, but for the facts given."""
    last = {
        "end": FORMAT,
        "files": lines.count(b"\n") - 1,
        "index_bytes": len(lines) + LAST,
        "bundle_bytes": size,
        "sha256": hashlib.sha256(lines).hexdigest(),
    }
    return lines + json.dumps(last | facts, separators=(",", ":")).encode().ljust(LAST - 1) + b"\n"


def index_of(members: Mapping[str, bytes], label: str = "visit=1") -> Index:
    """The index of a bundle of these files, a nanosecond apart in the order given."""
    times = itertools.count(T0_NS)
    layout = layout_of(label, [(path, len(data), next(times)) for path, data in members.items()])
    digests = {path: f"sha256:{hashlib.sha256(data).hexdigest()}" for path, data in members.items()}
    return Index(layout.label, tuple(Entry(*one[:3], digests[one.path], one.offset) for one in layout.members))
