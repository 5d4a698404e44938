"""Which copies a location or a dataset names, in the order in which they are to go."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.errors import InputError, shown
from manifests.parts import Location
from manifests.patterns import Pattern
from manifests.wording import nearest
from stager.config import Config
from stager.database import Database
from stager.evicting.choosing import Slot
from stager.models import decode_path

CURRENT = "('active', 'held', 'cancelled')"  # intents of revisions whose word on a copy counts


class Named(NamedTuple):
    """What was named: the copies at one host that a pattern means, or those of a dataset's manifests."""

    host: str
    location: Location | None
    dataset: str | None = None


class Wishes(NamedTuple):
    """What a revision of a manifest says of the copies that it brought."""

    pin: bool
    transient: bool


class NothingNamed(InputError):
    """Nothing that could be evicted is named; the sentence says why."""


def name(database: Database, config: Config, what: str, host: str | None = None) -> Named:
    """What a text names: `host:path`, or a dataset or manifest, of which `host` says at which host, where it has copies
    at several. Raises InputError (NothingNamed, PathError, PatternError)."""
    if ":" in what and what.partition(":")[0] in config.hosts:
        location = Location.parse(what)
        if host is not None and host != location.host:
            raise NothingNamed(f"{shown(what)} is at {location.host} and not at {host}: give one of the two")
        return Named(_disk(config, location.host), location)
    at = _hosts_of(database, what)
    if not at:
        raise NothingNamed(_unknown(what, config))
    chosen = [one for one in at if host in (None, one) and one in config.hosts and config.hosts[one].kind != "store"]
    if host is None and len(chosen) > 1:
        raise NothingNamed(f"{shown(what)} has copies at {', '.join(chosen)}: say of which with --host")
    if not chosen:
        return Named(_disk(config, host or at[0]), None, what)
    return Named(_disk(config, chosen[0]), None, what)


def _unknown(what: str, config: Config) -> str:
    """What to say of a text that names neither a location nor a dataset."""
    host, colon, _ = what.partition(":")
    if what in config.hosts:
        return f"{shown(what)} is a host, and no dataset: {what}: is all of it, {what}:PATH a part"
    if colon:
        names = ", ".join(sorted(config.hosts)) or "none"
        return f"there is no host {shown(host)}{nearest(host, config.hosts)}; the configuration has {names}"
    return f"there is no dataset or manifest {shown(what)}; `stager status` lists them"


def _disk(config: Config, host: str) -> str:
    if host not in config.hosts:
        raise NothingNamed(f"the configuration has no host {shown(host)}")
    if config.hosts[host].kind == "store":
        raise NothingNamed(f"{host} is a mass store, from which nothing is evicted: only copies at other hosts are")
    return host


_OF_DATASET = f"m.intent IN {CURRENT} AND (m.dataset = :dataset OR m.name = :dataset)"


def _hosts_of(database: Database, dataset: str) -> list[str]:
    query = sa.text(f"SELECT DISTINCT m.destination_host FROM manifests m WHERE {_OF_DATASET} ORDER BY 1")
    with database.read() as connection:
        return list(connection.scalars(query, {"dataset": dataset}))


def wishes(connection: Connection, host: str, known: dict[int, Wishes]) -> dict[int, Wishes]:
    """What each current revision that brings files to a host says; `known` has those that were read before, for a
    revision's document never changes."""
    query = sa.text(f"SELECT id FROM manifests WHERE destination_host = :host AND intent IN {CURRENT}")
    ids = list(connection.scalars(query, {"host": host}))
    for new in [one for one in ids if one not in known]:
        document = connection.execute(sa.text("SELECT document FROM manifests WHERE id = :id"), {"id": new})
        said = json.loads(document.scalar_one())
        known[new] = Wishes(bool(said.get("pin")), bool(said.get("transient")))
    return {one: known[one] for one in ids}


class _Copy:
    """What is gathered of one copy."""

    __slots__ = ("arrived_at", "kept", "named", "piece_of", "size")

    def __init__(self, size: int, piece_of: int | None, arrived_at: float, named: bool) -> None:
        self.size = size
        self.piece_of = piece_of
        self.arrived_at = arrived_at
        self.named = named
        self.kept: bool | None = None  # None: no current manifest brought it


# The items that a copy is the file, or a piece, of.
_ITEMS = f"""
    SELECT c.id, i.manifest_id, i.progressed_at FROM manifests m JOIN items i ON i.manifest_id = m.id
    JOIN copies c ON c.host = m.destination_host AND c.path = i.destination
    WHERE m.destination_host = :host AND m.intent IN {CURRENT}
    UNION ALL
    SELECT c.id, i.manifest_id, i.progressed_at FROM copies c JOIN items i ON i.id = c.piece_of
    JOIN manifests m ON m.id = i.manifest_id WHERE c.host = :host AND m.intent IN {CURRENT}"""


def slots(database: Database, named: Named) -> list[Slot]:
    """What is named, as slots in the order in which they are to go: transient ones, then the others, the oldest first.

    The pieces of a focal plane are one slot. Nothing is judged here.
    """
    matches = _matcher(named)
    with database.read() as connection:
        said = wishes(connection, named.host, {})
        of_dataset = _manifests_of(connection, named.dataset)
        rows = connection.execute(
            sa.text("""
            SELECT id, path, size, piece_of, proven_at FROM copies
            WHERE host = :host AND bundle_id IS NULL ORDER BY id"""),
            {"host": named.host},
        )
        found = {row.id: _Copy(row.size, row.piece_of, row.proven_at or 0.0, matches(row.path)) for row in rows}
        for copy_id, manifest, progressed_at in connection.execute(sa.text(_ITEMS), {"host": named.host}):
            if (copy := found.get(copy_id)) is None:
                continue
            copy.named = copy.named or manifest in of_dataset
            copy.kept = bool(copy.kept) or not said[manifest].transient
            copy.arrived_at = min(copy.arrived_at, progressed_at or copy.arrived_at)
    return sorted(_grouped(found))


def _matcher(named: Named) -> Callable[[str], bool]:
    """Whether a path, as the database keeps it, is named by location."""
    if named.location is None:
        return lambda _: False
    if not named.location.path:
        return lambda _: True
    pattern = Pattern(named.location.path)
    return lambda path: pattern.matches(decode_path(path))


def _manifests_of(connection: Connection, dataset: str | None) -> set[int]:
    if dataset is None:
        return set()
    return set(connection.scalars(sa.text(f"SELECT m.id FROM manifests m WHERE {_OF_DATASET}"), {"dataset": dataset}))


def _grouped(found: dict[int, _Copy]) -> Iterable[Slot]:
    planes: dict[int, list[int]] = {}
    for copy_id, copy in found.items():
        if copy.piece_of is not None:
            planes.setdefault(copy.piece_of, []).append(copy_id)
        elif copy.named and copy.size:
            yield Slot(copy.kept is not False, copy.arrived_at, (copy_id,), copy.size)
    for ids in planes.values():
        pieces = [found[one] for one in ids]
        if any(piece.named for piece in pieces):
            kept = any(piece.kept is not False for piece in pieces)
            arrived_at = min(piece.arrived_at for piece in pieces)
            size = sum(piece.size for piece in pieces)
            yield Slot(kept, arrived_at, tuple(ids), size, not all(piece.named for piece in pieces))
