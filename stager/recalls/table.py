"""The table `recalls`: one row for each file of a store that items wait for. Each function is one short transaction, or
a part of one. `not_before` says when something is to be done about a recall; it has none once the recall is over.

Who changes a row and the items that wait for it locks the row first; `postpone` and the job of the store so agree on
whether anything waits for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from stager import breakers, items
from stager.database import Database, again
from stager.models import PathText, RecallState, decode_path, encode_path
from stager.recalls import choosing, telling
from stager.recalls.choosing import Recall
from stager.recalls.telling import OpenRecall, StoreRecalls
from transfers.hosts import Residency

LATELY_S = 60.0  # a recall that was looked at, or wanted first, no longer ago than this is as it was then
GONE_AT_ONCE = 1000
KEPT = 2000  # recalls of a store that are over and are remembered: how quick it was tells how quick it will be

# What waits for a recall: items that are to be brought, of manifests that are to be carried out.
_WAIT = """
    FROM items i JOIN manifests m ON m.id = i.manifest_id AND m.intent = 'active'
    WHERE i.recall_id = r.id AND i.state IN ('waiting', 'running') AND NOT i.missing"""


class Wanted(NamedTuple):
    """A file of a store that is to be recalled: its path there, where on tape it is, its bytes; None: not known."""

    path: str
    volume: str | None
    position: int | None
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Rows:
    """Recalls of a store, and the database's time when they were read."""

    now: float
    rows: list[Recall]


def stores(database: Database) -> list[str]:
    """The stores that have recalls to bring on; those that are paused or cannot be read from are left out."""
    query = sa.text(f"""
        SELECT h.name FROM hosts h
        WHERE NOT h.paused AND (h.trouble_kind IS NULL OR h.trouble_kind IN {breakers.READABLE})
          AND EXISTS (SELECT 1 FROM recalls r WHERE r.host = h.name AND r.not_before IS NOT NULL) ORDER BY 1""")
    with database.read() as connection:
        return [row.name for row in connection.execute(query)]


def told(database: Database) -> list[StoreRecalls]:
    """How the recalls of each store stand."""
    with database.read() as connection:
        return telling.snapshot(lambda query: connection.exec_driver_sql(query).all(), database.now)


def waited_for(database: Database, manifest_id: int, most: int = 20) -> list[OpenRecall]:
    """The recalls that items of a manifest wait for, those in trouble first."""
    with database.read() as connection:
        return telling.of_manifest(
            lambda query: connection.exec_driver_sql(query).all(), database.now, manifest_id, most
        )


def is_coming(database: Database, manifest_id: int) -> bool:
    """Whether something that a manifest waits for is likely to come by itself: it was asked for and is not late, or it
    is to be asked for, with nothing said against that or others on their way."""
    lately = f"{database.now} - {LATELY_S}"
    query = sa.text(f"""
        SELECT EXISTS (
            SELECT 1 FROM recalls r WHERE r.not_before IS NOT NULL
              AND EXISTS (SELECT 1 {_WAIT} AND i.manifest_id = :manifest)
              AND ((r.state = '{RecallState.ASKED}' AND r.asks <= 1)
                   OR (r.state = '{RecallState.WANTED}' AND (r.reason IS NULL OR EXISTS (
                       SELECT 1 FROM recalls o WHERE o.host = r.host AND (o.online_at > {lately}
                         OR (o.state = '{RecallState.ASKED}' AND o.asks <= 1 AND o.asked_at > {lately})))))))""")
    with database.read() as connection:
        return bool(connection.execute(query, {"manifest": manifest_id}).scalar())


def lately(database: Database, store: str, paths: Collection[str]) -> dict[str, Residency]:
    """Those of the paths whose recall is open and was looked at a moment ago."""
    query = sa.text(f"""
        SELECT path, volume, position FROM recalls WHERE host = :host AND path IN :paths
          AND ((state = '{RecallState.WANTED}' AND wanted_at > {database.now} - {LATELY_S})
               OR (state = '{RecallState.ASKED}' AND not_before > {database.now} - {LATELY_S}))""")
    found: dict[str, Residency] = {}
    with database.read() as connection:
        for rows in _of_paths(connection, query, store, paths):
            found |= {decode_path(row.path): Residency("offline", row.volume, row.position) for row in rows}
    return found


def sizes_of_bundles(database: Database, store: str, paths: Collection[str]) -> dict[str, int]:
    """The bytes of those of the paths that are bundles."""
    query = sa.text("SELECT path, size FROM bundles WHERE host = :host AND path IN :paths")
    found: dict[str, int] = {}
    with database.read() as connection:
        for rows in _of_paths(connection, query, store, paths):
            found |= {decode_path(row.path): row.size for row in rows}
    return found


def _of_paths(connection: Connection, query: Any, store: str, paths: Collection[str]) -> Iterator[Sequence[Any]]:
    query = query.bindparams(sa.bindparam("paths", expanding=True, type_=PathText()))
    ordered = sorted(paths)
    for start in range(0, len(ordered), items.AT_ONCE):
        yield connection.execute(query, {"host": store, "paths": ordered[start : start + items.AT_ONCE]}).all()


def want(database: Database, connection: Connection, store: str, wanted: Sequence[Wanted]) -> dict[str, int]:
    """Have files recalled, and lock their rows; the numbers of the recalls by path. One that is under way goes on as it
    is; one that came, and is offline again, begins anew."""
    anew = f"recalls.state = '{RecallState.ONLINE}'"
    fresh = ("state", "asks", "wanted_at", "asked_at", "not_before", "online_at", "reason")
    changes = [f"{name} = CASE WHEN {anew} THEN excluded.{name} ELSE recalls.{name} END" for name in fresh]
    changes += [f"{name} = COALESCE(excluded.{name}, recalls.{name})" for name in ("volume", "position", "bytes")]
    statement = sa.text(f"""
        INSERT INTO recalls (host, path, state, volume, position, bytes, asks, wanted_at, not_before)
        VALUES (:host, :path, '{RecallState.WANTED}', :volume, :position, :bytes, 0, {database.now}, {database.now})
        ON CONFLICT (host, path) DO UPDATE SET {", ".join(changes)}""")
    ordered = sorted(wanted)  # two that want the same files take turns
    values = [{"host": store, **one._asdict(), "path": encode_path(one.path)} for one in ordered]
    connection.execute(statement, values)
    query = sa.text("SELECT id, path FROM recalls WHERE host = :host AND path IN :paths")
    found = _of_paths(connection, query, store, [one.path for one in ordered])
    return {decode_path(row.path): row.id for rows in found for row in rows}


# --------------------------------------------------------------------------------- what is to be done

_COLUMNS = "r.id, r.path, r.state, r.volume, r.position, r.asks, r.wanted_at, r.asked_at, r.not_before"


_PRIORITY = f"(SELECT m.priority {_WAIT} LIMIT 1)"


def under_way(database: Database, store: str) -> Rows:
    """The recalls of a store that it was asked for, and those that came and are waited for."""
    query = sa.text(f"""
        SELECT {_COLUMNS}, {_PRIORITY}, r.wanted_at, r.wanted_at FROM recalls r
        WHERE r.host = :host AND r.state <> '{RecallState.WANTED}' AND r.not_before IS NOT NULL""")
    with database.read() as connection:
        now = float(connection.exec_driver_sql(f"SELECT {database.now}").scalar_one())
        return Rows(now, _recalls(connection.execute(query, {"host": store})))


def wanted(database: Database, store: str, most: int) -> list[Recall]:
    """Of each volume up to `most` recalls that the store may be asked for now, the first on it. The others are left
    where they are, however many there are."""
    due = f"host = :host AND state = '{RecallState.WANTED}' AND not_before <= :now"
    since = sa.text(f"SELECT volume, min(wanted_at), max(wanted_at) FROM recalls WHERE {due} GROUP BY volume")
    query = sa.text(f"""
        SELECT {_COLUMNS}, {_PRIORITY} FROM (
            SELECT id, row_number() OVER (PARTITION BY volume ORDER BY position IS NULL, position, id) AS place
            FROM recalls WHERE {due}) AS placed
        JOIN recalls r ON r.id = placed.id WHERE placed.place <= :most""")
    with database.read() as connection:
        now = float(connection.exec_driver_sql(f"SELECT {database.now}").scalar_one())
        values = {"host": store, "now": now}
        times = {row[0]: (row[1], row[2]) for row in connection.execute(since, values)}
        rows = connection.execute(query, {**values, "most": most}).all() if times else []
    return _recalls((*row, *times.get(row.volume, (row.wanted_at, row.wanted_at))) for row in rows)


def _recalls(rows: Iterable[Any]) -> list[Recall]:
    return [Recall(row[0], decode_path(row[1]), *row[2:]) for row in rows]


def destinations(database: Database, store: str) -> set[str]:
    """Where files of a store may be waited for: the destinations of all manifests that have something to bring from
    it. However many recalls there are, this costs little."""
    query = sa.text("""
        SELECT DISTINCT m.destination_host FROM manifests m JOIN tallies t ON t.manifest_id = m.id
        WHERE m.source_host = :host AND m.intent = 'active' AND t.state IN ('waiting', 'running') AND t.items > 0""")
    with database.read() as connection:
        return set(connection.scalars(query, {"host": store}))


def needs(database: Database, recalls: Collection[int]) -> dict[int, dict[str, int]]:
    """By recall and destination, the bytes of the items that wait for it. Those that are being brought are left out:
    their room is reserved already."""
    query = sa.text("""
        SELECT i.recall_id, m.destination_host, sum(COALESCE(i.bytes, i.size, 0)) FROM items i
        JOIN manifests m ON m.id = i.manifest_id AND m.intent = 'active'
        WHERE i.recall_id IN :recalls AND i.state = 'waiting' AND NOT i.missing GROUP BY 1, 2""")
    query = query.bindparams(sa.bindparam("recalls", expanding=True))
    found: dict[int, dict[str, int]] = {number: {} for number in recalls}
    with database.read() as connection:
        for lot in items.lots(sorted(recalls)):
            for number, host, size in connection.execute(query, {"recalls": lot}):
                found[number][host] = int(size)
    return found


# -------------------------------------------------------------------------------------- what happened


@again
def came(database: Database, recalls: Sequence[Recall]) -> None:
    """Files are online: what waits for them is due now."""
    statement = sa.text(f"""
        UPDATE recalls SET state = '{RecallState.ONLINE}', online_at = {database.now}, not_before = {database.now},
               reason = NULL
        WHERE id IN :recalls""")
    for lot in items.lots([one.id for one in recalls]):
        with database.write() as connection:
            _execute(connection, statement, lot)
            items.wake(database, connection, lot)


@again
def looked(database: Database, looks: Sequence[tuple[Recall, Residency | None, str | None]]) -> None:
    """Files are not online yet, or it could not be told (None, and why): they are looked at again later."""
    statement = sa.text(f"""
        UPDATE recalls SET not_before = {database.now} + :wait, volume = COALESCE(:volume, volume),
               position = COALESCE(:position, position), reason = :reason
        WHERE id = :id AND state = '{RecallState.ASKED}'""")
    with database.write() as connection:
        now = float(connection.exec_driver_sql(f"SELECT {database.now}").scalar_one())
        rows = [
            {"id": one.id, "wait": choosing.look_after_s(one.asked_at or now, now), "reason": reason and reason[:2000]}
            | {"volume": where and where.volume, "position": where and where.position}
            for one, where, reason in looks
        ]
        if rows:
            connection.execute(statement, rows)


@again
def asked(database: Database, recalls: Sequence[Recall], refused: Mapping[int, str]) -> None:
    """The store was asked for files; it refused those with a reason (by their numbers)."""
    statement = sa.text(f"""
        UPDATE recalls SET state = :state, asks = asks + 1, asked_at = {database.now},
               not_before = {database.now} + :wait, reason = :reason
        WHERE id = :id""")
    rows = []
    for one in recalls:
        reason = refused.get(one.id)
        wait = choosing.FIRST_LOOK_S if reason is None else choosing.refused_s(one.asks + 1)
        state = RecallState.ASKED if reason is None else RecallState.REFUSED
        rows.append({"id": one.id, "state": str(state), "wait": wait, "reason": reason and reason[:2000]})
    if rows:
        with database.write() as connection:
            connection.execute(statement, rows)


@again
def put_off(database: Database, recalls: Sequence[tuple[Recall, str]], wait_s: float) -> None:
    """Recalls that cannot be asked for now, each with the reason, are thought of again later."""
    statement = sa.text(f"UPDATE recalls SET not_before = {database.now} + :wait, reason = :reason WHERE id = :id")
    rows = [{"id": one.id, "wait": wait_s, "reason": reason[:2000]} for one, reason in recalls]
    if rows:
        with database.write() as connection:
            connection.execute(statement, rows)


@again
def give_up(database: Database, recalls: Iterable[int]) -> None:
    """Forget recalls, as of files that are no more. What waits for them is due now, and will be told why."""
    for lot in items.lots(list(recalls)):
        with database.write() as connection:
            _forget(database, connection, lot)


def drop_unwanted(database: Database, store: str) -> int:
    """Be done with the recalls that nothing waits for any more; returns how many. Of those that came, the last are
    remembered."""
    dropped = 0
    while count := _drop_some(database, store):
        dropped += count
    _trim(database, store)
    return dropped


@again
def _drop_some(database: Database, store: str) -> int:
    unwanted = f"r.not_before IS NOT NULL AND NOT EXISTS (SELECT 1 {_WAIT})"
    lock = "" if database.is_sqlite else "FOR UPDATE OF r"
    found = f"SELECT r.id FROM recalls r WHERE r.host = :host AND {unwanted} ORDER BY r.id LIMIT {GONE_AT_ONCE} {lock}"
    still = sa.text(f"SELECT r.id, r.state FROM recalls r WHERE r.id IN :recalls AND {unwanted}")
    with database.write() as connection:
        locked = list(connection.scalars(sa.text(found), {"host": store}))
        if not locked:
            return 0
        gone = _execute(connection, still, locked).all()  # another may have begun to wait before they were locked
        _forget(database, connection, [row.id for row in gone if row.state != RecallState.ONLINE])
        came = [row.id for row in gone if row.state == RecallState.ONLINE]
        _execute(connection, sa.text("UPDATE recalls SET not_before = NULL WHERE id IN :recalls"), came)
        return len(gone)


@again
def _trim(database: Database, store: str) -> None:
    over = "SELECT id FROM recalls WHERE host = :host AND not_before IS NULL ORDER BY online_at DESC"
    statement = sa.text(f"DELETE FROM recalls WHERE id IN (SELECT id FROM ({over} LIMIT 1000 OFFSET {KEPT}) AS old)")
    with database.write() as connection:
        connection.execute(statement, {"host": store})


def _forget(database: Database, connection: Connection, recalls: Sequence[int]) -> None:
    if recalls:
        items.wake(database, connection, recalls, forget=True)
        _execute(connection, sa.text("DELETE FROM recalls WHERE id IN :recalls"), recalls)


def _execute(connection: Connection, statement: Any, recalls: Sequence[int]) -> Any:
    return connection.execute(statement.bindparams(sa.bindparam("recalls", list(recalls), expanding=True)))
