"""A mass store as it is seen by all who do not pack: every file under its own path, wherever it lies."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from transfers.agent import batches, checked, raw
from transfers.bundles.index import BUNDLE, INDEX
from transfers.bundles.wants import Placed, Reading, lots, told_unit, told_want
from transfers.errors import Conflict, SourceCorrupt, TransferError, Unsupported, from_fault, shown
from transfers.hosts import (
    LIMITS,
    Clock,
    Fault,
    FileInfo,
    Filled,
    Frame,
    Hdu,
    Host,
    Identity,
    Limits,
    Lost,
    Member,
    Opened,
    Place,
    Receipt,
    Residency,
    Skipped,
    Space,
    Stop,
    Want,
    never,
)

__all__ = ["BundledStore", "Catalog", "Placed"]

LOT = 500  # paths that are looked up together
UNKNOWN = "a bundle that the database does not know: `stager registry rebuild {}` makes its members known"


class Catalog(Protocol):
    """Which files of one store are members of bundles. Its methods may be called by several threads at once."""

    def find(self, paths: Sequence[str]) -> dict[str, Placed]:
        """Those of the paths that are members, and where they lie."""
        ...

    def below(self, prefix: str) -> Iterator[Placed]:
        """The members below a folder ("": all), or the one of that path, sorted by their paths."""
        ...

    def bundles(self) -> Collection[str]:
        """The paths of the bundles that are known, those on their way too, as they lie on the store."""
        ...


class BundledStore:
    """The files of a store by their own paths: those that lie there as they are, and the members of bundles.

    What a member is, its size, time and digest, is said by the catalog, and that its bundle is there by the store. A
    member is read where it lies, held against its digest, and never changed: a bundle comes and goes as one. All
    that is not about members is done by `physical`, the store as it is.
    """

    def __init__(self, host: Host, catalog: Catalog) -> None:
        self.physical = host
        self.catalog = catalog

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.physical!r})"

    @property
    def name(self) -> str:
        return self.physical.name

    @property
    def kind(self) -> str:
        return self.physical.kind

    @property
    def root(self) -> str:
        return self.physical.root

    @property
    def far(self) -> bool:
        return self.physical.far

    @property
    def cuts(self) -> bool:
        return self.physical.cuts

    @property
    def reread(self) -> str:
        return self.physical.reread

    @property
    def stages(self) -> bool:
        return self.physical.stages

    @property
    def seeks(self) -> bool:
        return self.physical.seeks

    @property
    def own_digest(self) -> str | None:
        return self.physical.own_digest

    @property
    def round_trip_s(self) -> float:
        return self.physical.round_trip_s

    # Looking.

    def open(self, marker: str | None, marks: bool = True) -> str | None:
        return self.physical.open(marker, marks)

    def scan(self, prefix: str = "") -> Iterator[FileInfo | Skipped | Lost]:
        """What lies there as it is, and the members; sorted as far as both are. Bundles and their indexes are left out;
        those that nobody knows are said. Members whose bundle is not there, or ends before them, are Lost."""
        if prefix and not _is_plain(prefix):
            yield from self.physical.scan(prefix)
            return
        yield from heapq.merge(self._plain_files(prefix), self._members(prefix), key=_by_bytes)

    def _plain_files(self, prefix: str) -> Iterator[FileInfo | Skipped | Lost]:
        bundles = self.catalog.bundles()
        for some in batches(self.physical.scan(prefix), LOT):
            hidden = self._find(found.path for found in some) if bundles else {}
            for found in some:
                if isinstance(found, Lost):
                    yield found
                elif found.path in hidden:
                    yield Skipped(found.path, f"a member of {shown(str(hidden[found.path].bundle))} has the same path")
                elif not found.path.endswith((BUNDLE, INDEX)):
                    yield found
                elif found.path.removesuffix(".index") not in bundles:
                    yield Skipped(found.path, UNKNOWN.format(self.name))

    def _members(self, prefix: str) -> Iterator[FileInfo | Lost]:
        there = _Bundles(self.physical)
        for some in batches(self.catalog.below(prefix), LOT):
            there.look(some)
            for member in some:
                found = there.info(member)
                if any(name.startswith(".") for name in member.path.split("/")):
                    continue  # as in any scan
                if isinstance(found, FileInfo):
                    yield found
                else:
                    yield Lost(member.path, member.size, member.mtime_ns, _why_lost(member, found))

    def find(self, paths: Iterable[str]) -> Iterator[FileInfo | TransferError | None]:
        """A member is as the catalog has it, as long as its bundle is there and not shorter."""
        there = _Bundles(self.physical)
        for some in batches(paths, LOT):
            known = self._find(some)
            plain = iter(list(self.physical.find([path for path in some if path not in known])))
            there.look(known.values())
            for path in some:
                yield there.info(known[path]) if path in known else next(plain)

    def lies_in(self, paths: Iterable[str]) -> Iterator[str]:
        for some in batches(paths, LOT):
            known = self._find(some)
            for path in some:
                yield str(known[path].bundle) if path in known else path

    def identify(self, paths: Iterable[str]) -> Iterator[Identity | TransferError | None]:
        return self.physical.identify(self.lies_in(paths))

    def residency(self, paths: Iterable[str]) -> Iterator[Residency | TransferError]:
        return self.physical.residency(paths)

    def stage(self, paths: Iterable[str]) -> Iterator[TransferError | None]:
        return self.physical.stage(paths)

    def space(self) -> Space:
        return self.physical.space()

    def clock(self) -> Clock:
        return self.physical.clock()

    def about(self) -> dict[str, str]:
        return self.physical.about()

    def prepare(self, streams: int) -> None:
        self.physical.prepare(streams)

    def close(self) -> None:
        self.physical.close()

    # Reading.

    def read(self, wants: Iterable[Want]) -> Iterator[Frame]:
        """A want that expects another file than the member is gives "source changed" or "source corrupt"."""
        reading = Reading(self._find)
        yield from reading.frames(self.physical.read(reading.wants(wants)))

    def digest(
        self, places: Iterable[Place], algorithm: str = "sha256", reread: bool = False, stop: Stop = never
    ) -> Iterator[tuple[str, int, str] | TransferError]:
        return self.physical.digest(self._places(places), algorithm, reread, stop)

    def headers(self, places: Iterable[Place], limits: Limits = LIMITS) -> Iterator[tuple[Hdu, ...] | TransferError]:
        return self.physical.headers(self._places(places), limits)

    def gunzip(self, want: Want, most: int, stop: Stop = never) -> str:
        known = self._find([want.source])
        try:
            told = told_want(want, known[want.source]) if known else want
        except Fault as fault:
            raise self._error(fault) from fault
        return self.physical.gunzip(told, most, stop)

    def _places(self, places: Iterable[Place]) -> Iterator[Place]:
        for some in batches(places, LOT):
            known = self._find(place for place in some if isinstance(place, str))
            for place in some:
                member = known.get(place) if isinstance(place, str) else None
                yield place if member is None else _place(member)

    # Changing.

    def land(
        self, frames: Iterable[Frame], proof: str = "reread", stop: Stop = never
    ) -> Iterator[Receipt | TransferError | Opened]:
        """A path that a member has is taken, whatever is to be landed there: Conflict. A member whose bundle is gone
        has none any more, and its file may come anew."""
        there = _Bundles(self.physical)
        freed: set[str] = set()
        for result in self.physical.land(self._without_members(frames, there, freed), proof, stop):
            if isinstance(result, Receipt) and result.path in freed:
                yield result._replace(adopted=False)  # it is not where it was known to be
            else:
                yield result

    def _without_members(self, frames: Iterable[Frame], there: _Bundles, freed: set[str]) -> Iterator[Frame]:
        """The frames, with a fault for the end of each file that would lie where a member is; `freed` gets the paths
        of members that are no more."""
        fault: Fault | None = None  # of the file that is coming
        dropped: set[int] = set()  # items that were to be filled
        for name, body in frames:
            if name in {"file", "open"}:
                fault = self._taken(body["path"], there, freed)
            if name == "open" and fault is not None:
                dropped.add(body["item"])
                yield name, body
                yield "drop", {"item": body["item"], "fault": fault}
            elif name in {"wrote", "close", "drop"} and body["item"] in dropped:
                continue  # it has its answer
            elif name == "end" and fault is not None:
                yield "fault", fault
            elif name != "data" or fault is None:
                yield name, body

    def _taken(self, path: str, there: _Bundles, freed: set[str]) -> Fault | None:
        member = self._find([path]).get(path)
        if member is None:
            return None
        if there.lack(member):
            freed.add(path)
            return None
        text = f"a member of the bundle {shown(str(member.bundle))} has the name"
        return Fault("conflict", text, path, "destination", "open", facts={"lies_in": member.bundle})

    def fill(self, frames: Iterable[Frame], stop: Stop = never) -> Iterator[Filled | TransferError]:
        return self.physical.fill(frames, stop)

    def carry(
        self, wants: Iterable[Want], proof: str = "reread", stop: Stop = never
    ) -> Iterator[Receipt | TransferError]:
        errors: list[TransferError] = []
        for result in self.physical.carry(self._carried(wants, errors), proof, stop):
            yield result
            while errors:
                yield errors.pop()
        yield from errors

    def _carried(self, wants: Iterable[Want], errors: list[TransferError]) -> Iterator[Want]:
        """The wants as the store has them. For units that cannot be had, or whose places members have: errors."""
        for lot in lots(wants):
            known = self._find(path for unit in lot for want in unit for path in (want.source, want.destination))
            for unit in lot:
                taken = next((known[want.destination] for want in unit if want.destination in known), None)
                try:
                    if taken is not None:
                        text = f"a member of the bundle {shown(str(taken.bundle))} has the name {shown(taken.path)}"
                        raise Fault("conflict", text, taken.path, "destination", "open")
                    told = told_unit(unit, known)
                except Fault as fault:
                    errors.extend(self._of_want(fault, want) for want in unit)
                else:
                    yield from told

    def _of_want(self, fault: Fault, want: Want) -> TransferError:
        error = self._error(fault)
        error.facts |= {"item": want.item, "epoch": want.epoch, "destination": want.destination}
        return error

    def remove(self, paths: Iterable[str]) -> Iterator[str | TransferError]:
        """A member cannot be taken out of its bundle: Unsupported."""
        for some in batches(paths, LOT):
            known = self._find(some)
            gone = iter(list(self.physical.remove([path for path in some if path not in known])))
            for path in some:
                yield self._held(known[path], "remove") if path in known else next(gone)

    def move(self, pairs: Iterable[tuple[str, str]]) -> Iterator[str | TransferError]:
        """A member keeps its path (Unsupported), and nothing else gets it (Conflict)."""
        for some in batches(pairs, LOT):
            known = self._find(path for pair in some for path in pair)
            free = [pair for pair in some if pair[0] not in known and pair[1] not in known]
            moved = iter(list(self.physical.move(free)))
            for old, new in some:
                if old in known:
                    yield self._held(known[old], "move")
                elif new in known:
                    text = f"a member of the bundle {shown(str(known[new].bundle))} has the name"
                    yield Conflict(text, host=self.name, side="store", phase="move", path=new)
                else:
                    yield next(moved)

    def sweep(self, prefix: str, dead: Callable[[int, int], bool]) -> list[str]:
        return self.physical.sweep(prefix, dead)

    # Words in common.

    def _find(self, paths: Iterable[str]) -> Mapping[str, Placed]:
        """Those of the paths that are members. What is no path at all is left to the store to refuse."""
        asked = [path for path in paths if _is_plain(path)]
        found = self.catalog.find(asked) if asked else {}
        return {path: one for path, one in found.items() if one.bundle is not None and one.offset is not None}

    def _held(self, member: Placed, phase: str) -> TransferError:
        text = f"it is a member of the bundle {shown(str(member.bundle))}, which comes and goes as one"
        return Unsupported(text, host=self.name, side="store", phase=phase, path=member.path)

    def _error(self, fault: Fault) -> TransferError:
        return from_fault(fault, self.name).at("store")


class _Bundles:
    """Which of the bundles that members lie in are there, each looked for once."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._found: dict[str, FileInfo | TransferError | None] = {}

    def look(self, members: Iterable[Placed]) -> None:
        new = sorted({str(member.bundle) for member in members} - set(self._found))
        if new:
            self._found |= zip(new, self._host.find(new), strict=True)

    def lack(self, member: Placed) -> bool:
        """Whether the bundle of a member is gone; not where that cannot be told."""
        self.look([member])
        return self._found[str(member.bundle)] is None

    def info(self, member: Placed) -> FileInfo | TransferError | None:
        """The member, if its bundle is there; else why it is not."""
        found = self._found[str(member.bundle)]
        if not isinstance(found, FileInfo):
            return found if found is None else found.about(member.path, self._host.name)
        end = (member.offset or 0) + member.size
        if end > found.size:
            text = f"its bundle {shown(found.path)} has {found.size} bytes, and it would end at byte {end}"
            facts = {"code": "bundle-truncated", "lies_in": found.path}
            return SourceCorrupt(text, host=self._host.name, side="store", phase="find", path=member.path, facts=facts)
        return FileInfo(member.path, member.size, member.mtime_ns)


def _place(member: Placed) -> Member:
    assert member.bundle is not None
    assert member.offset is not None
    return Member(member.bundle, member.offset, member.size, member.path)


def _is_plain(path: str) -> bool:
    try:
        checked(path)
    except Fault:
        return False
    return True


def _why_lost(member: Placed, error: TransferError | None) -> str:
    bundle = f"its bundle {shown(str(member.bundle))}"
    if error is None:
        return f"{bundle} is not on the store"
    return error.text if error.facts.get("lies_in") == member.bundle else f"{bundle}: {error.text}"


def _by_bytes(found: FileInfo | Skipped | Lost) -> bytes:
    return raw(found.path)
