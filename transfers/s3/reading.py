"""Reading from an S3 store: objects and stretches of them as frames, digests, and the headers of FITS files.

An answer is of one object as it was at one time, and what a digest is expected of is held against that. Servers that
show a disk as objects may yet change one while they send it: what has no digest is looked at once more behind its end.
Focal planes that are cut into pieces are fetched here whole: their rows are too many to ask for each.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from transfers.agent import (
    BLOCK,
    Agent,
    Datasum,
    Digests,
    Fault,
    Frame,
    Hdu,
    Limits,
    Place,
    Plain,
    Stop,
    Want,
    ahead,
    became_shorter,
    begun,
    check_stretch,
    checked,
    expect,
    extent_of,
    fault_of,
    hasher,
    headers_of,
    name_of,
    path_of,
    place_fault,
    read_fault,
    stopped,
    units_of,
    write_fully,
)
from transfers.fetched import Fetched
from transfers.s3.bucket import Bucket, Object
from transfers.s3.errors import Missing

HEADER_AHEAD = 11 * BLOCK  # bytes asked for where headers are: most are a few blocks
AHEAD_MOST = 4 << 20  # what is read on and on is asked for in ever larger stretches, up to this
SIDE_BY_SIDE = 4  # files that are looked into, or hashed, at a time: most of it is waiting for answers

T = TypeVar("T")
R = TypeVar("R")
Opened = tuple[Object, Iterator[memoryview]]


@dataclass(slots=True, frozen=True)
class Shelf:
    """A bucket's objects below a prefix, by the paths of a host. Fault "refused" for a path that no key can have."""

    bucket: Bucket
    prefix: str  # of keys, "" or with a slash at its end

    def key(self, path: str) -> str:
        key = self.prefix + checked(path)
        if not path.isascii() or not path.isprintable():
            self._check(path)
        if len(key) > 1024 or len(key.encode()) > 1024:
            raise Fault("refused", "the path is too long for a key of S3, which has 1024 bytes at the most", path)
        return key

    def _check(self, path: str) -> None:
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            raise Fault("refused", "the path is not UTF-8, as the keys of S3 are", path) from None
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
            raise Fault("refused", "the path has control characters, which the driver s3 puts into no key", path)

    def head(self, path: str) -> Object:
        """The object of that path; Missing where there is none."""
        found = self.bucket.head(self.key(path))
        if found is None:
            raise Missing("source missing", "no such object", path)
        return found

    def open(self, path: str, stretch: tuple[int, int] | None = None) -> Opened:
        """The object, and its bytes or those of a stretch of it. What is of no bytes, or not within, has none."""
        if stretch is not None and (stretch[0] < 0 or stretch[1] <= 0):
            return self.head(path), iter(())
        try:
            return self.bucket.get(self.key(path), stretch)
        except Fault as fault:
            if stretch is None or fault.facts.get("status") != 416:
                raise
            return self.head(path), iter(())


class Reader:
    """Turns wants into frames, one file after the other."""

    def __init__(self, shelf: Shelf, fetched: Fetched) -> None:
        self.shelf = shelf
        self.fetched = fetched

    def frames(self, wants: Iterable[Want]) -> Iterator[Frame]:
        for unit in units_of(wants):
            if len(unit) > 1:
                yield "unit", len(unit)
            for cut, run in itertools.groupby(unit, key=lambda want: want.piece and (want.source, want.stretch)):
                if cut is None:
                    for want in run:
                        yield from self.file(want)
                else:
                    yield from self.pieces(list(run))

    def file(self, want: Want) -> Iterator[Frame]:
        """A whole object, a block of it, which has no digest, or a member, which is right by its own."""
        try:
            found, data = self.shelf.open(want.source, want.stretch)
        except Fault as fault:
            yield begun(want)
            yield "fault", fault_of(fault, want.source, "source", "open")
            return
        yield begun(want, found)
        try:
            expect(want, want.source, found.st_size, found.st_mtime_ns)
            size, digest = yield from self.data(want, found, data)
        except (EOFError, Fault) as error:
            yield "fault", read_fault(error, want)
        else:
            yield "end", {"size": size, "digest": digest}
        finally:
            close(data)

    def data(self, want: Want, found: Object, data: Iterator[memoryview]) -> Generator[Frame, None, tuple[int, str]]:
        digests = Digests(want.digest) if want.stretch is None or want.is_member else None
        size = found.st_size if want.stretch is None else want.stretch[1]
        come = 0
        for chunk in data:
            come += len(chunk)
            if digests is not None:
                digests.update(chunk)
            yield "data", chunk
        if come != size:
            raise EOFError(come)
        if digests is None or digests.expected is None:
            self.still(want.source, found)
            return size, digests.text() if digests is not None else ""
        try:
            digests.check()
        except Fault:
            if not want.is_member:
                self.still(want.source, found)
            raise
        return size, digests.text()

    def still(self, path: str, found: Object) -> None:
        """Fault "source changed" if the object is another than the one that was read."""
        now = self.shelf.bucket.head(self.shelf.key(path))
        if now is not None and now != found:  # removed, but what was read is what it was: as on any host
            facts = {"size": now.st_size, "mtime_ns": now.st_mtime_ns}
            raise Fault("source changed", "it was changed while it was read", path, facts=facts)

    def pieces(self, wants: list[Want]) -> Iterator[Frame]:
        """Pieces of one object, or of one member, that is fetched here to be cut."""
        source, stretch = wants[0].source, wants[0].stretch
        try:
            found = self.shelf.head(source)
            if stretch is not None:
                check_stretch(*stretch, found.st_size)
            offset, size = stretch or (0, found.st_size)
            fetch = functools.partial(self.fetch, source, found, stretch)
            with self.fetched.file(source, size, fetch, offset, found.tag) as place:
                yield from self.cut(wants, found, place)
        except (OSError, Fault) as error:
            fault = local_fault(error) if isinstance(error, OSError) else error
            for want in wants:
                yield begun(want)
                yield "fault", fault_of(copied(fault), source, "source", "read")

    def cut(self, wants: list[Want], found: Object, place: str) -> Iterator[Frame]:
        """The agent's frames of the pieces, cut from what was fetched, as those of the wants themselves."""
        folder, name = os.path.split(place)
        here = [
            want._replace(source=name, stretch=None if want.stretch is None else (0, want.stretch[1])) for want in wants
        ]
        for kind, body in Agent(folder).read(here):
            if kind == "unit":
                continue  # said already, of all of it
            if kind == "fault":
                body.path = wants[0].source
            yield kind, body

    def fetch(self, path: str, found: Object, stretch: tuple[int, int] | None, place: str) -> None:
        """Write an object, or a stretch of it, to a new file here, which gets its time."""
        now, data = self.shelf.open(path, stretch)
        if now != found:
            facts = {"size": now.st_size, "mtime_ns": now.st_mtime_ns}
            raise Fault("source changed", "it was changed while it was fetched", path, facts=facts)
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for chunk in data:
                write_fully(fd, chunk)
            os.utime(fd, ns=(found.st_mtime_ns, found.st_mtime_ns))
        finally:
            os.close(fd)
            close(data)
        self.still(path, found)


def close(data: Iterator[memoryview]) -> None:
    """End an answer that is not read to its end."""
    if isinstance(data, Generator):
        data.close()


def sha256_of(data: Iterator[memoryview], stop: Stop) -> str:
    """The sha256 of an answer, in hex, read to its end; Fault "transient" when it is to `stop`."""
    digest = hashlib.sha256()
    try:
        for chunk in data:
            if stop():
                raise stopped()
            digest.update(chunk)
    finally:
        close(data)
    return digest.hexdigest()


def copied(fault: Fault) -> Fault:
    """The same fault for another file."""
    return Fault(fault.kind, fault.text, fault.path, fault.side, fault.phase, fault.errno, dict(fault.facts))


def local_fault(error: OSError) -> Fault:
    """What kept a file from being fetched here, which is not the store's doing."""
    fault = fault_of(error, "", "local", "fetch")
    fault.text = f"it cannot be kept in the folder for what is fetched from stores: {fault.text}"
    return fault


def side_by_side(
    pool: ThreadPoolExecutor, function: Callable[[T], R], asked: Iterable[T], most: int = SIDE_BY_SIDE
) -> Iterator[R]:
    """The results for some at a time, in order."""
    walked = ahead(pool, function, asked, most)
    try:
        for _, future in walked:
            yield future.result()
    finally:
        walked.close()


def digest_at(shelf: Shelf, algorithm: str, stop: Stop, place: Place) -> tuple[str, int, str] | Fault:
    """(path, size, "algorithm:hex") of an object or a member, read over the wire, or its Fault."""
    try:
        digest = hasher(algorithm)
        found, data = shelf.open(path_of(place), None if isinstance(place, str) else (place.offset, place.size))
        try:
            _, size = extent_of(place, found.st_size)
            come = 0
            for chunk in data:
                if stop():
                    raise stopped()
                come += len(chunk)
                digest.update(chunk)
        finally:
            close(data)
        if come != size:
            raise became_shorter()
        return name_of(place), size, f"{algorithm}:{digest.hexdigest()}"
    except Fault as fault:
        return place_fault(fault, place, "read")


# ------------------------------------------------------------------------------------------- headers


class Asked(Plain):
    """An object or a member for the walk over HDUs: forward, a little at a time, with what follows asked for ahead."""

    def __init__(self, shelf: Shelf, path: str, found: Object, size: int, start: int) -> None:
        self.shelf = shelf
        self.path = path
        self.found = found
        self.size = size
        self.start = start
        self.at = 0
        self.held = b""  # what was asked for ahead, from `at` on
        self.step = HEADER_AHEAD

    def begin(self, count: int) -> bytes:
        return self._ahead(count)

    def last(self, count: int) -> bytes:
        count = min(count, self.size)
        return b"".join(self._stretch(self.size - count, count))

    def read(self, count: int) -> bytes:
        """Up to so many bytes; fewer only at the file's end."""
        data = self._ahead(count)
        self.held = self.held[len(data) :]
        self.at += len(data)
        return data

    def _ahead(self, count: int) -> bytes:
        want = max(0, min(count, self.size - self.at))
        if want > len(self.held):
            size = min(max(want, self.step), self.size - self.at) - len(self.held)
            self.held += b"".join(self._stretch(self.at + len(self.held), size))
            self.step = min(2 * self.step, AHEAD_MOST)
        return self.held[:want]

    def skip(self, count: int, total: Datasum | None = None) -> int:
        step = super().skip(count, total)
        if step > len(self.held):
            self.step = HEADER_AHEAD
        self.held = self.held[step:]
        return step

    def data(self, count: int) -> Iterator[memoryview]:
        held = self.held[:count]
        yield memoryview(held)
        yield from self._stretch(self.at + len(held), count - len(held))

    def _stretch(self, at: int, count: int) -> Iterator[memoryview]:
        """So many bytes of the object that was found; Fault "source changed" where it is another by now."""
        if not count:
            return
        now, data = self.shelf.open(self.path, (self.start + at, count))
        if now != self.found:
            raise Fault("source changed", "it was changed while it was read", self.path)
        yield from data


def headers_at(shelf: Shelf, limits: Limits, place: Place) -> tuple[Hdu, ...] | Fault:
    """The HDUs of a FITS file or a member; Fault "source corrupt" says the HDU, card and value."""
    try:
        path = path_of(place)
        found = shelf.head(path)
        start, size = extent_of(place, found.st_size)
        return headers_of(Asked(shelf, path, found, size, start), name_of(place), limits)
    except Fault as fault:
        return place_fault(fault, place, "headers")
