"""Where the files of a manifest lie: at every host where receipts tell of their bytes, in bundles or as they are, on
tape or not; for `stager show --where`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby, takewhile
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.errors import shown
from stager.completeness.visits import of_visit
from stager.counts import counted
from stager.database import Database
from stager.intents import UnknownName
from stager.models import EvictionState, decode_path
from stager.opening import Hosts
from transfers.errors import TransferError
from transfers.hosts import Residency

MOST_ASKED = 1000  # bundles, and files of their own, of one store of which it is asked whether they are on tape
AT_ONCE = 500  # digests whose copies are looked up in one query

# The digest of a file is that of its copy at its place, or of what was evicted from there, or of its source.
_FILES = """
    SELECT COALESCE(d.digest, e.digest, s.digest) AS digest, d.id AS there,
           CASE WHEN e.state = '{quarantined}' AND e.evicted_at IS NOT NULL THEN e.purge_after END AS until
    FROM items i JOIN manifests m ON m.id = i.manifest_id
    LEFT JOIN copies d ON d.host = m.destination_host AND d.path = i.destination AND d.trouble IS NULL
    LEFT JOIN copies s ON s.host = m.source_host AND s.path = i.source
    LEFT JOIN evictions e ON e.id = (
        SELECT max(id) FROM evictions WHERE host = m.destination_host AND path = i.destination)
    WHERE {of_visit} AND m.kind <> 'chop' AND (i.state <> 'excluded' OR i.kind = 'evicted')
    UNION ALL
    SELECT p.digest, p.id, NULL FROM items i JOIN manifests m ON m.id = i.manifest_id
    JOIN copies p ON p.piece_of = i.id AND p.host = m.destination_host
    WHERE {of_visit} AND m.kind = 'chop'"""
_DIGESTS = """
    SELECT digest, count(*) AS files, count(there) AS there, count(until) AS quarantined, min(until) AS until
    FROM ({files}) AS files GROUP BY digest ORDER BY digest"""
_COPIES = """
    SELECT c.digest, c.host, b.path AS bundle, c.trouble IS NOT NULL OR b.trouble IS NOT NULL AS bad, c.path
    FROM copies c LEFT JOIN bundles b ON b.id = c.bundle_id WHERE c.digest IN :digests ORDER BY c.digest, c.id"""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """So many of the files lie together: in a bundle of a store, or as files of their own below a folder."""

    host: str
    files: int
    path: str  # of the bundle; else of the file, or the folder that all are below
    bundle: bool
    residency: str | None = None  # of a store that has tapes: online, staging, offline, lost; None: not asked or known
    stands: str = ""


@dataclass(slots=True)
class Located:
    """The files of a manifest, or of a visit of it, and where they lie. `there`: those at their own place."""

    heading: str
    manifest: str
    visit: str | None
    files: int
    there: int
    nowhere: int  # no copy of them is known
    quarantined: int
    until: float | None  # when the first of them may be removed from quarantine
    places: list[Whereabouts] = field(default_factory=list)
    back: str = ""  # how those that are not at their place come there

    def as_dict(self) -> dict[str, Any]:
        said = asdict(self)
        del said["heading"], said["back"]
        return said

    @property
    def sentence(self) -> str:
        of = f"visit {shown(self.visit, 40)}: " if self.visit is not None else ""
        parts = [f"{counted(self.files, 'file')}, {self.there} at {'its place' if self.files == 1 else 'their places'}"]
        if self.quarantined:
            until = datetime.fromtimestamp(self.until or 0, UTC).isoformat(timespec="seconds")
            parts.append(f"{self.quarantined} in quarantine there until {until} or later")
        if self.nowhere:
            parts.append(f"no proven copy of {self.nowhere}")
        return of + ", ".join(parts)


def locate(database: Database, hosts: Hosts, name: str, visit: str | None = None) -> Located:
    """Where the files of a manifest's newest revision lie, all or those of a visit, as the database knows it; stores
    are asked what is on tape. Raises UnknownName."""
    with database.read() as connection:
        query = sa.text("""
            SELECT id, name, revision, kind, source, destination, destination_host, intent FROM manifests
            WHERE name = :name AND intent <> 'planning' ORDER BY revision DESC LIMIT 1""")
        row = connection.execute(query, {"name": name}).first()
        if row is None:
            raise UnknownName(f"there is no manifest {shown(name, 60)}; `stager status` lists them")
        heading = f"{row.name} revision {row.revision} ({row.kind}, {row.intent}): {row.source} > {row.destination}"
        located = Located(heading, name, visit, 0, 0, 0, 0, None)
        files = _FILES.format(quarantined=EvictionState.QUARANTINED, of_visit=of_visit(connection, visit))
        values = {"manifest": row.id} | ({} if visit is None else {"visit": visit})
        streamed = connection.execution_options(stream_results=True, yield_per=AT_ONCE)
        digests = streamed.execute(sa.text(_DIGESTS.format(files=files)), values)
        found = _Found(located)
        for lot in digests.partitions(AT_ONCE):
            found.add(connection, lot)
    if visit is not None and not located.files:
        raise UnknownName(f"{name} has no visit {shown(visit, 40)}; `stager registry check` lists those it has")
    for host, places in groupby(found.in_order(), key=lambda one: one.host):
        located.places += _at(hosts, host, list(places))
    located.back = _back(located, row)
    return located


@dataclass(slots=True, eq=False)
class _Place:
    """What lies together, as it is counted; paths as the database has them."""

    host: str
    bundle: str | None
    bad: bool
    files: int = 0
    first: str = ""
    last: str = ""
    some: list[str] = field(default_factory=list)  # paths of files of their own, of which the store is asked

    def add(self, path: str) -> None:
        self.first = min(self.first or path, path)
        self.last = max(self.last, path)
        if self.bundle is None and len(self.some) < MOST_ASKED:
            self.some.append(path)


class _Found:
    """The places of files, counted from the copies of each digest; and into `located` what is counted of the files.

    Of files with the same bytes no more are counted at a place than there are copies of these bytes.
    """

    def __init__(self, located: Located) -> None:
        self.located = located
        self._places: dict[tuple[str, str | None, bool], _Place] = {}

    def add(self, connection: Connection, digests: Sequence[Any]) -> None:
        files = {row.digest: row.files for row in digests}
        copies: Counter[tuple[str, _Place]] = Counter()
        query = sa.text(_COPIES).bindparams(sa.bindparam("digests", expanding=True))
        for digest, host, bundle, bad, path in connection.execute(query, {"digests": list(files)}):
            key = (host, bundle, bool(bad))
            place = self._places.get(key) or self._places.setdefault(key, _Place(*key))
            place.add(path)
            copies[digest, place] += 1
        for (digest, place), count in copies.items():
            place.files += min(files[digest], count)
        known = {digest for digest, _ in copies}
        self.located.files += sum(files.values())
        self.located.there += sum(row.there for row in digests)
        self.located.nowhere += sum(count for digest, count in files.items() if digest not in known)
        self.located.quarantined += sum(row.quarantined for row in digests)
        times = (self.located.until, *(row.until for row in digests))
        self.located.until = min((one for one in times if one is not None), default=None)

    def in_order(self) -> list[_Place]:
        return sorted(self._places.values(), key=lambda one: (one.host, one.bundle or "", one.bad))


def _at(hosts: Hosts, host: str, places: Sequence[_Place]) -> Iterator[Whereabouts]:
    """What lies at one host; of a store that has tapes, told by what it answers."""
    sound = [one for one in places if not one.bad]
    bundles = [decode_path(one.bundle) for one in sound if one.bundle is not None]
    plain = [decode_path(path) for one in sound for path in one.some]
    residency, problem = _asked(hosts, host, bundles[:MOST_ASKED] + plain)
    for one in places:
        path = decode_path(_common(one.first, one.last) if one.bundle is None else one.bundle)
        told = Whereabouts(host, one.files, path, one.bundle is not None)
        if one.bad:
            yield replace(told, stands="missing or corrupt: `stager verify` tells")
        elif problem:
            yield replace(told, stands=problem)
        elif told.bundle:
            found = residency.get(path)
            yield replace(told, residency=found and found.state, stands=_stands(found))
        else:
            states = [residency[name] for name in plain if name in residency]
            kinds = sorted({one.state for one in states})
            said = ", ".join(f"{sum(one.state == kind for one in states)} {WORDS[kind]}" for kind in kinds)
            yield replace(told, residency=kinds[0] if len(kinds) == 1 else None, stands=said)


WORDS = {"online": "on disk", "offline": "on tape", "staging": "coming from tape", "lost": "lost, as the store says"}


def _stands(one: Residency | None) -> str:
    if one is None:
        return ""
    return WORDS[one.state] + (f", volume {shown(one.volume, 60)}" if one.volume else "")


def _asked(hosts: Hosts, host: str, paths: Sequence[str]) -> tuple[dict[str, Residency], str]:
    """What a store says of each of these files of it; or why it cannot be asked."""
    if host not in hosts.config.hosts:
        return {}, "the configuration has no such host"
    if hosts.config.hosts[host].kind != "store":
        return {}, ""
    try:
        store = hosts[host]
        if not store.stages:
            return {}, ""
        answers = list(store.residency(paths))
    except TransferError as error:
        return {}, str(error)
    return {path: one for path, one in zip(paths, answers, strict=True) if isinstance(one, Residency)}, ""


def _common(first: str, last: str) -> str:
    """The path, or the folder that all paths from the first to the last are below."""
    if first == last:
        return first
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(first.split("/")[:-1], last.split("/")[:-1], strict=False))
    return "/".join(name for name, _ in alike) or "."


def _back(located: Located, row: Any) -> str:
    """How what is not at its place comes there."""
    if located.there >= located.files or row.kind in ("chop", "archive"):
        return ""
    chosen = "" if located.visit is None else f" --visit {shown(located.visit, 40)}"
    ways = [f"`stager evict {row.destination_host}: --put-back` returns what is in quarantine"] * bool(
        located.quarantined
    )
    if row.kind == "restore":
        ways.append(f"`stager restore` with the file of {row.name}{chosen} brings them")
    else:
        ways.append(f"`stager retry {row.name}` brings what was evicted again from {row.source}")
        ways.append(f"`stager restore MANIFEST{chosen}` brings them from a store")
    return "; ".join(ways)
