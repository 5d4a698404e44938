"""What becomes of quarantine: removed for good once its time is up and its others are proven once more, or put back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from manifests.errors import shown
from manifests.patterns import Pattern
from stager import breakers
from stager.database import Database
from stager.evicting import recovering, saying, tombstones
from stager.evicting.candidates import Named
from stager.evicting.evicting import MOST_BYTES, MOST_COPIES
from stager.evicting.judging import other_copies
from stager.evicting.proving import Bad, Outcome, Shortage, Subject, prove
from stager.evicting.tombstones import Tombstone
from stager.opening import Hosts
from transfers.errors import TransferError
from transfers.hosts import Host

log = structlog.get_logger("stager")

Told = tuple[str, str]  # "host:path", and why


@dataclass(slots=True)
class Emptied:
    """What became of quarantined files: bytes and number of those removed and put back, and what is told of others."""

    removed: int = 0
    removed_bytes: int = 0
    returned: int = 0
    returned_bytes: int = 0
    put_back: list[Told] = field(default_factory=list)  # though they were to be removed
    waiting: list[Told] = field(default_factory=list)  # left in quarantine

    def as_dict(self) -> dict[str, Any]:
        return {
            "removed": self.removed,
            "removed_bytes": self.removed_bytes,
            "returned": self.returned,
            "returned_bytes": self.returned_bytes,
            "put_back": [{"location": shown(place), "why": why} for place, why in self.put_back],
            "waiting": [{"location": shown(place), "why": why} for place, why in self.waiting],
        }


def purge(database: Database, hosts: Hosts, only: Sequence[str] | None = None) -> Emptied:
    """Remove what was in quarantine for its time, at these hosts or at all; each file only when as many others as it
    was evicted against are proven again at that moment. Where they are not any more it is put back.

    A host that cannot be used is left for the next time, and so is a file of whose others one cannot be looked at.
    """
    emptied = Emptied()
    paused = {name for name, host in breakers.known(database).items() if host.paused}
    for name in tombstones.hosts_with(database, only_due=True):
        if only is not None and name not in only:
            continue
        if name in paused:
            emptied.waiting.append((name, "it is paused"))
            continue
        try:
            _purge_at(database, hosts, name, emptied)
        except TransferError as error:
            emptied.waiting.append((name, str(error)))
    for place, why in emptied.waiting:
        saying.warn_once(database, place, "an evicted file stays in quarantine", why)
    return emptied


def _purge_at(database: Database, hosts: Hosts, name: str, emptied: Emptied) -> None:
    host = hosts[name]
    grace_s = hosts.config.hosts[name].grace_s
    seen: set[int] = set()
    down: dict[str, Bad] = {}
    while True:
        with recovering.alone_at(database, name):
            recovering.recover(database, hosts, host, grace_s)
            units = [unit for unit in tombstones.units(tombstones.due(database, name)) if unit[0].unit not in seen]
            if not units:
                return
            lot = _first_of(units)
            seen |= {unit[0].unit for unit in lot}
            _Purging(database, hosts, host, emptied, down).purge(lot)


def _first_of(units: Sequence[list[Tombstone]]) -> list[list[Tombstone]]:
    lot: list[list[Tombstone]] = []
    for unit in units:
        there = [one for before in lot for one in before]
        size = sum(one.size for one in (*there, *unit))
        if lot and (len(there) + len(unit) > MOST_COPIES or size > MOST_BYTES):
            break
        lot.append(unit)
    return lot


class _Purging:
    """The removal of one lot, under the lock of its host."""

    def __init__(self, database: Database, hosts: Hosts, host: Host, emptied: Emptied, down: dict[str, Bad]) -> None:
        self.database = database
        self.hosts = hosts
        self.host = host
        self.emptied = emptied
        self.down = down

    def purge(self, units: Sequence[list[Tombstone]]) -> None:
        units = [there for unit in units if (there := self._there(unit))]
        outcomes = iter(self._proofs([one for unit in units for one in unit]))
        for unit in units:
            found = [next(outcomes) for _ in unit]
            short = [one for one in found if isinstance(one, Shortage)]
            if not short:
                self._remove(unit)
            elif all(one.passing for one in short):
                self.emptied.waiting += [(_place(one), short[0].refusal.detail) for one in unit]
            else:
                self._put_back(unit, next(str(one.refusal.detail) for one in short if not one.passing))

    def _there(self, unit: list[Tombstone]) -> list[Tombstone]:
        """Those of a unit that are in quarantine still, as they went there; one that is not as it was is put back, and
        the whole unit with it."""
        found = list(self.host.find([one.quarantine for one in unit]))
        errors = [one for one in found if isinstance(one, TransferError)]
        if errors:
            raise errors[0]
        gone = [one for one, info in zip(unit, found, strict=True) if info is None]
        tombstones.removed(self.database, gone)
        there = [one for one in unit if one not in gone]
        odd = [
            one
            for one, info in zip(unit, found, strict=True)
            if info is not None and not isinstance(info, TransferError) and not recovering.is_as_it_was(one, info)
        ]
        if odd:
            self._put_back(there, "it was written to in quarantine")
            return []
        return there

    def _proofs(self, files: Sequence[Tombstone]) -> list[Outcome]:
        with self.database.read() as connection:
            others = other_copies(connection, self.hosts.config, self.host.name, {one.digest for one in files})
        subjects = [
            Subject(
                one.quarantine,
                [other for other in others.get(one.digest, ()) if other.size == one.size],
                max(1, len(one.others)),
            )
            for one in files
        ]
        return prove(self.database, self.hosts, self.host, subjects, self.down) if subjects else []

    def _remove(self, unit: Sequence[Tombstone]) -> None:
        results = list(self.host.remove([one.quarantine for one in unit]))
        gone = [one for one, result in zip(unit, results, strict=True) if not isinstance(result, TransferError)]
        tombstones.removed(self.database, gone)
        self.emptied.removed += len(gone)
        self.emptied.removed_bytes += sum(one.size for one in gone)
        for one in gone:
            log.info("an evicted file was removed", host=one.host, path=one.path, bytes=one.size)
        for one, result in zip(unit, results, strict=True):
            if isinstance(result, TransferError):
                self.emptied.waiting.append((_place(one), str(result)))

    def _put_back(self, unit: Sequence[Tombstone], why: str) -> None:
        found = recovering.look(self.database, self.host, unit)
        if any(one.there for one in found):  # then nothing is lost by waiting, and nothing is replaced
            self.emptied.waiting += [(_place(one), f"{why}; another file has its place") for one in unit]
            return
        put_back_unit(self.database, self.hosts, self.host, unit)
        self.emptied.put_back += [(_place(one), why) for one in unit]
        for one in unit:
            log.warning("an evicted file was put back", host=one.host, path=one.path, why=why)


def _place(one: Tombstone) -> str:
    return f"{one.host}:{one.path}"


def put_back(database: Database, hosts: Hosts, named: Named) -> Emptied:
    """Put what is in quarantine of a location back where it was, with its proof; its items are done again.

    Where another file has come to the place since, what is in quarantine stays there.
    """
    emptied = Emptied()
    host = hosts[named.host]
    matches = _matcher(named)
    with recovering.alone_at(database, host.name):
        recovering.recover(database, hosts, host, hosts.config.hosts[host.name].grace_s)
        for unit in tombstones.units(tombstones.in_quarantine(database, host.name)):
            if not any(matches(one.path) for one in unit):
                continue
            found = recovering.look(database, host, unit)
            back = [one.tombstone for one in found if one.moved and not one.there]
            if len(back) < len(unit):
                stay = [one for one in found if one.tombstone not in back]
                emptied.waiting += [(_place(one.tombstone), _why_not(one)) for one in stay]
            if not back or (len(back) < len(unit) and any(one.there for one in found)):
                continue
            put_back_unit(database, hosts, host, unit)
            emptied.returned += len(back)
            emptied.returned_bytes += sum(one.size for one in back)
    return emptied


def _why_not(found: recovering.Standing) -> str:
    return "another file has its place" if found.there else "it is in quarantine no more"


def put_back_unit(database: Database, hosts: Hosts, host: Host, unit: Sequence[Tombstone]) -> None:
    """Put what goes together back. Under the lock of the host; what breaks off is ended by who comes next."""
    tombstones.returning(database, unit)
    recovering.settle(database, hosts, host, unit, 0.0)


def _matcher(named: Named) -> Callable[[str], bool]:
    if named.location is None or not named.location.path:
        return lambda _: True
    return Pattern(named.location.path).matches
