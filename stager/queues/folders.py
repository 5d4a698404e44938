"""Files put into a folder from which somebody else takes them: each exactly once, whatever crashes in between.

Whoever takes them removes them as it likes, so that a file that is not there may have been taken or may never have
been put there. A journal in `.stager` of the folder tells the two apart:

1. `writing`: the journal names hidden files (`.add.NAME`) that are about to be written. What is found so after a crash
   is removed, and all begins anew.
2. `written`: they are written and synced. From here on it can only go forward: a hidden file that is there still gets
   its name, one that is gone was delivered. Renames never replace a file.
3. A line in `.stager/delivered`, and the journal goes. A delivery with a line there is never made again.

One process at a time, by a lock on `.stager/lock`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from stager.queues.errors import FolderTrouble
from transfers.agent import NOT_THERE, rename_new_at_once

OWN = ".stager"
PENDING = ".add."
LOCK_S = 20.0  # how long another process is waited for
AT_ONCE = 256  # files that are open at the same time
SYNCED_AT_ONCE = 8  # of them: a disk that is asked for several writes them together
MOST_BYTES = 16 << 20  # of the list of what was delivered: some 200 000 deliveries
OPEN_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(NamedTuple):
    """A file to deliver: its name, of which others of the same name make NAME.1 and so on, and what it holds."""

    stem: str
    ending: str
    data: bytes

    def name(self, number: int) -> str:
        return f"{self.stem}.{number}{self.ending}" if number else f"{self.stem}{self.ending}"


Arrange = Callable[[Path, Sequence[str]], None]  # told the folder and the names that come into it next


def unarranged(folder: Path, coming: Sequence[str]) -> None:
    """Of a folder whose files have no order."""


@dataclass(frozen=True)
class Journal:
    """A delivery under way: each file's hidden name and the name that it is to have."""

    written: bool
    files: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Folder:
    """Where files are put (`place`), and the folder above it or itself that holds what is remembered of that."""

    place: Path
    root: Path
    arrange: Arrange = unarranged

    @property
    def own(self) -> Path:
        return self.root / OWN


def deliver(folder: Folder, key: str, entries: Sequence[Entry]) -> bool:
    """Put all of the entries into the folder, once for each key; False where that was done before.

    Raises FolderTrouble; what was begun is then finished, or begun anew, by the next call.
    """
    with told(folder.root), locked(folder):
        if is_delivered(folder, key):
            _journal(folder, key).unlink(missing_ok=True)
            return False
        journal = _read(folder, key)
        if journal is None or not journal.written:
            _clear(folder, key, journal)
            journal = _prepare(folder, key, entries)
        _hand_over(folder, journal)
        _remember(folder, key, len(journal.files))
        _journal(folder, key).unlink()
        return True


@contextmanager
def told(path: Path) -> Iterator[None]:
    """What the kernel says of the folder, as its trouble."""
    try:
        yield
    except OSError as error:
        where = str(error.filename) if isinstance(error.filename, str | Path) else str(path)
        text = error.strerror or str(error)
        raise FolderTrouble(text, phase="deliver", path=where, errno=error.errno) from error


@contextmanager
def locked(folder: Folder) -> Iterator[None]:
    """The folder to ourselves, of all processes of Stager. OSError or FolderTrouble where that cannot be had."""
    if not folder.own.is_dir():
        folder.own.mkdir(exist_ok=True)
        sync(folder.root)
    lock = os.open(folder.own / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        end = time.monotonic() + LOCK_S
        while not _has_locked(lock):
            if time.monotonic() > end:
                raise FolderTrouble("another process is delivering there", phase="deliver", path=str(folder.root))
            time.sleep(0.05)
        yield
    finally:
        os.close(lock)


def _has_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_delivered(folder: Folder, key: str) -> bool:
    """Whether a delivery has its line: a whole one, for a power cut may have cut the last."""
    try:
        lines = b"\n" + (folder.own / "delivered").read_bytes()
    except FileNotFoundError:
        return False
    begin = lines.find(f"\n{key} ".encode())
    return begin >= 0 and lines.find(b"\n", begin + 1) >= 0


def _remember(folder: Folder, key: str, count: int) -> None:
    """Add the line of a delivery, on disk when this returns. Only so many are kept: the oldest go."""
    path = folder.own / "delivered"
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    line = f"{key} {now} {count}\n".encode()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        whole = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
        write_all(descriptor, line if whole else b"\n" + line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if size == 0:
        sync(folder.own)
    if size > MOST_BYTES:
        lines = path.read_bytes().splitlines(keepends=True)
        replace(path, b"".join(lines[len(lines) // 2 :]))


def _journal(folder: Folder, key: str) -> Path:
    return folder.own / f"{key}.json"


def _read(folder: Folder, key: str) -> Journal | None:
    path = _journal(folder, key)
    try:
        said = json.loads(path.read_bytes())
        return Journal(said["state"] == "written", [(str(hidden), str(name)) for hidden, name in said["files"]])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        text = "this journal of a delivery cannot be read; look which of its files are there, then move it away"
        raise FolderTrouble(text, phase="deliver", path=str(path)) from error


def _write(folder: Folder, key: str, journal: Journal) -> None:
    said = {"state": "written" if journal.written else "writing", "files": journal.files}
    replace(_journal(folder, key), json.dumps(said).encode(), synced=journal.written)


def _clear(folder: Folder, key: str, journal: Journal | None) -> None:
    """Remove what was being written when it broke off."""
    if journal is not None:
        for hidden, _ in journal.files:
            (folder.place / hidden).unlink(missing_ok=True)
        _journal(folder, key).unlink()


def _prepare(folder: Folder, key: str, entries: Sequence[Entry]) -> Journal:
    """Write all files under hidden names, on disk when this returns. An error leaves nothing of it behind, where that
    can be done."""
    files = _names(folder.place, entries)
    _write(folder, key, Journal(False, files))
    made: list[Path] = []
    try:
        for start in range(0, len(files), AT_ONCE):
            _write_files(folder.place, files[start : start + AT_ONCE], entries[start : start + AT_ONCE], made)
        sync(folder.place)
    except OSError:
        _forget(made, _journal(folder, key))
        raise
    journal = Journal(True, files)
    _write(folder, key, journal)  # an error here leaves open which of the two is on disk: the next call looks
    return journal


def _names(place: Path, entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """The hidden name and the name of each entry: none that is there, or that a file on its way is to have."""
    taken = set(os.listdir(place))  # noqa: PTH208  names are wanted, and a million Path objects are not
    taken |= {name[len(PENDING) :] for name in taken if name.startswith(PENDING)}
    files = []
    for entry in entries:
        number = 0
        while (name := entry.name(number)) in taken:
            number += 1
        number, hidden = 0, PENDING + name
        while hidden in taken:
            number += 1
            hidden = f"{PENDING}{number}.{name}"
        taken |= {name, hidden}
        files.append((hidden, name))
    return files


def _write_files(place: Path, files: Sequence[tuple[str, str]], entries: Sequence[Entry], made: list[Path]) -> None:
    """Write some files, and then sync them all: the disk is at work on the first while the last is written."""
    opened = []
    try:
        for (hidden, _), entry in zip(files, entries, strict=True):
            opened.append(os.open(place / hidden, OPEN_NEW, 0o666))
            made.append(place / hidden)
            write_all(opened[-1], entry.data)
        if len(opened) < SYNCED_AT_ONCE:
            for descriptor in opened:
                os.fsync(descriptor)
        else:
            with ThreadPoolExecutor(SYNCED_AT_ONCE) as pool:
                list(pool.map(os.fsync, opened))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _forget(made: Sequence[Path], journal: Path) -> None:
    try:
        for path in made:
            path.unlink()
        journal.unlink()
    except OSError:
        return  # the next call does it, by the journal


def _hand_over(folder: Folder, journal: Journal) -> None:
    """Give the files that still have their hidden names their own, in order, on disk when this returns."""
    there = set(os.listdir(folder.place))  # noqa: PTH208  as above
    left = [(hidden, name) for hidden, name in journal.files if hidden in there]
    folder.arrange(folder.place, [name for _, name in left])
    descriptor = os.open(folder.place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        names = [_rename(descriptor, hidden, name) for hidden, name in left]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if names != [name for _, name in left]:
        folder.arrange(folder.place, [])


def _rename(place: int, hidden: str, name: str) -> str:
    """Give a file its name, or the next that is free where somebody took that meanwhile."""
    stem, dot, ending = name.rpartition(".")
    number, chosen = 0, name
    while True:
        try:
            _rename_new(place, hidden, chosen)
        except FileExistsError:
            number += 1
            chosen = f"{stem}.{number}{dot}{ending}"
        else:
            return chosen


def _rename_new(place: int, old: str, new: str) -> None:
    """Rename without replacing. Where the file system cannot (NFS), a look goes before: a link would be no single
    step, and a crash in the middle of it would deliver the file again."""
    try:
        rename_new_at_once(place, os.fsencode(old), place, os.fsencode(new))
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        if os.access(new, os.F_OK, dir_fd=place, follow_symlinks=False):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from error
        os.rename(old, new, src_dir_fd=place, dst_dir_fd=place)


def replace(path: Path, data: bytes, *, synced: bool = True) -> None:
    """Write a file anew, as one step that a crash cannot divide; its mode stays. Not `synced`: what it holds is on disk
    when this returns, that it has its name may yet be lost in a power cut."""
    new = path.with_name(f".{path.name.lstrip('._')}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with suppress(FileNotFoundError):
            os.fchmod(descriptor, stat.S_IMODE(path.stat().st_mode))
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.replace(path)
    if synced:
        sync(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync(folder: Path) -> None:
    """Have the names in a folder on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
