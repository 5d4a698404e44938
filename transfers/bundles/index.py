"""What lies where in a bundle: its layout, known before any byte of it is read, and its index.

The index is lines of JSON, in ASCII: one about the bundle, one for each member in the order of their names, and a last
one, which has LAST bytes, so that it is found from the end. The file beside a bundle is the same and one line more,
with the bundle's own size and digest. An index is read by making it again, as a header is.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from transfers.agent import raw
from transfers.bundles.headers import (
    BLOCK,
    END,
    INDEX_FOLDER,
    INTEGER,
    MEMBERS,
    Laid,
    Names,
    corrupt,
    header_size,
    padding,
    refuse,
)
from transfers.errors import shown

FORMAT = "stager-bundle-index"
VERSION = 1
BUNDLE = ".stager.tar"
INDEX = ".stager.tar.index"
LAST = 256  # bytes of an index's last line
INDEX_BYTES = 512 << 20  # of an index
LINE_BYTES = 8192  # of one of its lines: a path of 1024 bytes has 6144 when none of them is ASCII, and change
LABEL = 100  # characters
OFFSET_DIGITS = 19
ENDING_BYTES = (
    4096  # what a bundle has beside its members, at the most: header, first and last line of its index, the end
)
SIZE = range(1 << 63)
NAME = re.compile(r"(.+)\.([0-9a-f]{12})" + re.escape(BUNDLE))
SHA256 = re.compile(r"[0-9a-f]{64}")
NO_DIGEST = "sha256:" + "0" * 64

Member = tuple[str, int, int]  # path, size, mtime_ns


class Entry(NamedTuple):
    """A member of a bundle: `offset` is the place of its first byte there, `digest` is "sha256:hex"."""

    path: str
    size: int
    mtime_ns: int
    digest: str
    offset: int


class Index(NamedTuple):
    """What a bundle holds, in the order of the bytes of the paths."""

    label: str
    entries: tuple[Entry, ...]

    def to_bytes(self) -> bytes:
        """The bundle's last member."""
        layout = layout_of(self.label, (_member(entry) for entry in self.entries))
        lines = [_first_line(layout), *map(_line, self.entries)]
        return _closed(layout, b"".join(lines))


class Layout(NamedTuple):
    """Where all of a bundle will lie. `members` are in the order in which they are wanted to be read."""

    name: str  # of the bundle, without its folder
    label: str
    members: tuple[Laid, ...]
    mtime_ns: int  # of the newest member: the bundle's own
    index_path: str
    index_offset: int  # of its first byte; its header is before that
    index_size: int
    size: int  # of the bundle


@dataclass(frozen=True, slots=True)
class Beside:
    """What the file beside a bundle says: the index, and size and digest of the bundle."""

    index: Index
    size: int
    digest: str


class Last(NamedTuple):
    """What the last line of an index says: bytes of the index and the bundle, the digest of the lines before."""

    files: int
    index_bytes: int
    bundle_bytes: int
    sha256: str


# Names and places.


def label_of(text: str) -> str:
    """What a file's name may carry of a label, whatever that is."""
    return re.sub(r"[^A-Za-z0-9._+=-]+", "-", text)[:LABEL].strip(".-") or "bundle"


def name_of(label: str, members: Iterable[Member]) -> str:
    """The name of the bundle of these members, in any order: other members, another name."""
    return _name(label_of(label), sorted(members, key=_by_bytes))


def packed_size(label: str, members: Iterable[Member]) -> int:
    """Bytes of the bundle of these members."""
    return layout_of(label, members).size


def member_size(path: str, size: int, mtime_ns: int) -> int:
    """Bytes that a member adds to a bundle, at the most: header, data, padding, and its line in the index."""
    line = len(_line(Entry(path, size, mtime_ns, NO_DIGEST, 0))) + OFFSET_DIGITS
    return header_size(path, size, mtime_ns) + size + -size % BLOCK + line


def layout_of(label: str, members: Iterable[Member]) -> Layout:
    """Where the members, in any order, lie in their bundle.

    SourceCorrupt (codes as for a bundle that is read) for members that no bundle may have: too many, paths that are not
    plain, that are there twice or that only differ by how Unicode spells them, a file that is a folder too.
    """
    label = label_of(label)
    ordered = sorted(members, key=_by_bytes)
    if not ordered:
        refuse("bundle-members", "a bundle has a member at least")
    laid, at = _laid(ordered)
    name = _name(label, ordered)
    newest = max(mtime_ns for _, _, mtime_ns in ordered)
    path = INDEX_FOLDER + name + ".index"
    begun = Layout(name, label, laid, newest, path, 0, 0, 0)
    size = len(_first_line(begun)) + LAST + sum(len(_line(Entry(*one[:3], NO_DIGEST, one.offset))) for one in laid)
    if size > INDEX_BYTES:
        refuse("bundle-members", f"its index would have {size} bytes, and may have {INDEX_BYTES}")
    offset = at + header_size(path, size, newest)
    return begun._replace(index_offset=offset, index_size=size, size=offset + size + len(padding(size)) + len(END))


def _laid(ordered: Sequence[Member]) -> tuple[tuple[Laid, ...], int]:
    """The members in their places, and where the last of them ends."""
    names = Names()
    laid = []
    at = 0
    for path, size, mtime_ns in ordered:
        names.add(path)
        if size not in SIZE or mtime_ns not in INTEGER:
            refuse("bundle-size", f"{shown(path)} has {size} bytes and is of {mtime_ns}", member=path)
        at += header_size(path, size, mtime_ns)
        laid.append(Laid(path, size, mtime_ns, at))
        at += size + -size % BLOCK
    return tuple(laid), at


def _by_bytes(member: Member) -> bytes:
    try:
        return raw(member[0])
    except UnicodeEncodeError:
        refuse("bundle-climbs", f"{shown(member[0][:300])} is not text that a file name can have")


def _member(entry: Entry) -> Member:
    return entry.path, entry.size, entry.mtime_ns


def _name(label: str, ordered: Iterable[Member]) -> str:
    digest = hashlib.sha256()
    for path, size, mtime_ns in ordered:
        digest.update(b"%b\0%d %d\n" % (raw(path), size, mtime_ns))
    return f"{label}.{digest.hexdigest()[:12]}{BUNDLE}"


# Writing.


def index_bytes(layout: Layout, digests: Sequence[str]) -> bytes:
    """The index of a bundle that was laid out so, with the digests of its members."""
    pairs = zip(layout.members, digests, strict=True)
    lines = (_line(Entry(*member[:3], digest, member.offset)) for member, digest in pairs)
    return _closed(layout, b"".join([_first_line(layout), *lines]))


def beside_bytes(index: bytes, size: int, digest: str) -> bytes:
    """The file beside a bundle of this size and digest."""
    return index + _json({"bundle_bytes": size, "sha256": digest.partition(":")[2]})


def _closed(layout: Layout, lines: bytes) -> bytes:
    """The lines with the last one behind them."""
    last = {
        "end": FORMAT,
        "files": len(layout.members),
        "index_bytes": len(lines) + LAST,
        "bundle_bytes": layout.size,
        "sha256": hashlib.sha256(lines).hexdigest(),
    }
    return lines + _json(last)[:-1].ljust(LAST - 1) + b"\n"


def _first_line(layout: Layout) -> bytes:
    facts = {
        "format": FORMAT,
        "version": VERSION,
        "bundle": layout.name,
        "label": layout.label,
        "files": len(layout.members),
        "bytes": sum(member.size for member in layout.members),
    }
    return _json(facts)


def _line(entry: Entry) -> bytes:
    # Twice as quick as `_json`, which would write the same: a bundle may have a million of them.
    return b'{"path":%b,"size":%d,"mtime_ns":%d,"sha256":"%b","offset":%d}\n' % (
        json.dumps(entry.path).encode("ascii"),
        entry.size,
        entry.mtime_ns,
        entry.digest[7:].encode("ascii"),
        entry.offset,
    )


def _json(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts, separators=(",", ":")).encode("ascii") + b"\n"


# Reading.


def parse_index(data: bytes) -> Index:
    """The index of these bytes. SourceCorrupt with a code for whatever is not as `Index.to_bytes` makes it."""
    if not LAST < len(data) <= INDEX_BYTES:
        refuse("bundle-index", f"an index has no {len(data)} bytes")
    last = last_line(data[-LAST:])
    if last.index_bytes != len(data):
        refuse("bundle-index", f"it has {len(data)} bytes and says {last.index_bytes}: it was cut off, or added to")
    lines = data[:-LAST]
    if hashlib.sha256(lines).hexdigest() != last.sha256:
        refuse("bundle-index", "its lines do not have the digest that its last one says")
    first, *rest = lines.splitlines(keepends=True)
    name, label = _first_of(first)
    if len(rest) != last.files:
        refuse("bundle-index", f"it has {len(rest)} member{'' if len(rest) == 1 else 's'} and says {last.files}")
    index = Index(label, tuple(_entry(number, line) for number, line in enumerate(rest, 2)))
    _check_places(index, name, first, last)
    return index


def parse_beside(data: bytes) -> Beside:
    """The file beside a bundle. SourceCorrupt likewise."""
    lines, _, line = data.removesuffix(b"\n").rpartition(b"\n")
    facts = _object(line + b"\n", "its last line", {"bundle_bytes": int, "sha256": str})
    index = parse_index(lines + b"\n")
    size, digest = facts["bundle_bytes"], f"sha256:{facts['sha256']}"
    if beside_bytes(lines + b"\n", size, digest) != data or not SHA256.fullmatch(facts["sha256"]):
        refuse("bundle-index", "its last line is not as Stager writes it")
    if size != last_line(lines[1 - LAST :] + b"\n").bundle_bytes:
        refuse("bundle-index", f"it says that the bundle has {size} bytes, and its members make another size")
    return Beside(index, size, digest)


def last_line(line: bytes) -> Last:
    """What the last line of an index says."""
    kinds = {"end": str, "files": int, "index_bytes": int, "bundle_bytes": int, "sha256": str}
    facts = _object(line, "its last line", kinds)
    if facts.pop("end") != FORMAT or len(line) != LAST or not SHA256.fullmatch(facts["sha256"]):
        refuse("bundle-index", "its last line is not that of an index")
    last = Last(**facts)
    if not 0 < last.files <= MEMBERS or not LAST < last.index_bytes <= INDEX_BYTES or last.bundle_bytes not in SIZE:
        refuse("bundle-index", "its last line says more than an index may have")
    return last


def _first_of(line: bytes) -> tuple[str, str]:
    """Name and label of the bundle, from the first line."""
    kinds = {"format": str, "version": int, "bundle": str, "label": str, "files": int, "bytes": int}
    facts = _object(line, "its first line", kinds)
    if facts["format"] != FORMAT:
        refuse("bundle-index", "its first line is not that of an index")
    if facts["version"] != VERSION:
        refuse("bundle-version", f"it is of version {facts['version']}, and this Stager reads version {VERSION}")
    return facts["bundle"], facts["label"]


def _entry(number: int, line: bytes) -> Entry:
    kinds = {"path": str, "size": int, "mtime_ns": int, "sha256": str, "offset": int}
    facts = _object(line, f"line {number}", kinds)
    if facts["size"] not in SIZE or facts["offset"] not in SIZE or facts["mtime_ns"] not in INTEGER:
        refuse("bundle-size", f"line {number} has a size, place or time that no file has", line=number)
    if not SHA256.fullmatch(facts["sha256"]):
        refuse("bundle-index", f"line {number} has no sha256", line=number)
    entry = Entry(facts["path"], facts["size"], facts["mtime_ns"], f"sha256:{facts['sha256']}", facts["offset"])
    if _line(entry) != line:
        refuse("bundle-index", f"line {number} is not as Stager writes it", line=number)
    return entry


def _check_places(index: Index, name: str, first: bytes, last: Last) -> None:
    """Paths, places and name are all that they can be, given the paths, sizes and times."""
    names = Names()
    for entry in index.entries:
        names.add(entry.path)
    layout = layout_of(index.label, (_member(entry) for entry in index.entries))
    for entry, laid in zip(index.entries, layout.members, strict=True):
        if entry.offset != laid.offset:
            text = f"it has {shown(entry.path)} at byte {entry.offset}, where those before it end at {laid.offset}"
            refuse("bundle-offset", text, member=entry.path)
    if (layout.name, _first_line(layout)) != (name, first) or last.bundle_bytes != layout.size:
        refuse("bundle-foreign-index", f"what it says of {shown(name)} does not go with the members it lists")


def _object(line: bytes, what: str, kinds: dict[str, type]) -> dict[str, Any]:
    """The object on a line: these keys in this order, of these types (a bool is no int), and no others."""
    if len(line) > LINE_BYTES:
        refuse("bundle-index", f"{what} is longer than {LINE_BYTES} bytes")
    try:
        facts = json.loads(
            line.decode("ascii"), object_pairs_hook=_without_repeats, parse_float=_no_float, parse_constant=_no_float
        )
    except (ValueError, RecursionError) as error:
        raise corrupt("bundle-index", f"{what} is no JSON: {shown(str(error)[:200])}") from error
    if not isinstance(facts, dict) or [(key, type(value)) for key, value in facts.items()] != list(kinds.items()):
        refuse("bundle-index", f"{what} does not have {', '.join(kinds)}")
    return facts


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is no whole number")
