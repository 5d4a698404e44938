"""What restores come to before anything is done: what is in place, what must come, from tape too, the room, the time.

No file is read for it and nothing is written, and the memory that it takes does not grow with the number of files.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from manifests.cameras import Camera
from manifests.errors import shown
from manifests.manifest import Manifest
from stager.config import Config
from stager.counts import counted
from stager.database import Database
from stager.models import ItemState
from stager.opening import Hosts
from stager.planning import Planned
from stager.restoring import pace, rooms
from stager.restoring.amounts import Amount
from stager.restoring.asked import Asked
from stager.restoring.pace import Estimate
from stager.restoring.places import Found, Places
from stager.restoring.rooms import Room
from stager.restoring.stored import Needed, Recalls, Store
from stager.restoring.vanished import Vanished
from stager.submitting import checked, survey
from transfers.bundles import BUNDLE
from transfers.errors import TransferError
from transfers.hosts import Skipped

AT_ONCE = 5000  # items looked at together
MOST_NAMED = 10_000  # files that are told of by name


@dataclass(slots=True)
class Named:
    """Files that are told of, the first of them by name."""

    files: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.files += 1
        if len(self.names) < MOST_NAMED:
            self.names.append(name)


@dataclass(slots=True)
class Plan:
    """What the restore of one manifest comes to.

    `in_place` was proven and is there still, by size and time. `there` has the size that is meant, and is read before
    it counts. `to_come` is brought; `lost` of it was proven once, and is gone or another now. `in_the_way` are places
    where another file is, `missing` what is expected and not at the source. `problems` stand in the way of the whole;
    `lacking` are those of them that the source does not have what it once had, which no carrying out will tell.
    """

    name: str
    source: str
    destination: str
    in_place: Amount = field(default_factory=Amount)
    there: Amount = field(default_factory=Amount)
    to_come: Amount = field(default_factory=Amount)
    lost: Amount = field(default_factory=Amount)
    excluded: int = 0
    missing: Named = field(default_factory=Named)
    in_the_way: Named = field(default_factory=Named)
    recalls: Recalls = field(default_factory=Recalls)
    problems: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    down: TransferError | None = None  # why a host of it could not be asked

    @property
    def files(self) -> int:
        """Files that it is of, but for those that are missing or excluded."""
        return self.in_place.files + self.there.files + self.to_come.files + self.in_the_way.files


@dataclass(slots=True)
class Plans:
    """All of it, and in sum: by store what it must bring from tape, by file system the room, and the time."""

    manifests: list[Plan]
    recalls: dict[str, Recalls] = field(default_factory=dict)
    rooms: list[Room] = field(default_factory=list)
    transfer: Estimate = field(default_factory=lambda: Estimate(0.0, ""))
    recall: Estimate = field(default_factory=lambda: Estimate(0.0, ""))
    whole: Estimate = field(default_factory=lambda: Estimate(0.0, ""))

    @property
    def problems(self) -> list[str]:
        """What stands in the way, of the room last."""
        of_manifests = [f"{one.name}: {problem}" for one in self.manifests for problem in one.problems]
        return of_manifests + [problem for room in self.rooms if (problem := room.problem())]

    def total(self, name: str) -> Amount:
        """One of the amounts, in sum."""
        amounts: list[Amount] = [getattr(one, name) for one in self.manifests]
        return sum(amounts, Amount())


def plan(database: Database, config: Config, hosts: Hosts, asked: Sequence[Asked]) -> Plans:
    """What these restores come to. What is wrong with one of them is in its problems, and holds up no other; only a
    manifest that does not fit the configuration is a ManifestError."""
    stores: dict[str, Store] = {}
    plans = Plans([_plan(database, config, hosts, one, stores) for one in asked])
    plans.recalls = {name: store.all for name, store in stores.items() if store.host.stages}
    of_systems: dict[str, Room] = {}
    for one, found in zip(asked, plans.manifests, strict=True):
        _add_room(of_systems, database, config, hosts, one.manifest, found)
    plans.rooms = list(of_systems.values())
    _estimate(database, plans, asked)
    return plans


def _plan(database: Database, config: Config, hosts: Hosts, asked: Asked, stores: dict[str, Store]) -> Plan:
    manifest = asked.manifest
    found = Plan(manifest.name, str(manifest.source), str(manifest.destination))
    camera = checked(config, manifest, asked.where)  # raises before a host is waited for
    try:
        source, destination = hosts[manifest.source.host], hosts[manifest.destination.host]
        store = stores.setdefault(source.name, Store(database, source))
        looking = _Looking(found, manifest, Places(database, destination, manifest.destination.path), store.needed())
        vanished = Vanished(database, source, manifest)
        looking.look(survey(config, manifest, source, asked.where, found.notes, looking.skip), vanished)
        looking.look_for(vanished.paths(), camera)
    except TransferError as error:
        found.down = error
        found.problems.append(f"{error}{_known_before(database, manifest.name)}")
        return found
    looking.conclude()
    return found


class _Looking:
    """Looks at one manifest, for its plan."""

    def __init__(self, found: Plan, manifest: Manifest, places: Places, needed: Needed) -> None:
        self._found = found
        self._manifest = manifest
        self._places = places
        self._needed = needed
        self._skipped = Named()
        self._bundles = Named()  # that nobody knows
        self._vanished = Named()
        self._lost = Named()  # with the bundles that they lay in: items that are missing

    def skip(self, one: Skipped) -> None:
        """Count what the listing leaves out."""
        (self._bundles if one.path.endswith(BUNDLE) else self._skipped).add(f"{shown(one.path)}: {one.why}")

    def look(self, planned: Iterator[Planned], vanished: Vanished) -> None:
        """Count every item by how its place stands."""
        found = self._found
        while lot := list(itertools.islice(planned, AT_ONCE)):
            lie_in = vanished.see([one.source for one in lot if not one.missing or one.is_lost])
            to_come: list[Planned] = []
            for one, place in self._places.look(self._wanted(lot), replace=self._manifest.replace):
                if place is Found.NOTHING or place is Found.LOST:
                    to_come.append(one)
                if place is not Found.NOTHING:
                    self._count(one, place)
            found.to_come.files += len(to_come)
            found.to_come.bytes += sum(one.size or 0 for one in to_come)
            self._needed.add(to_come, lie_in if len(to_come) == len(lot) else None)
        found.recalls = self._needed.recalls()

    def look_for(self, vanished: Iterable[tuple[str, str]], camera: Camera | None) -> None:
        """Count what was proven at the source and is not there, unless the accept list leaves it out."""
        for path, why in vanished:
            identified = camera.identify(path) if camera else None
            ids = {**self._manifest.ids, **(identified[1] if identified else {})}
            if self._manifest.exclusion(path, ids) is None:
                self._vanished.add(f"{shown(path)}: {why}")

    def _wanted(self, lot: Sequence[Planned]) -> list[Planned]:
        """The items that there is something to bring of; the others are counted."""
        wanted = []
        for one in lot:
            if one.state == ItemState.EXCLUDED:
                self._found.excluded += 1
            elif one.is_lost:
                self._lost.add(f"{shown(one.source)}: {one.reason}")
            elif one.missing:
                self._found.missing.add(one.source)
            else:
                wanted.append(one)
        return wanted

    def _count(self, one: Planned, place: Found) -> None:
        """Count an item whose place is not empty, or was not."""
        if place is Found.TAKEN:
            self._found.in_the_way.add(one.destination or "")
        elif place is Found.LOST:
            self._found.lost.add(one.size)
        else:
            (self._found.in_place if place is Found.IN_PLACE else self._found.there).add(one.size)

    def conclude(self) -> None:
        """Say what stands in the way of this manifest."""
        found, store = self._found, self._manifest.source.host
        found.lacking += [f"lacking at {store}: {name}" for name in self._vanished.names]
        if more := self._vanished.files - len(self._vanished.names):
            found.lacking.append(f"lacking at {store}: {more} more")
        if self._bundles.files:
            found.lacking.append(f"{self._bundles.files} left out at {store}: {_some(self._bundles)}")
        if self._skipped.files:
            found.notes.append(f"{self._skipped.files} left out at {store}: {_some(self._skipped)}")
        found.problems += [*self._empty(), *found.lacking, *self._not_there()]

    def _empty(self) -> Iterator[str]:
        found = self._found
        if found.files or found.missing.files or self._lost.files:
            return
        why = "see that host, path and pattern are right, and that the files are there"
        if found.excluded:
            every = "the 1 that it has is" if found.excluded == 1 else f"all {found.excluded} that it has are"
            why = f"{every} left out by the accept list"
        yield f"{shown(found.source)} has no file to restore: {why}"

    def _not_there(self) -> Iterator[str]:
        found, source = self._found, self._manifest.source.host
        if self._lost.files:
            yield f"{self._lost.files} lacking at {source}: {_some(self._lost)}"
        if found.missing.files:
            yield f"{found.missing.files} expected, and not at {source}: {_some(found.missing)}"
        if found.in_the_way.files:
            yield (
                f"another file is in the place of {found.in_the_way.files} at {self._manifest.destination.host}: "
                f"{_some(found.in_the_way)}; move it away, or let the manifest `replace` it"
            )
        if found.recalls.troubled:
            more = f" and {found.recalls.troubled - 1} more" if found.recalls.troubled > 1 else ""
            yield f"{found.recalls.troubles[0]}{more}"


def _some(named: Named) -> str:
    """The first of the names, and how many more there are."""
    names = ", ".join(shown(name, 300) for name in named.names[:3])
    return f"{names} and {named.files - 3} more" if named.files > 3 else names


def _known_before(database: Database, name: str) -> str:
    """What the database says of a manifest that cannot be looked at now."""
    done, every = _tallied(database, name)
    return f"; by what was known last, {done} of {counted(every, 'file is', 'files are')} in place" if every else ""


def _tallied(database: Database, name: str) -> tuple[int, int]:
    query = sa.text("""
        SELECT COALESCE(sum(CASE WHEN t.state = 'done' THEN t.files END), 0), COALESCE(sum(t.files), 0)
        FROM tallies t JOIN manifests m ON m.id = t.manifest_id
        WHERE m.name = :name AND m.intent IN ('active', 'held', 'cancelled') AND t.state <> 'excluded'""")
    with database.read() as connection:
        row = connection.execute(query, {"name": name}).one()
    return int(row[0]), int(row[1])


def _running(database: Database, name: str) -> int:
    """Bytes of a manifest that are on their way now: their room is promised to them already."""
    query = sa.text("""
        SELECT COALESCE(sum(t.bytes), 0) FROM tallies t JOIN manifests m ON m.id = t.manifest_id
        WHERE m.name = :name AND m.intent IN ('active', 'held') AND t.state = 'running'""")
    with database.read() as connection:
        return int(connection.execute(query, {"name": name}).scalar_one())


def _add_room(
    of_systems: dict[str, Room], database: Database, config: Config, hosts: Hosts, manifest: Manifest, found: Plan
) -> None:
    if not found.to_come.bytes or found.down:
        return
    needed = max(0, found.to_come.bytes - _running(database, manifest.name))
    try:
        rooms.add(of_systems, database, config, hosts[manifest.destination.host], needed)
    except TransferError as error:
        found.down = error
        found.problems.append(str(error))


def _estimate(database: Database, plans: Plans, asked: Sequence[Asked]) -> None:
    """The time, by what is remembered: routes and stores work side by side."""
    routes: dict[tuple[str, str], int] = {}
    for one, found in zip(asked, plans.manifests, strict=True):
        ends = (one.manifest.source.host, one.manifest.destination.host)
        routes[ends] = routes.get(ends, 0) + found.to_come.bytes
    plans.transfer = pace.together([pace.transfer(database, *ends, nbytes) for ends, nbytes in routes.items()])
    of_stores = [pace.recalls(database, name, one.recall.files) for name, one in plans.recalls.items()]
    plans.recall = pace.together(of_stores)
    plans.whole = pace.together([plans.transfer, plans.recall])
