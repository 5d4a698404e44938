"""What was fetched here from a store whose files cannot be read where they lie: a bounded folder of whole files.

A driver that has to fetch a file before it can read it keeps it here for who reads it next: the members of one
bundle are read from one copy. What a file holds is trusted only by who fetched it in this process: after a crash the
folder is another one, and what a dead process left is removed.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import stat
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from transfers.agent import Fault, what_is

Key = tuple[str, int, int | None, str]  # path, offset, size, version

ROOM = "fetched-"  # begins the name of a room; what is still being made is not called so
LOCK = "lock"


class Fetched:
    """Files fetched from a store, at most so many bytes of them, the least recently used ones given up first.

    Files in use are kept whatever they take, so that together they may be more than the bound for as long as they are
    in use; one that is larger than the bound is removed once nobody uses it. Used by any number of threads: those who
    want what is being fetched wait for it, and where that fails the next of them fetches. The folder may be shared by
    several processes, each of which has a room of its own in it.
    """

    def __init__(self, folder: str, most: int) -> None:
        self.folder = folder
        self.most = most
        self._changed = threading.Condition()
        self._files: OrderedDict[Key, Kept] = OrderedDict()  # the least recently used first
        self._room: Room | None = None

    @contextmanager
    def file(
        self, path: str, size: int | None, fetch: Callable[[str], None], offset: int = 0, version: str = ""
    ) -> Iterator[str]:
        """The place here of a file of the store, or of `size` bytes of it from `offset`; it is kept for the `with`.

        `fetch` is given a place where nothing is yet, and makes the file there, whole, before it returns; what it
        raises is raised here, and what it left is removed. It need not be called. `version`: what tells the file from
        another of its name and size, where the store says anything of that kind.

        Fault "corrupted on the way" where `fetch` returned and did not make a file of that size; OSError where there is
        no room for it here.
        """
        kept = self._found(path, size, fetch, offset, version)
        try:
            yield kept.place
        finally:
            self._give_back(kept)

    def held(self) -> int:
        """The bytes that are kept now."""
        with self._changed:
            return sum(kept.size for kept in self._files.values())

    def forget(self, path: str) -> None:
        """Whatever is kept of that file of the store is not what it holds any more."""
        with self._changed:
            for kept in [kept for key, kept in self._files.items() if key[0] == path]:
                self._give_up(kept)

    def close(self) -> None:
        """Remove all that nobody uses now, and the rest once it is used no more. A later `file` begins anew."""
        with self._changed:
            room, self._room = self._room, None
            for kept in list(self._files.values()):
                self._give_up(kept)
            if room is not None:
                room.leave()

    def _found(self, path: str, size: int | None, fetch: Callable[[str], None], offset: int, version: str) -> Kept:
        key = (path, offset, size, version)
        with self._changed:
            while (kept := self._files.get(key)) is not None and not kept.whole:
                self._changed.wait()
            if kept is not None:
                kept.users += 1
                self._files.move_to_end(key)
                return kept
            if self._room is None:
                self._room = Room(self.folder)
            kept = self._files[key] = Kept(key, self._room, self._room.place(), size or 0)
            self._make_room()
        try:
            fetch(kept.place)
            kept.size = sized(kept.place, size)
        except BaseException:
            with self._changed:
                self._give_up(kept)
            self._give_back(kept)
            raise
        with self._changed:
            kept.whole = True
            self._changed.notify_all()
        return kept

    def _give_back(self, kept: Kept) -> None:
        with self._changed:
            kept.users -= 1
            if not kept.users and kept.given_up:
                kept.remove()
            self._make_room()

    # Within the lock.

    def _make_room(self) -> None:
        over = sum(kept.size for kept in self._files.values()) - self.most
        for kept in [kept for kept in self._files.values() if not kept.users]:
            if over <= 0:
                return
            over -= kept.size
            self._give_up(kept)

    def _give_up(self, kept: Kept) -> None:
        """Nobody finds it here any more; it is removed now, or by the last who uses it."""
        if self._files.get(kept.key) is kept:
            del self._files[kept.key]
            self._changed.notify_all()
        if not kept.given_up:
            kept.given_up = True
            if not kept.users:
                kept.remove()


@dataclass(slots=True, eq=False)
class Kept:
    """One file that was, or is being, fetched."""

    key: Key
    room: Room
    place: str
    size: int
    users: int = 1
    whole: bool = False
    given_up: bool = False

    def remove(self) -> None:
        with suppress(OSError):  # there is nothing, or what cannot be unlinked: that goes with the room
            os.unlink(self.place)
        self.room.leave()


class Room:
    """A folder that is one process's own for as long as it lives, removed by the last who leaves it.

    A lock of the kernel's on a file in it says that it is in use: it ends with the process, however that ends.
    """

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        remove_left(folder)
        made = tempfile.mkdtemp(dir=folder, prefix="making-")
        self._lock = os.open(os.path.join(made, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = os.path.join(folder, ROOM + os.path.basename(made).removeprefix("making-"))
        os.rename(made, self.path)  # only now is it one that others may find unlocked
        self._numbers = itertools.count(1)
        self._inside = 1  # files, and who made the room

    def place(self) -> str:
        """A name in it that nothing had before."""
        self._inside += 1
        return os.path.join(self.path, str(next(self._numbers)))

    def leave(self) -> None:
        self._inside -= 1
        if not self._inside:
            shutil.rmtree(self.path, ignore_errors=True)  # what cannot be removed is left for the next process
            os.close(self._lock)


def remove_left(folder: str) -> None:
    """Remove the rooms of processes that are no more."""
    for entry in os.scandir(folder):
        if not entry.name.startswith(ROOM) or not entry.is_dir(follow_symlinks=False):
            continue
        try:
            lock = os.open(os.path.join(entry.path, LOCK), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:  # it got its name with a lock in it: somebody is, or was, removing it
            shutil.rmtree(entry.path, ignore_errors=True)
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(entry.path, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)


def sized(place: str, size: int | None) -> int:
    """The size of the regular file that was fetched to a place, which must be `size` where that is known."""
    try:
        found = os.lstat(place)
    except FileNotFoundError:
        raise Fault("corrupted on the way", "what fetched the file said that it did, and there is none") from None
    if not stat.S_ISREG(found.st_mode):
        raise Fault("corrupted on the way", f"what was fetched is {what_is(found.st_mode)}, not a file")
    if size is not None and found.st_size != size:
        text = f"what was fetched is {found.st_size} bytes long instead of {size}"
        raise Fault("corrupted on the way", text, facts={"size": found.st_size, "expected": size})
    return found.st_size
