"""A mass store that speaks S3, over obstore: one bucket, or the keys below a prefix in it.

The promises are those of every host. What S3 cannot do as well is said by `about`. There are no folders: a name is
taken by an object alone, and a path may lead to an object and to others below it. What lands is read back over the
wire, or proven by the store's own MD5. Objects keep their time in their metadata (`x-amz-meta-mtime`, as rclone writes
it). Listings do not tell it, so that a scan asks for each object, many at a time: a listing has only the time when an
object was put, which is not the one that is planned by. Objects in an archive class (Glacier's) are not brought back by
this driver, which has no request for it: reading them is Refused, and their residency is Unsupported.
"""

from __future__ import annotations

import functools
import hashlib
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from transfers.agent import LIMITS, Fault, checked, fault_of
from transfers.disks import ONLINE
from transfers.errors import TransferError, Unsupported
from transfers.fetched import Fetched
from transfers.hosts import (
    UNKNOWN,
    Clock,
    FileInfo,
    Filled,
    Frame,
    Hdu,
    Identity,
    Limits,
    Place,
    Receipt,
    Residency,
    Skipped,
    Space,
    Stop,
    Want,
    never,
)
from transfers.s3.bucket import Bucket
from transfers.s3.changing import moved, removed
from transfers.s3.landing import S3Landing
from transfers.s3.marking import made_marker, other_marker, read_marker, see_bucket
from transfers.s3.reading import SIDE_BY_SIDE, Reader, Shelf, digest_at, headers_at, side_by_side
from transfers.without_agent import Diskless

T = TypeVar("T")

LOOKERS = 16  # requests for one object each that are under way together
FETCHED_MOST = 4 << 30  # bytes of focal planes that are kept here to be cut
ARCHIVED = ("GLACIER", "DEEP_ARCHIVE", "ARCHIVE", "COLD_ARCHIVE")


class S3Store(Diskless):
    """Objects below a prefix of a bucket. Here faults and the server's words become this host's errors."""

    far = True
    cuts = False
    seeks = True
    stages = False
    own_digest: str | None = "md5"
    reread = "wire"

    def __init__(
        self,
        name: str,
        root: str,
        bucket: str,
        endpoint: str | None = None,
        region: str | None = None,
        access_key: str | None = None,
        secret: str | None = None,
        scratch: str = "/tmp",  # noqa: S108  a room of its own is made there, for this user alone
        instance: str = "00000000",
    ) -> None:
        """`root` is the prefix of the keys, "/" for none. What is cut is fetched to a folder below `scratch` before."""
        if endpoint is not None and not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", endpoint):
            raise ValueError(f"the endpoint must be http:// or https:// and a host, not {endpoint!r}")
        self.name = name
        self.root = root
        self.marker: str | None = None
        self.round_trip_s = 0.0
        self.instance = instance
        self._bucket = functools.partial(Bucket, bucket, endpoint, region, access_key, secret)
        self._where = f"{endpoint or 'aws'}/{bucket}"
        self._prefix = "/".join(part for part in root.split("/") if part not in {"", "."})
        self._lock = threading.Lock()
        self._shelf: Shelf | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._fetched = Fetched(scratch, FETCHED_MOST)

    def __repr__(self) -> str:
        return f"S3Store({self.name!r}, {self._where!r}, {self.root!r})"

    def open(self, marker: str | None, marks: bool = True) -> str | None:
        """A bucket that is not there is Refused when it is first used or looked at, and later a host that is down."""
        with self._border("open"):
            shelf = self._opened()
            begun = time.monotonic()
            found = read_marker(shelf, known=marker is not None)
            self.round_trip_s = time.monotonic() - begun
            if marker is None:
                marker = found or (made_marker(shelf, self._derived()) if marks else None)
                if marker is None:
                    see_bucket(shelf)
            elif marker not in {found, self._derived()}:
                raise other_marker(marker, found)
        self.marker = marker
        return marker

    def scan(self, prefix: str = "") -> Iterator[FileInfo | Skipped]:
        """Sorted by the bytes of the paths. The time of each object is asked for, many at once."""
        with self._border("scan"), self._open() as shelf:
            if prefix:
                (first,) = self._found(shelf, [prefix])
                if isinstance(first, Fault):
                    raise first
                if first is not None:
                    yield first
            begin = f"{prefix}/" if prefix else ""
            keys = shelf.bucket.keys((shelf.prefix + prefix).rstrip("/"))
            paths = (key[len(shelf.prefix) :] for key in keys)
            shown = (path for path in paths if "/." not in "/" + path[len(begin) :])
            for found in self._found(shelf, shown):
                if isinstance(found, Fault):
                    raise found
                if found is not None:  # else it is gone since it was listed, or a folder's name, which is no file's
                    yield found

    def find(self, paths: Iterable[str]) -> Iterator[FileInfo | TransferError | None]:
        with self._border("find"), self._open() as shelf:
            for found in self._found(shelf, paths):
                yield self._error(found) if isinstance(found, Fault) else found

    def read(self, wants: Iterable[Want]) -> Iterator[Frame]:
        with self._border("read"), self._open() as shelf:
            yield from Reader(shelf, self._fetched).frames(wants)

    def land(
        self, frames: Iterable[Frame], proof: str = "reread", stop: Stop = never
    ) -> Iterator[Receipt | TransferError]:
        """Errors of single files carry the facts item, epoch and destination."""
        if proof not in {"reread", "stream", "store"}:
            raise ValueError(f"proof must be reread, stream or store, not {proof!r}")
        with self._border("land"), self._open() as shelf:
            for result in S3Landing(shelf, proof, self.reread, stop).results(frames):
                yield self._error(result) if isinstance(result, Fault) else result

    def fill(self, frames: Iterable[Frame], stop: Stop = never) -> Iterator[Filled | TransferError]:
        raise Unsupported("an object of S3 is written by one stream", host=self.name, phase="fill")

    def digest(
        self, places: Iterable[Place], algorithm: str = "sha256", reread: bool = False, stop: Stop = never
    ) -> Iterator[tuple[str, int, str] | TransferError]:
        """Read over the wire in any case: what the store itself says of its objects is not what a disk held."""
        yield from self._each("digest", lambda shelf: functools.partial(digest_at, shelf, algorithm, stop), places)

    def headers(self, places: Iterable[Place], limits: Limits = LIMITS) -> Iterator[tuple[Hdu, ...] | TransferError]:
        """By stretches: what is not looked at does not cross the network."""
        yield from self._each("headers", lambda shelf: functools.partial(headers_at, shelf, limits), places)

    def gunzip(self, want: Want, most: int, stop: Stop = never) -> str:
        raise Unsupported("nothing can be unpacked there: S3 runs no programs", host=self.name, phase="unpack")

    def remove(self, paths: Iterable[str]) -> Iterator[str | TransferError]:
        """In a bucket that keeps versions the object stays among them, for as long as the bucket is set to keep it."""
        yield from self._each("remove", lambda shelf: functools.partial(removed, shelf), paths, LOOKERS)

    def move(self, pairs: Iterable[tuple[str, str]]) -> Iterator[str | TransferError]:
        """An object of more than 5 GiB goes through this process, unless the host is closed meanwhile."""
        with self._border("move"), self._open() as shelf:
            for path, new in pairs:
                found = moved(shelf, path, new, lambda: self._shelf is not shelf)
                yield self._error(found) if isinstance(found, Fault) else found

    def identify(self, paths: Iterable[str]) -> Iterator[Identity | TransferError | None]:
        """One bucket is one system. That two endpoints lead to one bucket, or one set of disks, S3 does not tell."""
        yield from self._each("identify", lambda shelf: functools.partial(self._identity, shelf), paths, LOOKERS)

    def lies_in(self, paths: Iterable[str]) -> Iterator[str]:
        """Each object is one of its own."""
        yield from paths

    def residency(self, paths: Iterable[str]) -> Iterator[Residency | TransferError]:
        yield from self._each("residency", lambda shelf: functools.partial(residency_of, shelf), paths, LOOKERS)

    def stage(self, paths: Iterable[str]) -> Iterator[TransferError | None]:
        """There is nothing to ask for; Unsupported for what is in an archive class."""
        for found in self.residency(paths):
            yield None if isinstance(found, Residency) else found

    def space(self) -> Space:
        """S3 tells no room: as much as there can be, until the store says that it is full."""
        with self._border("space"), self._open():
            return Space(UNKNOWN, UNKNOWN, UNKNOWN)

    def clock(self) -> Clock:
        """S3 has no way to ask for the time; the round trip is measured."""
        with self._border("clock"):
            shelf = self._opened()
            begun = time.monotonic()
            read_marker(shelf, known=True)
            return Clock(None, time.monotonic() - begun)

    def about(self) -> dict[str, str]:
        """How the store is spoken to, and what cannot be promised there."""
        with self._border("about"):
            bucket = self._opened().bucket
        return {
            "client": f"obstore {bucket.obstore.__version__}",
            "bucket": f"{bucket.name} at {bucket.endpoint}",
            "proof": "read back over the wire, or the store's own MD5",
            "names": "looked at first, and given on the condition that nothing has them, where the store knows that; "
            "those of files of several parts are looked at once more just before",
            "room": "not told by S3",
            "uploads": "what a crash leaves of one is shown to nobody, and removed by the bucket's own rule for "
            "incomplete multipart uploads: set one",
        }

    def prepare(self, streams: int) -> None:
        """Connections are made as they are needed."""

    def close(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
            self._shelf = None
        if pool is not None:
            pool.shutdown(wait=False)
        self._fetched.close()

    def sweep(self, prefix: str, dead: Callable[[int, int], bool]) -> list[str]:
        """A landing leaves nothing below any name. Uploads that a crash broke off obstore cannot find: they are removed
        by the bucket's own rule for them."""
        with self._border("sweep"), self._open():
            if prefix:
                checked(prefix)
            return []

    # Within the border.

    def _opened(self) -> Shelf:
        with self._lock:
            if self._shelf is None:
                self._shelf = Shelf(self._bucket(), f"{self._prefix}/" if self._prefix else "")
            return self._shelf

    @contextmanager
    def _open(self) -> Iterator[Shelf]:
        """The objects. Once the marker is known, a prefix without it is a host that is down."""
        shelf = self._opened()
        if self.marker is not None:
            found = read_marker(shelf, known=True)
            if self.marker not in {found, self._derived()}:
                raise other_marker(self.marker, found)
        yield shelf

    def _derived(self) -> str:
        """The marker of a store that may not be written to."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"stager:unwritable-root:s3:{self._where}/{self._prefix}"))

    def _workers(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(LOOKERS, "s3")
            return self._pool

    def _found(self, shelf: Shelf, paths: Iterable[str]) -> Iterator[FileInfo | Fault | None]:
        look = functools.partial(info_of, shelf)
        yield from side_by_side(self._workers(), look, paths, 2 * LOOKERS)

    def _identity(self, shelf: Shelf, path: str) -> Identity | Fault | None:
        system = f"s3:{self._where}"
        if not path:
            return Identity(system, 0)
        try:
            key = shelf.key(path)
            there = shelf.bucket.head(key)
        except Fault as fault:
            return fault_of(fault, path, "source", "identify")
        number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
        return None if there is None else Identity(system, number)

    def _each(
        self,
        phase: str,
        function: Callable[[Shelf], Callable[[Any], T | Fault]],
        asked: Iterable[Any],
        most: int = SIDE_BY_SIDE,
    ) -> Iterator[T | TransferError]:
        """One result for each, some of them made at a time."""
        with self._border(phase), self._open() as shelf:
            for found in side_by_side(self._workers(), function(shelf), asked, most):
                yield self._error(found) if isinstance(found, Fault) else found


def info_of(shelf: Shelf, path: str) -> FileInfo | Fault | None:
    try:
        found = shelf.bucket.head(shelf.key(path))
    except Fault as fault:
        return fault_of(fault, path, "source", "find")
    return None if found is None else FileInfo(path, found.st_size, found.st_mtime_ns)


def residency_of(shelf: Shelf, path: str) -> Residency | Fault:
    try:
        found = shelf.head(path)
    except Fault as fault:
        return fault_of(fault, path, "source", "residency")
    if found.storage in ARCHIVED:
        text = (
            f"it is in the archive class {found.storage}; whether it was restored is not told, and not asked for, here"
        )
        return Fault("unsupported", text, path, "source", "residency")
    return ONLINE
