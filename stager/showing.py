"""A manifest's items and attempts, and the hosts, as plain data for `stager show` and `stager hosts`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from stager import checking, copies, findings, makings
from stager.checking import Seen
from stager.database import Database
from stager.intents import UnknownName
from stager.models import decode_path
from stager.opening import Hosts
from stager.recalls import table as recalls
from stager.recalls.telling import OpenRecall, StoreRecalls
from stager.status import NO_ROOM_S


@dataclass(frozen=True, slots=True)
class ShownItem:
    """An item: where from, where to, how it stands and why. Times are Unix seconds."""

    id: int
    state: str
    source: str
    destination: str | None
    size: int | None
    files: int
    reason: str | None
    tries: int
    not_before: float | None
    findings: list[dict[str, Any]] = field(default_factory=list)  # of its file: code, severity, hdus, text
    made: dict[str, Any] | None = None  # of a focal plane: how it was cut, see `makings.Making`
    proof: str | None = None  # how its file, or each of its pieces, was proven at the destination

    @property
    def why(self) -> str:
        """Why it waits or is held, or else what was found in its file."""
        return self.reason or "; ".join(one["said"] for one in self.findings)


@dataclass(frozen=True, slots=True)
class ShownAttempt:
    """One try at an item: its outcome, and the facts of the error where there was one."""

    item: int
    source: str
    epoch: int
    ended: str
    outcome: str
    seconds: float | None
    bytes: int
    kind: str | None
    side: str | None
    phase: str | None
    errno: int | None
    text: str | None


@dataclass(slots=True)
class Shown:
    """A manifest's newest revision with some of its items; `more` were left out."""

    heading: str
    manifest: dict[str, Any]
    items: list[ShownItem]
    more: int
    attempts: list[ShownAttempt] = field(default_factory=list)
    recalls: list[OpenRecall] = field(default_factory=list)  # that its items wait for, those in trouble first

    def as_dict(self) -> dict[str, Any]:
        return {
            "manifest": self.manifest,
            "items": [asdict(item) for item in self.items],
            "more": self.more,
            "attempts": [asdict(attempt) for attempt in self.attempts],
            "recalls": [asdict(recall) for recall in self.recalls],
        }


def show(database: Database, name: str, state: str | None, most: int, with_attempts: bool) -> Shown:
    """Items of a manifest's newest revision, those in trouble first; raises UnknownName."""
    with database.read() as connection:
        query = sa.text("""
            SELECT id, name, revision, kind, dataset, lead, source, destination, intent, note FROM manifests
            WHERE name = :name AND intent <> 'planning' ORDER BY revision DESC LIMIT 1""")
        row = connection.execute(query, {"name": name}).first()
        if row is None:
            raise UnknownName(f"there is no manifest {name}; `stager status` lists them")
        items, more = _items(connection, row.id, state, most)
        heading = f"{row.name} revision {row.revision} ({row.kind}, {row.intent}): {row.source} > {row.destination}"
        attempts = _attempts(connection, items) if with_attempts else []
    manifest = dict(row._mapping)
    waited = recalls.waited_for(database, row.id)
    return Shown(heading + (f"; {row.note}" if row.note else ""), manifest, items, more, attempts, waited)


def _items(connection: Connection, manifest: int, state: str | None, most: int) -> tuple[list[ShownItem], int]:
    shown = "CASE WHEN missing THEN 'missing' ELSE state END"
    where = f"manifest_id = :manifest AND (:every OR {shown} = :state)"
    values = {"manifest": manifest, "every": state is None, "state": state or "", "most": most}
    query = sa.text(f"""
        SELECT id, {shown} AS shown, source, destination, size, files, reason, tries, not_before
        FROM items WHERE {where}
        ORDER BY CASE state WHEN 'held' THEN 0 WHEN 'running' THEN 1 WHEN 'waiting' THEN 2 WHEN 'excluded' THEN 3
                 ELSE 4 END, id
        LIMIT :most""")
    rows = connection.execute(query, values).all()
    numbers = [row[0] for row in rows]
    found, made = findings.of_items(connection, numbers), makings.of_items(connection, numbers)
    proofs = copies.proofs_of(connection, numbers)
    items = [
        ShownItem(
            row[0],
            row[1],
            decode_path(row[2]),
            row[3] and decode_path(row[3]),
            size=row[4],
            files=row[5],
            reason=row[6],
            tries=row[7],
            not_before=row[8],
            findings=[one.as_dict() for one in found.get(row[0], [])],
            made=made.get(row[0]),
            proof=proofs.get(row[0]),
        )
        for row in rows
    ]
    total = connection.execute(sa.text(f"SELECT count(*) FROM items WHERE {where}"), values).scalar_one()
    return items, int(total) - len(items)


def _attempts(connection: Connection, items: list[ShownItem]) -> list[ShownAttempt]:
    sources = {item.id: item.source for item in items}
    query = sa.text("""
        SELECT item_id, epoch, ended_at, outcome, seconds, bytes, kind, side, phase, errno, text FROM attempts
        WHERE item_id IN :items ORDER BY id""").bindparams(sa.bindparam("items", list(sources) or [0], expanding=True))
    return [
        ShownAttempt(
            row.item_id,
            sources[row.item_id],
            row.epoch,
            datetime.fromtimestamp(row.ended_at, UTC).isoformat(timespec="seconds"),
            row.outcome,
            row.seconds,
            row.bytes,
            row.kind,
            row.side,
            row.phase,
            row.errno,
            row.text,
        )
        for row in connection.execute(query)
    ]


@dataclass(frozen=True, slots=True)
class ShownHost:
    """A host: `state` is paused, unused, in use or in trouble, or with a check reachable or down.

    `problem` is what the daemon (`trouble`: its kind) or the check found; `checked` has all that a check learned.
    Times are in seconds.
    """

    name: str
    kind: str
    root: str
    state: str
    reason: str | None = None
    trouble: str | None = None
    problem: str | None = None
    troubled_s: float | None = None
    next_look_s: float | None = None
    reached: str | None = None
    checked: Seen | None = None
    no_room: str | None = None  # why nothing more is brought there just now
    recalls: StoreRecalls | None = None  # of a store that has some

    def as_dict(self) -> dict[str, Any]:
        """Plain data; what was checked stands among the rest."""
        said = asdict(self)
        checked = said.pop("checked") or {"free": None, "total": None}
        checked.pop("problem", None)
        return said | checked


def hosts(database: Database, opened: Hosts, names: Sequence[str] = (), *, check: bool) -> list[ShownHost]:
    """The hosts of the configuration, or those named; with `check`, each is looked at."""
    described = {name: host for name, host in opened.config.hosts.items() if not names or name in names}
    seen = checking.look(opened, list(described)) if check else {}
    with database.read() as connection:
        query = sa.text(f"SELECT *, {database.now} AS now FROM hosts")
        known = {row.name: row for row in connection.execute(query)}
    shown = [_host(name, host.kind, host.root, known.get(name), seen.get(name)) for name, host in described.items()]
    told = {one.store: one for one in recalls.told(database)}
    return [replace(host, no_room=_no_room(known.get(host.name)), recalls=told.get(host.name)) for host in shown]


def _no_room(known: Any) -> str | None:
    """Why nothing more is brought to a host, if that was so a moment ago."""
    if known is None or known.no_room_at is None or known.now - known.no_room_at > NO_ROOM_S:
        return None
    return str(known.no_room) if known.no_room else None


def _host(name: str, kind: str, root: str, known: Any, seen: Seen | None) -> ShownHost:
    paused = bool(known and known.paused)
    reason = known.reason if known else None
    reached = known.reached if known else None
    if seen is not None:
        state = "down" if seen.problem else "paused" if paused else "reachable"
        return ShownHost(name, kind, root, state, reason, problem=seen.problem, reached=reached, checked=seen)
    if known and known.trouble_kind:
        waits = (max(0.0, known.now - known.trouble_since), max(0.0, known.next_look - known.now))
        state = "paused" if paused else "in trouble"
        return ShownHost(name, kind, root, state, reason, known.trouble_kind, known.trouble, *waits, reached)
    state = "paused" if paused else "in use" if known and known.marker else "unused"
    return ShownHost(name, kind, root, state, reason, reached=reached)
