"""The code that touches disks: scan, read, land, digest, headers, move, remove, space; and the wire to it.

One file, Python 3.6 syntax, standard library only, because its source is sent over SSH to hosts where
nothing is installed; for a local host it runs in this process. There is one landing path for all hosts.

What `land` promises: a final name appears only after all bytes were written under a part's name, synced,
dropped from the page cache, read back and found equal to what the source sent; it never replaces a file;
the folder is synced before the receipt. What an attempt did not make, it neither removes nor overwrites.
Paths are texts relative to the root; none leaves it. Every failure is a `Fault`, never an empty answer.

Sections: words | faults | kernel | paths and trees | digests | sums of FITS | cutting | reading | scanning |
parts | settling | landing | FITS headers | the agent | markers | wire.
"""

import abc
import errno
import functools
import hashlib
import io
import itertools
import json
import os
import queue
import re
import select
import stat
import struct
import sys
import threading
import time
import uuid
import zlib
from collections import OrderedDict, deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Generator,
    Generic,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
    Union,
)

# --------------------------------------------------------------------------------------------- words

FileInfo = NamedTuple("FileInfo", [("path", str), ("size", int), ("mtime_ns", int)])
FileInfo.__doc__ = "A regular file: its path below the root, bytes, nanoseconds."

LAST_TIME_NS = 2**63 - 1  # in the year 2262; the first one is as far back

Skipped = NamedTuple("Skipped", [("path", str), ("why", str)])
Skipped.__doc__ = "Something that is not a regular file (a link, a FIFO...): said, never silently left out."

Space = NamedTuple("Space", [("total", int), ("free", int), ("files_free", int)])
Space.__doc__ = "Bytes in all, bytes free to this user, files that may still be made (2**63-1: not counted)."


class Hdu(NamedTuple):
    """One header-data unit: places in bytes from the file's start, of what it unpacks to where `packed`.

    `header` is all its blocks up to and including END's; `data_size` is what the header declares, without padding.
    `datasum` is the sum of the data with their padding (FITS 4.0, 4.4.2.7), where it was asked for and the header
    carries DATASUM or CHECKSUM. `rest`, of the last HDU of a file that was walked to its end: bytes behind the data,
    which are the padding where all is well. `stray`: bytes of the padding that are not what FITS fills it with.
    """

    offset: int
    header: bytes
    data_offset: int
    data_size: int
    datasum: Optional[int] = None
    rest: Optional[int] = None
    stray: int = 0
    packed: bool = False


class Cut(NamedTuple):
    """`rows` stretches of `row` bytes, the first at `offset`, each `stride` bytes after the one before."""

    offset: int
    row: int
    stride: int
    rows: int


class Piece(NamedTuple):
    """A file made of new header bytes, then cuts of the source, then `pad` zero bytes.

    The header is a multiple of 2880 bytes. Its cards DATASUM and CHECKSUM, where it has them, are filled in
    from the data that was really read.
    """

    header: bytes
    cuts: Tuple[Cut, ...]
    pad: int = 0


class Member(NamedTuple):
    """A stretch of a file that is a file of its own, as a bundle's members are.

    `path` is that of the file it lies in. `name` is its own path: what its kind is told by, and its results named by.
    """

    path: str
    offset: int
    size: int
    name: str


Place = Union[str, Member]  # a file by its path, or a member of one


class Identity(NamedTuple):
    """Which file it is. Two of one `system` (boot and device number) lie on one file system, two of one `inode` there
    are one file under two names."""

    system: str
    inode: int


class Want(NamedTuple):
    """A file to bring from `source` to `destination`, and what the source should hold (None: unknown).

    Wants of one (item, epoch) stand together and form a unit: all of it comes into place, or none.
    `digest` is "algorithm:hex". With `replace`, another file at the destination is set aside first. With
    `stretch`, (offset, bytes), only that much of the source is read, and its "end" has no digest. With `stretch` and
    `digest` the stretch is a file of its own, a member: size, time and digest are the member's, which nothing but its
    digest is held against; its "end" has a digest, and the cuts of its `piece` are from where it begins.
    """

    item: int
    epoch: int
    source: str
    destination: str
    size: Optional[int] = None
    mtime_ns: Optional[int] = None
    digest: Optional[str] = None
    replace: bool = False
    piece: Optional[Piece] = None
    stretch: Optional[Tuple[int, int]] = None

    @property
    def is_member(self) -> bool:
        """Whether it is a stretch that is a file of its own, and no block of a larger one."""
        return self.stretch is not None and self.digest is not None


class Receipt(NamedTuple):
    """What the receiving side proved of a file at its final place. `proof` is "reread" (from its disk, there), "wire"
    (over SFTP: read back by the side that sent) or "stream" (hashed as it was written)."""

    item: int
    path: str
    size: int
    digest: str
    mtime_ns: int
    proof: str
    adopted: bool


class Opened(NamedTuple):
    """A part that was made for a file whose data come by `fill`: where, and the number of the file itself."""

    item: int
    path: str
    part: str
    inode: int


class Filled(NamedTuple):
    """A stretch of a part that was written: not yet synced or proven."""

    part: str
    offset: int
    size: int


class Limits(NamedTuple):
    """How far the FITS walk goes into one file, and from where on it calls it corrupt.

    With `first`, the walk ends after so many HDUs, and nothing is said of what follows. `sums`: the data of HDUs that
    carry DATASUM or CHECKSUM are read and summed. Without `pixels` (and sums) data are not looked at: a .gz is
    unpacked no further than to its last header, if what the headers declare is as long as its trailer says; else, and
    for several gzip members, it is unpacked whole, as with pixels, and gzip's own sums are checked. `by_content`: what
    begins as gzip does is unpacked whatever its name is; for who only looks, as the places are in what was unpacked.

    A .gz may unpack to `unpacked_free` bytes, or to `unpacked_ratio` times its own size where that is more. Deflate
    reaches 1032:1, so 10 MB can unpack to 10 GB. That is refused by what the header declares, before any of it is
    unpacked; and behind the last HDU no more than 16 MiB are. What is left to a crafted file is to declare, honestly,
    no more than the bound: 1.5 s of zeros, at 0.5 GB/s; unpacking patterned pixels is twice as quick. A lower bound
    would be quicker, and refuse sound files: a blank or a made focal plane of 40 CCDs (785 MB) packs to under 2 MB, and
    real ones of 2.1 to 66 MB (ImSim's eimages) 950:1. What is larger than the bound is real, and packs less well.
    """

    hdus: int = 4096
    header_bytes: int = 16 << 20
    axes: int = 999
    unpacked_free: int = 768 << 20
    unpacked_ratio: int = 64
    first: Optional[int] = None
    sums: bool = False
    pixels: bool = True
    by_content: bool = False


# A frame is ("unit", number of files), ("file", facts of the want), ("data", bytes-like, good until the next
# frame is asked for), ("end", {"size", "digest"}) or ("fault", Fault). Every want gives one "file", then
# "data" as it comes, then one "end" or "fault".
# A file whose data come by `fill`, over other streams, has ("open", facts), which is answered with Opened, then
# ("wrote", {"item", "upto"}) as its beginning is written, then ("close", {"item", "size", "digest"}) or
# ("drop", {"item", "fault"}); several may be open at once.
Frame = Tuple[str, Any]
Buffer = Union[bytes, bytearray, memoryview]
Stop = Callable[[], bool]

LIMITS = Limits()
PATH_BYTES = 1024
NAME_BYTES = 255
OWN = ".stager"
MARKER = OWN + "/marker"
QUARANTINE = OWN + "/quarantine"
SCRATCH_FOLDER = OWN + "/scratch"
CHUNK = 1 << 20  # bytes of one read: large enough to cost few calls, small enough to stay in a core's cache
WRITE_OUT = 8 << 20  # bytes after which the kernel is asked to begin to write them out
STEP = 32 << 20  # bytes of a large file after which what is written so far is synced and read back
FILLED_STEP = 16 << 20  # the same for one that comes over several streams, whose end is waited for by all of them
HOLD = 64 << 20  # bytes of a piece that is made in memory; a larger one is read twice instead
WINDOW_FILES = 100  # files whose renames and directory syncs are done together
WINDOW_BYTES = 256 << 20
WINDOW_SECONDS = 2  # a slow stream's files need not wait for others to get their receipts
SETTLERS = 6  # threads that sync and read back; fsync waits for the disk, so more of them than cores
SETTLED_AT_ONCE = 64  # small files that are handed to them together
UNSETTLED = 160  # parts written and not yet proven: bounds the open descriptors, two for each

# -------------------------------------------------------------------------------------------- faults

KIND_OF_ERRNO = {
    errno.ENOSPC: "no space",
    errno.EDQUOT: "no space",
    errno.EACCES: "refused",
    errno.EPERM: "refused",
    errno.EROFS: "refused",
    errno.ELOOP: "refused",
    errno.EXDEV: "refused",
    errno.ENAMETOOLONG: "refused",
    errno.EISDIR: "refused",
    errno.EFBIG: "refused",
    errno.EMFILE: "congested",
    errno.ENFILE: "congested",
    errno.ENOMEM: "congested",
    errno.EINVAL: "unsupported",
    errno.ENOSYS: "unsupported",
    errno.EOPNOTSUPP: "unsupported",
    errno.ENODEV: "host down",
    errno.ENXIO: "host down",
    errno.ENOTCONN: "host down",
    errno.EHOSTDOWN: "host down",
    errno.EEXIST: "conflict",
    errno.EIO: "transient",
    errno.EINTR: "transient",
    errno.EAGAIN: "transient",
    errno.EBUSY: "transient",
    errno.ESTALE: "transient",
    errno.ETIMEDOUT: "transient",
}


class Fault(Exception):
    """One thing that went wrong; `kind` is one of the words of transfers.errors."""

    def __init__(
        self,
        kind: str,
        text: str,
        path: str = "",
        side: str = "",
        phase: str = "",
        errno: Optional[int] = None,
        facts: Optional[Dict[str, Any]] = None,
    ) -> None:
        super().__init__(kind, text, path, side, phase, errno)
        self.kind = kind
        self.text = text
        self.path = path
        self.side = side
        self.phase = phase
        self.errno = errno
        self.facts = facts if facts is not None else {}

    def __str__(self) -> str:
        return "%s: %s" % (self.kind, self.text)


def kind_of(number: Optional[int], side: str) -> str:
    """The kind of an errno; what is missing or in the way means another thing at each side."""
    if number in (errno.ENOENT, errno.ENOTDIR):
        if side == "source":
            return "source missing"
        return "transient" if number == errno.ENOENT else "conflict"
    return KIND_OF_ERRNO.get(number or 0, "transient")


def fault_of(error: Union[OSError, Fault], path: str, side: str, phase: str) -> Fault:
    """The Fault that says what this error of the kernel means; a Fault gets the place it did not know."""
    if isinstance(error, Fault):
        error.path = error.path or path
        error.side = error.side or side
        error.phase = error.phase or phase
        return error
    text = error.strerror or str(error)
    if error.errno == errno.ELOOP:
        text = "the path is or passes through a symbolic link that may not be followed"
    return Fault(kind_of(error.errno, side), text, path, side, phase, error.errno)


def path_of(place: Place) -> str:
    """The path of the file that a place is, or lies in."""
    return place if isinstance(place, str) else place.path


def name_of(place: Place) -> str:
    """What a place is named by: the file's path, or the member's own."""
    return place if isinstance(place, str) else place.name


def extent_of(place: Place, whole: int) -> Tuple[int, int]:
    """Offset and size of a place in its file, which has so many bytes; see `check_stretch`."""
    if isinstance(place, str):
        return 0, whole
    check_stretch(place.offset, place.size, whole)
    return place.offset, place.size


def check_stretch(offset: int, size: int, whole: int) -> None:
    """Fault "source corrupt" for a file that is too short for a member of it."""
    if offset < 0 or size < 0:
        raise Fault("refused", "no member begins before its file, or has less than no bytes: %d, %d" % (offset, size))
    if offset + size > whole:
        text = "the member reaches to byte %d of a file of %d: that was cut short" % (offset + size, whole)
        raise Fault("source corrupt", text, facts={"needed": offset + size, "size": whole})


def place_fault(error: Union[OSError, Fault], place: Place, phase: str) -> Fault:
    """The Fault of reading a place. That of a member is named by it, and says the file that it lies in."""
    fault = fault_of(error, path_of(place), "source", phase)
    if not isinstance(place, str):
        fault.path = place.name
        fault.facts["lies_in"] = place.path
    return fault


# -------------------------------------------------------------------------------------------- kernel

RESOLVE = 0x08 | 0x04 | 0x02  # RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS, linux/openat2.h
OPENAT2 = 437  # the same number on every architecture
RENAMEAT2 = {"x86_64": 316, "aarch64": 276, "ppc64le": 357, "s390x": 347, "riscv64": 276}
RENAME_NOREPLACE = 1
OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | getattr(os, "O_CLOEXEC", 0)
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
OPEN_FILLED = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
OPEN_PART = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | getattr(os, "O_CLOEXEC", 0)
NOT_THERE = (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL)  # EPERM: old container filters say so


@functools.lru_cache(maxsize=None)
def libc() -> Any:
    """The C library where its calls are the ones known here (Linux); None elsewhere, or without ctypes."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        import ctypes

        return ctypes.CDLL(None, use_errno=True)
    except (ImportError, OSError):
        return None


def system_call(number: int, *arguments: Union[int, bytes]) -> int:
    """The result of a system call that this Python has no name for; -1 raises the OSError of its errno."""
    library = libc()
    if library is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    import ctypes

    library.syscall.restype = ctypes.c_long
    whole = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = library.syscall(ctypes.c_long(number), *whole)
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return int(result)


def open_folder_at_once(root: int, path: bytes) -> int:
    """Open a folder beneath `root` by openat2: no link, no `..`, checked by the kernel in one call."""
    how = struct.pack("QQQ", OPEN_FOLDER & ~os.O_NOFOLLOW, 0, RESOLVE)  # struct open_how of linux/openat2.h
    return system_call(OPENAT2, root, path, how, len(how))


def open_folder_stepwise(root: int, path: bytes) -> int:
    """The same without openat2: name by name, following no link. A link on the way is ELOOP."""
    here = os.dup(root)
    for name in path.split(b"/"):
        try:
            below = os.open(name, OPEN_FOLDER, dir_fd=here)
        except OSError as error:
            if error.errno == errno.ENOTDIR and stat.S_ISLNK(lstat(here, name).st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from error
            raise
        finally:
            os.close(here)
        here = below
    return here


def rename_new_at_once(old_folder: int, old: bytes, new_folder: int, new: bytes) -> None:
    """renameat2 with RENAME_NOREPLACE: FileExistsError where the new name is taken."""
    number = RENAMEAT2.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    system_call(number, old_folder, old, new_folder, new, RENAME_NOREPLACE)


def rename_new_by_link(old_folder: int, old: bytes, new_folder: int, new: bytes) -> None:
    """The same by link and unlink. A crash between them leaves both names: a sweep's work."""
    os.link(old, new, src_dir_fd=old_folder, dst_dir_fd=new_folder, follow_symlinks=False)
    try:
        os.unlink(old, dir_fd=old_folder)
    except OSError:
        os.unlink(new, dir_fd=new_folder)  # what keeps its old name gets no new one
        raise


def rename_new(old_folder: int, old: bytes, new_folder: int, new: bytes) -> None:
    """Give a file another name, never replacing one: FileExistsError where it is taken."""
    try:
        rename_new_at_once(old_folder, old, new_folder, new)
    except OSError as error:
        if error.errno not in NOT_THERE:
            raise
        first = error
    else:
        return
    try:
        rename_new_by_link(old_folder, old, new_folder, new)
    except OSError as error:
        if first.errno == errno.EPERM or error.errno not in NOT_THERE:
            raise  # EPERM twice is a folder that may not be written to, and no old filter
        text = "this file system can neither rename without replacing nor make hard links"
        raise Fault("unsupported", text, errno=error.errno) from error


def drop_cached(fd: int, offset: int, size: int) -> None:
    """Drop synced pages from the page cache, so that the next read asks the disk. Size 0: to the end."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)


SYNC_FILE_RANGE_WRITE = 2  # linux/fs.h


def begin_writing(fd: int, offset: int = 0, size: int = 0) -> None:
    """Have the kernel begin to write a stretch of a file out (size 0: to its end), where it can be asked to.

    The disk is then at work while more comes, and a sync finds little left to wait for. Files whose blocks are on
    their way before the first of them is synced are in one transaction of a journal, so that the first sync commits
    them all, and the others find nothing left to do.
    """
    library = libc()
    if library is not None and hasattr(library, "sync_file_range"):
        import ctypes

        library.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(size), SYNC_FILE_RANGE_WRITE)


def lstat(folder: int, name: bytes) -> os.stat_result:
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


def read_fully_at(fd: int, view: memoryview, offset: int) -> None:
    """Fill the view from the file; a file that ends before raises EOFError."""
    while len(view):
        if hasattr(os, "preadv"):
            count = os.preadv(fd, [view], offset)
        else:
            data = os.pread(fd, len(view), offset)
            count = len(data)
            view[:count] = data
        if count == 0:
            raise EOFError(offset)
        view = view[count:]
        offset += count


def write_fully(fd: int, data: Buffer) -> int:
    """Write all of the data; returns its bytes."""
    view = memoryview(data)
    size = view.nbytes
    done = os.write(fd, view)
    while done < size:
        count = os.write(fd, view[done:])
        if count == 0:
            raise OSError(errno.EIO, "write took no bytes")
        done += count
    return size


def write_parts(fd: int, *parts: Buffer) -> None:
    """Write all of the buffers, one after the other, in as few calls as may be."""
    left = [memoryview(part) for part in parts if len(part)]
    while left:
        done = os.writev(fd, left)
        while left and done >= len(left[0]):
            done -= len(left.pop(0))
        if left:
            left[0] = left[0][done:]


# ----------------------------------------------------------------------------------- paths and trees

TEXT_IS_UTF8 = sys.getfilesystemencoding().lower().replace("-", "") == "utf8"


def raw(path: str) -> bytes:
    """The bytes of a path's text: UTF-8 with surrogateescape whatever this machine's locale is."""
    return path.encode("utf-8", "surrogateescape")


def names_in(folder: int) -> List[str]:
    """The names in an open folder, as texts in that same encoding."""
    names = os.listdir(folder)
    if TEXT_IS_UTF8:
        return names
    return [os.fsencode(name).decode("utf-8", "surrogateescape") for name in names]


def checked(path: str) -> str:
    """The path if it is relative, bounded, without empty, `.` or `..` parts; else Fault "refused"."""
    try:
        data = raw(path)
    except UnicodeEncodeError:
        raise Fault("refused", "the path is not text that a file name can have", path) from None
    if len(data) > PATH_BYTES:
        raise Fault("refused", "the path is longer than %d bytes" % PATH_BYTES, path)
    for name in data.split(b"/"):
        if name in (b"", b".", b"..") or b"\0" in name:
            text = "a path must be relative to the host's root, without empty, '.' or '..' parts"
            raise Fault("refused", text, path)
        if len(name) > NAME_BYTES:
            raise Fault("refused", "a name in the path is longer than %d bytes" % NAME_BYTES, path)
    return path


def what_is(mode: int) -> str:
    """What a thing is that is not a regular file, in words."""
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a FIFO"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for test, name in kinds if test(mode)), "not a regular file")


def root_fault(error: Union[OSError, Fault], what: str) -> Fault:
    """A root that cannot be used is a host that is down, unless it is this process that is short of something."""
    kind = error.kind if isinstance(error, Fault) else kind_of(error.errno, "")
    kind = kind if kind in ("congested", "refused") else "host down"
    return Fault(kind, "%s: %s" % (what, getattr(error, "strerror", error)), phase="open", errno=error.errno)


class Tree:
    """The folders beneath a root, opened without leaving it. Holds descriptors: for one call, one thread.

    The root is opened anew for each call of the agent: a descriptor kept for long would hold the mount, and
    would go on showing a tree that has been unmounted.
    """

    FOLDERS = 64  # descriptors kept

    def __init__(self, root: str, links: bool = False, at_once: bool = True) -> None:
        self.root = os.path.abspath(raw(root))
        self.links = links
        self.at_once = at_once
        self.cached: OrderedDict[str, int] = OrderedDict()
        self.synced: Set[str] = set()
        try:
            self.fd = os.open(self.root, OPEN_FOLDER & ~os.O_NOFOLLOW)
        except OSError as error:
            raise root_fault(error, "the root %s cannot be opened" % root) from error

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, *error: Any) -> None:
        while self.cached:
            os.close(self.cached.popitem()[1])
        os.close(self.fd)

    def folder(self, path: str) -> int:
        """A descriptor of the folder, this tree's to close. OSError: ELOOP where a link stands in the way."""
        if not path:
            return self.fd
        fd = self.cached.get(path)
        if fd is not None:
            self.cached.move_to_end(path)
            return fd
        try:
            fd = self.beneath(raw(path))
        except OSError as error:
            if error.errno != errno.ELOOP or not self.links:
                raise
            target = self.resolved(path)
            fd = self.beneath(target) if target else os.dup(self.fd)
        while len(self.cached) >= self.FOLDERS:
            os.close(self.cached.popitem(last=False)[1])
        self.cached[path] = fd
        return fd

    def beneath(self, path: bytes) -> int:
        if self.at_once:
            try:
                return open_folder_at_once(self.fd, path)
            except OSError as error:
                if error.errno not in NOT_THERE:
                    raise
                self.at_once = False
        return open_folder_stepwise(self.fd, path)

    def resolved(self, path: str) -> bytes:
        """Where a path with links in it really is, relative to the root; Fault "refused" if that is outside.

        The answer is opened without following links, so one swapped in meanwhile leads nowhere.
        """
        base = os.path.realpath(self.root)
        real = os.path.realpath(os.path.join(base, raw(path)))
        if real == base:
            return b""
        if not real.startswith(base.rstrip(b"/") + b"/"):
            raise Fault("refused", "a symbolic link in the path leads out of the host's root", path)
        return real[len(base.rstrip(b"/")) + 1 :]

    def forget(self, path: str) -> None:
        """Close the descriptor of a folder that turned out to be gone."""
        fd = self.cached.pop(path, None)
        if fd is not None:
            os.close(fd)

    def place(self, path: str) -> Tuple[int, bytes]:
        """The folder's descriptor and the name in it."""
        folder, _, name = path.rpartition("/")
        return self.folder(folder), raw(name)

    def look(self, path: str) -> Tuple[int, bytes, os.stat_result]:
        """Folder, name and state of what the path names, an allowed link followed; OSError if nothing."""
        folder, name = self.place(path)
        state = lstat(folder, name)
        if not stat.S_ISLNK(state.st_mode):
            return folder, name, state
        if not self.links:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = self.resolved(path)
        if not target:
            return self.fd, b".", os.fstat(self.fd)
        text = target.decode("utf-8", "surrogateescape")
        folder, name = self.place(text)
        return folder, name, lstat(folder, name)

    def open_file(self, path: str) -> Tuple[int, os.stat_result]:
        """Open a regular file: (descriptor, state). Fault "refused" for anything else; no FIFO hangs it."""
        folder, name, state = self.look(path)
        if stat.S_ISREG(state.st_mode):
            fd = os.open(name, OPEN_FILE, dir_fd=folder)
            state = os.fstat(fd)
            if stat.S_ISREG(state.st_mode):
                return fd, state
            os.close(fd)
        facts = {"not_a_file": True}
        raise Fault("refused", "the name is taken by %s, not a file" % what_is(state.st_mode), path, facts=facts)

    def make_folder(self, path: str, mode: Optional[int]) -> int:
        """The folder's descriptor, made with its parents where missing; others may be making it too."""
        above, _, name = path.rpartition("/")
        if path not in self.cached:
            self.synced.discard(above)  # whoever made it may not have synced the name yet
        try:
            return self.folder(path)
        except FileNotFoundError:
            parent = self.make_folder(above, mode)
        try:
            os.mkdir(raw(name), 0o777, dir_fd=parent)
        except FileExistsError:
            return self.folder(path)
        fd = self.folder(path)
        if mode is not None:
            os.fchmod(fd, mode)
        return fd

    def sync(self, path: str) -> None:
        """Sync a folder, and each folder above it that may have a new name in it, whoever made that.

        FileNotFoundError when the path no longer leads to the folder that was worked in.
        """
        folder = self.folder(path)
        os.fsync(folder)
        if path:
            state = os.fstat(folder)
            self.forget(path)
            if not os.path.samestat(state, os.fstat(self.folder(path))):
                raise FileNotFoundError(errno.ENOENT, "the folder was moved meanwhile")
        while path:
            path = path.rpartition("/")[0]
            if path not in self.synced:
                os.fsync(self.folder(path))
                self.synced.add(path)


# ------------------------------------------------------------------------------------------- digests


class Checksum:
    """adler32 or crc32 of zlib with hashlib's face."""

    def __init__(self, function: Callable[[Buffer, int], int], value: int) -> None:
        self.function = function
        self.value = value

    def update(self, data: Buffer) -> None:
        self.value = self.function(data, self.value)

    def hexdigest(self) -> str:
        return "%08x" % (self.value & 0xFFFFFFFF)


NEW_HASHLIB = sys.version_info[:2] >= (3, 9)


def hasher(algorithm: str) -> Any:
    """A new digest of this name; Fault "unsupported" for one that is not known here."""
    if algorithm == "adler32":
        return Checksum(zlib.adler32, 1)
    if algorithm == "crc32":
        return Checksum(zlib.crc32, 0)
    if algorithm not in ("sha256", "md5", "sha1", "sha512"):
        raise Fault("unsupported", "the digest algorithm %r is not one of those known" % algorithm)
    # Where md5 is forbidden for signatures, it may still tell a damaged file.
    options: Dict[str, Any] = {"usedforsecurity": False} if NEW_HASHLIB else {}
    try:
        return hashlib.new(algorithm, **options)
    except ValueError as error:
        raise Fault("unsupported", "this machine forbids the digest algorithm %s" % algorithm) from error


class Digests:
    """sha256 of what goes through, and the algorithm of an expected "algorithm:hex" beside it."""

    def __init__(self, expected: Optional[str] = None) -> None:
        self.expected = expected
        self.algorithm, _, self.hex = (expected or "sha256:").partition(":")
        self.main = hashlib.sha256()
        self.other = None if self.algorithm == "sha256" else hasher(self.algorithm)

    def update(self, data: Buffer) -> None:
        self.main.update(data)
        if self.other is not None:
            self.other.update(data)

    def text(self) -> str:
        return "sha256:" + self.main.hexdigest()

    def check(self) -> None:
        """Fault "source corrupt" when what went through is not what was expected."""
        found = (self.other or self.main).hexdigest()
        if self.expected is not None and found != self.hex.lower():
            facts = {"expected": self.expected, "found": "%s:%s" % (self.algorithm, found)}
            raise Fault("source corrupt", "the file does not have the digest expected of it", facts=facts)


def hash_to(reading: io.FileIO, offset: int, end: int, digest: Any, view: memoryview, stop: Stop) -> None:
    """Hash an open file from where it stands, `offset`, to `end`; EOFError where it is shorter."""
    while offset < end:
        if stop():
            raise stopped()
        count = reading.readinto(view[: min(len(view), end - offset)])
        if not count:
            raise EOFError(offset)
        digest.update(view[:count])
        offset += count


def never() -> bool:
    return False


def stopped() -> Fault:
    return Fault("transient", "stopped before the file was done", phase="stopped")


SCRATCH = threading.local()


def scratch(size: int = CHUNK) -> memoryview:
    """This thread's buffer, at least so large: pages once touched are used again."""
    buffer = getattr(SCRATCH, "buffer", None)
    if buffer is None or len(buffer) < size:
        SCRATCH.buffer = buffer = bytearray(max(size, CHUNK))
    return memoryview(buffer)


def digest_of(fd: int, offset: int, size: int, algorithm: str, stop: Stop) -> str:
    """The "algorithm:hex" of `size` bytes of an open file from `offset` on."""
    digest = hasher(algorithm)
    os.lseek(fd, offset, os.SEEK_SET)
    with io.FileIO(fd, closefd=False) as reading:
        hash_to(reading, offset, offset + size, digest, scratch(), stop)
    return "%s:%s" % (algorithm, digest.hexdigest())


def ahead(
    pool: ThreadPoolExecutor, function: Callable[..., Any], items: Iterable[Any], depth: int
) -> Generator[Tuple[Any, Any], None, None]:
    """(item, future) in order, with so many of them under way ahead of the one asked for."""
    waiting: Deque[Tuple[Any, Any]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > depth:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for _, future in waiting:
            future.cancel()


# -------------------------------------------------------------------------------------- sums of FITS

ONES = 0xFFFFFFFF


@functools.lru_cache(maxsize=None)
def numpy() -> Any:
    """numpy where it can be imported, else None. Asked for only to cut: the import costs time."""
    try:
        import numpy as module
    except ImportError:
        return None
    return module


ADDED_BYTES = 4096  # at once without numpy: few enough for a number of Python's that is quickly made


def add_words_stdlib(data: Buffer) -> int:
    """A number equal to the sum of big-endian 32-bit words, modulo 2**32-1; 0 only when all are 0."""
    number = sum([int.from_bytes(data[at : at + ADDED_BYTES], "big") for at in range(0, len(data), ADDED_BYTES)])
    while number > ONES:
        bits = max(32, number.bit_length() // 64 * 32)
        number = (number >> bits) + (number & ((1 << bits) - 1))
    return number


def add_words_numpy(data: Buffer) -> int:
    """The same, without holding the interpreter's lock."""
    return int(numpy().frombuffer(data, ">u4").sum(dtype="u8"))


class Datasum:
    """The ones'-complement sum of FITS 4.0, 4.4.2.7, over bytes that come in any lengths."""

    def __init__(self, start: int = 0) -> None:
        self.total = start
        self.rest = b""
        self.add = add_words_stdlib if numpy() is None else add_words_numpy

    def update(self, data: Buffer) -> None:
        view = memoryview(data)
        if self.rest:
            missing = -len(self.rest) % 4
            self.rest += bytes(view[:missing])
            view = view[missing:]
            if len(self.rest) % 4 == 0:
                self.total += add_words_stdlib(self.rest)
                self.rest = b""
        whole = len(view) // 4 * 4
        if whole:
            self.total += self.add(view[:whole])
        if whole < len(view):
            self.rest += bytes(view[whole:])

    def value(self) -> int:
        total = self.total + add_words_stdlib(self.rest + bytes(-len(self.rest) % 4))
        return total if total <= ONES else (total - 1) % ONES + 1


def encoded_checksum(total: int) -> bytes:
    """The 16 characters that make an HDU of this sum add up to all ones (FITS 4.0, appendix J)."""
    columns = []
    for shift in (24, 16, 8, 0):
        byte = (ONES - total) >> shift & 0xFF
        four = [byte // 4 + 48 + (byte % 4 if n == 0 else 0) for n in range(4)]
        while any(58 <= code <= 64 or 91 <= code <= 96 for code in four):
            for first, second in ((0, 1), (2, 3)):
                if any(58 <= code <= 64 or 91 <= code <= 96 for code in (four[first], four[second])):
                    four[first] += 1
                    four[second] -= 1
        columns.append(four)
    text = bytes(columns[byte][n] for n in range(4) for byte in range(4))
    return text[-1:] + text[:-1]


def with_value(header: bytes, keyword: bytes, value: bytes) -> bytes:
    """The header with the quoted value of one card changed, its comment kept, if it has that card."""
    begin = keyword.ljust(8) + b"= '"
    start = next((at for at in range(0, len(header), 80) if header.startswith(begin, at)), None)
    if start is None:
        return header
    card = header[start : start + 80]
    comment = card[card.index(b"'", 11) + 1 :].strip()
    new = keyword.ljust(8) + b"= " + (b"'" + value.ljust(8) + b"'").ljust(20)
    new += b" " + comment if comment else b""
    return header[:start] + new[:80].ljust(80) + header[start + 80 :]


def summed_header(header: bytes, datasum: int) -> bytes:
    """The header with DATASUM and CHECKSUM filled in, where it has cards for them."""
    header = with_value(header, b"DATASUM", b"%d" % datasum)
    header = with_value(header, b"CHECKSUM", b"0" * 16)
    total = Datasum(datasum)
    total.update(header)
    return with_value(header, b"CHECKSUM", encoded_checksum(total.value()))


# ------------------------------------------------------------------------------------------- cutting


def check_piece(piece: Piece, size: int) -> None:
    """Fault "refused" for a recipe that makes no sense, "source corrupt" for a source too short for it."""
    if len(piece.header) % 2880 or not 0 <= piece.pad < 2880:
        raise Fault("refused", "a piece's header must be whole blocks of 2880 bytes, its padding less than one")
    for cut in piece.cuts:
        if cut.offset < 0 or cut.row < 1 or cut.rows < 0 or cut.stride < cut.row:
            raise Fault("refused", "a cut must have rows of at least a byte that do not overlap: %s" % (cut,))
        end = cut.offset + (cut.rows - 1) * cut.stride + cut.row
        if cut.rows and end > size:
            text = "a cut reaches to byte %d of a file of %d" % (end, size)
            raise Fault("source corrupt", text, facts={"needed": end, "size": size})


def piece_from(piece: Piece, offset: int) -> Piece:
    """The piece with its cuts told from a file's start, where they were told from a member's, so far into it."""
    return piece._replace(cuts=tuple(cut._replace(offset=cut.offset + offset) for cut in piece.cuts))


def piece_size(piece: Piece) -> int:
    return len(piece.header) + sum(cut.row * cut.rows for cut in piece.cuts) + piece.pad


def stretches(cuts: Iterable[Cut], limit: int = CHUNK) -> Iterator[Cut]:
    """The cuts in parts that are read at once: no more than `limit` bytes of the source in each."""
    for cut in cuts:
        if cut.row == cut.stride or cut.rows == 1:
            size = cut.row * cut.rows
            for start in range(0, size, limit):
                count = min(limit, size - start)
                yield Cut(cut.offset + start, count, count, 1)
        elif cut.stride > limit or cut.stride > 8 * cut.row:
            rows = (Cut(cut.offset + row * cut.stride, cut.row, cut.row, 1) for row in range(cut.rows))
            yield from stretches(rows, limit)
        else:
            at_once = limit // cut.stride
            for row in range(0, cut.rows, at_once):
                yield cut._replace(offset=cut.offset + row * cut.stride, rows=min(at_once, cut.rows - row))


def pack_stdlib(source: memoryview, row: int, stride: int, rows: int, out: memoryview) -> None:
    """Bring together the first `row` bytes of every `stride`."""
    out[:] = b"".join([source[start : start + row] for start in range(0, rows * stride, stride)])


def pack_numpy(source: memoryview, row: int, stride: int, rows: int, out: memoryview) -> None:
    module = numpy()
    wide = module.frombuffer(source, "u1", rows * stride).reshape(rows, stride)
    module.copyto(module.frombuffer(out, "u1").reshape(rows, row), wide[:, :row])


def take(fd: int, cut: Cut, out: memoryview) -> None:
    """Fill `out` with one stretch of the source."""
    if cut.rows == 1:
        read_fully_at(fd, out, cut.offset)
        return
    buffer = scratch(cut.rows * cut.stride)
    read_fully_at(fd, buffer[: (cut.rows - 1) * cut.stride + cut.row], cut.offset)
    pack = pack_stdlib if numpy() is None else pack_numpy
    pack(buffer, cut.row, cut.stride, cut.rows, out)


def cut_whole(fd: int, piece: Piece, data: memoryview) -> int:
    """Fill `data` with all the piece's data (padding too); returns its datasum."""
    total = Datasum()
    at = 0
    for cut in stretches(piece.cuts):
        size = cut.row * cut.rows
        take(fd, cut, data[at : at + size])
        total.update(data[at : at + size])
        at += size
    data[at:] = bytes(piece.pad)
    total.update(data[at:])
    return total.value()


def cut_flowing(fd: int, piece: Piece) -> Iterator[memoryview]:
    """The piece's data in chunks, each good until the next is asked for."""
    buffer = memoryview(bytearray(CHUNK))
    for cut in stretches(piece.cuts):
        out = buffer[: cut.row * cut.rows]
        take(fd, cut, out)
        yield out
    yield memoryview(bytes(piece.pad))


# ------------------------------------------------------------------------------------------- reading


def held_time(mtime_ns: int) -> int:
    """A file's time as far as 64 bits, and so databases, hold it: what is beyond is told as the last that they do."""
    return min(max(mtime_ns, -LAST_TIME_NS - 1), LAST_TIME_NS)


def facts_of(want: Want, size: Optional[int], mtime_ns: Optional[int]) -> Frame:
    """The frame that begins a file."""
    facts = {
        "item": want.item,
        "epoch": want.epoch,
        "path": want.destination,
        "replace": want.replace,
        "size": size,
        "mtime_ns": mtime_ns,
    }
    return ("file", facts)


def begun(want: Want, state: Any = None) -> Frame:
    """The frame that begins a file, of what is known: by its source's state, where that could be opened."""
    size = want.size if state is None else int(state.st_size)
    mtime_ns = want.mtime_ns if state is None or want.is_member else held_time(state.st_mtime_ns)
    if want.piece is not None:
        size = None if state is None else piece_size(want.piece)
    elif want.stretch is not None:
        size = want.stretch[1]
    return facts_of(want, size, mtime_ns)


def expect(want: Want, path: str, size: int, mtime_ns: int) -> None:
    """Fault "source changed" unless the file, now of this size and time, is as expected. Of a member's file only that
    it is long enough."""
    time_found: Optional[int] = mtime_ns
    if want.stretch is not None and want.digest is not None:
        check_stretch(want.stretch[0], want.stretch[1], size)
        size, time_found = want.stretch[1], want.mtime_ns
    for name, expected, found in (("size", want.size, size), ("mtime_ns", want.mtime_ns, time_found)):
        if expected is not None and expected != found:
            text = "%s was %s when it was planned and is %s" % (name, expected, found)
            raise Fault("source changed", text, path, facts={"size": size, "mtime_ns": time_found})


class Source:
    """An open source file and what it was when it was opened."""

    def __init__(self, tree: Tree, want: Want) -> None:
        self.path = checked(want.source)
        self.fd, self.state = tree.open_file(want.source)
        self.lock = threading.Lock()
        self.proven: Set[Tuple[str, int]] = set()

    def close(self) -> None:
        os.close(self.fd)

    def expect(self, want: Want) -> None:
        """Fault "source changed" unless the file is of the size and time expected."""
        expect(want, self.path, self.state.st_size, held_time(self.state.st_mtime_ns))

    def prove(self, expected: Optional[str], offset: int, size: int) -> None:
        """Fault "source corrupt" unless so much of the file has this digest; read once, by who asks first."""
        with self.lock:
            if expected is None or (expected, offset) in self.proven:
                return
            digests = Digests(expected)
            os.lseek(self.fd, offset, os.SEEK_SET)
            with io.FileIO(self.fd, closefd=False) as reading:
                hash_to(reading, offset, offset + size, digests, scratch(), never)
            digests.check()
            self.proven.add((expected, offset))

    def still(self) -> None:
        """Fault "source changed" if the file was touched since it was opened.

        The change time too: it tells of a file replaced by a rename, and of one whose mtime was set back.
        """
        now = os.fstat(self.fd)
        old = self.state
        same = (now.st_size, now.st_mtime_ns, now.st_ctime_ns) == (
            old.st_size,
            old.st_mtime_ns,
            old.st_ctime_ns,
        )
        if not same:
            self.state = now
            facts = {"size": now.st_size, "mtime_ns": held_time(now.st_mtime_ns)}
            raise Fault("source changed", "it was changed while it was read", self.path, facts=facts)


class MadePiece(NamedTuple):
    """A piece's summed header, its data (None: too large to be held) and its digest (then "")."""

    header: bytes
    data: Optional[memoryview]
    digest: str


def make_piece(source: Source, want: Want) -> MadePiece:
    """Cut, sum and hash one piece. Runs in a thread, ahead of its turn."""
    assert want.piece is not None
    offset, whole = (0, source.state.st_size) if want.stretch is None else want.stretch
    check_piece(want.piece, whole)
    source.expect(want)
    source.prove(want.digest, offset, whole)
    piece = piece_from(want.piece, offset)
    size = piece_size(piece) - len(piece.header)
    if size > HOLD:
        total = Datasum()
        for chunk in cut_flowing(source.fd, piece):
            total.update(chunk)
        return MadePiece(summed_header(piece.header, total.value()), None, "")
    data = memoryview(bytearray(size))
    header = summed_header(piece.header, cut_whole(source.fd, piece, data))
    digest = hashlib.sha256(header)
    digest.update(data)
    return MadePiece(header, data, "sha256:" + digest.hexdigest())


def units_of(wants: Iterable[Want]) -> Iterator[List[Want]]:
    """The wants in their units: those of one (item, epoch) together."""
    for _, group in itertools.groupby(wants, key=lambda want: (want.item, want.epoch)):
        yield list(group)


class Reader:
    """Turns wants into frames. Files flow one by one; pieces are made in threads, ahead of their turn."""

    MAKERS = 2

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.buffers: List[memoryview] = []
        self.hashing = ThreadPoolExecutor(1)  # one: a digest takes its chunks in order
        self.making = ThreadPoolExecutor(self.MAKERS)

    def close(self) -> None:
        self.hashing.shutdown()
        self.making.shutdown()

    def frames(self, units: Iterable[List[Want]]) -> Iterator[Frame]:
        for unit in units:
            if len(unit) > 1:
                yield ("unit", len(unit))
            for (_, cut), run in itertools.groupby(unit, key=lambda want: (want.source, want.piece is not None)):
                yield from self.of_source(list(run), self.pieces if cut else self.files)

    def of_source(self, wants: List[Want], frames: Callable[[Source, List[Want]], Iterator[Frame]]) -> Iterator[Frame]:
        """The frames of wants of one source, which is opened once and must stay as it is for all of them."""
        try:
            source = Source(self.tree, wants[0])
        except (OSError, Fault) as error:
            for want in wants:
                yield begun(want)
                yield ("fault", fault_of(error, want.source, "source", "open"))
            return
        try:
            yield from frames(source, wants)
        finally:
            source.close()

    def files(self, source: Source, wants: List[Want]) -> Iterator[Frame]:
        """The frames of a whole file, or of a stretch of it, once for each want of it.

        A block of a larger file has no digest. A member is right by its own, whatever befell the file around it.
        """
        for want in wants:
            offset, size = want.stretch or (0, source.state.st_size)
            yield begun(want, source.state)
            try:
                source.expect(want)
                digests = Digests(want.digest) if want.stretch is None or want.is_member else None
                os.lseek(source.fd, offset, os.SEEK_SET)
                for data in self.chunks(source.fd, size, digests):
                    yield ("data", data)
                if not want.is_member:
                    source.still()
                if digests is not None:
                    digests.check()
            except (OSError, EOFError, Fault) as error:
                yield ("fault", read_fault(error, want))
            else:
                yield ("end", {"size": size, "digest": digests.text() if digests is not None else ""})

    def chunks(self, fd: int, size: int, digests: Optional[Digests]) -> Iterator[memoryview]:
        """`size` bytes of a file; a large one is hashed in a thread while its chunks are read and written."""
        if not self.buffers:
            self.buffers = [memoryview(bytearray(CHUNK)) for _ in range(3)]
        busy: Deque[Future[None]] = deque()
        with io.FileIO(fd, closefd=False) as reading:
            for buffer, at in zip(itertools.cycle(self.buffers), range(0, size, CHUNK)):
                if len(busy) == len(self.buffers):
                    busy.popleft().result()
                view = buffer[: min(CHUNK, size - at)]
                read_fully(reading, view)
                if digests is None:
                    pass
                elif size <= CHUNK:
                    digests.update(view)
                else:
                    busy.append(self.hashing.submit(digests.update, view))
                yield view
        for hashed in busy:
            hashed.result()

    def pieces(self, source: Source, wants: List[Want]) -> Iterator[Frame]:
        """The frames of pieces of one source."""
        made = ahead(self.making, functools.partial(make_piece, source), wants, self.MAKERS)
        try:
            for want, future in made:
                yield from self.piece(source, want, future)
        finally:
            # No thread may be left reading a descriptor that is about to be closed.
            made.close()
            self.making.shutdown()
            self.making = ThreadPoolExecutor(self.MAKERS)

    def piece(self, source: Source, want: Want, future: "Future[MadePiece]") -> Iterator[Frame]:
        piece = want.piece
        assert piece is not None
        size = piece_size(piece)
        yield begun(want, source.state)
        try:
            made = future.result()
            yield ("data", made.header)
            if made.data is not None:
                digest = made.digest
                yield ("data", made.data)
            else:
                offset = 0 if want.stretch is None else want.stretch[0]
                digest = yield from self.flowing(source, piece_from(piece, offset), made.header)
            source.still()
        except (OSError, EOFError, Fault) as error:
            yield ("fault", read_fault(error, want))
        else:
            yield ("end", {"size": size, "digest": digest})

    def flowing(self, source: Source, piece: Piece, header: bytes) -> Generator[Frame, None, str]:
        """The data of a piece too large to be held, read a second time; returns the piece's digest."""
        digest = hashlib.sha256(header)
        for chunk in cut_flowing(source.fd, piece):
            digest.update(chunk)
            yield ("data", chunk)
        return "sha256:" + digest.hexdigest()


def read_fault(error: Union[OSError, EOFError, Fault], want: Want) -> Fault:
    """What reading ended with. A file that ends before the size it had has been changed."""
    if isinstance(error, EOFError):
        return Fault("source changed", "the file ended before its size", want.source, "source", "read")
    return fault_of(error, want.source, "source", "read")


def read_fully(reading: io.FileIO, view: memoryview) -> None:
    """Fill the view from where the file stands; a file that ends before raises EOFError."""
    while len(view):
        count = reading.readinto(view)
        if not count:
            raise EOFError(reading.tell())
        view = view[count:]


# ------------------------------------------------------------------------------------------ scanning


class Level:
    """One folder on the way down of a walk: open, with the names that are still to come."""

    def __init__(self, path: str, fd: int, hidden: bool) -> None:
        self.prefix = path + "/" if path else ""
        self.fd = fd
        state = os.fstat(fd)
        self.identity = (state.st_dev, state.st_ino)
        names = names_in(fd)
        self.names = iter(sorted(names if hidden else [name for name in names if name[0] != "."]))


class Walk:
    """A sorted walk below a folder, holding one folder's names at each level, no files."""

    def __init__(self, tree: Tree, hidden: bool = False) -> None:
        self.tree = tree
        self.hidden = hidden
        self.levels: List[Level] = []

    def enter(self, path: str, fd: int) -> None:
        try:
            self.levels.append(Level(path, fd, self.hidden))
        except OSError:
            os.close(fd)
            raise

    def descend(self, path: str, level: Level, name: bytes) -> None:
        """Go into a folder next; one that is gone since it was seen is not there."""
        try:
            fd = os.open(name, OPEN_FOLDER, dir_fd=level.fd)
        except FileNotFoundError:
            return
        self.enter(path, fd)

    def below(self, path: str) -> Iterator[Tuple[str, Level, bytes, os.stat_result]]:
        """All below a folder, as (path, level, name, state); the caller says where to descend."""
        try:
            self.enter(path, os.dup(self.tree.folder(path)))
            while self.levels:
                level = self.levels[-1]
                name = next(level.names, None)
                if name is None:
                    os.close(self.levels.pop().fd)
                    continue
                data = raw(name)
                try:
                    state = lstat(level.fd, data)
                except FileNotFoundError:
                    continue  # gone since the folder was listed
                yield level.prefix + name, level, data, state
        finally:
            while self.levels:
                os.close(self.levels.pop().fd)


def scan(tree: Tree, prefix: str) -> Iterator[Union[FileInfo, Skipped]]:
    """The files below a prefix, or the one it names. A Fault where a folder cannot be read."""
    if prefix:
        try:
            _, _, state = tree.look(checked(prefix))
        except (FileNotFoundError, NotADirectoryError):
            return
        if not stat.S_ISDIR(state.st_mode):
            yield described(prefix, state)
            return
    walk = Walk(tree)
    here = prefix
    try:
        for here, level, name, state in walk.below(prefix):
            if stat.S_ISREG(state.st_mode) and len(here) < PATH_BYTES // 4:
                yield FileInfo(here, state.st_size, held_time(state.st_mtime_ns))
            else:
                found = unusual(walk, here, level, name, state)
                if found is not None:
                    yield found
    except (OSError, Fault) as error:
        raise fault_of(error, here, "source", "scan") from error


def described(path: str, state: os.stat_result) -> Union[FileInfo, Skipped]:
    if stat.S_ISREG(state.st_mode):
        return FileInfo(path, state.st_size, held_time(state.st_mtime_ns))
    return Skipped(path, what_is(state.st_mode))


def unusual(walk: Walk, path: str, level: Level, name: bytes, state: os.stat_result) -> Union[FileInfo, Skipped, None]:
    """What to say of an entry that is not simply a file; None for a folder, which is gone into."""
    if len(raw(path)) > PATH_BYTES:
        return Skipped(path, "its path is longer than %d bytes" % PATH_BYTES)
    if stat.S_ISDIR(state.st_mode):
        if path == "lost+found":
            return Skipped(path, "a folder of the file system itself")
        walk.descend(path, level, name)
        return None
    if stat.S_ISLNK(state.st_mode) and walk.tree.links:
        return linked(walk, path)
    return described(path, state)


def linked(walk: Walk, path: str) -> Union[FileInfo, Skipped, None]:
    """The same for a link where links are allowed."""
    try:
        _, _, state = walk.tree.look(path)
    except (FileNotFoundError, NotADirectoryError):
        return Skipped(path, "a symbolic link to nothing")
    except Fault as fault:
        return Skipped(path, fault.text)
    if not stat.S_ISDIR(state.st_mode):
        return described(path, state)
    if (state.st_dev, state.st_ino) in [level.identity for level in walk.levels]:
        return Skipped(path, "a symbolic link to a folder that it is in")
    walk.enter(path, os.dup(walk.tree.folder(path)))
    return None


# --------------------------------------------------------------------------------------------- parts

PART_NAME = re.compile(r"\..*\.([0-9]+)-([0-9]+)(?:-[0-9]+)?\.([0-9a-f]{8})\.part", re.DOTALL)


def part_name(name: str, item: int, epoch: int, turn: int, instance: str) -> bytes:
    """The name of a part beside its final name; a long one is cut, between characters, to fit."""
    tail = ".%d-%d%s.%s.part" % (item, epoch, "-%d" % turn if turn else "", instance)
    room = NAME_BYTES - 1 - len(tail)
    data = raw(name)
    if len(data) > room:
        data = data[:room].decode("utf-8", "ignore").encode("utf-8")
    return b"." + data + tail.encode("ascii")


IMPOSTOR = "another file has taken the place of the part"


class Proven(NamedTuple):
    """What a part was found to hold when it was settled."""

    size: int
    digest: str
    mtime_ns: int
    inode: int


class Arrival:
    """One file on its way to its final name."""

    def __init__(self, facts: Dict[str, Any]) -> None:
        self.facts = facts
        self.path: str = facts["path"]
        self.begun = True
        self.fault: Optional[Fault] = None

    def named(self, fault: Fault) -> Fault:
        """The fault, saying which file it is of."""
        facts = {"item": self.facts["item"], "epoch": self.facts["epoch"], "destination": self.path}
        fault.facts.update(facts)
        return fault


MARKS: Any = getattr(queue, "SimpleQueue", queue.Queue)  # the simple one, since Python 3.7, is made much quicker


class Part(Arrival):
    """A file on its way under another name, its part's.

    The landing's thread writes; from the first mark on a settling thread syncs and reads back what the marks
    say is written, and closes both descriptors after the last mark (or after None: abandoned).
    """

    def __init__(self, facts: Dict[str, Any]) -> None:
        super().__init__(facts)
        self.folder, _, self.last_name = self.path.rpartition("/")
        self.name = b""  # of the part, once it is made
        self.placed = False  # it has its final name
        self.fd = -1
        self.reading: Optional[io.FileIO] = None
        self.size = 0
        self.stream = hashlib.sha256()
        self.marks: queue.SimpleQueue[Optional[Tuple[int, bool]]] = MARKS()
        self.marked = 0
        self.begun_to = 0  # what the kernel was asked to write out
        self.broken = False  # settling failed: writing on is of no use
        self.handed_over = False  # all marks are put
        self.settling: Optional[Future[Proven]] = None
        self.said: Dict[str, Any] = {}

    def make(self, tree: Tree, instance: str, folder_mode: Optional[int]) -> None:
        """Make the part, a new file that nobody else has."""
        for again in (True, False):
            folder = tree.make_folder(self.folder, folder_mode)
            try:
                self.make_in(folder, instance)
                return
            except FileNotFoundError:
                tree.forget(self.folder)  # the folder was removed since it was opened
                if not again:
                    raise

    def make_in(self, folder: int, instance: str) -> None:
        item, epoch = self.facts["item"], self.facts["epoch"]
        for turn in range(100):
            name = part_name(self.last_name, item, epoch, turn, instance)
            try:
                self.fd = os.open(name, OPEN_PART, 0o666, dir_fd=folder)
            except FileExistsError:
                continue
            self.name = name
            return
        raise Fault("conflict", "a hundred parts of this attempt are there already; sweep them")

    def open_again(self, tree: Tree) -> None:
        """Open the part by its name to read it back: what is proven is what the name leads to."""
        fd = os.open(self.name, OPEN_FILE, dir_fd=tree.folder(self.folder))
        self.reading = io.FileIO(fd)
        if not os.path.samestat(os.fstat(fd), os.fstat(self.fd)):
            raise Fault("conflict", IMPOSTOR)

    def finish(self, file_mode: Optional[int]) -> None:
        """Give the written part its times and mode."""
        mtime_ns = self.facts.get("mtime_ns")
        if mtime_ns is not None:
            os.utime(self.fd, ns=(mtime_ns, mtime_ns))
        if file_mode is not None:
            os.fchmod(self.fd, file_mode)

    def hand_over(self, mark: Optional[Tuple[int, bool]]) -> None:
        """Put the last mark, once."""
        if not self.handed_over:
            self.handed_over = True
            self.marks.put(mark)

    def abandon(self) -> None:
        """No more is written; whoever holds the descriptors closes them."""
        if self.settling is not None:
            self.hand_over(None)
            return
        self.handed_over = True
        if self.fd >= 0:
            try:
                close_part(self)
            except OSError as error:
                self.trouble("close", error)
            self.fd = -1

    def remove(self, tree: Tree) -> None:
        """Take the part away. What cannot be taken away is said in the fault, and is a sweep's work."""
        if self.placed or not self.name:
            return
        name, self.name = self.name, b""
        try:
            os.unlink(name, dir_fd=tree.folder(self.folder))
        except FileNotFoundError:
            return
        except OSError as error:
            self.trouble("remove", error)

    def trouble(self, doing: str, error: OSError) -> None:
        """Keep what went wrong beside the fault that this part ends with anyway."""
        if self.fault is not None:
            self.fault.facts["part_" + doing] = error.strerror


# ------------------------------------------------------------------------------------------ settling


def settle(part: Part, proof: str, halted: Stop, done: Callable[[], None]) -> None:
    """Settle a part, and tell its future. Runs in a thread."""
    assert part.settling is not None
    try:
        part.settling.set_result(settled_part(part, proof, halted, done))
    except BaseException as error:  # noqa: BLE001  it is raised again where the result is asked for
        part.settling.set_exception(error)


def settled_part(part: Part, proof: str, halted: Stop, done: Callable[[], None]) -> Proven:
    """Sync, drop from the cache, read back and hash a part as its marks come.

    An error of a sync is final: a second sync would report success for pages that are lost.
    """
    failure: Union[OSError, EOFError, Fault, None] = None
    proven: Optional[Proven] = None
    digest = hashlib.sha256() if proof == "reread" else None
    at = 0
    for upto, last in iter(part.marks.get, None):
        if failure is None:
            try:
                settle_to(part, at, upto, digest, halted)
                at = upto
                proven = proven_now(part, digest) if last else None
            except (OSError, EOFError, Fault) as error:
                failure = error
                part.broken = True
        if last:
            break
    try:
        close_part(part)
    except OSError as error:
        failure = failure or error
    finally:
        done()
    if failure is not None:
        raise failure
    if proven is None:
        raise stopped()
    return proven


def settle_to(part: Part, at: int, upto: int, digest: Any, halted: Stop) -> None:
    if halted():
        raise stopped()
    os.fsync(part.fd)
    if digest is not None and part.reading is not None:
        drop_cached(part.fd, at, upto - at)
        hash_to(part.reading, at, upto, digest, scratch(), halted)


def proven_now(part: Part, digest: Any) -> Proven:
    state = os.fstat(part.fd)
    text = (digest or part.stream).hexdigest()
    return Proven(state.st_size, "sha256:" + text, held_time(state.st_mtime_ns), state.st_ino)


def close_part(part: Part) -> None:
    """Close both descriptors; some file systems tell of a failed write only here."""
    if part.reading is not None:
        part.reading.close()
    os.close(part.fd)


# ------------------------------------------------------------------------------------------- landing

Result = Union[Receipt, Fault]


A = TypeVar("A", bound=Arrival)


class Intake(abc.ABC, Generic[A]):
    """Takes the frames of a landing, each to its file, and files to their unit: all of that comes into place, or none.

    What is done with a file and a unit is its heirs': `new`, `make`, `write`, `end`, `hand_over`, `ready`, `clear`.
    """

    MADE_AT = "destination"  # the side that is to blame where a file cannot be begun

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        self.halt = threading.Event()
        self.part: Optional[A] = None  # the file that the frames are of
        self.group: List[A] = []  # the files of its unit that are over
        self.group_size = 1

    def halted(self) -> bool:
        return self.halt.is_set() or self.stop()

    def results(self, frames: Iterable[Frame]) -> Generator[Any, None, None]:
        """One result for each file begun, in order; however this ends, nothing half stays behind."""
        steps = self.steps()
        try:
            for name, body in frames:
                if self.stop():
                    self.halt.set()
                    break
                steps[name](body)
                yield from self.ready(False)
            self.finish()
            yield from self.ready(True)
        finally:
            self.clear()

    def steps(self) -> Dict[str, Callable[[Any], None]]:
        """What is done for each frame, by its name."""
        return {"unit": self.unit, "file": self.begin, "data": self.write, "end": self.end, "fault": self.fail}

    def unit(self, files: int) -> None:
        self.group_size = files

    def begin(self, facts: Dict[str, Any]) -> None:
        self.part = part = self.new(facts)
        if any(other.fault is not None for other in self.group):
            part.begun = False  # its unit has failed
            part.fault = stopped()
            return
        try:
            may_change(part.path)
            self.make(part)
        except (OSError, Fault) as error:
            self.give_up(part, fault_of(error, part.path, self.MADE_AT, "open"))

    def fail(self, fault: Fault) -> None:
        """The source could not send all of the file."""
        part = self.part
        if part is not None:
            self.give_up(part, fault)
            self.complete(part)

    def give_up(self, part: A, fault: Fault) -> None:
        part.fault = part.fault or fault

    def complete(self, part: A) -> None:
        """A file is over: add it to its unit, and hand that over when it is complete."""
        if part is self.part:
            self.part = None
        self.group.append(part)
        if len(self.group) >= self.group_size:
            self.end_unit()

    def end_unit(self) -> None:
        group, self.group, self.group_size = self.group, [], 1
        self.hand_over(group)

    def finish(self) -> None:
        """The frames are over: what is not complete has failed."""
        if self.part is not None:
            self.fail(self.broken_off())
        if self.group:
            self.group[-1].fault = self.group[-1].fault or self.broken_off()
            self.end_unit()

    def broken_off(self) -> Fault:
        """Why no more frames came for what is not complete."""
        return stopped() if self.halted() else Fault("transient", "the source broke off", phase="read")

    @abc.abstractmethod
    def new(self, facts: Dict[str, Any]) -> A:
        """The file that a frame tells of."""

    @abc.abstractmethod
    def make(self, part: A) -> None:
        """Make ready to write; raises OSError or Fault."""

    @abc.abstractmethod
    def write(self, data: Buffer) -> None:
        """Some of the file's bytes came."""

    @abc.abstractmethod
    def end(self, said: Dict[str, Any]) -> None:
        """All of the file came; the source says what that should be."""

    @abc.abstractmethod
    def hand_over(self, group: List[A]) -> None:
        """A unit is over."""

    @abc.abstractmethod
    def ready(self, over: bool) -> Iterator[Any]:
        """The results there are; where the frames are over, all that are still to come."""

    @abc.abstractmethod
    def clear(self) -> None:
        """End all that is under way, and leave nothing half."""


def fail_unit(group: Sequence[Arrival], cause: Arrival) -> None:
    """Because one file of a unit failed the others fail too, each with a fault of its own."""
    assert cause.fault is not None
    for part in group:
        if part is not cause and (part.fault is None or not part.begun):
            part.fault = same_unit(cause.fault, part.path)


class Landing(Intake[Part]):
    """Takes frames, writes parts, has them settled, and puts them in place window by window."""

    def __init__(self, tree: Tree, agent: "Agent", proof: str, stop: Stop) -> None:
        super().__init__(stop)
        self.tree = tree
        self.agent = agent
        self.proof = proof
        self.pool = ThreadPoolExecutor(SETTLERS)
        self.room = threading.Semaphore(UNSETTLED)
        self.written: List[Part] = []  # and not yet handed to a settling thread
        self.filled: Dict[int, Part] = {}  # by item: the open parts whose data come by `fill`
        self.opened: List[Opened] = []
        self.window: List[List[Part]] = []
        self.window_files = self.window_bytes = 0
        self.window_since = time.monotonic()
        self.windows: Deque[List[List[Part]]] = deque()

    def steps(self) -> Dict[str, Callable[[Any], None]]:
        filled = {"open": self.open, "wrote": self.wrote, "close": self.close, "drop": self.drop}
        return dict(super().steps(), **filled)

    def ready(self, over: bool) -> Iterator[Union[Result, Opened]]:
        """Put in place the windows that are settled; one other may go on settling beside the writing."""
        while self.opened:
            yield self.opened.pop(0)
        while self.windows and (over or len(self.windows) > 1 or settled(self.windows[0])):
            yield from self.commit()

    # The frames, one method each.

    def new(self, facts: Dict[str, Any]) -> Part:
        return Part(facts)

    def make(self, part: Part) -> None:
        part.make(self.tree, self.agent.instance, self.agent.folder_mode)

    def write(self, data: Buffer) -> None:
        part = self.part
        if part is None or part.fault is not None or part.broken:
            return
        try:
            part.size += write_fully(part.fd, data)
            if part.size - part.begun_to >= WRITE_OUT:
                begin_writing(part.fd, part.begun_to, part.size - part.begun_to)
                part.begun_to = part.size
            if self.proof == "stream":
                part.stream.update(data)
            if part.size - part.marked >= STEP:
                self.mark(part, part.size // STEP * STEP)
        except (OSError, Fault) as error:
            self.give_up(part, fault_of(error, part.path, "destination", "write"))

    def end(self, said: Dict[str, Any]) -> None:
        if self.part is not None:
            self.end_part(self.part, said)

    def end_part(self, part: Part, said: Dict[str, Any]) -> None:
        part.said = said
        if part.fault is None:
            try:
                part.finish(self.agent.file_mode)
                self.mark(part, part.size, last=True)
            except (OSError, Fault) as error:
                self.give_up(part, fault_of(error, part.path, "destination", "write"))
        self.complete(part)

    # The frames of a file that is filled by others.

    def open(self, facts: Dict[str, Any]) -> None:
        part = Part(facts)
        try:
            may_change(part.path)
            part.make(self.tree, self.agent.instance, self.agent.folder_mode)
        except (OSError, Fault) as error:
            self.give_up(part, fault_of(error, part.path, "destination", "open"))
            self.complete(part)
            return
        self.filled[facts["item"]] = part
        name = part.name.decode("utf-8", "surrogateescape")
        path = part.folder + "/" + name if part.folder else name
        self.opened.append(Opened(facts["item"], part.path, path, os.fstat(part.fd).st_ino))

    def wrote(self, body: Dict[str, Any]) -> None:
        part = self.filled.get(body["item"])
        if part is None or part.fault is not None or part.broken:
            return
        part.size = body["upto"]
        if part.size - part.marked >= FILLED_STEP:
            try:
                self.mark(part, part.size)
            except (OSError, Fault) as error:
                self.give_up(part, fault_of(error, part.path, "destination", "write"))

    def close(self, said: Dict[str, Any]) -> None:
        part = self.filled.pop(said["item"], None)
        if part is not None:
            self.end_part(part, {"size": said["size"], "digest": said["digest"]})
            self.close_window()

    def drop(self, body: Dict[str, Any]) -> None:
        part = self.filled.pop(body["item"], None)
        if part is not None:
            self.give_up(part, body["fault"])
            self.complete(part)
            self.close_window()

    # A part's way to its group and window.

    def mark(self, part: Part, upto: int, last: bool = False) -> None:
        """Tell settling how far the part is written; the first mark starts it."""
        if part.settling is None:
            part.open_again(self.tree)
            if not self.room.acquire(blocking=False):
                self.settle_written()
                self.room.acquire()
            part.settling = Future()
            self.written.append(part)
            if last:
                begin_writing(part.fd)
        if last:
            part.hand_over((upto, True))
        else:
            part.marks.put((upto, False))
        part.marked = upto
        if not last or len(self.written) >= SETTLED_AT_ONCE:
            self.settle_written()

    def settle_written(self) -> None:
        """Hand what is written to the settling threads: small files some at a time, so that one sync does for many."""
        for part in self.written:
            self.pool.submit(settle, part, self.proof, self.halted, self.room.release)
        self.written = []

    def give_up(self, part: Part, fault: Fault) -> None:
        super().give_up(part, fault)
        part.abandon()

    def hand_over(self, group: List[Part]) -> None:
        """Add a group to the window."""
        self.window.append(group)
        self.window_files += len(group)
        self.window_bytes += sum(part.size for part in group)
        full = self.window_files >= WINDOW_FILES or self.window_bytes >= WINDOW_BYTES
        if full or time.monotonic() - self.window_since > WINDOW_SECONDS:
            self.close_window()

    def close_window(self) -> None:
        self.settle_written()
        if self.window:
            self.windows.append(self.window)
        self.window = []
        self.window_files = self.window_bytes = 0
        self.window_since = time.monotonic()

    def finish(self) -> None:
        if self.part is not None:
            self.fail(self.broken_off())
        for item in list(self.filled):
            self.drop({"item": item, "fault": self.broken_off()})
        super().finish()
        self.close_window()

    def clear(self) -> None:
        """Stop all threads and remove every part that has not come into place."""
        self.halt.set()
        groups = [group for window in list(self.windows) + [self.window] for group in window] + [self.group]
        parts = [part for group in groups for part in group] + list(self.filled.values())
        if self.part is not None:
            parts.append(self.part)
        for part in parts:
            part.abandon()
        self.settle_written()
        self.pool.shutdown()
        for part in parts:
            part.remove(self.tree)

    # Putting in place.

    def commit(self) -> Iterator[Result]:
        """Prove, rename and sync the oldest window; every part of it gets its result."""
        groups = [self.resolve(group) for group in self.windows[0]]
        self.windows.popleft()
        landed = [part.folder for group in groups for part, result in group if isinstance(result, Receipt)]
        failed = synced_folders(self.tree, landed)
        for group in groups:
            fault = next((failed[part.folder] for part, _ in group if part.folder in failed), None)
            for part, result in group:
                if fault is not None and isinstance(result, Receipt):
                    result = Fault(fault.kind, fault.text, part.path, "destination", "sync", fault.errno)
                yield part.named(result) if isinstance(result, Fault) else result

    def resolve(self, group: List[Part]) -> List[Tuple[Part, Result]]:
        """All of a group into place, or none of it."""
        for part in group:
            part.fault = part.fault or self.unproven(part)
        cause = next((part for part in group if part.fault is not None), None)
        if cause is None:
            placing = self.placing()
            try:
                return [(part, placing.receipt(part, self.proof)) for part in placing.all(group)]
            except (OSError, Fault) as error:
                cause = placing.undo(error)
        fail_unit(group, cause)
        for part in group:
            part.remove(self.tree)
        return [(part, part.fault) for part in group if part.fault is not None]

    def placing(self) -> "Placing":
        return Placing(self.tree, self.halted)

    def unproven(self, part: Part) -> Optional[Fault]:
        """Wait for a part to settle; the Fault when it is not what the source sent."""
        assert part.settling is not None
        try:
            proven = part.settling.result()
        except EOFError:
            text = "the part is shorter than what was written to it"
            return Fault("corrupted on the way", text, part.path, "destination", "reread")
        except (OSError, Fault) as error:
            return fault_of(error, part.path, "destination", "settle")
        if (proven.size, proven.digest) == (part.said["size"], part.said["digest"]):
            return None
        facts = {"expected": dict(part.said), "found": {"size": proven.size, "digest": proven.digest}}
        text = "what was read back is not what the source sent"
        return Fault("corrupted on the way", text, part.path, "route", "reread", facts=facts)


def settled(window: List[List[Part]]) -> bool:
    parts = (part for group in reversed(window) for part in reversed(group))  # the last is the last to be settled
    return all(part.settling is None or part.settling.done() for part in parts)


def same_unit(cause: Fault, path: str) -> Fault:
    """The fault of a file that is well but for another of its unit."""
    text = "not put in place, because %s of the same unit failed: %s" % (cause.path, cause.text)
    return Fault(cause.kind, text, path, cause.side, cause.phase, cause.errno, {"cause": cause.path})


class Filling:
    """Writes stretches of open parts. One that fails is given its Fault; the next goes on."""

    def __init__(self, tree: Tree, instance: str) -> None:
        self.tree = tree
        self.instance = instance
        self.facts: Dict[str, Any] = {}
        self.fault: Optional[Fault] = None
        self.of = ("", -1)  # path and inode of the part that is open
        self.fd = -1
        self.at = 0

    def step(self, name: str, body: Any) -> Union[Filled, Fault, None]:
        """Take one frame; the result of a stretch when it is over."""
        if name == "stretch":
            self.facts, self.fault, self.at = body, None, body["offset"]
            self.tried(self.open)
        elif name == "data":
            self.tried(functools.partial(self.write, body))
        elif name == "end":
            return self.ended()
        elif name == "fault":
            self.fault = self.fault or body
            return self.ended()
        return None

    def tried(self, action: Callable[[], None]) -> None:
        if self.fault is not None:
            return
        try:
            action()
        except (OSError, Fault) as error:
            self.fault = fault_of(error, self.facts["part"], "destination", "write")

    def open(self) -> None:
        """Open the part, if it is the file that the landing made: no other file is ever written to."""
        of = (self.facts["part"], self.facts["inode"])
        if of == self.of:
            return
        self.close()
        path, inode = of
        match = PART_NAME.fullmatch(checked(path).rpartition("/")[2])
        if match is None or match.group(3) != self.instance:
            raise Fault("refused", "this is no part of a landing", path)
        folder, name = self.tree.place(path)
        fd = os.open(name, OPEN_FILLED, dir_fd=folder)
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode) or state.st_ino != inode:
            os.close(fd)
            raise Fault("conflict", IMPOSTOR, path)
        self.fd, self.of = fd, of

    def write(self, data: Buffer) -> None:
        view = memoryview(data)
        while view:
            count = os.pwrite(self.fd, view, self.at)
            if count == 0:
                raise OSError(errno.EIO, "write took no bytes")
            self.at += count
            view = view[count:]

    def ended(self) -> Union[Filled, Fault]:
        part, offset, size = self.facts["part"], self.facts["offset"], self.facts["size"]
        fault = self.fault
        if fault is None:
            begin_writing(self.fd, offset, size)
        if fault is None and self.at - offset != size:
            fault = Fault("transient", "the source broke off", part, phase="read")
        if fault is None:
            return Filled(part, offset, size)
        fault.facts.update({"part": part, "offset": offset})
        return fault

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self.of = -1, ("", -1)


class Placing:
    """Gives the proven parts of one group their final names; all, or it undoes what it did."""

    def __init__(self, tree: Tree, halted: Stop) -> None:
        self.tree = tree
        self.halted = halted
        self.part: Optional[Part] = None  # the one it is at
        self.adopted: Dict[Part, Proven] = {}
        self.set_aside: List[Tuple[Part, str]] = []
        self.placed: List[Part] = []

    def all(self, group: List[Part]) -> List[Part]:
        """Look at every final name before the first rename: most conflicts show before anything is done."""
        taken: List[Part] = []
        for self.part in group:
            found = self.found(self.part)
            if found is not None and not self.adopt(self.part, found):
                taken.append(self.part)
        for self.part in taken:
            self.make_way(self.part)
        for self.part in group:
            if self.part not in self.adopted:
                self.rename(self.part)
        for part in self.adopted:
            part.remove(self.tree)
        return group

    def receipt(self, part: Part, proof: str) -> Receipt:
        """What was proven; an adopted file was always read back, whatever the proof asked for."""
        adopted = self.adopted.get(part)
        assert part.settling is not None
        proven = adopted or part.settling.result()
        return Receipt(
            part.facts["item"],
            part.path,
            proven.size,
            proven.digest,
            proven.mtime_ns,
            "reread" if adopted else proof,
            adopted is not None,
        )

    def found(self, part: Part) -> Optional[Proven]:
        """What is at the final name: None, or its size and, synced and read back, its digest."""
        try:
            fd, state = self.tree.open_file(part.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise Fault("conflict", "a symbolic link has the name", part.path) from error
        except Fault as fault:
            raise Fault("conflict", fault.text, part.path, facts=fault.facts) from fault
        try:
            digest = ""
            if state.st_size == part.said["size"]:
                os.fsync(fd)
                drop_cached(fd, 0, 0)
                digest = digest_of(fd, 0, state.st_size, "sha256", self.halted)
        finally:
            os.close(fd)
        return Proven(state.st_size, digest, held_time(state.st_mtime_ns), state.st_ino)

    def adopt(self, part: Part, found: Proven) -> bool:
        """Take what is there if it is the same; Fault "conflict" if it is not and may not be replaced."""
        if (found.size, found.digest) == (part.said["size"], part.said["digest"]):
            self.adopted[part] = found
            return True
        if part.facts["replace"]:
            return False
        facts = {"expected": dict(part.said), "found": {"size": found.size, "digest": found.digest}}
        raise Fault("conflict", "another file has the name", part.path, facts=facts)

    def make_way(self, part: Part) -> None:
        """Move the file that has the name into quarantine, and make that durable before its name is taken."""
        folder, name = self.tree.place(part.path)
        for turn in range(100):
            attempt = "%d-%d%s" % (part.facts["item"], part.facts["epoch"], "-%d" % turn if turn else "")
            aside = "/".join(filter(None, (QUARANTINE, attempt, part.folder)))
            try:
                rename_new(folder, name, self.tree.make_folder(aside, None), name)
            except FileExistsError:
                continue
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                text = "the old file is on another file system than the host's root: it cannot be set aside"
                raise Fault("unsupported", text, part.path, errno=error.errno) from error
            self.set_aside.append((part, aside))
            self.tree.sync(aside)
            return
        raise Fault("conflict", "the quarantine holds a hundred files of this attempt and name", part.path)

    def rename(self, part: Part) -> None:
        folder, final = self.tree.place(part.path)
        assert part.settling is not None
        if lstat(folder, part.name).st_ino != part.settling.result().inode:
            raise Fault("conflict", IMPOSTOR)
        try:
            rename_new(folder, part.name, folder, final)
        except FileExistsError:
            found = self.found(part)  # it came since we looked
            if found is None or not self.adopt(part, found):
                raise
            return
        part.placed = True
        self.placed.append(part)

    def undo(self, error: Union[OSError, Fault]) -> Part:
        """Take back the names given and give back those taken; returns the part that could not be placed.

        What cannot be undone is said in that part's fault: proven files under their own names, nothing lost.
        """
        cause = self.part
        assert cause is not None
        cause.fault = fault_of(error, cause.path, "destination", "rename")
        undone = [(part, functools.partial(self.take_back, part)) for part in self.placed]
        undone += [(part, functools.partial(self.give_back, part, aside)) for part, aside in self.set_aside]
        for part, action in undone:
            try:
                action()
            except (OSError, Fault) as trouble:
                cause.fault.facts.setdefault("not_undone", []).append("%s: %s" % (part.path, trouble))
        return cause

    def take_back(self, part: Part) -> None:
        """Rename a file that this placing put in place to a part again, if it still is that file."""
        assert part.settling is not None
        folder, final = self.tree.place(part.path)
        if lstat(folder, final).st_ino == part.settling.result().inode:
            rename_new(folder, final, folder, part.name)
            part.placed = False

    def give_back(self, part: Part, aside: str) -> None:
        """Rename a file that was set aside to its own name again."""
        folder, name = self.tree.place(part.path)
        rename_new(self.tree.folder(aside), name, folder, name)


# -------------------------------------------------------------------------------------- FITS headers

BLOCK = 2880
BITPIX = (8, 16, 32, 64, -32, -64)
INTEGER = re.compile(rb" *([+-]?[0-9]{1,30}) *(?:/.*)?", re.DOTALL)
END = re.compile(rb"(?:.{80})*?END {77}", re.DOTALL)
GZIP = b"\x1f\x8b"
PACKED_FIRST = 16 << 10  # bytes of a .gz that are read at first where headers are all that is wanted
PACKED_AT_ONCE = 64 << 10  # bytes of it that are given to zlib together: what it leaves, it copies
DEFLATE_MOST = 1032  # bytes that one byte of a deflate stream can become
BEHIND_MOST = 16 << 20  # bytes that are unpacked behind the last HDU, to see what is there
TAPE_MOST = 1 << 20  # zero bytes behind a gzip file, as blocks of tapes leave them
HOLLOW_MOST = 1 << 20  # bytes of a .gz that may unpack to nothing
MEMBERS_FREE = 1000  # gzip members of any length; more must hold MEMBER_BYTES on average
MEMBER_BYTES = 4096
WALKERS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


class Plain:
    """A file, or a member of one, for the walk: data is skipped without being read, unless its sum is wanted."""

    packed = False

    def __init__(self, fd: int, size: int, start: int = 0) -> None:
        self.fd = fd
        self.size = size
        self.start = start  # of the member in its file; all else is told from here
        self.at = 0

    def begin(self, count: int) -> bytes:
        """The file's first bytes."""
        return os.pread(self.fd, min(count, self.size), self.start)

    def last(self, count: int) -> bytes:
        """The file's last bytes."""
        count = min(count, self.size)
        return os.pread(self.fd, count, self.start + self.size - count)

    def read(self, count: int) -> bytes:
        """Up to so many bytes; fewer only at the file's end."""
        count = min(count, self.rest())
        data = os.pread(self.fd, count, self.start + self.at)
        while data and len(data) < count:
            more = os.pread(self.fd, count - len(data), self.start + self.at + len(data))
            if not more:
                break
            data += more
        self.at += len(data)
        return data

    def skip(self, count: int, total: Optional[Datasum] = None) -> int:
        """Go on by so many bytes, added up if wanted, or to the end; returns how many there were."""
        step = max(0, min(count, self.size - self.at))
        if total is not None and step == count:
            for data in self.data(count):
                total.update(data)
        self.at += step
        return step

    def data(self, count: int) -> Iterator[memoryview]:
        """So many bytes from here, each view good until the next; EOFError where the file became shorter."""
        room = scratch()
        for offset in range(self.at, self.at + count, CHUNK):
            view = room[: min(CHUNK, self.at + count - offset)]
            read_fully_at(self.fd, view, self.start + offset)
            yield view

    def rest(self) -> int:
        """How many bytes follow."""
        return max(0, self.size - self.at)

    def declare(self, number: int, upto: int) -> None:
        """An HDU declares data up to there: what is not there is seen when it is skipped."""

    def ends_at(self, upto: int) -> bool:
        """Whether nothing more is to be looked at after so many bytes."""
        return False


class Gunzipped:
    """A .gz file for the walk: unpacked as it streams by, its CRC and length checked, within bounds."""

    packed = True

    def __init__(self, file: Plain, limits: Limits) -> None:
        self.file = file
        self.most = max(limits.unpacked_free, limits.unpacked_ratio * file.size)
        self.brief = not (limits.pixels or limits.sums)
        self.step = PACKED_FIRST if self.brief or limits.first is not None else CHUNK
        self.unpacker = zlib.decompressobj(31)  # gzip's wrapper: zlib checks CRC and length itself
        self.waiting = memoryview(b"")  # of the file, read and not yet unpacked
        self.ready = memoryview(b"")  # unpacked and not yet asked for
        self.members = 1
        self.taken = self.unpacked = 0
        self.ended = False

    def more(self) -> bytes:
        """The next unpacked bytes; b"" at the end of a sound file."""
        while not self.ended:
            if self.unpacker.eof:
                self.next_member()
                continue
            if not self.fill():
                raise corrupt_gzip("gzip-cut-short", "the gzip file is cut short")
            given = self.waiting[:PACKED_AT_ONCE]
            try:
                out = self.unpacker.decompress(given, CHUNK)
            except zlib.error as error:
                raise corrupt_gzip("gzip-damaged", "the gzip file is damaged: %s" % error) from error
            taken = len(given) - len(self.unpacker.unconsumed_tail) - len(self.unpacker.unused_data)
            self.waiting = self.waiting[taken:]
            self.taken += taken
            self.unpacked += len(out)
            if self.taken - self.unpacked > HOLLOW_MOST:
                raise corrupt_gzip("gzip-bomb", "the gzip file holds less than the bytes that it takes")
            if out:
                return out
        return b""

    def fill(self) -> bool:
        """Whether there are bytes of the file to unpack; read where there are none waiting."""
        if not self.waiting:
            self.waiting = memoryview(self.file.read(self.step))
            self.step = min(CHUNK, 2 * self.step)
        return len(self.waiting) > 0

    def next_member(self) -> None:
        """Go on after one gzip member: to another, or over zero bytes to the end. Anything else is damage."""
        zeros = 0
        while self.fill():
            given = bytes(self.waiting[:PACKED_AT_ONCE])
            rest = given.lstrip(b"\0")
            self.waiting = self.waiting[len(given) - len(rest) :]
            zeros += len(given) - len(rest)
            if zeros > TAPE_MOST or (rest and not rest.startswith(GZIP[:1])):
                raise corrupt_gzip("gzip-damaged", "the gzip file is damaged: other bytes follow its end")
            if rest:
                self.members += 1
                if self.members > MEMBERS_FREE + self.unpacked // MEMBER_BYTES:
                    raise corrupt_gzip("gzip-bomb", "the gzip file is in more members than any program writes")
                self.unpacker = zlib.decompressobj(31)
                return
        self.ended = True

    def unpack(self) -> bool:
        """Whether something more is ready."""
        if not self.ready:
            self.ready = memoryview(self.more())
        return len(self.ready) > 0

    def read(self, count: int) -> bytes:
        parts = []
        while count > 0 and self.unpack():
            parts.append(self.ready[:count])
            self.ready = self.ready[count:]
            count -= len(parts[-1])
        return b"".join(parts)

    def skip(self, count: int, total: Optional[Datasum] = None) -> int:
        left = count
        while left > 0 and self.unpack():
            data = self.ready[:left]
            self.ready = self.ready[left:]
            left -= len(data)
            if total is not None:
                total.update(data)
        return count - left

    def rest(self) -> int:
        """How many bytes follow: unpacked to the end, so that the last CRC is checked too."""
        count = 0
        while self.unpack():
            count += len(self.ready)
            self.ready = memoryview(b"")
            if count > BEHIND_MOST:
                text = "the gzip file goes on for more than %d bytes behind its last HDU" % BEHIND_MOST
                raise corrupt_gzip("gzip-bomb", text)
        return count

    def declare(self, number: int, upto: int) -> None:
        """Fault where an HDU declares data up to there, and that is more than can be, or may be, unpacked."""
        size = self.file.size
        if upto > DEFLATE_MOST * size:
            text = "its header declares data up to byte %d, and a gzip file of %d bytes cannot hold so much"
            raise corrupt(number, "cut-short", text % (upto, size))
        if upto > self.most:
            text = "its header declares data up to byte %d, and no sound gzip file of %d bytes unpacks to more than %d"
            raise corrupt(number, "gzip-bomb", text % (upto, size, self.most))

    def ends_at(self, upto: int) -> bool:
        """Whether the trailer says that so many bytes are all, and pixels are not to be looked at."""
        if not self.brief:
            return False
        length = self.file.last(4)  # ISIZE, the length modulo 2**32 (RFC 1952, 2.3.1): of the last member alone
        return len(length) == 4 and struct.unpack("<I", length)[0] == upto & ONES


def corrupt(number: int, code: str, text: str) -> Fault:
    return Fault("source corrupt", "HDU %d: %s" % (number, text), facts={"hdu": number, "code": code})


def corrupt_gzip(code: str, text: str) -> Fault:
    return Fault("source corrupt", text, facts={"code": code})


def read_header(stream: Union[Plain, Gunzipped], number: int, first: bytes, room: int) -> bytes:
    """All blocks of a header whose first block was read, up to END's; Fault where END does not come."""
    header = bytearray(first)
    while END.match(header, len(header) - BLOCK) is None:
        if len(header) >= room:
            text = "its header goes on beyond %d bytes without an END card" % room
            raise corrupt(number, "no-end", text + what_instead(header))
        block = stream.read(BLOCK)
        if len(block) < BLOCK:
            raise cut_header(number, block, what_instead(header))
        header += block
    return bytes(header)


def what_instead(header: bytearray) -> str:
    """What a header without END may really be, in words."""
    if b"\0" in header[-BLOCK:]:
        return "; it has zero bytes, so what was written there is lost"
    return "; it has line ends, as texts have and headers have not" if b"\n" in header[-BLOCK:] else ""


def cut_header(number: int, block: bytes, more: str = "") -> Fault:
    """The fault of a file that ends within a header, whose last block this is."""
    where = "before an END card" if END.match(block) is None else "in the block of its END card"
    return corrupt(number, "no-end", "the file ends inside the header, %s%s" % (where, more))


def integer_of(cards: Dict[bytes, List[bytes]], number: int, keyword: str, default: Optional[int] = None) -> int:
    """The integer of a card that decides where data ends; Fault if absent, no integer, or ambiguous."""
    found = cards.get(keyword.encode("ascii"), [])
    values = set()
    for card in found:
        match = INTEGER.fullmatch(card[10:]) if card[8:10] == b"= " else None
        if match is None:
            value = card[8:].decode("ascii", "backslashreplace").strip()
            raise corrupt(number, "bad-card", "%s is not an integer: %r" % (keyword, value))
        values.add(int(match.group(1)))
        if len(values) > 1:
            text = "%s stands there with different values: %s" % (keyword, sorted(values))
            raise corrupt(number, "bad-card", text)
    if values:
        return values.pop()
    if default is None:
        raise corrupt(number, "bad-card", "it has no card %s" % keyword)
    return default


def within(number: int, keyword: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise corrupt(number, "bad-card", "%s = %d is not from %d to %d" % (keyword, value, least, most))
    return value


STRUCTURE = re.compile(rb"BITPIX|NAXIS[0-9]*|PCOUNT|GCOUNT|GROUPS")
STRUCTURE_BEGINS = frozenset((b"BITPI", b"NAXIS", b"PCOUN", b"GCOUN", b"GROUP"))
MOST = (1 << 63) - 1


def end_of(header: bytes) -> int:
    """Where the END card of a header stands, which is in its last block."""
    match = END.match(header, len(header) - BLOCK)
    assert match is not None  # `read_header` went on until there was one
    return match.end() - 80


def data_size(header: bytes, number: int, limits: Limits) -> int:
    """The bytes of data that a header declares, without padding (FITS 4.0, equations 1, 2 and 4)."""
    cards: Dict[bytes, List[bytes]] = {}
    for at in range(0, end_of(header), 80):
        if header[at : at + 5] in STRUCTURE_BEGINS:
            keyword = header[at : at + 8].rstrip()
            if STRUCTURE.fullmatch(keyword):
                found = cards.setdefault(keyword, [])
                if len(found) < 2 and header[at : at + 80] not in found:  # two that differ are enough to refuse it
                    found.append(header[at : at + 80])
    bitpix = integer_of(cards, number, "BITPIX")
    if bitpix not in BITPIX:
        text = "BITPIX = %d is none of %s" % (bitpix, ", ".join(map(str, BITPIX)))
        raise corrupt(number, "bad-card", text)
    axes = within(number, "NAXIS", integer_of(cards, number, "NAXIS"), 0, limits.axes)
    lengths = [axis_length(cards, number, "NAXIS%d" % (axis + 1)) for axis in range(axes)]
    parameters = within(number, "PCOUNT", integer_of(cards, number, "PCOUNT", 0), 0, MOST)
    groups = within(number, "GCOUNT", integer_of(cards, number, "GCOUNT", 1), 0, MOST)
    if not lengths:
        return 0
    if number == 0 and lengths[0] == 0 and b"GROUPS" in cards:
        lengths = lengths[1:]
    elements = 1
    for length in lengths:
        elements *= length
    size = abs(bitpix) // 8 * groups * (parameters + elements)
    if size > MOST:
        raise corrupt(number, "bad-card", "NAXISn declare more data than any file can hold")
    return size


def axis_length(cards: Dict[bytes, List[bytes]], number: int, keyword: str) -> int:
    return within(number, keyword, integer_of(cards, number, keyword), 0, MOST)


def walk_hdus(stream: Union[Plain, Gunzipped], limits: Limits) -> Tuple[Hdu, ...]:
    """The HDUs of a file. Bytes behind the last that begin no extension are counted in its `rest`."""
    found: List[Hdu] = []
    room = limits.header_bytes
    at = behind = 0
    while True:
        number = len(found)
        first = stream.read(BLOCK)
        if not begins_hdu(number, first):
            found[-1] = found[-1]._replace(rest=behind + len(first) + stream.rest())
            return tuple(found)
        if number == limits.hdus:
            raise corrupt(number, "too-many-hdus", "there are more than %d HDUs" % limits.hdus)
        header = read_header(stream, number, first, room)
        room -= len(header)
        size = data_size(header, number, limits)
        hdu = Hdu(at, header, at + len(header), size, packed=stream.packed)
        at = hdu.data_offset + size + -size % BLOCK
        if number + 1 == limits.first:
            return tuple(found + [hdu])
        stream.declare(number, hdu.data_offset + size)
        if stream.ends_at(at):
            return tuple(found + [hdu._replace(rest=-size % BLOCK)])
        hdu, behind = through_data(stream, number, hdu, limits)
        found.append(hdu)


def through_data(stream: Union[Plain, Gunzipped], number: int, hdu: Hdu, limits: Limits) -> Tuple[Hdu, int]:
    """Go over an HDU's data and padding: with what was to be found on the way, and the bytes of padding there are."""
    total = Datasum() if limits.sums and carries_sum(hdu.header) else None
    there = stream.skip(hdu.data_size, total)
    if there < hdu.data_size:
        text = "its header declares %d bytes of data, the file has %d" % (hdu.data_size, there)
        raise corrupt(number, "cut-short", text)
    padding = -hdu.data_size % BLOCK
    if total is None and not limits.pixels:
        return hdu, stream.skip(padding)
    filled = stream.read(padding)
    fill = b" " if hdu.header.startswith(b"XTENSION= 'TABLE   '") else b"\0"
    stray = len(filled) - filled.count(fill)
    if total is None:
        return hdu._replace(stray=stray), len(filled)
    total.update(filled)
    return hdu._replace(datasum=total.value(), stray=stray), len(filled)


def carries_sum(header: bytes) -> bool:
    """Whether a header has a card DATASUM or CHECKSUM."""
    return any(place_of(header, keyword) is not None for keyword in (b"DATASUM = ", b"CHECKSUM= "))


def place_of(header: bytes, begin: bytes) -> Optional[int]:
    """Where the first card that begins so stands."""
    at = header.find(begin)
    while at >= 0 and at % 80:
        at = header.find(begin, at + 1)
    return at if at >= 0 else None


def begins_hdu(number: int, block: bytes) -> bool:
    """Whether an HDU begins here; Fault where one must, or where one is cut short."""
    if number == 0:
        if not block:
            raise corrupt(0, "empty", "the file is empty")
        if block.startswith(GZIP):
            raise corrupt(0, "gzip-name", "it is gzip data, packed twice or under a name that does not end in .gz")
        if not re.match(rb"SIMPLE  = +[TF] *(/.*)?", block[:80], re.DOTALL):
            text = "the file does not begin with a card SIMPLE = T, so it is not FITS; it begins with %s"
            raise corrupt(0, "not-fits", text % quoted(block))
        if b"\n" in block[:82]:
            raise corrupt(0, "not-fits", "the file is a text with the cards of a header, one on a line, and not FITS")
    elif not block.startswith(b"XTENSION= "):
        return False
    if len(block) < BLOCK:
        raise cut_header(number, block)
    return True


def quoted(data: bytes) -> str:
    """The beginning of something unknown, so that it can be shown."""
    return ascii(data[:20].decode("latin-1")) if data[:20].strip(b"\0") else "zero bytes"


def stream_of(file: Plain, path: str, limits: Limits) -> Union[Plain, Gunzipped]:
    """The file as the walk reads it: unpacked where its name ends in .gz, or by its content where that is wanted."""
    named = path.lower().endswith(".gz")
    if not (named or limits.by_content):
        return file
    begin = file.begin(20)
    if begin.startswith(GZIP):
        return Gunzipped(file, limits)
    if not named:
        return file
    if not begin:
        raise corrupt_gzip("empty", "the gzip file is empty")
    if begin.startswith(b"SIMPLE  ="):
        text = "the name ends in .gz, but it is no gzip data: it was unpacked, and kept the name"
        raise corrupt_gzip("gzip-name", text)
    text = "the name ends in .gz, but it is no gzip data: it begins with %s"
    raise corrupt_gzip("not-fits", text % quoted(begin))


def headers_of(file: Plain, path: str, limits: Limits) -> Tuple[Hdu, ...]:
    """All HDUs of an open file; Fault "source corrupt" says the HDU, card and value."""
    try:
        return walk_hdus(stream_of(file, path, limits), limits)
    except EOFError:
        raise became_shorter() from None


def became_shorter() -> Fault:
    return Fault("source changed", "the file became shorter while it was read")


def headers_at(tree: Tree, opening: threading.Lock, limits: Limits, place: Place) -> Union[Tuple[Hdu, ...], Fault]:
    """The HDUs of a file or member, or its Fault. A tree is one thread's, so files are opened in turn."""
    try:
        with opening:
            fd, state = tree.open_file(checked(path_of(place)))
        try:
            start, size = extent_of(place, state.st_size)
            return headers_of(Plain(fd, size, start), name_of(place), limits)
        finally:
            os.close(fd)
    except (OSError, Fault) as error:
        return place_fault(error, place, "headers")


# ----------------------------------------------------------------------------------------- the agent


class Agent:
    """The files beneath one root. Every method may be called by several threads at once.

    `links`: links that stay inside the root are followed. `file_mode`, `folder_mode`: modes of what is made
    (None: as the umask has it). `instance`: 8 hex digits in the names of parts, so that two Stagers on one
    root never sweep each other's.
    """

    def __init__(
        self,
        root: str,
        links: bool = False,
        file_mode: Optional[int] = None,
        folder_mode: Optional[int] = None,
        instance: str = "00000000",
    ) -> None:
        if not re.fullmatch("[0-9a-f]{8}", instance):
            raise ValueError("instance must be 8 hex digits, not %r" % instance)
        self.root = root
        self.links = links
        self.file_mode = file_mode
        self.folder_mode = folder_mode
        self.instance = instance
        self.marker: Optional[str] = None

    def tree(self) -> Tree:
        """The root, opened anew. Once the marker is known, a root without it is a host that is down."""
        tree = Tree(self.root, self.links)
        try:
            if self.marker is not None:
                check_marker(tree, self.marker)
        except Fault:
            tree.__exit__()
            raise
        return tree

    def open(self, marker: Optional[str], marks: bool = True) -> Optional[str]:
        """The root's marker, made at first use (None); one that is known must be there, or Fault "host down".

        A root that cannot be written to is known by the number of its folder instead: see `derived_marker`.
        Without `marks` nothing is written at first use either; None where the root has no marker.
        """
        with Tree(self.root, self.links) as tree:
            if marker is None:
                marker = first_marker(tree, self.instance, marks)
                if marks:
                    Sweeping(tree, self.instance, of_marker).below(OWN)  # what a crash left of making one
            if marker is not None:
                check_marker(tree, marker)
        self.marker = marker
        return marker

    def scan(self, prefix: str = "") -> Iterator[Union[FileInfo, Skipped]]:
        """What is below a prefix, sorted, hidden names left out. An unreadable folder is a Fault, raised."""
        with self.tree() as tree:
            yield from scan(tree, prefix)

    def find(self, paths: Iterable[str]) -> Iterator[Union[FileInfo, Fault, None]]:
        """For each path its file, None where there is nothing, or a Fault (a folder has the name...)."""
        with self.tree() as tree:
            for path in paths:
                yield find(tree, path)

    def read(self, wants: Iterable[Want]) -> Iterator[Frame]:
        """The frames of these files (see `Frame`). One that cannot be read is a "fault"; the next goes on."""
        with self.tree() as tree:
            reader = Reader(tree)
            try:
                yield from reader.frames(units_of(wants))
            finally:
                reader.close()

    def carry(self, wants: Iterable[Want], proof: str = "reread", stop: Stop = never) -> Iterator[Result]:
        """Bring files from one place beneath the root to another: read and landed here, by the same path."""
        for result in self.land(self.read(wants), proof, stop):
            assert not isinstance(result, Opened)  # a reader opens nothing to be filled
            yield result

    def fill(self, frames: Iterable[Frame], stop: Stop = never) -> Iterator[Union[Filled, Fault]]:
        """Write stretches of parts that a landing has opened: Filled, or Fault, for each ("stretch", facts), its
        "data", and its "end" or "fault". The landing syncs and proves them; nothing else is ever written to.
        """
        with self.tree() as tree:
            filling = Filling(tree, self.instance)
            try:
                for name, body in frames:
                    if stop():
                        return
                    result = filling.step(name, body)
                    if result is not None:
                        yield of_root(tree, self.instance, result) if isinstance(result, Fault) else result
            finally:
                filling.close()

    def land(
        self, frames: Iterable[Frame], proof: str = "reread", stop: Stop = never
    ) -> Iterator[Union[Result, Opened]]:
        """Land what the frames bring: a Receipt, or Fault (facts: item, epoch, destination), a file begun.

        `stop`, asked by several threads: when true, what is not proven ends as "transient", phase "stopped".
        """
        if proof not in ("reread", "stream"):
            raise ValueError("proof must be reread or stream, not %r" % proof)
        with self.tree() as tree:
            results = Landing(tree, self, proof, stop).results(frames)
            try:
                for result in results:
                    yield of_root(tree, self.instance, result) if isinstance(result, Fault) else result
            finally:
                results.close()  # while the tree is still open

    def digest(
        self, places: Iterable[Place], algorithm: str = "sha256", reread: bool = False, stop: Stop = never
    ) -> Iterator[Union[Tuple[str, int, str], Fault]]:
        """(path, size, "algorithm:hex") of each file, or its Fault; of a member, by its name.

        `reread`: file and folder are synced and dropped from the page cache first, so that the disk is asked,
        and what is found is durable.
        """
        with self.tree() as tree:
            for place in places:
                try:
                    yield digest_at(tree, place, algorithm, reread, stop)
                except EOFError:
                    yield place_fault(became_shorter(), place, "read")
                except (OSError, Fault) as error:
                    yield place_fault(error, place, "read")

    def headers(self, places: Iterable[Place], limits: Limits = LIMITS) -> Iterator[Union[Tuple[Hdu, ...], Fault]]:
        """The HDUs of each FITS file (gunzipped on the fly where its name ends in .gz), or its Fault. Those of a
        member have their places from where it begins.

        FITS 4.0 structure, held against the file's length: what is not FITS, cut short or damaged is "source
        corrupt", with the HDU, card and value, and a `code` in its facts. No header makes this read or hold more than
        `limits` says. Where pixels are unpacked, some files are looked into side by side.
        """
        with self.tree() as tree:
            look = functools.partial(headers_at, tree, threading.Lock(), limits)
            if not (limits.pixels or limits.sums) or limits.first is not None or WALKERS < 2:
                for place in places:
                    yield look(place)
                return
            pool = ThreadPoolExecutor(WALKERS)
            walked = ahead(pool, look, places, WALKERS)
            try:
                for _, future in walked:
                    yield future.result()
            finally:
                walked.close()
                pool.shutdown()

    def remove(self, paths: Iterable[str]) -> Iterator[Union[str, Fault]]:
        """Remove files, durably: the path when it is gone (also when it was not there), or the Fault."""
        with self.tree() as tree:
            for batch in batches(paths, WINDOW_FILES):
                results = [(path, remove(tree, path)) for path in batch]
                failed = synced_folders(tree, [folder_of(path) for path, result in results if result == path])
                for path, result in results:
                    yield failed.get(folder_of(path), result) if result == path else result or path

    def move(self, pairs: Iterable[Tuple[str, str]]) -> Iterator[Union[str, Fault]]:
        """Give files, each by (path, new path), another path beneath the root: the new path when that is durable, or
        the Fault (facts: from, to). What has the new path already is never replaced; folders are made; what is not a
        file is refused, and so is another file system than the file's own.
        """
        with self.tree() as tree:
            for batch in batches(pairs, WINDOW_FILES):
                results = [(old, new, move(tree, old, new, self.folder_mode)) for old, new in batch]
                yield from moved(tree, results)

    def identify(self, paths: Iterable[str]) -> Iterator[Union[Identity, Fault, None]]:
        """Which file, on which file system, each path leads to ("" to the root itself); None where there is nothing.

        What has another `system` is not sure to be on other disks: file systems share them, and one that is mounted by
        two machines, or a subvolume, has a number for each. A boot gives other numbers: nothing here is for keeping.
        """
        with self.tree() as tree:
            for path in paths:
                yield identify(tree, path)

    def space(self) -> Space:
        """The room on the root's file system."""
        with self.tree() as tree:
            try:
                state = os.fstatvfs(tree.fd)
            except OSError as error:
                raise fault_of(error, "", "destination", "space") from error
        files = state.f_favail if state.f_files else (1 << 63) - 1
        return Space(state.f_blocks * state.f_frsize, state.f_bavail * state.f_frsize, files)

    def gunzip(self, want: Want, most: int, stop: Stop = never) -> str:
        """Unpack the want's .gz source into a part below .stager/scratch, and return its path: the caller's to remove.

        A source that is not as the want expects, or that is damaged or unpacks to more than `most` bytes, is a Fault,
        and leaves nothing. What is unpacked is proven by nothing but gzip's own sums, and meant to be read at once.
        """
        part = Part({"item": want.item, "epoch": want.epoch, "path": SCRATCH_FOLDER + "/unpacked"})
        with self.tree() as tree:
            part.make(tree, self.instance, None)
            try:
                unpack_into(part.fd, self.read([want]), most, stop)
            except (OSError, Fault) as error:
                part.remove(tree)
                raise fault_of(error, want.source, "source", "unpack") from error
            finally:
                os.close(part.fd)
        return SCRATCH_FOLDER + "/" + part.name.decode("ascii")

    def clock(self) -> float:
        """This machine's time, Unix seconds."""
        return time.time()

    def sweep(self, prefix: str, dead: Callable[[int, int], bool]) -> List[str]:
        """Remove this instance's parts below a prefix whose (item, epoch) is dead; returns their paths.

        A folder that cannot be read or a part that cannot be removed does not keep it from the others: the
        first such Fault is raised at the end, with the paths removed in its facts.
        """
        with self.tree() as tree:
            sweeping = Sweeping(tree, self.instance, dead)
            sweeping.below(prefix)
        if sweeping.faults:
            sweeping.faults[0].facts["removed"] = sweeping.removed
            raise sweeping.faults[0]
        return sweeping.removed


def unpack_into(fd: int, frames: Iterable[Frame], most: int, stop: Stop) -> None:
    """Write what the frames of one gzip file unpack to; Fault "source corrupt" where that is damaged or too much."""
    stream = Unpacking(most)
    for name, body in frames:
        if stop():
            raise stopped()
        if name == "fault":
            raise body
        if name == "data":
            for data in stream.unpacked(body):
                write_fully(fd, data)
    stream.check()


class Unpacking:
    """gunzip, bounded: members one after the other, their sums checked, zero bytes after the last let be."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.most = most
        self.member: Any = zlib.decompressobj(31)
        self.empty = True

    def unpacked(self, data: Buffer) -> Iterator[bytes]:
        rest = bytes(data)
        while rest:
            if self.member.eof:
                rest = rest.lstrip(b"\0")
                if not rest:
                    return
                self.member = zlib.decompressobj(31)
            try:
                out = self.member.decompress(rest, CHUNK)
            except zlib.error as error:
                raise Fault("source corrupt", "the gzip file is damaged: %s" % error) from error
            rest = self.member.unused_data if self.member.eof else self.member.unconsumed_tail
            self.empty = False
            self.left -= len(out)
            if self.left < 0:
                raise Fault("source corrupt", "the gzip file unpacks to more than %d bytes" % self.most)
            yield out

    def check(self) -> None:
        """The file is over."""
        if self.empty or not self.member.eof:
            raise Fault("source corrupt", "the gzip file is cut short")


def folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def of_root(tree: Tree, instance: str, fault: Fault) -> Fault:
    """The fault of a file that could not be written, told with what all beneath the root lacks. One for want of room
    says "mounted" in its facts where the file lies on another file system than the root: the root has room then.
    """
    if fault.kind == "no space" and fault.side != "source":
        if is_mounted(tree, fault.path):
            fault.facts["mounted"] = True
        elif fault.errno == errno.ENOSPC and has_no_inodes(tree):
            fault.text = NO_INODES
    return read_only(tree, instance, fault)


def is_mounted(tree: Tree, path: str) -> bool:
    """Whether the nearest folder of a path that is there lies on another file system than the root."""
    while path:
        path = folder_of(path)
        try:
            return os.fstat(tree.folder(path)).st_dev != os.fstat(tree.fd).st_dev
        except OSError:
            continue
    return False


def has_no_inodes(tree: Tree) -> bool:
    try:
        state = os.fstatvfs(tree.fd)
    except OSError:
        return False
    return state.f_files > 0 and state.f_favail == 0


def read_only(tree: Tree, instance: str, fault: Fault) -> Fault:
    """The fault, told as "read-only" where nothing at all can be written beneath the root, and not in one place alone.

    Tried by making a file: a file system that its kernel stopped after an error need not say so when it is asked.
    """
    if fault.errno != errno.EROFS or fault.side == "source":
        return fault
    part = Part({"item": 0, "epoch": 0, "path": MARKER})
    try:
        part.make(tree, instance, None)
        os.close(part.fd)
    except (OSError, Fault) as error:
        if error.errno != errno.EROFS:
            return fault
        fault.kind, fault.text = "read-only", READ_ONLY
    finally:
        part.remove(tree)
    return fault


T = TypeVar("T")


def batches(items: Iterable[T], size: int) -> Iterator[List[T]]:
    iterator = iter(items)
    batch = list(itertools.islice(iterator, size))
    while batch:
        yield batch
        batch = list(itertools.islice(iterator, size))


def find(tree: Tree, path: str) -> Union[FileInfo, Fault, None]:
    try:
        _, _, state = tree.look(checked(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, Fault) as error:
        return fault_of(error, path, "source", "find")
    if stat.S_ISREG(state.st_mode):
        return FileInfo(path, state.st_size, held_time(state.st_mtime_ns))
    text = "the name is taken by %s, not a file" % what_is(state.st_mode)
    return Fault("refused", text, path, "source", "find", facts={"not_a_file": True})


def digest_at(tree: Tree, place: Place, algorithm: str, reread: bool, stop: Stop) -> Tuple[str, int, str]:
    path = path_of(place)
    fd, state = tree.open_file(checked(path))
    try:
        offset, size = extent_of(place, state.st_size)
        if reread:
            make_durable(tree, fd, path)
            drop_cached(fd, 0, 0)  # all of it, whatever is wanted: a page that is only half within is not dropped
        return name_of(place), size, digest_of(fd, offset, size, algorithm, stop)
    finally:
        os.close(fd)


def make_durable(tree: Tree, fd: int, path: str) -> None:
    """Sync a file and its folder. A file system that knows no sync because it is read-only has nothing unsynced."""
    try:
        os.fsync(fd)
        tree.sync(folder_of(path))
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EINVAL):
            raise


def remove(tree: Tree, path: str) -> Union[str, Fault, None]:
    """Unlink a regular file: its path, to be made durable; None when it was not there."""
    try:
        folder, name = tree.place(may_change(path))
        state = lstat(folder, name)
        if not stat.S_ISREG(state.st_mode):
            return Fault("refused", "it is %s, not a file" % what_is(state.st_mode), path, "destination", "remove")
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return None
    except (OSError, Fault) as error:
        return fault_of(error, path, "destination", "remove")
    return path


def move(tree: Tree, old: str, new: str, folder_mode: Optional[int]) -> Optional[Fault]:
    """Rename a regular file beneath the root, never replacing one; its folders are still to be synced."""
    try:
        movable(tree, old)
    except (OSError, Fault) as error:
        return fault_of(error, old, "source", "move")
    try:
        tree.make_folder(folder_of(may_change(new)), folder_mode)
        folder, name = movable(tree, old)  # opened again: what is kept open is bounded
        rename_new(folder, name, *tree.place(new))
    except (OSError, Fault) as error:
        return move_trouble(error, new)
    return None


def movable(tree: Tree, path: str) -> Tuple[int, bytes]:
    """The folder and name of a file that may be moved; Fault "refused" for what is no file."""
    folder, name = tree.place(may_change(path))
    state = lstat(folder, name)
    if not stat.S_ISREG(state.st_mode):
        raise Fault("refused", "it is %s, not a file" % what_is(state.st_mode), path)
    return folder, name


def move_trouble(error: Union[OSError, Fault], new: str) -> Fault:
    """What kept a file from its new path."""
    fault = fault_of(error, new, "destination", "move")
    if fault.errno == errno.EXDEV:
        fault.text = "it is on another file system than the file: that is moved by copying it"
    elif fault.errno == errno.EEXIST:
        fault.text = "another file has the name"
    return fault


def moved(tree: Tree, results: List[Tuple[str, str, Optional[Fault]]]) -> Iterator[Union[str, Fault]]:
    """Make a batch of moves durable, each (path, new path, its fault), and say what became of each.

    The new names first: a crash in between may then leave a file two names, and none without one.
    """
    done = [(old, new) for old, new, fault in results if fault is None]
    failed = synced_folders(tree, [folder_of(new) for _, new in done] + [folder_of(old) for old, _ in done])
    for old, new, fault in results:
        yield move_result(old, new, fault or failed.get(folder_of(new)) or failed.get(folder_of(old)))


def move_result(old: str, new: str, fault: Optional[Fault]) -> Union[str, Fault]:
    """What became of one file of a batch; the fault of a folder's sync is that of all files that came from or to it."""
    if fault is None:
        return new
    done = "it was moved, and whether that is durable is not known: " if fault.phase == "sync" else ""
    facts = {"from": old, "to": new}
    return Fault(fault.kind, done + fault.text, fault.path, fault.side, fault.phase, fault.errno, facts)


def identify(tree: Tree, path: str) -> Union[Identity, Fault, None]:
    try:
        state = tree.look(checked(path))[2] if path else os.fstat(tree.fd)
        return Identity("%s:%d" % (machine(), state.st_dev), state.st_ino)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, Fault) as error:
        return fault_of(error, path, "source", "identify")


@functools.lru_cache(maxsize=None)
def machine() -> str:
    """What tells this machine, since it was booted, from all others; containers on it are no others."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return str(uuid.UUID(file.read(100).decode("ascii").strip()))
    except (OSError, ValueError):
        node = uuid.getnode()
    if node >> 40 & 1:  # a random one, another in each process (RFC 4122, 4.5)
        raise Fault("unsupported", "this machine has neither a boot's number nor a network address to be told by")
    return "%012x" % node


def may_change(path: str) -> str:
    """The path, if it is one that may be landed on, moved or removed: not the root's marker."""
    if checked(path) == MARKER:
        raise Fault("refused", "the root's marker is Stager's own", path)
    return path


def synced_folders(tree: Tree, folders: Iterable[str]) -> Dict[str, Fault]:
    """Sync each folder once; returns those that could not be."""
    failed: Dict[str, Fault] = {}
    for folder in OrderedDict.fromkeys(folders):
        try:
            tree.sync(folder)
        except OSError as error:
            failed[folder] = fault_of(error, folder, "destination", "sync")
    return failed


class Sweeping:
    """Removes the dead parts of one instance. Goes into hidden folders too, but not into snapshots."""

    SNAPSHOTS = (".snapshot", ".snapshots", ".zfs")

    def __init__(self, tree: Tree, instance: str, dead: Callable[[int, int], bool]) -> None:
        self.tree = tree
        self.instance = instance
        self.dead = dead
        self.removed: List[str] = []
        self.faults: List[Fault] = []

    def below(self, prefix: str) -> None:
        walk = Walk(self.tree, hidden=True)
        try:
            for path, level, name, state in walk.below(checked(prefix) if prefix else ""):
                self.entry(walk, path, level, name, state)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            self.faults.append(fault_of(error, prefix, "destination", "sweep"))

    def entry(self, walk: Walk, path: str, level: Level, name: bytes, state: os.stat_result) -> None:
        try:
            if stat.S_ISDIR(state.st_mode):
                last = path.rpartition("/")[2]
                if last not in self.SNAPSHOTS and path != "lost+found":
                    walk.descend(path, level, name)
            elif stat.S_ISREG(state.st_mode) and self.is_dead(path.rpartition("/")[2]):
                os.unlink(name, dir_fd=level.fd)
                self.removed.append(path)
        except OSError as error:
            self.faults.append(fault_of(error, path, "destination", "sweep"))

    def is_dead(self, name: str) -> bool:
        match = PART_NAME.fullmatch(name)
        return (
            match is not None
            and match.group(3) == self.instance
            and self.dead(int(match.group(1)), int(match.group(2)))
        )


# ------------------------------------------------------------------------------------------- markers

READ_ONLY = "the file system is read-only"
NO_INODES = "the file system has no inodes left: it holds as many files as it can"
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)


def read_marker(tree: Tree) -> Optional[str]:
    """The marker's text, None where there is no marker."""
    try:
        fd, _ = tree.open_file(MARKER)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.read(fd, 200).decode("ascii", "backslashreplace").strip()
    finally:
        os.close(fd)


def derived_marker(tree: Tree) -> str:
    """The marker of a root that cannot be written to: made from its folder's number, which a mount keeps.

    The folder that is left when the mount is gone has another number.
    """
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "stager:unwritable-root:%d" % os.fstat(tree.fd).st_ino))


def check_marker(tree: Tree, marker: str) -> None:
    """Fault "host down" unless the root has this marker, its own or (where it has none) its derived one."""
    try:
        found = read_marker(tree)
    except (OSError, Fault) as error:
        raise root_fault(error, "the root's marker cannot be read") from error
    if marker in (found, derived_marker(tree)):
        return
    if found is None:
        text = "the root has no marker: its file system is not mounted, or the folder is another one"
    else:
        text = "the root has the marker %s instead of %s: it is another file system" % (found, marker)
    raise Fault("host down", text, MARKER, phase="open", facts={"expected": marker, "found": found})


def first_marker(tree: Tree, instance: str, marks: bool) -> Optional[str]:
    """Take the marker that is there, or make one; several may try at once, and one of them makes it. Without `marks`
    none is made: None where there is none."""
    try:
        return read_marker(tree) or (made_marker(tree, instance) if marks else None)
    except OSError as error:
        if error.errno in UNWRITABLE:
            return derived_marker(tree)
        raise fault_of(error, MARKER, "destination", "open") from error


def of_marker(item: int, epoch: int) -> bool:
    """Whether a part is one of the marker's."""
    return (item, epoch) == (0, 0)


def made_marker(tree: Tree, instance: str) -> str:
    """Write a new marker under a part's name and give it its own; durable when this returns."""
    text = str(uuid.uuid4())
    part = Part({"item": 0, "epoch": 0, "path": MARKER})
    part.make(tree, instance, None)
    try:
        try:
            write_fully(part.fd, text.encode("ascii") + b"\n")
            os.fsync(part.fd)
        finally:
            os.close(part.fd)
        folder = tree.folder(OWN)
        rename_new(folder, part.name, folder, raw(part.last_name))
        part.placed = True
    except (FileExistsError, FileNotFoundError):  # another made one, or swept this part away after it did
        text = read_marker(tree) or text
    finally:
        part.remove(tree)
    tree.sync(OWN)
    return text


# ---------------------------------------------------------------------------------------------- wire

# Over a channel both ends send frames: magic, what it is, size, body. A message is JSON, [name, body]; data are
# bytes. Nothing that a shell prints can be taken for one: the first is looked for behind a greeting with a nonce.
PROTOCOL = 4
GREETING = b"\nstager-agent "
HEAD = struct.Struct(">2sHI")
MAGIC = b"\xf5S"
MESSAGE, DATA = 1, 2
MESSAGE_MOST = 16 << 20
NONCE_BYTES = 32
HOLD_BYTES = 384 << 10  # held back at the most, so that a small file goes out in one write
GATHERED_BYTES = 32 << 10  # of data that are copied to go out with others; more go out from where they are
ROOM_BYTES = CHUNK + (256 << 10)  # a frame of data is received whole, and handed on from where it is
CALL_PATIENCE_S = 4 * 3600  # a far side that says nothing for so long in the middle of a call is gone
IDLE_PATIENCE_S = 600  # and nobody needs an agent that was not asked for anything for so long
STOP_LOOK_S = 0.2


class Outgoing:
    """Frames to the other end. Messages may be held back until data, or a flush, so that small files cost one write."""

    def __init__(self, write: Callable[..., Any]) -> None:
        self.write = write  # of all its arguments, one after the other
        self.held = bytearray()

    def message(self, name: str, body: Any = None, hold: bool = False) -> None:
        text = json.dumps([name, body], separators=(",", ":"), default=str).encode("ascii")
        if len(text) > MESSAGE_MOST:
            raise Fault("unsupported", "a message of %d bytes is too long for the channel" % len(text))
        self.held += HEAD.pack(MAGIC, MESSAGE, len(text))
        self.held += text
        if not hold or len(self.held) >= HOLD_BYTES:
            self.flush()

    def data(self, data: Buffer) -> None:
        view = memoryview(data)
        for start in range(0, len(view), CHUNK):
            part = view[start : start + CHUNK]
            self.held += HEAD.pack(MAGIC, DATA, len(part))
            if len(part) >= GATHERED_BYTES:
                held, self.held = self.held, bytearray()
                self.write(held, part)
            else:
                self.held += part
                if len(self.held) >= HOLD_BYTES:
                    self.flush()

    def flush(self) -> None:
        if self.held:
            held, self.held = self.held, bytearray()
            self.write(held)


class Incoming:
    """Frames from the other end: (name, body), or ("data", bytes that are good until the next frame)."""

    def __init__(self, read_into: Callable[[memoryview], int], most: int = MESSAGE_MOST) -> None:
        self.read_into = read_into
        self.most = {MESSAGE: most, DATA: CHUNK}
        self.room = memoryview(bytearray(ROOM_BYTES))
        self.start = self.end = 0

    def more(self, size: int = 1) -> None:
        """Receive at least a byte of what has such a size from `start`; EOFError when there is none to come."""
        if self.start and self.start + size > len(self.room):
            rest = bytes(self.room[self.start : self.end])
            self.room[: len(rest)] = rest
            self.start, self.end = 0, len(rest)
        count = self.read_into(self.room[self.end :])
        if not count:
            raise EOFError("the other end closed the channel")
        self.end += count

    def take(self, view: memoryview) -> None:
        """Fill the view with what comes next."""
        have = min(len(view), self.end - self.start)
        view[:have] = self.room[self.start : self.start + have]
        self.start += have
        view = view[have:]
        while len(view):
            count = self.read_into(view)
            if not count:
                raise EOFError("the other end closed the channel")
            view = view[count:]

    def frame(self) -> Tuple[str, Any]:
        """The next frame. Fault for what is none: bytes that somebody else wrote, a size over the caps."""
        if self.start == self.end:
            self.start = self.end = 0
        while self.end - self.start < HEAD.size:
            self.more(HEAD.size)
        magic, what, size = HEAD.unpack_from(self.room, self.start)
        if magic != MAGIC or size > self.most.get(what, -1):
            seen = bytes(self.room[self.start : min(self.end, self.start + 40)])
            raise Fault("transient", "what came over the channel is no frame: %r" % seen, phase="frame")
        self.start += HEAD.size
        if what == DATA:
            while self.end - self.start < size:
                self.more(size)
            self.start += size
            return "data", self.room[self.start - size : self.start]
        text = bytearray(size)
        self.take(memoryview(text))
        try:
            name, body = json.loads(text.decode("ascii"))
        except (ValueError, TypeError, RecursionError) as error:  # TypeError: no pair at all, such as 5 or null
            raise Fault("transient", "what came over the channel is no message: %s" % error, phase="frame") from error
        if not isinstance(name, str) or name == "data":  # data come as they are, and not as a message
            raise Fault("transient", "what came over the channel is no message", phase="frame")
        return name, body


def plain_fault(fault: Fault) -> Dict[str, Any]:
    """A Fault as a message carries it."""
    names = ("kind", "text", "path", "side", "phase", "errno", "facts")
    return {name: getattr(fault, name) for name in names}


def fault_from(body: Dict[str, Any]) -> Fault:
    """The Fault in a message of the other end, whatever that put in it."""
    texts = {name: str(body.get(name, ""))[:4000] for name in ("kind", "text", "path", "side", "phase")}
    number, facts = body.get("errno"), body.get("facts")
    return Fault(
        errno=number if isinstance(number, int) else None, facts=facts if isinstance(facts, dict) else None, **texts
    )


def send_frame(out: Outgoing, name: str, body: Any) -> None:
    """Send one frame of a file (see `Frame`)."""
    if name == "data":
        out.data(body)
    elif name in ("fault", "drop"):
        fault = body if name == "fault" else body["fault"]
        plain = plain_fault(fault)
        out.message(name, plain if name == "fault" else {"item": body["item"], "fault": plain})
    else:
        out.message(name, body, hold=name in ("unit", "file", "end", "stretch"))


def received_frame(name: str, body: Any) -> Frame:
    """The frame of a file that `send_frame` sent."""
    if name == "fault":
        return name, fault_from(body)
    if name == "drop":
        return name, {"item": body["item"], "fault": fault_from(body["fault"])}
    return name, body


def plain_want(want: Want) -> List[Any]:
    """A want as a message carries it: its fields; header bytes as Latin-1."""
    piece = want.piece
    made = None if piece is None else [piece.header.decode("latin-1"), [list(cut) for cut in piece.cuts], piece.pad]
    return list(want._replace(piece=None)) + [made]


def want_from(fields: List[Any]) -> Want:
    want = Want(*fields[:-1])
    if want.stretch is not None:
        want = want._replace(stretch=(want.stretch[0], want.stretch[1]))
    if fields[-1] is None:
        return want
    header, cuts, pad = fields[-1]
    return want._replace(piece=Piece(header.encode("latin-1"), tuple(Cut(*cut) for cut in cuts), pad))


def plain_place(place: Place) -> Union[str, List[Any]]:
    """A place as a message carries it."""
    return place if isinstance(place, str) else list(place)


def place_from(body: Any) -> Place:
    return body if isinstance(body, str) else Member(*body)


def send_unit(out: Outgoing, unit: List[Want]) -> None:
    """Ask for a unit, want by want."""
    for want in unit:
        out.message("want", {"want": plain_want(want), "last": want is unit[-1]}, hold=True)


class Server:
    """Answers the calls that come over a channel, one after the other, with an Agent of its own.

    A call is a message with its arguments; for `read`, `land` and `fill` what is to be done follows, up to "over".
    The answers end with "done", or with "failed" and a fault. An end of the channel is a stop.
    """

    def __init__(self, reading: int, writing: int, pinned: Optional[str] = None) -> None:
        self.reading = reading
        self.pinned = pinned  # the one root that is served, where this machine's owner said so
        self.out = Outgoing(functools.partial(write_parts, writing))
        self.incoming = Incoming(self.receive)
        self.patience = IDLE_PATIENCE_S
        self.agent: Optional[Agent] = None
        self.stopping = False
        self.over = True  # nothing more comes for this call
        self.looked = 0.0

    def receive(self, view: memoryview) -> int:
        """What has come, after what was held back went out: who waits for an answer must have the question."""
        self.out.flush()
        if not select.select([self.reading], [], [], self.patience)[0]:
            raise EOFError("nothing came for %d seconds" % self.patience)
        return os.readv(self.reading, [view])

    def greet(self, nonce: bytes) -> None:
        self.out.write(GREETING + nonce + b"\n")
        facts = {
            "protocol": PROTOCOL,
            "python": "%d.%d.%d" % sys.version_info[:3],
            "pinned": self.pinned,
            "pid": os.getpid(),
        }
        self.out.message("hello", facts)

    def serve(self) -> None:
        """Answer until the channel ends."""
        while True:
            self.patience = IDLE_PATIENCE_S
            name, body = self.incoming.frame()
            if name != "call":
                continue  # a stop that came when its call was over already
            self.patience = CALL_PATIENCE_S
            self.stopping, self.over = False, body["name"] not in STREAMED
            try:
                self.call(body["name"], body["arguments"])
            except Fault as fault:
                self.out.message("failed", plain_fault(fault))
            except OSError as error:
                if error.errno in (errno.EPIPE, errno.ECONNRESET):
                    raise
                self.out.message("failed", plain_fault(fault_of(error, "", "", body["name"])))
            else:
                self.out.message("done")
            while not self.over:
                self.next_frame()

    def call(self, name: str, arguments: Dict[str, Any]) -> None:
        if name not in CALLS:
            raise Fault("unsupported", "the agent there knows no call %r" % name)
        getattr(self, "on_" + name)(**arguments)

    # What comes during a call.

    def next_frame(self) -> Optional[Tuple[str, Any]]:
        """The next frame of this call; None when it is over."""
        if self.over:
            return None
        name, body = self.incoming.frame()
        if name == "stop":
            self.stopping = True
            return self.next_frame()
        if name == "over":
            self.over = True
            return None
        return name, body

    def frames(self) -> Iterator[Frame]:
        for name, body in iter(self.next_frame, None):
            yield received_frame(name, body)

    def units(self) -> Iterator[List[Want]]:
        unit: List[Want] = []
        for name, body in iter(self.next_frame, None):
            if name == "want":
                unit.append(want_from(body["want"]))
                if body["last"]:
                    yield unit
                    unit = []

    def stop(self) -> bool:
        """Whether a stop was sent, or the other end is gone: looked for now and then while nothing is read."""
        now = time.monotonic()
        if self.over and not self.stopping and now - self.looked > STOP_LOOK_S:
            self.looked = now
            if self.incoming.start < self.incoming.end or select.select([self.reading], [], [], 0)[0]:
                self.stopping = True  # what comes in such a call is a stop, or the end
        return self.stopping

    def served(self) -> "Agent":
        if self.agent is None:
            raise Fault("unsupported", "no root was named yet")
        return self.agent

    def answer(self, name: str, body: Any) -> None:
        self.out.message(name, body, hold=True)

    # The calls.

    def on_begin(self, root: str, marker: Optional[str], **options: Any) -> None:
        """Serve this root, with this marker, from now on."""
        if self.pinned is not None and os.path.realpath(raw(root)) != os.path.realpath(raw(self.pinned)):
            raise Fault("refused", "only the root %s is served to this key" % self.pinned, phase="open")
        self.agent = Agent(root, **options)
        self.agent.marker = marker

    def on_open(self, marker: Optional[str], marks: bool) -> None:
        self.answer("marker", self.served().open(marker, marks))

    def on_clock(self) -> None:
        self.answer("clock", self.served().clock())

    def on_space(self) -> None:
        self.answer("space", list(self.served().space()))

    def on_gunzip(self, want: List[Any], most: int) -> None:
        self.answer("unpacked", self.served().gunzip(want_from(want), most, self.stop))

    def on_scan(self, prefix: str) -> None:
        for found in self.served().scan(prefix):
            self.answer("info" if isinstance(found, FileInfo) else "skipped", list(found))
            if self.stop():
                raise stopped()

    def on_find(self, paths: List[str]) -> None:
        for found in self.served().find(paths):
            if isinstance(found, Fault):
                self.answer("fault", plain_fault(found))
            else:
                self.answer("info", found and list(found))

    def on_digest(self, places: List[Any], algorithm: str, reread: bool) -> None:
        self.results("digest", self.served().digest(map(place_from, places), algorithm, reread, self.stop))

    def on_remove(self, paths: List[str]) -> None:
        self.results("removed", self.served().remove(paths))

    def on_move(self, pairs: List[List[str]]) -> None:
        self.results("moved", self.served().move((old, new) for old, new in pairs))

    def on_identify(self, paths: List[str]) -> None:
        self.results("identity", self.served().identify(paths))

    def on_headers(self, places: List[Any], limits: List[Any]) -> None:
        for found in self.served().headers(map(place_from, places), Limits(*limits)):
            if isinstance(found, Fault):
                self.answer("fault", plain_fault(found))
                continue
            self.answer("hdus", [[len(hdu.header), hdu.offset] + list(hdu[2:]) for hdu in found])
            for hdu in found:
                self.out.data(hdu.header)

    def on_sweep(self, prefix: str) -> None:
        for path in self.served().sweep(prefix, self.ask_dead):
            self.answer("swept", path)

    def ask_dead(self, item: int, epoch: int) -> bool:
        """The other end knows which leases live."""
        self.out.message("part", [item, epoch])
        name, body = self.incoming.frame()
        return name == "dead" and body is True

    def on_read(self) -> None:
        agent = self.served()
        with agent.tree() as tree:
            reader = Reader(tree)
            try:
                for name, body in reader.frames(self.units()):
                    send_frame(self.out, name, body)
                    if self.stopping or (self.over and self.stop()):
                        return
            finally:
                reader.close()

    def on_land(self, proof: str) -> None:
        for result in self.served().land(self.frames(), proof, self.stop):
            self.result(result)

    def on_fill(self) -> None:
        for result in self.served().fill(self.frames(), self.stop):
            self.result(result)

    def on_carry(self, proof: str) -> None:
        agent = self.served()
        wants = [want for unit in self.units() for want in unit]
        for result in agent.carry(wants, proof, self.stop):
            self.result(result)
            self.out.flush()

    def results(self, name: str, found: Iterable[Any]) -> None:
        for one in found:
            if isinstance(one, Fault):
                self.answer("fault", plain_fault(one))
            else:
                self.answer(name, one)
            self.out.flush()

    def result(self, result: Union[Receipt, Opened, Filled, Fault]) -> None:
        if isinstance(result, Fault):
            self.answer("fault", plain_fault(result))
        else:
            self.out.message(type(result).__name__.lower(), list(result), hold=isinstance(result, Receipt))


CALLS = (
    "begin",
    "open",
    "clock",
    "space",
    "scan",
    "find",
    "digest",
    "remove",
    "move",
    "identify",
    "headers",
    "sweep",
    "gunzip",
    "read",
    "land",
    "fill",
    "carry",
)
STREAMED = ("read", "land", "fill", "carry")  # calls whose message is followed by others, up to "over"


def serve(nonce: bytes, pinned: Optional[str] = None) -> None:
    """Serve standard input and output. Whatever else prints there goes to standard error instead."""
    more_descriptors()
    writing = os.dup(1)
    os.dup2(2, 1)
    server = Server(0, writing, pinned)
    try:
        server.greet(nonce)
        server.serve()
    except EOFError:
        return  # nobody is there any more; what was under way has been cleared away
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            raise
    except Fault as fault:  # what came was no frame: there is no speaking with that
        server.out.message("failed", plain_fault(fault))


def more_descriptors() -> None:
    """Let this process open as many files as it may: each part under way needs two."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def boot(count: int) -> bytes:
    """So many bytes of standard input, and not one more."""
    data = b""
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more:
            sys.exit("stager-agent: the channel ended before the agent had begun")
        data += more
    return data


def main(arguments: List[str]) -> None:
    """`python3 agent.py serve ROOT`: the agent as a far host's owner installed it, for that root alone. The source
    that is sent is read and passed over."""
    if len(arguments) != 3 or arguments[1] != "serve":
        sys.exit("use: python3 agent.py serve ROOT")
    boot(int(boot(8), 16))
    serve(boot(NONCE_BYTES), arguments[2])


if __name__ == "stager-agent":  # sent over a channel, and run from there
    serve(boot(NONCE_BYTES))
elif __name__ == "__main__":
    main(sys.argv)
