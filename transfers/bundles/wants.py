"""Wants of a store's files by their own paths, made wants of the bundles that they lie in; pure but for the asking."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from transfers.agent import facts_of, units_of
from transfers.hosts import Fault, Frame, Want

LOT_WANTS = 64  # that are looked up together: no more than an SSH host takes ahead of their turn, so that lanes share
LOT_BYTES = 64 << 20


class Placed(NamedTuple):
    """A file of a store as the database knows it: itself, or a member of a bundle, `offset` bytes into that."""

    path: str
    size: int
    mtime_ns: int
    digest: str
    bundle: str | None
    offset: int | None


Find = Callable[[Iterable[str]], Mapping[str, Placed]]  # which of some paths are members


@dataclass(slots=True)
class _Asked:
    """A want that was passed on, with the member that it is of."""

    want: Want
    member: Placed | None


@dataclass(slots=True)
class _Refused:
    """A unit that is answered here: one of its wants expects another file than the member is."""

    unit: list[Want]
    fault: Fault


class Reading:
    """A read of members and of files: wants on their way to the store, frames on their way back."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._open: deque[_Asked | _Refused] = deque()
        self._now: _Asked | None = None  # what is coming

    def wants(self, wants: Iterable[Want]) -> Iterator[Want]:
        """What the store itself is asked for, as it asks for it."""
        for lot in lots(wants):
            known = self._find(want.source for unit in lot for want in unit)
            for unit in lot:
                try:
                    told = told_unit(unit, known)
                except Fault as fault:
                    self._open.append(_Refused(unit, fault))
                    continue
                self._open.extend(_Asked(want, known.get(want.source)) for want in unit)
                yield from told

    def frames(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The store's frames as those of what was wanted, and the faults of what it was not asked for in between."""
        try:
            for name, body in frames:
                if self._now is None:
                    yield from self._refused()
                yield self._told(name, body)
            yield from self._refused()
        finally:
            if isinstance(frames, Generator):
                frames.close()

    def _refused(self) -> Iterator[Frame]:
        while self._open and isinstance(self._open[0], _Refused):
            one = self._open.popleft()
            assert isinstance(one, _Refused)
            if len(one.unit) > 1:
                yield "unit", len(one.unit)
            for want in one.unit:
                yield facts_of(want, want.size if want.piece is None else None, want.mtime_ns)
                facts = dict(one.fault.facts)
                yield "fault", Fault(one.fault.kind, one.fault.text, want.source, "source", "open", facts=facts)

    def _told(self, name: str, body: Any) -> Frame:
        """The frame as one of the member's."""
        if name == "file":
            one = self._open.popleft()
            assert isinstance(one, _Asked)  # those that were refused went before
            self._now = one
        now = self._now
        if name in {"end", "fault"}:
            self._now = None
        if now is None or now.member is None:
            return name, body
        if name == "file":
            return name, {**body, "mtime_ns": now.member.mtime_ns}
        if name == "fault":
            body.path = now.member.path
            body.facts["lies_in"] = now.member.bundle
        elif name == "end" and now.want.piece is None and now.want.stretch is None:
            return self._ended(now.member, body)
        return name, body

    def _ended(self, member: Placed, body: dict[str, Any]) -> Frame:
        """The end of a whole member; a fault if it is not what the database has of it."""
        found = body["digest"]
        if not _same_algorithm(found, member.digest) or found == member.digest.lower():
            return "end", body
        text = "it does not have the digest that was proven when it was packed"
        facts = {"expected": member.digest, "found": found, "lies_in": member.bundle}
        return "fault", Fault("source corrupt", text, member.path, "source", "read", facts=facts)


def lots(wants: Iterable[Want]) -> Iterator[list[list[Want]]]:
    """The wants in units, some units at a time."""
    lot: list[list[Want]] = []
    count = size = 0
    for unit in units_of(wants):
        lot.append(unit)
        count += len(unit)
        size += sum(want.size or 0 for want in unit)
        if count >= LOT_WANTS or size >= LOT_BYTES:
            yield lot
            lot, count, size = [], 0, 0
    if lot:
        yield lot


def told_unit(unit: Sequence[Want], known: Mapping[str, Placed]) -> list[Want]:
    """The wants of a unit as the store itself has them; Fault if one of them cannot be had."""
    return [want if want.source not in known else told_want(want, known[want.source]) for want in unit]


def told_want(want: Want, member: Placed) -> Want:
    """The want of a member as one of the bundle's. Fault where it expects another file than the member is."""
    assert member.bundle is not None
    assert member.offset is not None
    if want.is_member:
        raise Fault(
            "unsupported", "it is in a bundle itself, so that nothing can be read as a member of it", want.source
        )
    _expect(want, member)
    if want.stretch is not None:
        start, size = want.stretch
        if start < 0 or size < 0 or start + size > member.size:
            raise Fault("source changed", "the file ended before its size", want.source, "source", "read")
        # A block of a large member. The bundle around it is of another size and time than was wanted.
        block = (member.offset + start, size)
        return want._replace(source=member.bundle, size=None, mtime_ns=None, stretch=block)
    return want._replace(
        source=member.bundle,
        size=member.size if want.piece is None else want.size,
        mtime_ns=member.mtime_ns,
        digest=want.digest or member.digest,
        stretch=(member.offset, member.size),
    )


def _expect(want: Want, member: Placed) -> None:
    """Fault unless the member is as it was when the want was planned."""
    facts: dict[str, Any] = {"size": member.size, "mtime_ns": member.mtime_ns, "lies_in": member.bundle}
    for name, expected, found in (
        ("size", want.size, member.size),
        ("mtime_ns", want.mtime_ns, member.mtime_ns),
    ):
        if expected not in {None, found}:
            text = f"{name} was {expected} when it was planned and is {found}"
            raise Fault("source changed", text, want.source, "source", "open", facts=facts)
    listed = want.digest or member.digest
    if _same_algorithm(listed, member.digest) and listed.lower() != member.digest.lower():
        facts = {"expected": want.digest, "found": member.digest, "lies_in": member.bundle}
        text = "the file does not have the digest expected of it"
        raise Fault("source corrupt", text, want.source, "source", "open", facts=facts)


def _same_algorithm(one: str, other: str) -> bool:
    return one.partition(":")[0].lower() == other.partition(":")[0].lower()
