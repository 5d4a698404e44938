"""The folders beneath a root, over SFTP: paths held to the root, links not followed, new names never in the way.

SFTP has no openat: every folder on the way is looked at by lstat before its path is used, so a link that is
swapped in between the two is followed. Whoever can do that can write beneath the root already.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from transfers.agent import (
    MARKER,
    PATH_BYTES,
    READ_ONLY,
    Fault,
    FileInfo,
    Skipped,
    checked,
    fault_of,
    folder_of,
    raw,
    root_fault,
    what_is,
)
from transfers.sftp.wire import FAILURE, FOR_READING, LSTAT, RMDIR, Session, State, attributes, text

FULL_BYTES = 16 << 20  # with less free than this, a write that failed without a reason failed for want of room
LINK = "hardlink@openssh.com"
SYNC = "fsync@openssh.com"
ROOM = "statvfs@openssh.com"


def path_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


class Tree:
    """The root, looked at anew for each call. For one thread, as its session is."""

    def __init__(self, session: Session, root: str, links: bool = False) -> None:
        self.session = session
        self.links = links
        self.plain: dict[str, bytes] = {}  # folders that were looked at, and where they really are
        self.synced: set[str] = set()
        try:
            self.root = session.real(raw(root))
            if not stat.S_ISDIR(session.stat(self.root).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "it is no folder")
        except OSError as error:
            raise root_fault(error, f"the root {root} cannot be opened") from error

    def full(self, path: str) -> bytes:
        return self.root.rstrip(b"/") + b"/" + raw(path) if path else self.root

    def folder(self, path: str) -> bytes:
        """Where a folder is. OSError: ELOOP where a link is in the way, ENOTDIR where another thing is."""
        if not path:
            return self.root
        found = self.plain.get(path)
        if found is None:
            found = self.plain[path] = self._looked_at(path)
        return found

    def _looked_at(self, path: str) -> bytes:
        names = path.split("/")
        above = ["/".join(names[: depth + 1]) for depth in range(len(names))]
        unknown = [one for one in above if one not in self.plain]
        asked = [self.session.ask(LSTAT, text(self.full(one))) for one in unknown]  # in one round trip
        for at, number in enumerate(asked):
            try:
                mode = self.session.state(number).st_mode
            except OSError:
                self.session.forget(asked[at + 1 :])
                raise
            if stat.S_ISDIR(mode):
                continue
            self.session.forget(asked[at + 1 :])
            if not stat.S_ISLNK(mode):
                raise NotADirectoryError(errno.ENOTDIR, f"{what_is(mode)} is in the way")
            if not self.links:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            real = self.resolved(path)
            if not stat.S_ISDIR(self.session.lstat(real).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "it is no folder")
            return real
        return self.full(path)

    def resolved(self, path: str) -> bytes:
        """Where a path with links in it really is; Fault "refused" if that is outside the root."""
        real = self.session.real(self.full(path))
        if real != self.root and not real.startswith(self.root.rstrip(b"/") + b"/"):
            raise Fault("refused", "a symbolic link in the path leads out of the host's root", path)
        return real

    def place(self, path: str) -> bytes:
        """Where a file is or will be, its folder looked at."""
        folder, _, name = path.rpartition("/")
        return self.folder(folder).rstrip(b"/") + b"/" + raw(name)

    def look(self, path: str) -> tuple[bytes, State]:
        """Where and what the path names, an allowed link followed; OSError if nothing."""
        place = self.place(path)
        state = self.session.lstat(place)
        if not stat.S_ISLNK(state.st_mode):
            return place, state
        if not self.links:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        real = self.resolved(path)
        return real, self.session.lstat(real)

    def open_file(self, path: str) -> tuple[bytes, State]:
        """Open a regular file to read: (handle, state). Fault "refused" for anything else; no FIFO hangs it."""
        place, state = self.look(path)
        if stat.S_ISREG(state.st_mode):
            handle = self.session.open(place, FOR_READING)
            state = self.session.fstat(handle)
            if stat.S_ISREG(state.st_mode):
                return handle, state
            self.session.close_handle(handle)
        facts = {"not_a_file": True}
        raise Fault("refused", f"the name is taken by {what_is(state.st_mode)}, not a file", path, facts=facts)

    def make_folder(self, path: str, mode: int | None) -> bytes:
        """Where the folder is, made with its parents where missing; others may be making it too."""
        above, _, name = path.rpartition("/")
        if path not in self.plain:
            self.synced.discard(above)  # whoever made it may not have synced the name yet
        try:
            return self.folder(path)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            parent = self.make_folder(above, mode)
        place = parent.rstrip(b"/") + b"/" + raw(name)
        try:
            self.session.make_folder(place)
            if mode is not None:
                self.session.set_state(place, attributes(mode))
        except OSError as error:
            if error.errno != FAILURE:
                raise self.explained(error) from error
            try:
                self.session.lstat(place)  # another has made it meanwhile
            except OSError:
                raise self.explained(error) from error
        return self.folder(path)

    def sync(self, path: str) -> None:
        """Sync a folder and those above it that may have a new name in it, where the server can.

        OpenSSH's opens a folder as it opens a file, and syncs what is open. Where a server does not, its
        file system decides when the names are durable; `about` says so.
        """
        if SYNC not in self.session.extensions:
            return
        self._sync(path)
        while path:
            path = folder_of(path)
            if path not in self.synced:
                self._sync(path)
                self.synced.add(path)

    def _sync(self, path: str) -> None:
        self.plain.pop(path, None)  # that it still leads there is asked anew
        try:
            handle = self.session.open(self.folder(path), FOR_READING)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise
            return
        try:
            self.session.sync(handle)
        finally:
            self.session.close_handle(handle)

    def rename_new(self, old: bytes, new: bytes) -> None:
        """Give a file another name, never replacing one: FileExistsError where it is taken.

        By hard link, which the kernel refuses where the name is taken. The protocol's own rename promises as
        much in version 3, and OpenSSH's keeps to it by a link too, but where that fails it looks and then
        renames, so that a file made in between is replaced; other servers replace always, as does
        posix-rename@openssh.com. A crash between link and removal leaves both names: a sweep's work.
        """
        if LINK not in self.session.extensions:
            what = f"the SFTP server does not offer {LINK}, without which a file cannot get its name for sure"
            raise Fault("unsupported", f"{what} without replacing another; give the login a shell, or OpenSSH's server")
        try:
            self.session.link(old, new)
        except OSError as error:
            if error.errno != FAILURE:
                raise self.explained(error) from error
            if self.is_there(new):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
            found = self.explained(error)
            if found is not error:
                raise found from error
            what = "the far file system cannot make a hard link here, and SFTP has no other way to name a file"
            raise Fault("unsupported", f"{what} without replacing one ({error.strerror})") from error
        try:
            self.session.remove(old)
        except OSError:
            self.session.remove(new)  # what keeps its old name gets no new one
            raise

    def is_there(self, place: bytes) -> bool:
        try:
            self.session.lstat(place)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def explained(self, error: OSError) -> OSError | Fault:
        """What a server's "failure" or "permission denied" was, as far as asking can tell."""
        if error.errno == errno.EACCES and self.read_only():
            return Fault("read-only", "the server is read-only: it refuses every change", errno=errno.EROFS)
        if error.errno == FAILURE and ROOM in self.session.extensions:
            room = self.session.room(self.root)
            if room.read_only:
                return Fault("read-only", READ_ONLY, errno=errno.EROFS)
            if room.free * room.block < FULL_BYTES or (room.files and not room.files_free):
                return Fault("no space", "the file system is full, or nearly", errno=errno.ENOSPC)
        return error

    def read_only(self) -> bool:
        """Whether the server was started to change nothing: then it denies what could not succeed anyway."""
        nothing = self.full(MARKER + "-none")
        try:
            self.session.done(self.session.ask(RMDIR, text(nothing)))
        except OSError as error:
            return error.errno == errno.EACCES
        return False


# ------------------------------------------------------------------------------------------- walking


@dataclass(slots=True)
class Level:
    """One folder on the way down of a walk, with the names that are still to come."""

    prefix: str
    place: bytes
    names: Iterator[tuple[str, State | None]] = field(repr=False)


class Walk:
    """A sorted walk below a folder, holding one folder's names at each level."""

    def __init__(self, tree: Tree, hidden: bool = False) -> None:
        self.tree = tree
        self.hidden = hidden
        self.levels: list[Level] = []

    def enter(self, path: str) -> None:
        place = self.tree.folder(path)
        names = [(path_text(name), state) for name, state in self.tree.session.listed(place)]
        shown = sorted(one for one in names if self.hidden or not one[0].startswith("."))
        self.levels.append(Level(path + "/" if path else "", place, iter(shown)))

    def descend(self, path: str) -> None:
        """Go into a folder next; one that is gone since it was seen is not there."""
        try:
            self.enter(path)
        except FileNotFoundError:
            return

    def below(self, path: str) -> Iterator[tuple[str, State]]:
        """All below a folder, as (path, state); the caller says where to descend."""
        self.enter(path)
        while self.levels:
            level = self.levels[-1]
            name, state = next(level.names, ("", None))
            if not name:
                self.levels.pop()
                continue
            if state is None:
                try:
                    state = self.tree.session.lstat(level.place.rstrip(b"/") + b"/" + raw(name))
                except FileNotFoundError:
                    continue
            yield level.prefix + name, state


def scan(tree: Tree, prefix: str) -> Iterator[FileInfo | Skipped]:
    """The files below a prefix, or the one it names. A Fault where a folder cannot be read."""
    here = prefix
    try:
        if prefix:
            try:
                _, state = tree.look(checked(prefix))
            except (FileNotFoundError, NotADirectoryError):
                return
            if not stat.S_ISDIR(state.st_mode):
                yield described(prefix, state)
                return
        walk = Walk(tree)
        for here, state in walk.below(prefix):
            found = entry(walk, here, state)
            if found is not None:
                yield found
    except (OSError, Fault) as error:
        raise fault_of(error, here, "source", "scan") from error


def described(path: str, state: State) -> FileInfo | Skipped:
    if stat.S_ISREG(state.st_mode):
        return FileInfo(path, state.st_size, state.st_mtime_ns)
    return Skipped(path, what_is(state.st_mode))


def entry(walk: Walk, path: str, state: State) -> FileInfo | Skipped | None:
    """What to say of an entry; None for a folder, which is gone into."""
    if len(raw(path)) > PATH_BYTES:
        return Skipped(path, f"its path is longer than {PATH_BYTES} bytes")
    if stat.S_ISDIR(state.st_mode):
        if path == "lost+found":
            return Skipped(path, "a folder of the file system itself")
        walk.descend(path)
        return None
    if stat.S_ISLNK(state.st_mode) and walk.tree.links:
        return linked(walk, path)
    return described(path, state)


def linked(walk: Walk, path: str) -> FileInfo | Skipped | None:
    """The same for a link where links are allowed."""
    try:
        place, state = walk.tree.look(path)
    except (FileNotFoundError, NotADirectoryError):
        return Skipped(path, "a symbolic link to nothing")
    except Fault as fault:
        return Skipped(path, fault.text)
    if not stat.S_ISDIR(state.st_mode):
        return described(path, state)
    if place in [level.place for level in walk.levels]:
        return Skipped(path, "a symbolic link to a folder that it is in")
    walk.enter(path)
    return None
