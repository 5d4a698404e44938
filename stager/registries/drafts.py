"""A file that is made beside its place and comes there whole, or not at all.

A plain path is a file of this machine: written under another name in the same folder, synced, renamed over what was
there. Who has the old one open goes on reading that. One draft of a file at a time: the second waits. What a killed
process left is written over by the next.

`host:path` is a file at a host: it is made here and landed there as any file is, proven, the old one set aside.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from manifests.errors import shown
from manifests.parts import Location
from manifests.wording import nearest
from stager.config import Config
from stager.opening import Hosts
from stager.registries.errors import RegistryError
from transfers.copying import copy
from transfers.errors import TransferError, from_os_error
from transfers.hosts import FileInfo, Host, Want
from transfers.local import LocalHost

JOURNALS = ("-journal", "-wal")  # that SQLite leaves beside a database that is being written to
MISTAKES = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)


@dataclass
class Draft:
    """A file to be written, empty at first, and what has its place now; it takes that place only when it is kept."""

    name: str  # of the place, for people
    file: Path
    before: Path | None
    kept: bool = False

    def keep(self) -> None:
        self.kept = True


def location(output: str, config: Config) -> Location | None:
    """The place at a host that an output names; None for a file of this machine.

    Raises RegistryError for a host that the configuration does not have.
    """
    if not names_host(output):
        return None
    place = Location.parse(output)
    if not place.path:
        raise RegistryError(f'"{shown(output, 80)}": a host\'s root; name a file in it')
    if place.host not in config.hosts:
        hosts = ", ".join(config.hosts) or "none"
        raise RegistryError(
            f'"{shown(output, 80)}": there is no host {shown(place.host, 40)}{nearest(place.host, config.hosts)}; '
            f"hosts in stager.toml: {hosts}; a file of this name is ./{shown(output, 80)}"
        )
    return place


def names_host(output: str) -> bool:
    """Whether an output is `host:path`, as scp and rsync tell: by a colon before the first slash."""
    return ":" in output.split("/", 1)[0]


@contextmanager
def drafted(output: str, place: Location | None = None, hosts: Hosts | None = None) -> Iterator[Draft]:
    """A draft of the file, which takes its place at the end when it was kept; else it leaves no trace.

    Raises RegistryError where no file can be at that place, TransferError where it cannot be written.
    """
    if place is None:
        with _beside(Path(output)) as draft:
            yield draft
        return
    assert hosts is not None
    with hosts.database.alone(f"draft of {place}"), _at_host(place, hosts) as draft:
        yield draft


@contextmanager
def _beside(path: Path) -> Iterator[Draft]:
    final = Path(os.path.realpath(path))  # a link to it stays one, and leads to the new file
    with _told(path):
        if not final.name or final.is_dir():
            raise RegistryError(f"{shown(str(path))}: a folder; name a file in it")
        part = final.with_name(f".{final.name}.stager.part")
        descriptor = _own(part)
    placed = False
    try:
        with _told(path):
            draft = Draft(str(path), part, _before(final))
        yield draft
        if draft.kept:
            with _told(path):
                _place(descriptor, part, final)
            placed = True
    finally:
        if not placed:
            part.unlink(missing_ok=True)
        os.close(descriptor)


def _own(part: Path) -> int:
    """The part, made or taken over empty, and locked until it is closed; waits while another process has it.

    The lock is of the file itself, so the name is looked at again once the lock is there: whoever had it may have
    renamed or removed the file meanwhile.
    """
    while True:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            state = os.fstat(descriptor)
            if _is_at(part, state):
                if not stat.S_ISREG(state.st_mode) or state.st_nlink != 1:
                    raise RegistryError(f"{shown(str(part))} is in the way, and no file of Stager's: remove it")
                os.ftruncate(descriptor, 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(part: Path, state: os.stat_result) -> bool:
    try:
        return os.path.samestat(state, part.lstat())
    except FileNotFoundError:
        return False


def _before(final: Path) -> Path | None:
    """What has the name, if it holds anything: who opens a database that is not there yet leaves an empty file."""
    try:
        state = final.stat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(state.st_mode):
        raise RegistryError(f"{shown(str(final))}: not a file; it is left as it is")
    return final if state.st_size else None


def _place(descriptor: int, part: Path, final: Path) -> None:
    """Give the part its name, durably; it gets the permissions of the file that it replaces."""
    with suppress(FileNotFoundError):
        os.fchmod(descriptor, stat.S_IMODE(final.stat().st_mode))
    os.fsync(descriptor)
    part.replace(final)
    folder = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the system says, as an error that people can act on."""
    try:
        yield
    except OSError as error:
        if error.errno in MISTAKES:
            raise RegistryError(f"{shown(str(path))}: cannot be written: {error.strerror}") from error
        raise from_os_error(error, "", side="local", phase="write", path=str(path)) from error


@contextmanager
def _at_host(place: Location, hosts: Hosts) -> Iterator[Draft]:
    host = hosts[place.host]
    with tempfile.TemporaryDirectory(prefix="stager-") as folder:
        here = LocalHost("here", folder)
        here.open(None)
        draft = Draft(str(place), Path(folder, "new"), _fetched(host, here, place, Path(folder, "old")))
        draft.file.touch()
        yield draft
        if draft.kept:
            size = draft.file.stat().st_size
            _copied(here, host, Want(0, _epoch(), "new", place.path, size, replace=True))


def _fetched(host: Host, here: Host, place: Location, old: Path) -> Path | None:
    there = list(host.find([place.path, *(place.path + suffix for suffix in JOURNALS)]))
    for found, name in zip(there, ("", *JOURNALS), strict=True):
        if isinstance(found, TransferError):
            raise found
        if isinstance(found, FileInfo) and found.size:
            _copied(host, here, Want(0, _epoch(), found.path, old.name + name, found.size, found.mtime_ns))
    return old if old.exists() else None


def _copied(source: Host, destination: Host, want: Want) -> None:
    (_, result), *_ = copy(source, destination, [want])
    if isinstance(result, TransferError):
        raise result


def _epoch() -> int:
    """Of a part that no item has: see `land_bytes`."""
    return secrets.randbelow(1 << 31)
