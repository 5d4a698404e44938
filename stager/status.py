"""How everything stands: plain data, which the terminal, JSON and the page all draw.

Standard library only, straight on the database's own driver: `stager status` must answer at once, whatever
the number of items. All counts come from `tallies`, which the database itself keeps.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from stager import hours
from stager.recalls import telling
from stager.recalls.telling import StoreRecalls

LATELY_S = 3600.0  # for which a route that has no work is still told of
NO_ROOM_S = 60.0  # for which it is taken to be so that a host has no room: while it is, it is written again
RATE_WINDOW_S = 60.0  # what was proven in this time makes the rate
READABLE = ("read-only", "no space")  # as in breakers.py, which takes longer to load than all of this
MOST_COUNTED = 10_000  # findings, or evicted items, of one manifest; more are not counted: status answers at once
STATES = ("done", "running", "waiting", "held", "missing", "excluded")


@dataclass(frozen=True, slots=True)
class Row:
    """One manifest's newest revision: what of it is at its place. Files and bytes are those at the destination;
    what is excluded, by the accept list or because it was evicted, is in no total; `evicted` of the files are among
    those excluded, counted for up to MOST_COUNTED items. `percent_of` says of what `percent` is. `findings` counts what
    was found in files, by severity (warn, fail), up to MOST_COUNTED."""

    dataset: str
    manifest: str
    revision: int
    kind: str
    source: str
    destination: str
    lead: str
    state: str
    files: dict[str, int]
    bytes: dict[str, int | None]
    percent: float
    percent_of: str
    rate_bytes_per_s: float | None
    eta_s: float | None
    last_error: str | None
    findings: dict[str, int] = field(default_factory=dict)

    @property
    def hosts(self) -> tuple[str, str]:
        """The two ends of its route."""
        return self.source.partition(":")[0], self.destination.partition(":")[0]

    @property
    def is_evicted(self) -> bool:
        """Whether nothing is left of it but what was evicted: it is complete, and nothing of it is there."""
        return self.state == "complete" and not self.files["total"] and self.files["evicted"] > 0


@dataclass(frozen=True, slots=True)
class HostRow:
    """A host that the database knows: whether an operator paused it, what trouble the daemon has with it (`kind` is
    None: none), and how much waits for it. `reached` says how it was last spoken to; `since` is of the trouble;
    `no_room` is why nothing more is brought there just now."""

    host: str
    paused: bool
    reason: str | None
    kind: str | None
    problem: str | None
    since: str | None
    troubled_s: float | None
    next_look_s: float | None
    files: int
    triggers: int
    reached: str | None
    no_room: str | None = None

    def holds_up(self, ends: Sequence[str]) -> bool:
        """Whether its trouble, if it has one, keeps work from this source to this destination from being begun."""
        source, destination = ends
        if self.kind is None:
            return False
        return self.host == destination or (self.host == source and self.kind not in READABLE)


@dataclass(frozen=True, slots=True)
class RouteRow:
    """A route that has work or worked lately: its streams now and why so many, how quick it is or last was, its limits.
    `closed_until` is the time of day at which it opens again; None while it is open. `ago_s`: since it last worked."""

    source: str
    destination: str
    streams: int | None
    why: str
    rate_bytes_per_s: float | None
    failures: int
    busy: bool
    waiting: int
    bytes_per_s: int | None
    hours: str | None
    closed_until: str | None
    ago_s: float | None


@dataclass(frozen=True, slots=True)
class QueueRow:
    """Triggers that cannot be put on their queue: how many, and why."""

    queue: str
    problem: str
    triggers: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How everything stands at one moment; `refused` are manifests in the spool that could not be submitted."""

    at: str
    datasets: list[Row]
    refused: list[dict[str, str]]
    hosts: list[HostRow] = field(default_factory=list)
    routes: list[RouteRow] = field(default_factory=list)
    queues: list[QueueRow] = field(default_factory=list)
    recalls: list[StoreRecalls] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@contextmanager
def reading(url: str) -> Iterator[Any]:
    """A connection of the database's own driver for one look; None where there is no database yet."""
    if url.startswith("sqlite"):
        file = Path(url.removeprefix("sqlite:///"))
        if not file.is_file():
            yield None
            return
        connection: Any = sqlite3.connect(file, timeout=30, isolation_level=None)
    else:
        import psycopg

        connection = psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://", 1), connect_timeout=10)
    try:
        yield connection
    finally:
        connection.close()


def snapshot(connection: Any, dataset: str | None = None) -> Snapshot:
    """All datasets, or the one named (by its name or a manifest's), as the database says now."""
    nothing = Snapshot(_iso(datetime.now(UTC).timestamp()), [], [])
    if connection is None:
        return nothing
    on_sqlite = isinstance(connection, sqlite3.Connection)
    cursor = connection.cursor()
    if not _has_table(cursor, on_sqlite, "tallies"):
        return nothing
    tells_of_hosts = _has_table(cursor, on_sqlite, "routes")  # a daemon of this version has opened it already
    tells_of_findings = _has_table(cursor, on_sqlite, "findings")
    tells_of_stores = _has_table(cursor, on_sqlite, "recalls")
    tells_of_evicted = _has_index(cursor, on_sqlite, "ix_items_evicted")
    if on_sqlite:  # elsewhere the driver has begun by itself
        cursor.execute("BEGIN")
    clock = _NOW_SQLITE if on_sqlite else _NOW_POSTGRESQL
    now = float(_all(cursor, f"SELECT {clock}")[0][0])
    tallies: dict[int, dict[str, tuple[int, int, int]]] = {}
    for manifest, state, files, size, unknown in _all(
        cursor, "SELECT manifest_id, state, files, bytes, unknown FROM tallies"
    ):
        tallies.setdefault(manifest, {})[state] = (int(files), int(size), int(unknown))
    paused = {row[0] for row in _all(cursor, "SELECT name FROM hosts WHERE paused")}
    manifests = _all(cursor, _MANIFESTS)
    waiting = _waiting(manifests, tallies)
    hosts = _hosts(cursor, waiting, now, tells_of_stores) if tells_of_hosts else []
    chosen = [found for found in manifests if dataset is None or dataset in (found[1], found[2])]
    rows = [_row(cursor, on_sqlite, found, tallies.get(found[0], {}), paused, hosts, now) for found in chosen]
    if tells_of_evicted:
        for row, manifest in zip(rows, chosen, strict=True):
            if row.files["excluded"]:
                row.files["evicted"] = _evicted(cursor, on_sqlite, manifest[0])
    if tells_of_findings:
        for row, manifest in zip(rows, chosen, strict=True):
            row.findings.update(_findings(cursor, on_sqlite, manifest[0]))
    routes = _routes(cursor, waiting, now) if tells_of_hosts else []
    refused = [
        {"file": file, "problem": problem}
        for file, problem in _all(cursor, "SELECT path, problem FROM spooled WHERE problem IS NOT NULL ORDER BY path")
    ]
    queues = [QueueRow(*found) for found in _all(cursor, _QUEUES)]
    recalls = telling.snapshot(partial(_all, cursor), clock) if tells_of_stores else []
    cursor.execute("ROLLBACK")
    return Snapshot(_iso(now), rows, refused, hosts, routes, queues, recalls)


_NOW_SQLITE = "((julianday('now') - 2440587.5) * 86400.0)"
_NOW_POSTGRESQL = "extract(epoch from clock_timestamp())::float8"
_MANIFESTS = """
    SELECT id, dataset, name, revision, kind, source, destination, lead, intent, source_host, destination_host
    FROM manifests WHERE intent IN ('active', 'held', 'cancelled') ORDER BY dataset, id"""

EVICTED = f"""
    SELECT COALESCE(sum(files), 0) FROM (
        SELECT files FROM items WHERE manifest_id = {{}} AND state = 'excluded' AND kind = 'evicted'
        LIMIT {MOST_COUNTED}) AS e"""

# Of each queue, by the index that begins with it, as a plain look for pending triggers would read every one.
_QUEUES = """
    WITH RECURSIVE queues(name) AS (
        SELECT min(queue) FROM triggers
        UNION ALL SELECT (SELECT min(t.queue) FROM triggers t WHERE t.queue > queues.name) FROM queues
        WHERE queues.name IS NOT NULL)
    SELECT queue, note, count(*) FROM triggers
    WHERE queue IN (SELECT name FROM queues WHERE name IS NOT NULL) AND state = 'pending' AND note IS NOT NULL
    GROUP BY queue, note ORDER BY queue, note"""


def _has_table(cursor: Any, on_sqlite: bool, table: str) -> bool:
    catalogue = (
        "sqlite_master WHERE name" if on_sqlite else "pg_tables WHERE schemaname = current_schema() AND tablename"
    )
    return bool(_all(cursor, f"SELECT count(*) FROM {catalogue} = '{table}'")[0][0])


def _has_index(cursor: Any, on_sqlite: bool, index: str) -> bool:
    catalogue = (
        "sqlite_master WHERE name" if on_sqlite else "pg_indexes WHERE schemaname = current_schema() AND indexname"
    )
    return bool(_all(cursor, f"SELECT count(*) FROM {catalogue} = '{index}'")[0][0])


def _all(cursor: Any, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
    cursor.execute(query, values)
    return list(cursor.fetchall())


def _row(
    cursor: Any,
    on_sqlite: bool,
    found: Any,
    tally: dict[str, tuple[int, int, int]],
    paused: set[str],
    hosts: Sequence[HostRow],
    now: float,
) -> Row:
    manifest, dataset, name, revision, kind, source, destination, lead, intent, *ends = found
    counts = {state: tally.get(state, (0, 0, 0)) for state in STATES}
    files = {state: count[0] for state, count in counts.items()}
    waited = [state for state in STATES if state != "excluded"]
    total = sum(files[state] for state in waited)
    done, size = counts["done"][0], sum(counts[state][1] for state in waited)
    known = not any(counts[state][2] for state in waited)
    of_bytes = known and size > 0
    whole = total == done
    share = counts["done"][1] / size if of_bytes else done / total if total else 1.0
    state = _state(intent, files, whole, bool(paused & set(ends)))
    rate = _rate(cursor, on_sqlite, manifest, now) if state == "running" else None
    left = size - counts["done"][1] if of_bytes else None
    return Row(
        dataset=dataset,
        manifest=name,
        revision=revision,
        kind=kind,
        source=source,
        destination=destination,
        lead=lead,
        state=state,
        files={"total": total, **files, "evicted": 0},
        bytes={"total": size if known else None, "done": counts["done"][1]},
        percent=100.0 if whole else min(99.9, math.floor(share * 1000) / 10),
        percent_of="bytes" if of_bytes else "files",
        rate_bytes_per_s=rate,
        eta_s=left / rate if left and rate else None,
        last_error=None if whole else _last_error(cursor, on_sqlite, manifest) or _first(hosts, ends),
    )


def _first(hosts: Sequence[HostRow], ends: Sequence[str]) -> str | None:
    """What keeps work between these two hosts from being begun; the source's trouble before the destination's."""
    holding = sorted((host for host in hosts if host.holds_up(ends)), key=lambda host: ends.index(host.host))
    return holding[0].problem if holding else None


def _waiting(
    manifests: Sequence[Any], tallies: Mapping[int, Mapping[str, tuple[int, int, int]]]
) -> dict[tuple[str, str], int]:
    """By route, the files of active manifests that wait for their turn."""
    waiting: dict[tuple[str, str], int] = {}
    for found in manifests:
        files = tallies.get(found[0], {}).get("waiting", (0, 0, 0))[0]
        if files and found[8] == "active":
            waiting[found[9], found[10]] = waiting.get((found[9], found[10]), 0) + files
    return waiting


def _hosts(cursor: Any, waiting: Mapping[tuple[str, str], int], now: float, with_room: bool) -> list[HostRow]:
    fresh = f"CASE WHEN no_room_at > {now - NO_ROOM_S} THEN no_room END" if with_room else "NULL"
    found = _all(
        cursor,
        f"""SELECT name, paused, reason, trouble_kind, trouble, trouble_since, next_look, reached, {fresh} FROM hosts
           ORDER BY name""",
    )
    triggers: dict[str, int] = {}
    if any(row[3] for row in found):
        triggers = dict(_all(cursor, "SELECT host, count(*) FROM triggers WHERE state = 'pending' GROUP BY host"))
    return [
        HostRow(
            host=name,
            paused=bool(paused),
            reason=reason,
            kind=kind,
            problem=problem,
            since=None if since is None else _iso(since),
            troubled_s=None if since is None else max(0.0, now - since),
            next_look_s=None if look is None else max(0.0, look - now),
            files=sum(files for ends, files in waiting.items() if name in (ends[1:] if kind in READABLE else ends)),
            triggers=triggers.get(name, 0),
            reached=reached,
            no_room=no_room,
        )
        for name, paused, reason, kind, problem, since, look, reached, no_room in found
    ]


def _routes(cursor: Any, waiting: Mapping[tuple[str, str], int], now: float) -> list[RouteRow]:
    """The routes that have work or worked lately."""
    query = """SELECT source, destination, streams, why, rate_bytes_per_s, failures, busy, bytes_per_s, hours, at
               FROM routes"""
    told = {(row[0], row[1]): row[2:] for row in _all(cursor, query)}
    unknown = (None, "it has not worked yet", None, 0, False, None, None, None)
    routes = []
    for ends in sorted({*waiting, *told}):
        streams, why, rate, failures, busy, limit, open_hours, at = told.get(ends, unknown)
        ago = None if at is None else max(0.0, now - at)
        if ends in waiting or (ago is not None and ago < LATELY_S):
            closed = hours.closed_until(open_hours, datetime.fromtimestamp(now).astimezone().time())
            routes.append(
                RouteRow(
                    *ends,
                    streams,
                    why,
                    rate,
                    failures,
                    bool(busy),
                    waiting.get(ends, 0),
                    limit,
                    open_hours,
                    closed,
                    ago,
                )
            )
    return routes


def _state(intent: str, files: dict[str, int], whole: bool, paused: bool) -> str:
    if whole:
        return "complete"
    if intent in ("cancelled", "held"):
        return intent
    if paused:
        return "paused"
    if files["running"]:
        return "running"
    return "held" if files["held"] and not files["waiting"] else "waiting"


def _rate(cursor: Any, on_sqlite: bool, manifest: int, now: float) -> float | None:
    """Bytes proven a second, over the time that they took within the window."""
    mark = "?" if on_sqlite else "%s"
    query = f"""
        SELECT sum(bytes), min(ended_at - COALESCE(seconds, 0)) FROM attempts
        WHERE manifest_id = {mark} AND ended_at > {mark} AND outcome = 'done'"""
    size, begun = _all(cursor, query, (manifest, now - RATE_WINDOW_S))[0]
    if not size:
        return None
    return float(size) / max(0.1, now - max(float(begun), now - RATE_WINDOW_S))


def _last_error(cursor: Any, on_sqlite: bool, manifest: int) -> str | None:
    mark = "?" if on_sqlite else "%s"
    query = f"""
        SELECT reason FROM items WHERE manifest_id = {mark} AND reason IS NOT NULL AND state IN ('waiting', 'held')
        ORDER BY progressed_at DESC LIMIT 1"""
    rows = _all(cursor, query, (manifest,))
    return str(rows[0][0]) if rows else None


def _findings(cursor: Any, on_sqlite: bool, manifest: int) -> dict[str, int]:
    """How many findings of each severity but notes, counted up to MOST_COUNTED."""
    mark = "?" if on_sqlite else "%s"
    query = f"""
        SELECT severity, count(*) FROM (
            SELECT severity FROM findings WHERE manifest_id = {mark} AND severity <> 'note' LIMIT {MOST_COUNTED}) AS f
        GROUP BY severity ORDER BY severity"""
    return {severity: int(count) for severity, count in _all(cursor, query, (manifest,))}


def _evicted(cursor: Any, on_sqlite: bool, manifest: int) -> int:
    """How many of the files that are excluded were evicted, of up to MOST_COUNTED items: by an index of its own, as no
    tally has them."""
    return int(_all(cursor, EVICTED.format("?" if on_sqlite else "%s"), (manifest,))[0][0])


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
