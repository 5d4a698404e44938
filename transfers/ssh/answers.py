"""What a far side says, held against what it was asked, before it is believed.

A host may be broken, taken over, or not what it seems. Here its words are made the types that they must be, within
bounds; where a file goes, and what it is, is said by who asked and never by the far side. Nonsense for all else.
"""

from __future__ import annotations

import math
import re
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from transfers.agent import Member, checked, facts_of, fault_from, name_of, piece_size
from transfers.errors import SIDES
from transfers.hosts import (
    Fault,
    FileInfo,
    Filled,
    Frame,
    Hdu,
    Identity,
    Limits,
    Opened,
    Place,
    Receipt,
    Skipped,
    Want,
)

T = TypeVar("T")

DIGEST = re.compile(r"[a-z0-9_]{1,16}:[0-9a-f]{1,128}")
SYSTEM = re.compile(r"[0-9a-f-]{1,40}:[0-9]{1,20}")
INTEGER = range(-(1 << 63), 1 << 63)  # what a database holds
INODE = range(1 << 64)
SIZE = range(1 << 63)
SUM = range(1 << 32)
FACTS = 64  # of one fault
FACT_ITEMS = 1000  # of one list among them
WORDS = 4000  # characters of one text among them
Key = tuple[int, str]  # of a file that is landed: item and destination


class Nonsense(Exception):
    """Not what an agent says."""


def refuse(what: str, body: Any = None) -> NoReturn:
    raise Nonsense(what if body is None else f"{what}: {str(body)[:200]}")


# Single answers.


def made_of(kind: Callable[..., T], body: Any) -> T:
    """A NamedTuple of the agent's, each field of the type that it must have and within what can be."""
    fields = kind.__annotations__
    name = getattr(kind, "__name__", "")
    if not isinstance(body, list) or [type(value) for value in body] != list(fields.values()):
        refuse(f"no {name}", body)
    for field, value in zip(fields, body, strict=True):
        if type(value) is int and value not in {"mtime_ns": INTEGER, "inode": INODE}.get(field, SIZE):
            refuse(f"no {field} of a {name}", value)
    return kind(*body)


def fault_of(body: Any) -> Fault:
    """A fault, with plain and bounded facts. It blames no other host: see `Sent.fault`."""
    if not isinstance(body, dict):
        refuse("no fault", body)
    fault = fault_from(body)
    fault.side = fault.side if fault.side in SIDES else ""
    fault.phase = fault.phase[:40]
    fault.errno = fault.errno if type(fault.errno) is int and fault.errno in range(4096) else None
    facts = list(fault.facts.items())[:FACTS]
    fault.facts = {name[:100]: _plain(value) for name, value in facts if name != "host"}
    return fault


def _plain(value: Any, depth: int = 0) -> Any:
    """A fact without what could be too much for who keeps it: depth, length, numbers that no database holds."""
    if isinstance(value, str):
        return value[:WORDS]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value in INODE or value in INTEGER else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth == 0 and isinstance(value, list):
        return [_plain(one, 1) for one in value[:FACT_ITEMS]]
    if depth == 0 and isinstance(value, dict):
        return {name[:100]: _plain(one, 1) for name, one in list(value.items())[:FACTS]}
    return None


def text_of(body: Any) -> str:
    if not isinstance(body, str):
        refuse("no text", body)
    return body


def path_of(body: Any) -> str:
    """A path that leads nowhere else than below a root."""
    try:
        return checked(text_of(body))
    except Fault as fault:
        raise Nonsense(fault.text) from fault


def clock_of(body: Any) -> float:
    if type(body) is not float or not math.isfinite(body):
        refuse("no time", body)
    return body


def part_of(body: Any) -> tuple[int, int]:
    """Item and epoch of a part that a sweep asks about."""
    if not isinstance(body, list) or [type(value) for value in body] != [int, int]:
        refuse("no part", body)
    return body[0], body[1]


def scanned(prefix: str, name: str, body: Any) -> FileInfo | Skipped:
    """What a scan of the prefix found."""
    if name not in {"info", "skipped"}:
        refuse(f"{name} in a scan")
    found = made_of(Skipped, body) if name == "skipped" else made_of(FileInfo, body)
    path = path_of(found.path) if isinstance(found, FileInfo) else found.path
    if prefix and path != prefix and not path.startswith(f"{prefix}/"):
        refuse(f"a path that is not below {prefix}", path)
    return found


def found_at(path: str, body: Any) -> FileInfo | None:
    """What is at the path."""
    if body is None:
        return None
    found = made_of(FileInfo, body)
    if found.path != path:
        refuse("another path than was asked for", found.path)
    return found


def removed_at(path: str, body: Any) -> str:
    if body != path:
        refuse("another path than was asked for", body)
    return path


def moved_to(pair: tuple[str, str], body: Any) -> str:
    """The new path of a file that was to be moved."""
    if body != pair[1]:
        refuse("another path than was asked for", body)
    return pair[1]


def identity_at(path: str, body: Any) -> Identity | None:
    """Which file is at the path; it tells of nothing but what the far side says of itself."""
    if body is None:
        return None
    found = made_of(Identity, body)
    if not SYSTEM.fullmatch(found.system):
        refuse(f"no identity of {path}", body)
    return found


def digest_at(algorithm: str, place: Place, body: Any) -> tuple[str, int, str]:
    """The size and digest of the file, or member."""
    if not isinstance(body, list) or [type(value) for value in body] != [str, int, str]:
        refuse("no digest", body)
    found, size, digest = body
    sizes = SIZE if isinstance(place, str) else {place.size}
    if found != name_of(place) or size not in sizes or not digest.startswith(f"{algorithm}:"):
        refuse("no digest of what was asked for", body)
    if not DIGEST.fullmatch(digest):
        refuse("no digest", body)
    return found, size, digest


def hdus_of(limits: Limits, frames: Callable[[], tuple[str, Any]], place: Place, body: Any) -> tuple[Hdu, ...]:
    """The HDUs that a message announces; their header bytes follow it."""
    rows: list[Any] = body if isinstance(body, list) else [None]
    if len(rows) > limits.hdus or not all(_is_hdu(row) for row in rows):
        refuse(f"no HDUs of {name_of(place)}")
    if sum(row[0] for row in rows) > limits.header_bytes:
        refuse(f"more header bytes than asked for of {name_of(place)}")
    if isinstance(place, Member) and any(_reaches_beyond(place.size, *row) for row in rows):
        refuse(f"HDUs beyond the end of {place.name}")
    return tuple(Hdu(offset, _header(length, frames), *facts) for length, offset, *facts in rows)


def _is_hdu(row: Any) -> bool:
    """Whether this is an HDU with the length of its header in the place of the header itself."""
    if not isinstance(row, list) or len(row) != len(Hdu._fields):
        return False
    *sizes, datasum, rest, stray, packed = row
    sizes += [stray, *([] if rest is None else [rest])]
    return (
        all(type(value) is int and value in SIZE for value in sizes)
        and (datasum is None or (type(datasum) is int and datasum in SUM))
        and type(packed) is bool
    )


def _reaches_beyond(size: int, length: int, offset: int, data_offset: int, *rest: Any) -> bool:
    """Whether the header of an HDU ends beyond a file of this size, where it is not told of what that unpacks to."""
    return not rest[-1] and max(offset + length, data_offset) > size


def _header(length: int, frames: Callable[[], tuple[str, Any]]) -> bytes:
    header = bytearray()
    while len(header) < length:
        name, data = frames()
        if not is_data(name, data) or len(data) > length - len(header):
            refuse(f"{name} instead of a header")
        header += data
    return bytes(header)


def is_data(name: str, body: Any) -> bool:
    """Whether a frame is data, some at least, and not a message that goes by their name."""
    return name == "data" and isinstance(body, bytes | memoryview) and len(body) > 0


# The files of a read.


class Asked:
    """The wants that a source was asked for, in their order; each frame that comes is held against the next of them."""

    def __init__(self) -> None:
        self.open: deque[Want] = deque()  # asked for and not answered
        self.bytes = 0  # of them
        self._units: deque[tuple[int, int]] = deque()  # of more than one: wants before it, wants of it
        self._asked = self._answered = 0
        self._said: dict[str, Any] | None = None  # of the file that is coming
        self._come = 0

    def add(self, unit: list[Want]) -> None:
        if len(unit) > 1:
            self._units.append((self._asked, len(unit)))
        self.open.extend(unit)
        self._asked += len(unit)
        self.bytes += sum(size_wanted(want) or 0 for want in unit)

    def frame(self, name: str, body: Any) -> Frame:
        """The frame, if it may come now. After an "end" or "fault" its want is open no more."""
        if not self.open:
            refuse(f"{name} of a file that was not asked for")
        if self._said is None:
            return self._first(name, body)
        if is_data(name, body):
            self._come += len(body)
            if self._said["size"] is None or self._come > self._said["size"]:
                refuse("other data than announced")
            return name, body
        want, said = self.open[0], self._said
        if name == "fault":
            frame: Frame = name, fault_of(body)
        elif name == "end":
            frame = name, self._end(want, said, body)
        else:
            refuse(f"{name} within a file")
        self._said = None
        self._answered += 1
        self.bytes -= size_wanted(self.open.popleft()) or 0
        return frame

    def _first(self, name: str, body: Any) -> Frame:
        """What begins a unit, or a file."""
        if self._units and self._units[0][0] == self._answered:
            if name != "unit" or body != self._units.popleft()[1]:
                refuse(f"{name} where a unit begins")
            return name, body
        if name != "file" or not isinstance(body, dict):
            refuse(f"{name} where a file begins")
        size, mtime_ns = body.get("size"), body.get("mtime_ns")
        for value, bounds in ((size, SIZE), (mtime_ns, INTEGER)):
            if value is not None and (type(value) is not int or value not in bounds):
                refuse("no size or time", value)
        want = self.open[0]
        if want.is_member and (mtime_ns != want.mtime_ns or size not in {None, size_wanted(want)}):
            refuse("another member than was asked for", body)
        self._said, self._come = {"size": size, "mtime_ns": mtime_ns}, 0
        return facts_of(want, size, mtime_ns)

    def _end(self, want: Want, said: dict[str, Any], body: Any) -> dict[str, Any]:
        """A whole file or member, as wanted: the source itself compares, and one that does not is not believed."""
        if not isinstance(body, dict):
            refuse("no end", body)
        size, digest = body.get("size"), body.get("digest")
        if type(size) is not int or size != self._come or size != said["size"] or not isinstance(digest, str):
            refuse("an end of other data", body)
        if want.piece is not None:
            right = size == piece_size(want.piece) and digest.startswith("sha256:")
        elif want.stretch is not None and not want.is_member:
            right = (size, digest) == (want.stretch[1], "")
        else:
            right = size_wanted(want) in {None, size} and digest.startswith("sha256:")
            listed = (want.digest or "").lower()
            right = right and (digest == listed or not listed.startswith("sha256:"))
        if not right or (digest and not DIGEST.fullmatch(digest)):
            refuse("an end of another file than was wanted", body)
        return {"size": size, "digest": digest}


def size_wanted(want: Want) -> int | None:
    """The bytes that are to come for a want, where they are known."""
    if want.piece is not None:
        return piece_size(want.piece)
    return want.stretch[1] if want.stretch is not None else want.size


# What is landed, filled and carried.


class Sent:
    """What was sent to be landed, and what was said of it. One thread sends, another holds answers against it."""

    def __init__(self, proof: str) -> None:
        self._lock = threading.Lock()
        self._proofs = {proof, "reread"}  # what was there already has been read back whatever was asked for
        self._files: defaultdict[Key, deque[list[tuple[int, str]]]] = defaultdict(deque)  # each with its end, once said
        self._opened: dict[int, tuple[Key, list[tuple[int, str]]]] = {}
        self._at: list[tuple[int, str]] = []
        self._hosts: set[str] = set()  # that faults among the frames blame
        self._left = 0

    def frame(self, name: str, body: Any) -> None:
        with self._lock:
            if name in {"file", "open"}:
                key, end = (body["item"], body["path"]), list[tuple[int, str]]()
                self._files[key].append(end)
                self._left += 1
                if name == "open":
                    self._opened[body["item"]] = key, end
                else:
                    self._at = end
            elif name == "end":
                self._at.append((body["size"], body["digest"]))
            elif name == "close" and body["item"] in self._opened:
                self._opened.pop(body["item"])[1].append((body["size"], body["digest"]))
            elif name in {"fault", "drop"}:
                fault = body if name == "fault" else body["fault"]
                self._hosts.add(str(fault.facts.get("host", "")))

    def left(self) -> int:
        """How many files have no answer."""
        with self._lock:
            return self._left

    def receipt(self, body: Any) -> Receipt:
        """The receipt of a file that was sent, saying of it what the source said."""
        receipt = made_of(Receipt, body)
        end = self._answered((receipt.item, receipt.path))
        if end != [(receipt.size, receipt.digest)] or receipt.proof not in self._proofs:
            refuse("a receipt for something else than was sent", body)
        return receipt

    def opened(self, body: Any) -> Opened:
        opened = made_of(Opened, body)
        with self._lock:
            asked = self._opened.get(opened.item)
        if asked is None or asked[0][1] != opened.path or path_of(opened.part).rpartition("/")[2][:1] != ".":
            refuse("another file than was to be opened", body)
        return opened

    def fault(self, body: Any) -> Fault:
        """The fault of a file that was sent. It blames another host only where a frame did that before."""
        fault = fault_of(body)
        item, path = fault.facts.get("item"), fault.facts.get("destination")
        if type(item) is not int or not isinstance(path, str):
            refuse("a fault of nothing", fault)
        self._answered((item, path))
        with self._lock:
            if (host := fault_from(body).facts.get("host")) in self._hosts and host:
                fault.facts["host"] = host
        return fault

    def _answered(self, key: Key) -> list[tuple[int, str]]:
        with self._lock:
            ends = self._files.get(key)
            if not ends:
                refuse("an answer for something that was not sent", key)
            end = ends.popleft()
            if not ends:
                del self._files[key]
            self._left -= 1
            if (opened := self._opened.get(key[0])) is not None and opened[1] is end:
                del self._opened[key[0]]  # it failed before it was closed
            return end


class SentStretches:
    """The same for stretches of parts, which are answered in their order."""

    def __init__(self) -> None:
        self._stretches: deque[tuple[str, int, int]] = deque()
        self._hosts: set[str] = set()

    def frame(self, name: str, body: Any) -> None:
        if name == "stretch":
            self._stretches.append((body["part"], body["offset"], body["size"]))
        elif name == "fault":
            self._hosts.add(str(body.facts.get("host", "")))

    def left(self) -> int:
        return len(self._stretches)

    def filled(self, body: Any) -> Filled:
        filled = made_of(Filled, body)
        if not self._stretches or filled != self._stretches.popleft():
            refuse("another stretch than was sent", body)
        return filled

    def fault(self, body: Any) -> Fault:
        fault = fault_of(body)
        named = fault.facts.get("part"), fault.facts.get("offset")
        if not self._stretches or named != self._stretches.popleft()[:2]:
            refuse("a fault of another stretch than was sent", fault)
        if (host := fault_from(body).facts.get("host")) and isinstance(host, str) and host in self._hosts:
            fault.facts["host"] = host
        return fault


class Carried:
    """The same for files that a host brings from one of its places to another."""

    def __init__(self, proof: str) -> None:
        self._proofs = {proof, "reread"}
        self._wants: defaultdict[Key, deque[Want]] = defaultdict(deque)

    def add(self, unit: list[Want]) -> None:
        for want in unit:
            self._wants[want.item, want.destination].append(want)

    def left(self) -> int:
        return sum(len(wants) for wants in self._wants.values())

    def receipt(self, body: Any) -> Receipt:
        receipt = made_of(Receipt, body)
        want = self._answered((receipt.item, receipt.path))
        listed = (want.digest or "").lower() if want.piece is None else ""
        if size_wanted(want) not in {None, receipt.size} or (listed.startswith("sha256:") and listed != receipt.digest):
            refuse("a receipt for something else than was wanted", body)
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", receipt.digest) or receipt.proof not in self._proofs:
            refuse("a receipt without proof", body)
        return receipt

    def fault(self, body: Any) -> Fault:
        fault = fault_of(body)
        item, path = fault.facts.get("item"), fault.facts.get("destination")
        if type(item) is not int or not isinstance(path, str):
            refuse("a fault of nothing", fault)
        self._answered((item, path))
        return fault

    def _answered(self, key: Key) -> Want:
        if not self._wants.get(key):
            refuse("an answer for something that was not wanted", key)
        return self._wants[key].popleft()


def pairs(asked: list[T], answers: Iterator[tuple[str, Any]]) -> Iterator[tuple[T, str, Any]]:
    """Each thing that was asked for with its answer, one each."""
    count = 0
    for name, body in answers:
        if count == len(asked):
            refuse(f"more answers than the {count} that were asked for")
        yield asked[count], name, body
        count += 1
    if count != len(asked):
        refuse(f"{count} answers to {len(asked)} questions")
