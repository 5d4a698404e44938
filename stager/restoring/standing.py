"""How the manifests of a restore stand while they are carried out, and whether they can go on by themselves."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from stager import breakers
from stager.breakers import Known
from stager.counts import counted
from stager.database import Database
from stager.items import RECALL
from stager.models import Intent, RecallState, TriggerState
from stager.restoring.amounts import Amount

GIVEN_UP = 3  # requests for a file that a store refused, after which its recall alone is not waited for
NO_ROOM_S = 60.0  # for which a word on a host's room counts


@dataclass(slots=True)
class Standing:
    """Files and bytes of some manifests by the state of their items (`missing` being one). `stopped` says why some
    will not be carried out, `hindered` why the open items of others cannot go on just now; `free`: some can.
    `triggers` are those that are still to be put on their queues."""

    states: dict[str, Amount] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)
    hindered: list[str] = field(default_factory=list)
    free: bool = False
    triggers: int = 0

    def of(self, *states: str) -> Amount:
        return sum((self.states.get(state, Amount()) for state in states), Amount())

    @property
    def total(self) -> Amount:
        """All that is waited for: what is left out is not."""
        return self.of("done", "running", "waiting", "held", "missing")

    @property
    def open(self) -> Amount:
        """What is not at its end."""
        return self.of("running", "waiting")

    @property
    def is_settled(self) -> bool:
        """Whether nothing will change by itself any more."""
        return not self.free and not self.hindered and not self.triggers

    @property
    def percent(self) -> float:
        """Of the bytes that are to be proven; of the files where no bytes are known."""
        done, total = self.of("done"), self.total
        if done.files == total.files:
            return 100.0
        share = done.bytes / total.bytes if total.bytes else done.files / total.files
        return min(99.9, int(share * 1000) / 10)


class Able(NamedTuple):
    """What is known of who works: the hosts that the only worker there is serves (None: all), and the hosts where room
    is made by itself."""

    serves: Collection[str] | None = None
    make_room: Collection[str] = ()


class Row(NamedTuple):
    """A manifest's revision, and how many of its items are open."""

    id: int
    name: str
    revision: int
    intent: str
    source: str
    destination: str


def look(database: Database, ids: Collection[int], able: Able = Able()) -> Standing:  # noqa: B008  it is frozen
    """How these revisions stand."""
    standing = Standing()
    hosts = breakers.known(database)
    with database.read() as connection:
        of_ids = tallied(connection, ids)
        for states in of_ids.values():
            for state, amount in states.items():
                standing.states[state] = standing.of(state) + amount
        for row in _rows(connection, ids):
            states = of_ids.get(row.id, {})
            if {"running", "waiting"} & states.keys():
                _add(standing, database, connection, row, "running" in states, hosts, able)
        if not standing.open.files:
            standing.triggers = _triggers(connection, ids)
    return standing


def tallied(connection: Connection, ids: Collection[int]) -> dict[int, dict[str, Amount]]:
    """Files and bytes of each revision, by the state of their items; no state without files."""
    query = sa.text("SELECT manifest_id, state, files, bytes FROM tallies WHERE manifest_id IN :ids AND files > 0")
    found: dict[int, dict[str, Amount]] = {}
    for manifest, state, files, nbytes in connection.execute(_of(query, ids)):
        found.setdefault(manifest, {})[state] = Amount(int(files), int(nbytes))
    return found


def _of(query: sa.TextClause, ids: Collection[int]) -> sa.TextClause:
    return query.bindparams(sa.bindparam("ids", list(ids) or [0], expanding=True))


def _rows(connection: Connection, ids: Collection[int]) -> Sequence[Row]:
    query = sa.text("""
        SELECT id, name, revision, intent, source_host, destination_host FROM manifests WHERE id IN :ids ORDER BY id""")
    return [Row(*row) for row in connection.execute(_of(query, ids))]


def _add(
    standing: Standing,
    database: Database,
    connection: Connection,
    row: Row,
    running: bool,
    hosts: dict[str, Known],
    able: Able,
) -> None:
    """Say whether the open items of a revision can go on by themselves."""
    if why := _stopped(row, able.serves):
        standing.stopped.append(why)
        return
    hindered = list(_of_hosts(row, hosts))
    if not hindered and not running:
        room = None if row.destination in able.make_room else _no_room(database, connection, row.destination)
        hindered = [room] if room else list(_of_items(connection, row))
    standing.hindered += [one for one in hindered if one not in standing.hindered]
    standing.free = standing.free or not hindered


def _stopped(row: Row, serves: Collection[str] | None) -> str | None:
    """Why a revision is not carried out, None where it is."""
    if row.intent == Intent.SUPERSEDED:
        return f"{row.name}: another revision took the place of revision {row.revision}; run this again"
    if row.intent != Intent.ACTIVE:
        return f"{row.name} is {row.intent} by an operator: `stager release {row.name}` lets it go on"
    lacking = [end for end in (row.source, row.destination) if serves is not None and end not in serves]
    if lacking:
        return f"{row.name}: no worker serves {', '.join(lacking)}: see `serves` in stager.toml, or start one that does"
    return None


def _of_hosts(row: Row, hosts: dict[str, Known]) -> Iterator[str]:
    """Hosts of a route that cannot be used."""
    for name in dict.fromkeys((row.source, row.destination)):
        known = hosts.get(name)
        if known is not None and known.paused:
            yield f"{name} is paused by an operator: `stager hosts resume {name}` lets it work again"
        elif known is not None and not (known.usable if name == row.destination else known.readable):
            yield str(known.breaker.text)


def _of_items(connection: Connection, row: Row) -> Iterator[str]:
    """Why none of the waiting items of a revision can go on by itself; nothing where one can. The first that can ends
    the search."""
    waiting = "i.manifest_id = :id AND i.state = 'waiting' AND NOT i.missing"
    coming = sa.text(f"""
        SELECT 1 FROM items i LEFT JOIN recalls r ON r.id = i.recall_id
        WHERE {waiting} AND (i.reason IS NULL OR (COALESCE(i.kind, '') NOT IN ('no space', '{RECALL}'))
          OR (i.kind = '{RECALL}' AND (r.id IS NULL OR r.state <> '{RecallState.REFUSED}' OR r.asks < {GIVEN_UP})))
        LIMIT 1""")
    if connection.execute(coming, {"id": row.id}).first():
        return
    reasons = sa.text(f"""
        SELECT i.kind, min(CASE WHEN i.kind = '{RECALL}' THEN COALESCE(r.reason, i.reason) ELSE i.reason END), count(*)
        FROM items i LEFT JOIN recalls r ON r.id = i.recall_id
        WHERE {waiting} AND i.reason IS NOT NULL GROUP BY i.kind""")
    for kind, reason, count in connection.execute(reasons, {"id": row.id}):
        what = f"the store refused it {GIVEN_UP} times" if kind == RECALL else kind
        yield f"{row.name}: {counted(count, 'file')} cannot come ({what}): {reason}"


def _no_room(database: Database, connection: Connection, host: str) -> str | None:
    """Why nothing more is brought to a host just now for want of room, as its worker told."""
    query = sa.text(f"SELECT no_room FROM hosts WHERE name = :host AND no_room_at > {database.now} - {NO_ROOM_S}")
    text = connection.execute(query, {"host": host}).scalar()
    return None if text is None else str(text)


def recalls(database: Database, ids: Collection[int]) -> int:
    """Files of stores that items of these revisions wait for."""
    query = sa.text("""
        SELECT count(DISTINCT recall_id) FROM items
        WHERE manifest_id IN :ids AND state = 'waiting' AND recall_id IS NOT NULL""")
    with database.read() as connection:
        return int(connection.execute(_of(query, ids)).scalar_one())


def _triggers(connection: Connection, ids: Collection[int]) -> int:
    """Triggers of these revisions that are still to be put on their queues, and that nothing is known to hinder."""
    query = sa.text(f"""
        SELECT count(*) FROM triggers t
        WHERE t.state = '{TriggerState.PENDING}' AND t.note IS NULL AND t.manifest_id IN :ids
          AND NOT EXISTS (SELECT 1 FROM hosts h WHERE h.name = t.host AND (h.paused OR h.trouble_kind IS NOT NULL))""")
    return int(connection.execute(_of(query, ids)).scalar_one())
