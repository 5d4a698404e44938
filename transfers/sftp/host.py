"""A host behind SSH that has no shell, or no python: everything by SFTP, over paramiko.

The promises are those of every host. What SFTP cannot do as well is said by `about`: times are whole seconds,
what lands is read back over the wire and perhaps from the far machine's memory, and it is synced only where the
server offers it. A server without hard links cannot be landed on, as it has no way to name a file without perhaps
replacing another.
"""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from transfers.agent import (
    LIMITS,
    WINDOW_FILES,
    Fault,
    Opened,
    batches,
    became_shorter,
    checked,
    fault_of,
    folder_of,
    moved,
    place_fault,
    synced_folders,
    what_is,
)
from transfers.disks import OnDisk
from transfers.errors import TransferError, Unsupported, from_fault, from_os_error
from transfers.hosts import (
    Clock,
    FileInfo,
    Filled,
    Frame,
    Hdu,
    Identity,
    Limits,
    Place,
    Receipt,
    Skipped,
    Space,
    Stop,
    Want,
    never,
)
from transfers.sftp.changing import move, remove
from transfers.sftp.landing import FarLanding
from transfers.sftp.marking import Sweeping, check_marker, first_marker, of_marker
from transfers.sftp.reading import Reader, digest_at, headers_at
from transfers.sftp.sessions import Sessions
from transfers.sftp.tree import LINK, ROOM, SYNC, Tree, scan
from transfers.ssh.paramiko_client import ParamikoClient, about
from transfers.without_agent import ThroughHere


class SftpHost(ThroughHere, OnDisk):
    """Files beneath a folder of a host behind SFTP. Here faults and the server's words become this host's errors."""

    far = True
    cuts = False
    reread = "wire"

    def __init__(
        self,
        name: str,
        root: str,
        client: ParamikoClient,
        *,
        links: bool = False,
        file_mode: int | None = None,
        folder_mode: int | None = None,
        instance: str = "00000000",
        kind: str = "ssh",
    ) -> None:
        if not re.fullmatch("[0-9a-f]{8}", instance):
            raise ValueError(f"instance must be 8 hex digits, not {instance!r}")
        self.name = name
        self.root = root
        self.client = client
        self.links = links
        self.file_mode = file_mode
        self.folder_mode = folder_mode
        self.instance = instance
        self.kind = kind
        self.side = "store" if kind == "store" else ""
        self.marker: str | None = None
        self.round_trip_s = 0.0
        self.sessions = Sessions(client)

    def __repr__(self) -> str:
        return f"SftpHost({self.name!r}, {self.root!r})"

    def open(self, marker: str | None, marks: bool = True) -> str | None:
        with self._border("open"), self.sessions.one() as session:
            tree = Tree(session, self.root, self.links)
            if marker is None:
                marker = first_marker(tree, self.instance, marks)
                if marks:
                    Sweeping(tree, self.instance, of_marker).below(".stager")  # what a crash left of making one
            if marker is not None:
                check_marker(tree, marker)
        self.marker = marker
        self.round_trip_s = self.clock().round_trip_s
        return marker

    def scan(self, prefix: str = "") -> Iterator[FileInfo | Skipped]:
        with self._border("scan"), self._tree() as tree:
            yield from scan(tree, prefix)

    def find(self, paths: Iterable[str]) -> Iterator[FileInfo | TransferError | None]:
        with self._border("find"), self._tree() as tree:
            for path in paths:
                found = _find(tree, path)
                yield self._error(found) if isinstance(found, Fault) else found

    def read(self, wants: Iterable[Want]) -> Iterator[Frame]:
        with self._border("read"), self._tree() as tree:
            yield from Reader(tree).frames(wants)

    def land(
        self, frames: Iterable[Frame], proof: str = "reread", stop: Stop = never
    ) -> Iterator[Receipt | TransferError]:
        """Errors of single files carry the facts item, epoch and destination."""
        if proof not in {"reread", "stream"}:
            raise ValueError(f"proof must be reread or stream, not {proof!r}")
        with self._border("land"), self._tree() as tree:
            landing = FarLanding(tree, self, proof, stop, lambda: self.sessions.beside(tree.session))
            try:
                for result in landing.results(frames):
                    assert not isinstance(result, Opened)  # nothing is filled here: `cuts`
                    if isinstance(result, Fault):
                        yield self._error(result)
                    else:  # read back by this side, and the receipt says so
                        yield result._replace(proof=self.reread) if result.proof == "reread" else result
            finally:
                if not tree.session.alive:
                    self._remove_left(landing)

    def fill(self, frames: Iterable[Frame], stop: Stop = never) -> Iterator[Filled | TransferError]:
        raise Unsupported("files over SFTP are written by one stream each", host=self.name, phase="fill")

    def digest(
        self, places: Iterable[Place], algorithm: str = "sha256", reread: bool = False, stop: Stop = never
    ) -> Iterator[tuple[str, int, str] | TransferError]:
        with self._border("digest"), self._tree() as tree:
            for place in places:
                try:
                    yield digest_at(tree, place, algorithm, reread, stop)
                except EOFError:
                    yield self._error(place_fault(became_shorter(), place, "read"))
                except (OSError, Fault) as error:
                    yield self._error(place_fault(error, place, "read"))

    def headers(self, places: Iterable[Place], limits: Limits = LIMITS) -> Iterator[tuple[Hdu, ...] | TransferError]:
        with self._border("headers"), self._tree() as tree:
            for place in places:
                try:
                    yield headers_at(tree, place, limits)
                except (OSError, Fault) as error:
                    yield self._error(place_fault(error, place, "headers"))

    def remove(self, paths: Iterable[str]) -> Iterator[str | TransferError]:
        with self._border("remove"), self._tree() as tree:
            for batch in batches(paths, WINDOW_FILES):
                results = [(path, remove(tree, path)) for path in batch]
                gone = [folder_of(path) for path, result in results if result == path]
                failed = synced_folders(tree, gone)  # type: ignore[arg-type] # the trees are used alike
                for path, result in results:
                    found = failed.get(folder_of(path), result) if result == path else result or path
                    yield self._error(found) if isinstance(found, Fault) else found

    def move(self, pairs: Iterable[tuple[str, str]]) -> Iterator[str | TransferError]:
        """By hard link and removal: where the connection breaks off in between, a file has both its names."""
        with self._border("move"), self._tree() as tree:
            for batch in batches(pairs, WINDOW_FILES):
                results = [(old, new, move(tree, old, new, self.folder_mode)) for old, new in batch]
                for found in moved(tree, results):  # type: ignore[arg-type] # the trees are used alike
                    yield self._error(found) if isinstance(found, Fault) else found

    def identify(self, paths: Iterable[str]) -> Iterator[Identity | TransferError | None]:
        text = "SFTP tells no file system from another: whether copies are independent is not known"
        raise Unsupported(text, host=self.name, phase="identify")

    def space(self) -> Space:
        with self._border("space"), self._tree() as tree:
            if ROOM not in tree.session.extensions:
                text = f"the SFTP server does not offer {ROOM}, so its room is not known"
                raise Fault("unsupported", text, phase="space")
            room = tree.session.room(tree.root)
        files = room.files_free if room.files else (1 << 63) - 1
        return Space(room.block * room.blocks, room.block * room.free, files)

    def gunzip(self, want: Want, most: int, stop: Stop = never) -> str:
        raise Unsupported("nothing can be unpacked there: over SFTP no program runs", host=self.name, phase="unpack")

    def clock(self) -> Clock:
        """SFTP has no way to ask for the time; the round trip is measured."""
        with self._border("clock"), self.sessions.one() as session:
            begun = time.monotonic()
            session.real(b".")
            return Clock(None, time.monotonic() - begun)

    def about(self) -> dict[str, str]:
        """How the host is spoken to, and what this server cannot do."""
        with self._border("about"), self.sessions.one() as session:
            facts = about(session.connection)
            offers = session.extensions
        facts["client"] = "paramiko, sftp"
        facts["proof"] = "read back over the wire, perhaps from the far machine's memory"
        facts["fsync"] = "yes" if SYNC in offers else "no: the server does not offer it"
        facts["times"] = "whole seconds: those of landed files are rounded down"
        if LINK not in offers:
            facts["landing"] = f"no: the server does not offer {LINK}"
        return facts

    def prepare(self, streams: int) -> None:
        """Sessions are begun as they are needed."""

    def close(self) -> None:
        self.sessions.close()

    def sweep(self, prefix: str, dead: Callable[[int, int], bool]) -> list[str]:
        with self._border("sweep"), self._tree() as tree:
            sweeping = Sweeping(tree, self.instance, dead)
            sweeping.below(prefix)
            if sweeping.faults:
                sweeping.faults[0].facts["removed"] = sweeping.removed
                raise sweeping.faults[0]
            return sweeping.removed

    @contextmanager
    def _tree(self) -> Iterator[Tree]:
        """The root, opened anew. Once the marker is known, a root without it is a host that is down."""
        with self.sessions.one() as session:
            tree = Tree(session, self.root, self.links)
            if self.marker is not None:
                check_marker(tree, self.marker)
            yield tree

    def _remove_left(self, landing: FarLanding) -> None:
        """Remove, over another connection, the parts that a lost one left; what it cannot, a sweep will."""
        left = landing.left()
        if not left:
            return
        with suppress(TransferError, Fault, OSError), self.sessions.one() as session:
            tree = Tree(session, self.root, self.links)
            for part in left:
                part.remove(tree)

    @contextmanager
    def _border(self, phase: str) -> Iterator[None]:
        try:
            yield
        except Fault as fault:
            raise self._error(fault) from fault
        except TransferError as error:
            error.host = error.host or self.name
            raise
        except OSError as error:
            raise from_os_error(error, self.name, self.side, phase) from error

    def _error(self, fault: Fault) -> TransferError:
        error = from_fault(fault, self.name)
        if error.host == self.name and error.side != "route":
            error.side = self.side or error.side
        return error


def _find(tree: Tree, path: str) -> FileInfo | Fault | None:
    try:
        _, state = tree.look(checked(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, Fault) as error:
        return fault_of(error, path, "source", "find")
    if stat.S_ISREG(state.st_mode):
        return FileInfo(path, state.st_size, state.st_mtime_ns)
    text = f"the name is taken by {what_is(state.st_mode)}, not a file"
    return Fault("refused", text, path, "source", "find", facts={"not_a_file": True})
