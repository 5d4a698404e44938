"""The headers of a bundle's members: POSIX ustar, with pax records for what ustar has no room for. Pure.

A header is made in one way only, from path, size and time, and is read by making it again: whatever differs in one
bit is refused. So nothing that other tars have (links, devices, sparse files, names of GNU's own, sizes in base 256)
can be hidden in one.

Where ustar does not do, there are the pax records `path` (longer than its fields, or not ASCII), `hdrcharset=BINARY`
(not UTF-8), `size` (8 GiB and more) and `mtime` (parts of a second, and times that 33 bits do not hold).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

from transfers.agent import OWN, Fault, checked, raw
from transfers.errors import SourceCorrupt, shown

BLOCK = 512
END = bytes(2 * BLOCK)  # what every tar ends with
INDEX_FOLDER = f"{OWN}/index/"
MEMBERS = 1_000_000  # of one bundle
PAX_BYTES = 4096  # of the records of one member: a path of 1024 bytes, and change
USTAR_SIZE = 8**11  # bytes from which on a size needs a pax record
USTAR_TIME = 8**11  # seconds, likewise
PAX_NAME = b"././@PaxHeader"  # what Python's tarfile calls them: a tar that does not know them makes one file of all
RECORD = re.compile(rb"([1-9][0-9]{0,4}) ([A-Za-z.]+)=")
OCTAL = re.compile(rb"([0-7]+)\0")
DECIMAL = re.compile(rb"[0-9]{1,19}")
TIME = re.compile(rb"(-?)([0-9]{1,11})(?:\.([0-9]{1,9}))?")
INTEGER = range(-(1 << 63), 1 << 63)
KINDS = {
    b"1": ("bundle-link", "a hard link"),
    b"2": ("bundle-link", "a symbolic link"),
    b"3": ("bundle-type", "a device"),
    b"4": ("bundle-type", "a device"),
    b"5": ("bundle-type", "a folder"),
    b"6": ("bundle-type", "a FIFO"),
    b"g": ("bundle-extension", "a header for all that follows"),
    b"L": ("bundle-extension", "a long name as GNU tar had them"),
    b"K": ("bundle-extension", "a long link as GNU tar had them"),
    b"S": ("bundle-extension", "a sparse file as GNU tar has them"),
}
Take = Callable[[int, int], bytes]  # so many bytes of a bundle, from an offset on


class Laid(NamedTuple):
    """A member as its header says: `offset` is the place of its first byte in the bundle."""

    path: str
    size: int
    mtime_ns: int
    offset: int


def corrupt(code: str, text: str, **facts: Any) -> SourceCorrupt:
    """What a bundle or an index is not sound for. Host and path are told by who reads it."""
    return SourceCorrupt(text, phase="bundle", facts={"code": code, **facts})


def refuse(code: str, text: str, **facts: Any) -> NoReturn:
    raise corrupt(code, text, **facts)


class Names:
    """The members of a bundle as they come, in the order of their bytes. SourceCorrupt for a path that is not plain, is
    there already, or could not be written beside one that is."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._last = b""
        self._folders: set[str] = set()

    def add(self, path: str) -> None:
        if len(self._seen) == MEMBERS:
            refuse("bundle-members", f"it has more than {MEMBERS} members")
        self._plain(path)
        composed = path if path.isascii() else unicodedata.normalize("NFC", path)
        if composed in self._seen:
            refuse("bundle-duplicate", f"{shown(path)} is there twice, perhaps in two spellings", member=path)
        if raw(path) < self._last:
            refuse("bundle-order", f"{shown(path)} is not in the order of the names", member=path)
        if composed in self._folders or self._below_a_file(composed):
            refuse("bundle-clash", f"{shown(path)} is a file, or in a folder, that is the other too", member=path)
        self._seen.add(composed)
        self._last = raw(path)

    def _below_a_file(self, composed: str) -> bool:
        folder = composed.rpartition("/")[0]
        while folder and folder not in self._folders:
            if folder in self._seen:
                return True
            self._folders.add(folder)
            folder = folder.rpartition("/")[0]
        return False

    def _plain(self, path: str) -> None:
        try:
            checked(path)
        except Fault as fault:
            refuse("bundle-climbs", f"{fault.text}, unlike {shown(path[:300])}", member=path[:300])
        if not path.isascii() and raw(path).decode("utf-8", "surrogateescape") != path:
            refuse("bundle-climbs", f"{shown(path)} is not how a name is written here", member=path)
        if path == OWN or path.startswith(f"{OWN}/"):
            refuse("bundle-climbs", f"{shown(path)} is in Stager's own folder", member=path)


# Making.


def padding(size: int) -> bytes:
    """What follows so many bytes, up to the next block."""
    return bytes(-size % BLOCK)


def header_of(path: str, size: int, mtime_ns: int) -> bytes:
    """All that stands before a member's data."""
    prefix, short = _split(raw(path))
    records = _records_of(path, size, mtime_ns)
    small = size if size < USTAR_SIZE else 0
    whole = min(max(mtime_ns // 10**9, 0), USTAR_TIME - 1)
    block = _block(prefix or b"", short, small, whole, b"0")
    if not records:
        return block
    return _block(b"", PAX_NAME, len(records), 0, b"x") + records + padding(len(records)) + block


def header_size(path: str, size: int, mtime_ns: int) -> int:
    """Bytes of the same."""
    records = len(_records_of(path, size, mtime_ns))
    return 2 * BLOCK + records + -records % BLOCK if records else BLOCK


def _records_of(path: str, size: int, mtime_ns: int) -> bytes:
    """The pax records of a member."""
    name = raw(path)
    seconds, part = divmod(mtime_ns, 10**9)
    records = b""
    if not path.isascii() or _split(name)[0] is None:
        try:
            path.encode()
        except UnicodeEncodeError:
            records += _record(b"hdrcharset", b"BINARY")
        records += _record(b"path", name)
    if size >= USTAR_SIZE:
        records += _record(b"size", b"%d" % size)
    if part or not 0 <= seconds < USTAR_TIME:
        records += _record(b"mtime", _time_text(mtime_ns))
    return records


def _split(name: bytes) -> tuple[bytes | None, bytes]:
    """Prefix and name as ustar has them; None and what fits, where it has no room."""
    if len(name) <= 100:
        return b"", name
    at = name.rfind(b"/", 0, 156)
    if at > 0 and len(name) - at - 1 <= 100:
        return name[:at], name[at + 1 :]
    return None, name[:100]


def _record(keyword: bytes, value: bytes) -> bytes:
    """A pax record: it begins with its own length."""
    rest = b" %b=%b\n" % (keyword, value)
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def _time_text(mtime_ns: int) -> bytes:
    """A time as pax has it: seconds and their parts in decimal, as many digits as are needed."""
    seconds, part = divmod(abs(mtime_ns), 10**9)
    text = (b"%d.%09d" % (seconds, part)).rstrip(b"0").rstrip(b".") if part else b"%d" % seconds
    return b"-" + text if mtime_ns < 0 else text


def _block(prefix: bytes, name: bytes, size: int, mtime: int, kind: bytes) -> bytes:
    """A ustar header: mode 0644, of nobody in particular."""
    fields = (
        name.ljust(100, b"\0"),
        b"0000644\x000000000\x000000000\x00",  # mode, user, group
        b"%011o\0%011o\0" % (size, mtime),
        b" " * 8,  # its own sum, which is reckoned with blanks in its place
        kind,
        bytes(100),  # no link
        b"ustar\x0000",
        bytes(64),  # names of user and group
        b"0000000\x000000000\x00",  # device
        prefix.ljust(155, b"\0"),
        bytes(12),
    )
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


# Reading.


def header_at(take: Take, at: int) -> Laid | None:
    """The member whose header is there; None where the end of the tar is. SourceCorrupt for all else."""
    block = take(at, BLOCK)
    if block == bytes(BLOCK):
        return None
    size, kind = _checked_block(block, at)
    records: dict[bytes, bytes] = {}
    header = block
    if kind == b"x":
        if not 0 < size <= PAX_BYTES:
            refuse("bundle-header", f"the pax header at byte {at} says that it has {size} bytes")
        rest = take(at + BLOCK, size + len(padding(size)) + BLOCK)
        records = _records(rest[:size], at)
        block = rest[-BLOCK:]
        header += rest
        size, kind = _checked_block(block, at + len(header) - BLOCK)
    if kind != b"0":
        _refuse_kind(kind, block, at)
    laid = _laid(block, size, records, at + len(header))
    if header_of(laid.path, laid.size, laid.mtime_ns) != header:
        refuse("bundle-header", f"the header of {shown(laid.path)} is not as Stager writes them", member=laid.path)
    return laid


def _checked_block(block: bytes, at: int) -> tuple[int, bytes]:
    """The size in a ustar header, and what it is of."""
    if block[148:156] != b"%06o\0 " % (sum(block) - sum(block[148:156]) + 8 * 32):
        refuse("bundle-header", f"the header at byte {at} does not have the sum that it says")
    if block[257:265] != b"ustar\x0000":
        refuse("bundle-extension", f"the header at byte {at} is not that of a POSIX tar", at=at)
    kind = block[156:157]
    octal = OCTAL.fullmatch(block[124:136])
    if octal is None:
        text = "its size is negative or in base 256" if block[124] & 0x80 else "its size is no octal number"
        refuse("bundle-size", f"{text} in the header at byte {at}", at=at)
    return int(octal[1], 8), kind


def _refuse_kind(kind: bytes, block: bytes, at: int) -> NoReturn:
    name = block[:100].rstrip(b"\0").decode("utf-8", "surrogateescape")
    code, what = KINDS.get(kind, ("bundle-type", f"of the unknown type {kind!r}"))
    refuse(code, f"{shown(name)} at byte {at} is {what}, and a bundle has plain files alone", member=name)


def _records(data: bytes, at: int) -> dict[bytes, bytes]:
    """The pax records of a member. One that is there twice does not come out so when it is made again."""
    found: dict[bytes, bytes] = {}
    here = 0
    while here < len(data):
        match = RECORD.match(data, here)
        length = int(match[1]) if match is not None else 0
        if match is None or data[here + length - 1 : here + length] != b"\n" or here + length <= match.end():
            refuse("bundle-header", f"the pax header at byte {at} cannot be read")
        keyword = match[2]
        if keyword.startswith(b"GNU."):
            refuse("bundle-extension", f"the pax header at byte {at} is of an extension of GNU tar", at=at)
        found[keyword] = data[match.end() : here + length - 1]
        here += length
    return found


def _laid(block: bytes, size: int, records: dict[bytes, bytes], offset: int) -> Laid:
    """What header and records say together."""
    name, prefix = block[:100].rstrip(b"\0"), block[345:500].rstrip(b"\0")
    path = records.get(b"path", prefix + b"/" + name if prefix else name).decode("utf-8", "surrogateescape")
    stated = records.get(b"size")
    if stated is not None:
        if not DECIMAL.fullmatch(stated) or int(stated) not in INTEGER:
            refuse("bundle-size", f"{shown(path)} says that it has {stated[:40]!r} bytes", member=path)
        size = int(stated)
    octal = OCTAL.fullmatch(block[136:148])
    mtime_ns = int(octal[1], 8) * 10**9 if octal is not None else -1
    time = records.get(b"mtime")
    if time is not None:
        mtime_ns = _time_of(time)
    return Laid(path, size, mtime_ns, offset)


def _time_of(text: bytes) -> int:
    match = TIME.fullmatch(text)
    if match is None:
        refuse("bundle-header", f"{text[:40]!r} is no time")
    sign, seconds, part = match.groups(b"")
    mtime_ns = int(seconds) * 10**9 + int(part.ljust(9, b"0"))
    return -mtime_ns if sign else mtime_ns
