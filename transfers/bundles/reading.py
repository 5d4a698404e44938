"""Bundles on a host: what is in them, by the index at their end, by the file beside them, or header by header.

Nothing that a bundle says is believed before it agrees with the rest. What does not is SourceCorrupt with a `code`
in its facts, and the `member` where it is one's:

    bundle-truncated      the file ends before what it says it holds, or without an end
    bundle-header         a header is damaged, or not as Stager writes them
    bundle-size           a size or place that no file has
    bundle-index          an index is damaged, or not as Stager writes it
    bundle-version        it was written by a later Stager
    bundle-foreign-index  an index is that of another bundle, or of this one as it was before
    bundle-offset         an index has a member in another place than where it is
    bundle-climbs         a path is not a plain one below the root, or is in Stager's own folder
    bundle-link, -type    a member is a link; a folder, device or FIFO
    bundle-extension      a header is of an extension of POSIX tar that bundles do not have
    bundle-duplicate      a path is there twice, perhaps in two spellings of Unicode
    bundle-clash          a path is a file and a folder
    bundle-order          the members are not in the order of their names
    bundle-members        there are none, or too many
    bundle-digest         a member's bytes are not those that were packed
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from transfers.agent import Fault, Want
from transfers.bundles.headers import (
    BLOCK,
    END,
    INDEX_FOLDER,
    Laid,
    Names,
    corrupt,
    header_at,
    header_of,
    padding,
    refuse,
)
from transfers.bundles.index import (
    BUNDLE,
    INDEX_BYTES,
    LAST,
    NAME,
    Beside,
    Entry,
    Index,
    Layout,
    last_line,
    layout_of,
    name_of,
    parse_beside,
    parse_index,
)
from transfers.errors import SourceCorrupt, SourceMissing, TransferError, from_fault, shown
from transfers.hosts import FileInfo, Host, Member, only

TAIL = 64 << 10  # bytes that are read of a bundle's end: the whole index of a few hundred members
WINDOW = 16 << 10  # bytes that are read for a header: those of small files are near each other
LINE = b'{"end":'  # what the last line of an index begins with

numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What could be learned of a bundle: its index, from its "last member", from "beside" it, or from its "headers"
    and the bytes themselves; and what was wrong with what was tried before."""

    index: Index
    origin: str
    troubles: tuple[TransferError, ...]


class File:
    """A file of a host, read in stretches while it stays as it was. Raises SourceMissing, or what looking for it ended
    with."""

    def __init__(self, host: Host, path: str) -> None:
        found = only(host.find([path]))
        if isinstance(found, TransferError):
            raise found.at(_side(host))
        if found is None:
            raise SourceMissing("no such file", host=host.name, side=_side(host), phase="find", path=path)
        self.host = host
        self.info: FileInfo = found
        self.window = (0, b"")

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes, of which the file must have all. SourceCorrupt where it ends before."""
        self._within(offset, size)
        return only(self.read_all([(offset, size)]))

    def read_near(self, offset: int, size: int) -> bytes:
        """The same for small stretches one after the other: what follows is read with them."""
        self._within(offset, size)
        start, data = self.window
        if not start <= offset <= offset + size <= start + len(data):
            start, data = offset, self.read(offset, min(max(size, WINDOW), self.info.size - offset))
            self.window = start, data
        return data[offset - start : offset - start + size]

    def read_all(self, stretches: Iterable[tuple[int, int]]) -> Iterator[bytes]:
        """The bytes of each stretch, in one call."""
        info = self.info
        # A number for each, so that no two are taken for one unit.
        wants = (
            Want(next(numbers), 0, info.path, info.path, info.size, info.mtime_ns, stretch=stretch)
            for stretch in stretches
            if stretch[1]
        )
        data = bytearray()
        for name, body in self.host.read(wants):
            if name == "data":
                data += body
            elif name == "fault":
                assert isinstance(body, Fault)
                raise from_fault(body, self.host.name).at(_side(self.host))
            elif name == "end":
                yield bytes(data)
                data = bytearray()

    def _within(self, offset: int, size: int) -> None:
        if offset + size > self.info.size:
            text = f"it would reach to byte {offset + size} at least, and ends at {self.info.size}"
            refuse("bundle-truncated", f"{text}: it was cut off, or lies about a size")


# The index.


def read_index(host: Host, path: str) -> Index:
    """The index that is the last member of a bundle, by two or three reads from its end.

    It agrees with itself, and with name and size of the bundle; whether with its headers, `verify` tells. Raises
    SourceCorrupt, or the TransferError that reading ended with.
    """
    with _told_of(host, path):
        file = File(host, path)
        size = file.info.size
        if size < LAST + len(END) or size % BLOCK:
            refuse("bundle-truncated", f"no bundle has {size} bytes: it was cut off, or is none")
        tail = file.read(size - min(size, TAIL), min(size, TAIL))
        stripped = tail.rstrip(b"\0")
        if len(tail) - len(stripped) < len(END) or stripped[-LAST:][: len(LINE)] != LINE:
            refuse("bundle-truncated", "there is no index at its end: it was cut off, or damaged there")
        wanted = last_line(stripped[-LAST:]).index_bytes
        end = size - len(END) - len(padding(wanted))
        if size - len(tail) + len(stripped) != end or wanted > end:
            refuse("bundle-index", "its last line does not say how long it is")
        data = stripped[-wanted:] if wanted <= len(stripped) else file.read(end - wanted, wanted)
        index = parse_index(data)
        _check_name(index, path)
        if last_line(data[-LAST:]).bundle_bytes != size:
            refuse("bundle-foreign-index", f"its index is of a bundle of another size than its {size} bytes")
        return index


def read_beside(host: Host, path: str) -> Beside:
    """What the file beside a bundle says of it; `path` is the bundle's own. It agrees with itself and with the bundle's
    name, and with its size, where the bundle is there. Errors likewise."""
    with _told_of(host, f"{path}.index"):
        file = File(host, f"{path}.index")
        if not LAST < file.info.size <= INDEX_BYTES + LAST:
            refuse("bundle-index", f"no index has {file.info.size} bytes")
        beside = parse_beside(file.read(0, file.info.size))
        _check_name(beside.index, path)
        bundle = only(host.find([path]))
        if isinstance(bundle, FileInfo) and bundle.size != beside.size:
            text = f"it says that the bundle has {beside.size} bytes, and that has {bundle.size}"
            refuse("bundle-foreign-index", text)
        return beside


def _check_name(index: Index, path: str) -> None:
    name = name_of(index.label, ((one.path, one.size, one.mtime_ns) for one in index.entries))
    if name != path.rpartition("/")[2]:
        text = f"the index is that of {shown(name)}; if the bundle was renamed, give it that name again"
        refuse("bundle-foreign-index", text)


# The headers.


def walk(host: Host, path: str) -> Iterator[Laid]:
    """The members of a bundle by its headers, without its index. Those before a damage come first, then SourceCorrupt.

    A header costs a read of its own, but for those of small files. The last member, the index, is left out; its
    bytes are not looked at, but what it is called and where it ends are.
    """
    with _told_of(host, path):
        file = File(host, path)
        names = Names()
        at, ending = 0, False
        while (laid := header_at(file.read_near, at)) is not None:
            at = laid.offset + laid.size + len(padding(laid.size))
            if at > file.info.size:
                text = f"{shown(laid.path)} would end at byte {at}, and the bundle at {file.info.size}"
                refuse("bundle-truncated", f"{text}: it was cut off, or lies about a size", member=laid.path)
            if ending:
                refuse("bundle-order", f"{shown(laid.path)} comes after the index", member=laid.path)
            ending = laid.path.startswith(INDEX_FOLDER)
            if not ending:
                names.add(laid.path)
                yield laid
            elif laid.path != INDEX_FOLDER + path.rpartition("/")[2] + ".index":
                refuse("bundle-foreign-index", f"its index is called {shown(laid.path)}", member=laid.path)
        if at + len(END) != file.info.size or file.read_near(at, len(END)) != END:
            refuse("bundle-truncated", f"its members end at byte {at}, and it at {file.info.size}: that is no end")
        if not ending:
            refuse("bundle-truncated", "it has no index as its last member")


def hashed(host: Host, path: str) -> Index:
    """The index of a bundle made anew of its headers and of the bytes of its members, which are all read. Raises
    SourceCorrupt where the bundle's name tells other members, as for what is told by `walk`."""
    name = path.rpartition("/")[2]
    match = NAME.fullmatch(name)
    with _told_of(host, path):
        if match is None:
            refuse("bundle-foreign-index", f"a bundle is not called {shown(name)}, but LABEL.DIGITS{BUNDLE}")
        members = tuple(walk(host, path))
        found = name_of(match[1], (one[:3] for one in members))
        if found != name:
            refuse("bundle-foreign-index", f"its members are those of {shown(found)}, whatever it is called")
        places = (Member(path, one.offset, one.size, one.path) for one in members)
        entries = []
        for one, result in zip(members, host.digest(places), strict=True):
            if isinstance(result, TransferError):
                raise result.at(_side(host))
            entries.append(Entry(*one[:3], result[2], one.offset))
        return Index(match[1], tuple(entries))


def recovered(host: Host, path: str) -> Recovered:
    """The index of a bundle from where it can be had: its last member, the file beside it, its headers and bytes.

    Raises the last error, where none of them says it; and at once what is no fault of the bundle's, as a host that is
    down.
    """
    troubles: list[TransferError] = []
    ways: tuple[tuple[str, Callable[[], Index]], ...] = (
        ("last member", lambda: read_index(host, path)),
        ("beside", lambda: read_beside(host, path).index),
        ("headers", lambda: hashed(host, path)),
    )
    for origin, way in ways:
        try:
            return Recovered(way(), origin, tuple(troubles))
        except (SourceCorrupt, SourceMissing) as error:
            troubles.append(error)
    raise troubles[-1]


# Proof.


def verify(host: Host, path: str, index: Index, deep: bool = False) -> Iterator[TransferError]:
    """All that a bundle does not hold as its index says; nothing where all is well.

    Every header is read, and the index at the end. `deep` reads and hashes the members too. Raises what is no fault
    of the bundle's.
    """
    with _told_of(host, path):
        file = File(host, path)
        layout = layout_of(index.label, ((one.path, one.size, one.mtime_ns) for one in index.entries))
        if layout.size != file.info.size:
            text = f"it has {file.info.size} bytes, and {layout.size} by its index"
            code = "bundle-truncated" if file.info.size < layout.size else "bundle-foreign-index"
            yield _named(corrupt(code, text), host, path)
        yield from _unlike(file, layout, index)
        if deep:
            yield from _unproven(host, path, index)


def _unlike(file: File, layout: Layout, index: Index) -> Iterator[TransferError]:
    """The headers, and the index at the end, that are not as the index says."""
    expected = [(one.offset, header_of(*one[:3]), one.path) for one in layout.members]
    stretches = [(offset - len(header), len(header)) for offset, header, _ in expected]
    there = [(start, size) for start, size in stretches if start + size <= file.info.size]
    read = file.read_all(there)
    for (offset, header, member), found in zip(expected, read, strict=False):
        if found != header:
            yield _named(_why(file, offset - len(header), member), file.host, file.info.path)
    for _, _, member in expected[len(there) :]:
        yield _named(
            corrupt("bundle-truncated", f"{shown(member)} is not there", member=member), file.host, file.info.path
        )
    if file.info.size == layout.size:
        ending = _ending(layout, index)
        if file.read(layout.size - len(ending), len(ending)) != ending:
            yield _named(corrupt("bundle-index", "its last member is not its index"), file.host, file.info.path)


def _why(file: File, at: int, member: str) -> SourceCorrupt:
    """What is wrong with the header that should be there, of this member."""
    try:
        laid = header_at(file.read_near, at)
    except SourceCorrupt as error:
        return error
    what = "the end" if laid is None else f"{shown(laid.path)} of {laid.size} bytes"
    text = f"its index has {shown(member)} at byte {at}, where there is {what}"
    return corrupt("bundle-foreign-index", text, member=member)


def _ending(layout: Layout, index: Index) -> bytes:
    """All from the header of the last member on."""
    data = index.to_bytes()
    return header_of(layout.index_path, len(data), layout.mtime_ns) + data + padding(len(data)) + END


def _unproven(host: Host, path: str, index: Index) -> Iterator[TransferError]:
    """The members whose bytes are not those that the index tells."""
    places: Sequence[Member] = [Member(path, one.offset, one.size, one.path) for one in index.entries]
    for entry, result in zip(index.entries, host.digest(places, reread=True), strict=True):
        if isinstance(result, TransferError):
            result.facts.setdefault("member", entry.path)
            yield result.at(_side(host))
        elif result[1:] != (entry.size, entry.digest):
            text = f"{shown(entry.path)} does not have the digest that its index says"
            facts = {"expected": entry.digest, "found": result[2]}
            yield _named(corrupt("bundle-digest", text, member=entry.path, **facts), host, path)


@contextmanager
def _told_of(host: Host, path: str) -> Iterator[None]:
    """What is not sound is told of the file and host that it was read of."""
    try:
        yield
    except SourceCorrupt as error:
        _named(error, host, path)
        raise


def _named(error: SourceCorrupt, host: Host, path: str) -> SourceCorrupt:
    error.host, error.path = error.host or host.name, error.path or path
    error.side = error.side or _side(host)
    return error


def _side(host: Host) -> str:
    return "store" if host.kind == "store" else "source"
