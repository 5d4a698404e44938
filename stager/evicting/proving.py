"""Fresh proofs: enough independent copies of what is to go are read again where they lie, now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from stager import breakers, scrubbing
from stager.database import Database
from stager.evicting.independence import Option, choose, cost_of
from stager.evicting.judging import Other
from stager.evicting.reasons import Refusal, Why
from stager.opening import Hosts
from stager.scrubbing import Known
from transfers.errors import TransferError, Unsupported
from transfers.hosts import Host, Identity

MOST_SAID = 3  # reasons why others do not count, of one copy


class Subject(NamedTuple):
    """A copy that is to go, where it lies now, and the others that may be counted on: `least` are to be proven."""

    path: str
    others: Sequence[Other]
    least: int


class Shortage(NamedTuple):
    """Why not enough others are proven. `passing`: some could not be looked at, and might do another time."""

    refusal: Refusal
    passing: bool


Outcome = tuple[Other, ...] | Shortage


class Bad(NamedTuple):
    """Why a copy does not count. `passing`: that may be otherwise another time."""

    why: str
    passing: bool


def prove(
    database: Database, hosts: Hosts, host: Host, subjects: Sequence[Subject], down: dict[str, Bad]
) -> list[Outcome]:
    """For every subject, at this host, the others that were proven just now, as many as it needs; or why not.

    A copy that is found missing or corrupt is remembered as such (`scrubbing`). `down` has the hosts that could not be
    used, and gets more: they are asked once.
    """
    return _Proving(database, hosts, host, subjects, down).outcomes()


class _Proving:
    """The proofs of one lot: whatever several subjects count on is looked at once."""

    def __init__(
        self, database: Database, hosts: Hosts, host: Host, subjects: Sequence[Subject], down: dict[str, Bad]
    ) -> None:
        self.database = database
        self.hosts = hosts
        self.host = host
        self.subjects = subjects
        self.down = down
        self.systems: dict[int, Identity] = {}  # file system and inode, by the copy's id
        self.proven: set[int] = set()
        self.bad: dict[int, Bad] = {}

    def outcomes(self) -> list[Outcome]:
        mine = _identities(self.host, [one.path for one in self.subjects])
        self._find_others(mine)
        outcomes: dict[int, Outcome] = {}
        while True:
            asked: dict[int, Other] = {}
            for number, subject in enumerate(self.subjects):
                if number not in outcomes:
                    found = self._step(subject, mine[number])
                    if isinstance(found, dict):
                        asked |= found
                    else:
                        outcomes[number] = found
            if not asked:
                return [outcomes[number] for number in range(len(self.subjects))]
            self._read(asked.values())

    def _step(self, subject: Subject, mine: Identity | TransferError | None) -> Outcome | dict[int, Other]:
        """What came of a subject; or what is to be read for it, by id."""
        if not isinstance(mine, Identity):
            return _untellable(mine)
        for other in subject.others:
            if self.systems.get(other.id) == mine:
                return Shortage(Refusal(Why.LINKED, other.place), False)
        apart = [one for one in subject.others if self.systems.get(one.id, mine).system != mine.system]
        chosen = choose([self._option(one) for one in apart if one.id not in self.bad], subject.least)
        if chosen is None:
            return self._shortage(subject, apart)
        asked = {one.other.id: one.other for one in chosen if one.other.id not in self.proven}
        return asked or tuple(one.other for one in chosen)

    def _option(self, other: Other) -> Option:
        described = self.hosts.config.hosts[other.host]
        cost = 0 if other.id in self.proven else 1 + cost_of(described)
        return Option(other, self.systems[other.id].system, described.kind == "store", cost)

    def _shortage(self, subject: Subject, apart: Sequence[Other]) -> Shortage:
        said = [self.bad[one.id] for one in subject.others if one.id in self.bad]
        if said:
            text = "; ".join(dict.fromkeys(one.why for one in said[:MOST_SAID]))
            return Shortage(Refusal(Why.UNPROVEN, text), any(one.passing for one in said))
        together = [one.place for one in subject.others if one not in apart]
        text = f"on the file system that it lies on itself: {', '.join(together[:MOST_SAID])}" if together else ""
        return Shortage(Refusal(Why.TOGETHER, text), False)

    # Which file system each lies on.

    def _find_others(self, mine: Sequence[Identity | TransferError | None]) -> None:
        wanted = {other.id: other for subject in self.subjects for other in subject.others}
        self.down |= {
            name: Bad(f"{name} is paused", True) for name, host in breakers.known(self.database).items() if host.paused
        }
        for name in sorted({other.host for other in wanted.values()}):
            here = [other for other in wanted.values() if other.host == name]
            if name not in self.down:
                try:
                    found = _identities(self.hosts[name], [other.path for other in here])
                except TransferError as error:
                    self.down[name] = Bad(str(error), True)
                else:
                    self._note_systems(name, here, found)
                    continue
            self.bad |= {other.id: self.down[name] for other in here}

    def _note_systems(self, name: str, here: Sequence[Other], found: Sequence[Identity | TransferError | None]) -> None:
        gone = [other for other, identity in zip(here, found, strict=True) if identity is None]
        for other, identity in zip(here, found, strict=True):
            if isinstance(identity, Identity):
                self.systems[other.id] = identity
            elif isinstance(identity, TransferError):
                unsupported = isinstance(identity, Unsupported)
                text = f"{name} cannot tell on which file system it lies, and is not counted" if unsupported else None
                self._set_bad([other], text or str(identity), passing=not unsupported)
        if gone:  # so that it is known of them
            self._scrub(gone)
            self._set_bad([one for one in gone if one.id not in self.bad], f"{name} cannot find it", passing=False)

    def _set_bad(self, others: Iterable[Other], why: str, *, passing: bool) -> None:
        for other in others:
            self.bad[other.id] = Bad(why, passing)

    # Reading them.

    def _read(self, others: Iterable[Other]) -> None:
        """Prove these, or say why each does not count."""
        by_host: dict[str, list[Other]] = {}
        for other in others:
            by_host.setdefault(other.host, []).append(other)
        for name, here in by_host.items():
            try:
                readable = list(self._readable(self.hosts[name], here))
            except TransferError as error:
                self._set_bad(here, str(error), passing=True)
                continue
            self._scrub(readable)

    def _scrub(self, others: Sequence[Other]) -> None:
        known = [Known(one.id, one.host, one.path, one.size, one.digest) for one in others]
        for one in scrubbing.check(self.database, self.hosts, known):
            if one.trouble is None:
                self.proven.add(one.copy.id)
            else:
                why = one.trouble if one.unknown else f"{one.copy.host}:{one.copy.path} is {one.trouble}"
                self.bad[one.copy.id] = Bad(why, one.unknown)

    def _readable(self, host: Host, others: Sequence[Other]) -> Iterator[Other]:
        """Those that can be read at once; of those that are on tape the store's own digests are asked for."""
        if not host.stages:
            yield from others
            return
        places = list(host.lies_in([one.path for one in others]))
        for other, place, found in zip(others, places, list(host.residency(places)), strict=True):
            if isinstance(found, TransferError):
                self._set_bad([other], str(found), passing=True)
            elif found.state == "online":
                yield other
            elif found.state == "lost":
                self._set_bad([other], f"{other.place} is lost, as the store says", passing=False)
            else:
                self._ask_store(host, other, place)

    def _ask_store(self, host: Host, other: Other, place: str) -> None:
        """Prove a copy on tape by the digest that the store has of its file, where that is the kind of digest that is
        known of it."""
        expected = other.digest if other.bundle is None else other.bundle_digest
        algorithm = host.own_digest
        if algorithm is None or expected is None or not expected.startswith(f"{algorithm}:"):
            why = f"{other.place} is on tape, and the store has no digest of it to compare: it is not counted"
            self._set_bad([other], why, passing=True)
            return
        (found,) = host.digest([place], algorithm)
        if isinstance(found, TransferError):
            self._set_bad([other], str(found), passing=True)
        elif found[2] == expected:
            self.proven.add(other.id)
        else:
            self._set_bad([other], f"{other.place} has another digest at its store", passing=False)


def _identities(host: Host, paths: Sequence[str]) -> list[Identity | TransferError | None]:
    """Of each path; the error of a host that cannot tell is that of each."""
    try:
        return list(host.identify(paths))
    except Unsupported as error:
        return [error for _ in paths]


def _untellable(found: TransferError | None) -> Shortage:
    if found is None:
        return Shortage(Refusal(Why.CHANGED, "it is gone"), False)
    if isinstance(found, Unsupported):
        return Shortage(Refusal(Why.UNTELLABLE), False)
    return Shortage(Refusal(Why.CHANGED, str(found)), True)
