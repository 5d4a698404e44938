"""Claim, renew, finish, postpone, hold, release: the only writer of items once they are planned.

A claim is a lease: a worker, an epoch, an end. Every write by its holder is conditional on the epoch and on
the state `running`; where it changes no row the lease was lost, and what the holder knows no longer counts:
the epoch fences it. Each function is one short transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from manifests.findings import Finding
from stager import breakers, copies, findings, makings, registry, triggers
from stager.copies import Stored
from stager.database import Database, again
from stager.makings import Making
from stager.models import Attempt, Item, ItemState
from stager.retrying import Decision
from transfers.errors import TransferError
from transfers.hosts import UNKNOWN, Receipt

items = Item.__table__  # type: ignore[attr-defined]  # SQLModel gives its tables no static type
attempts = Attempt.__table__  # type: ignore[attr-defined]

AT_ONCE = 500  # items named in one statement

LOST = "lost"  # the kind of a hold on an item that was done and whose copy was found gone or bad
RECALL = "recall"  # the kind of what waits until a store has brought its file from tape
NO_ROOM = ("no space", "reserve")  # kind and phase of the error of work that had no room to begin in
EVICTED = "evicted"  # the kind of an item that was done and whose copy was evicted to make room
TAKEN_BACK_AT_ONCE = 1000  # items of dead leases that one transaction makes waiting again


@dataclass(frozen=True, slots=True)
class Work:
    """A manifest that has something to do now."""

    manifest_id: int
    kind: str
    source_host: str
    destination_host: str
    priority: int


@dataclass(frozen=True, slots=True)
class Claimed:
    """An item on lease to this worker."""

    id: int
    manifest_id: int
    epoch: int
    source: str
    destination: str | None
    size: int | None
    mtime_ns: int | None
    digest: str | None
    files: int
    ids: str | None
    group_id: int | None
    tries: int


@dataclass(frozen=True, slots=True)
class Finished:
    """What carrying out an item came to: receipts and images when it is proven, else an error and a decision.

    `findings` is what a look into its file found, None where none was taken; `making` how a focal plane was cut.
    """

    item: Claimed
    seconds: float
    receipts: Sequence[Receipt] = ()
    images: Sequence[dict[str, Any]] = ()
    error: TransferError | None = None
    decision: Decision | None = None
    findings: Sequence[Finding] | None = None
    making: Making | None = None
    bundled: bool = False  # its file is a member of a bundle, which brings its copy
    second: Sequence[tuple[str, Receipt]] = ()  # what was proven at another store, by its name


@dataclass(slots=True)
class Written:
    """What `finish` could write: how many items are done, which leases were lost, which triggers were made."""

    done: int = 0
    lost: list[int] = field(default_factory=list)
    triggers: list[str] = field(default_factory=list)


def due(database: Database, *, troubled: bool = False) -> list[tuple[Work, float]]:
    """Every active manifest with waiting items, and the seconds until the first of them is due (0: now), the most
    urgent manifest first; those of paused hosts and of hosts in trouble are left out, but from one that is only
    read-only or full.

    With `troubled`, those of hosts in trouble instead.
    """
    wanted = "EXISTS" if troubled else "NOT EXISTS"
    query = sa.text(f"""
        SELECT m.id, m.kind, m.source_host, m.destination_host, m.priority,
               (SELECT min(i.not_before) FROM items i WHERE i.manifest_id = m.id AND i.state = 'waiting'
                AND NOT i.missing) - {database.now} AS seconds
        FROM manifests m WHERE m.intent = 'active'
          AND NOT EXISTS (SELECT 1 FROM hosts h WHERE h.paused AND h.name IN (m.source_host, m.destination_host))
          AND {wanted} (SELECT 1 FROM hosts h
                        WHERE h.trouble_kind IS NOT NULL AND (h.name = m.destination_host
                            OR h.name = m.source_host AND h.trouble_kind NOT IN {breakers.READABLE}))
        ORDER BY m.priority DESC, m.id""")
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [(Work(*row[:5]), max(0.0, float(row[5]))) for row in rows if row[5] is not None]


def claimable(database: Database) -> list[Work]:
    """The manifests that have items to be done now, the most urgent first."""
    return [work for work, seconds in due(database) if seconds == 0]


@again
def claim(
    database: Database,
    manifest_id: int,
    worker: str,
    *,
    most: int,
    most_bytes: int,
    lease_s: float,
    room: int = UNKNOWN,
) -> list[Claimed]:
    """Lease up to `most` waiting items (at least one, then up to `most_bytes`) of a manifest to a worker; those that
    are bundled are left to who packs bundles (`bundling.choosing`). One that is larger than `room` only where no other
    is due: it may be there already, and need none."""
    with database.write() as connection:
        chosen = _choose(database, connection, manifest_id, most, most_bytes, "AND COALESCE(size, 0) <= :room", room)
        chosen = chosen or _choose(database, connection, manifest_id, most, most_bytes, "AND size > :room", room)
        return lease(database, connection, chosen, worker, lease_s)


def lease(
    database: Database, connection: Connection, chosen: Sequence[int], worker: str, lease_s: float
) -> list[Claimed]:
    """Lease these waiting items to a worker; returns those that it has now, by their ids."""
    rows: list[Claimed] = []
    for lot in lots(chosen):
        statement = (
            sa.update(items)
            .where(items.c.id.in_(lot), items.c.state == ItemState.WAITING)
            .values(
                state=ItemState.RUNNING,
                epoch=items.c.epoch + 1,
                worker=worker,
                claimed_until=sa.text(f"{database.now} + {float(lease_s)}"),
                progressed_at=sa.text(database.now),
            )
            .returning(*(items.c[name] for name in Claimed.__dataclass_fields__))
        )
        rows += [Claimed(*row) for row in connection.execute(statement)]
    return sorted(rows, key=lambda row: row.id)


def _choose(
    database: Database, connection: Connection, manifest_id: int, most: int, most_bytes: int, which: str, room: int
) -> list[int]:
    skip = "" if database.is_sqlite else "FOR UPDATE SKIP LOCKED"
    query = sa.text(f"""
        SELECT id, COALESCE(bytes, size, 0) FROM items
        WHERE manifest_id = :manifest AND state = 'waiting' AND NOT missing AND not_before <= {database.now}
          AND bundle_key IS NULL AND EXISTS (SELECT 1 FROM manifests m WHERE m.id = :manifest AND m.intent = 'active')
          {which}
        ORDER BY not_before, id LIMIT :most {skip}""")
    chosen: list[int] = []
    total = 0
    for item_id, size in connection.execute(query, {"manifest": manifest_id, "most": most, "room": room}):
        total += size
        if chosen and total > most_bytes:
            break
        chosen.append(item_id)
    return chosen


@again
def renew(database: Database, worker: str, lease_s: float, ids: Collection[int] | None = None) -> int:
    """Prolong the leases of a worker (with `ids`, those of these items: what nobody works on must run out), and say
    that it lives; returns how many items it holds."""
    leases = (
        sa.update(items)
        .where(items.c.state == ItemState.RUNNING, items.c.worker == worker)
        .values(claimed_until=sa.text(f"{database.now} + {float(lease_s)}"))
    )
    chosen = [leases] if ids is None else [leases.where(items.c.id.in_(lot)) for lot in lots(list(ids))]
    with database.write() as connection:
        held = sum(connection.execute(one).rowcount for one in chosen)
        connection.execute(
            sa.text(f"UPDATE workers SET seen_at = {database.now} WHERE name = :worker"), {"worker": worker}
        )
    return held


def lots(ids: Sequence[int]) -> list[Sequence[int]]:
    """The ids in lots that one statement names."""
    return [ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE)]


@again
def finish(
    database: Database,
    worker: str,
    finished: Sequence[Finished],
    *,
    stored: Sequence[Stored] = (),
    folders: Sequence[Path] = (),
) -> Written:
    """Write what became of items of ONE manifest: copies, bundles, images, attempts, states, and the triggers of groups
    that became whole by it, in one transaction. `folders` are where cameras of one's own lie."""
    written = Written()
    with database.write() as connection:
        groups = sorted({one.item.group_id for one in finished if one.item.group_id is not None})
        _lock(database, connection, [one.item for one in finished])
        triggers.lock_groups(connection, groups)
        still = _without_room_still(connection, finished)
        proven = _finish_done(database, connection, [one for one in finished if one.error is None])
        failed = [one for one in finished if one.error and _finish_failed(database, connection, one)]
        kept = {one.item.id for one in (*proven, *failed)}
        written.done = len(proven)
        written.lost = [one.item.id for one in finished if one.item.id not in kept]
        _add_attempts(database, connection, worker, [one for one in finished if one.item.id not in still], written.lost)
        source, destination = _hosts(connection, finished[0].item.manifest_id)
        looked = {
            one.item.id: (source, one.item.source, one.findings)
            for one in finished
            if one.item.id in kept and one.findings is not None
        }
        findings.replace(database, connection, finished[0].item.manifest_id, looked)
        makings.add(database, connection, {one.item.id: one.making for one in proven if one.making is not None})
        for bundle in stored:
            copies.add_bundle(database, connection, bundle)
        copies.add(database, connection, destination, list(_receipts(one for one in proven if not one.bundled)))
        for host, receipt in (pair for one in proven for pair in one.second):
            copies.add(database, connection, host, [(receipt, None)])
        registry.add(database, connection, [image for one in proven for image in one.images])
        if proven and _any_lost(connection):
            landed = [receipt.path for receipt, _ in _receipts(proven)]
            found = sa.select(copies.table.c.id).where(
                copies.table.c.host == destination, copies.table.c.path.in_(landed)
            )
            mark_found(connection, list(connection.scalars(found)))
        whole = sorted({one.item.group_id for one in proven if one.item.group_id is not None})
        written.triggers = triggers.write_whole(database, connection, whole, folders)
    return written


def _lock(database: Database, connection: Connection, written: Sequence[Claimed]) -> None:
    """Let those who finish items of one manifest take turns: each writes several rows of `tallies`, and two that
    write them in different orders would wait for each other until the server ends one."""
    if database.is_sqlite or not written:
        return
    for query, ids in (
        ("SELECT id FROM items WHERE id IN :ids ORDER BY id FOR UPDATE", {one.id for one in written}),
        ("SELECT 1 FROM tallies WHERE manifest_id IN :ids AND state = 'running' ORDER BY manifest_id FOR UPDATE",
         {one.manifest_id for one in written}),
    ):  # fmt: skip
        connection.execute(sa.text(query).bindparams(sa.bindparam("ids", sorted(ids), expanding=True)))


def _held_lease(one: Claimed) -> Any:
    return sa.and_(items.c.id == one.id, items.c.state == ItemState.RUNNING, items.c.epoch == one.epoch)


def _finish_done(database: Database, connection: Connection, finished: Sequence[Finished]) -> list[Finished]:
    """Make proven items done; returns those whose lease was still held."""
    statement = sa.text(f"""
        UPDATE items SET state = '{ItemState.DONE}', files = :files, bytes = :bytes, reason = NULL, kind = NULL,
               tries = 0, worker = NULL, claimed_until = NULL, progressed_at = {database.now}, bundle_id = NULL,
               recall_id = NULL
        WHERE id = :id AND epoch = :epoch AND state = '{ItemState.RUNNING}'""")
    held = set(_held_now(connection, [one.item.id for one in finished]))
    kept = [one for one in finished if (one.item.id, one.item.epoch) in held]
    if kept:
        values = [
            {"id": one.item.id, "epoch": one.item.epoch, "bytes": _bytes(one), "files": len(one.receipts)}
            for one in kept
        ]
        connection.execute(statement, values)
    return kept


def _held_now(connection: Connection, ids: list[int]) -> Iterator[tuple[int, int]]:
    """(id, epoch) of those of the items that are on lease; nobody else changes them before this transaction ends."""
    for lot in lots(ids):
        query = sa.select(items.c.id, items.c.epoch).where(items.c.id.in_(lot), items.c.state == ItemState.RUNNING)
        yield from ((row.id, row.epoch) for row in connection.execute(query))


def _bytes(one: Finished) -> int:
    return sum(receipt.size for receipt in one.receipts)


def _finish_failed(database: Database, connection: Connection, one: Finished) -> bool:
    assert one.decision is not None
    assert one.error is not None
    decision = one.decision
    values: dict[str, Any] = {
        "state": decision.state,
        "missing": decision.missing,
        "reason": None if decision.released else one.error.advising(decision.advice or one.error.advice)[:2000],
        "kind": None if decision.released else one.error.kind,
        "tries": one.item.tries + (1 if decision.counts else 0),
        "worker": None,
        "claimed_until": None,
        "not_before": sa.text(f"{database.now} + {float(decision.delay_s)}"),
    }
    if decision.size is not None:
        values |= {"size": decision.size, "mtime_ns": decision.mtime_ns}
    return connection.execute(sa.update(items).where(_held_lease(one.item)).values(**values)).rowcount == 1


def _without_room_still(connection: Connection, finished: Sequence[Finished]) -> set[int]:
    """Those of the items that could not begin for want of room, as before: that is no new attempt, for there would be
    no end of them as long as a disk is full."""
    without = [one.item.id for one in finished if one.error and (one.error.kind, one.error.phase) == NO_ROOM]
    still: set[int] = set()
    for lot in lots(without):
        query = sa.select(items.c.id).where(items.c.id.in_(lot), items.c.kind == NO_ROOM[0])
        still.update(connection.scalars(query))
    return still


def _add_attempts(
    database: Database, connection: Connection, worker: str, finished: Sequence[Finished], lost: Collection[int]
) -> None:
    """Keep every try, but for work that was given back untried."""
    statement = sa.text(f"""
        INSERT INTO attempts (item_id, manifest_id, epoch, worker, ended_at, seconds, outcome, bytes,
                              kind, side, phase, host, path, errno, text)
        VALUES (:item_id, :manifest_id, :epoch, :worker, {database.now}, :seconds, :outcome, :bytes,
                :kind, :side, :phase, :host, :path, :errno, :text)""").bindparams(
        sa.bindparam("path", type_=attempts.c.path.type)
    )
    rows = [
        {
            "item_id": one.item.id,
            "manifest_id": one.item.manifest_id,
            "epoch": one.item.epoch,
            "worker": worker,
            "seconds": one.seconds,
            "outcome": "lost" if one.item.id in lost else "failed" if one.error else "done",
            "bytes": _bytes(one),
            **_facts(one.error),
        }
        for one in finished
        if not (one.decision and one.decision.released)
    ]
    if rows:
        connection.execute(statement, rows)


def _facts(error: TransferError | None) -> dict[str, Any]:
    """What an attempt keeps of its error."""
    names = ("kind", "side", "phase", "host", "path", "errno")
    return {name: getattr(error, name, None) for name in names} | {"text": str(error)[:2000] if error else None}


def _receipts(proven: Iterable[Finished]) -> Iterator[tuple[Receipt, int | None]]:
    """Every receipt, with the item that it is a piece of: a file other than the item's own destination."""
    for one in proven:
        for receipt in one.receipts:
            yield receipt, one.item.id if receipt.path != one.item.destination else None


def _hosts(connection: Connection, manifest_id: int) -> tuple[str, str]:
    """The names of a manifest's source and destination."""
    query = sa.text("SELECT source_host, destination_host FROM manifests WHERE id = :id")
    row = connection.execute(query, {"id": manifest_id}).one()
    return row.source_host, row.destination_host


_OF_COPIES = """
    SELECT c.piece_of FROM copies c WHERE c.id IN :copies AND c.piece_of IS NOT NULL
    UNION
    SELECT i.id FROM copies c JOIN manifests m ON m.destination_host = c.host AND m.intent IN ('active', 'held')
    JOIN items i ON i.manifest_id = m.id AND i.destination = c.path WHERE c.id IN :copies"""


def _any_lost(connection: Connection) -> bool:
    return bool(connection.execute(sa.text("SELECT 1 FROM items WHERE kind = 'lost' LIMIT 1")).first())


def mark_lost(connection: Connection, found_bad: Collection[int]) -> None:
    """Hold the items that are done and whose copies (their ids) were found gone or bad: what is not there is not
    complete. A retry brings it again."""
    if not found_bad:
        return
    reason = "its copy was found missing or corrupt at the destination; move a corrupt one away, then `stager retry`"
    statement = sa.text(f"""
        UPDATE items SET state = 'held', kind = '{LOST}', reason = :reason
        WHERE state = 'done' AND id IN ({_OF_COPIES})""")
    statement = statement.bindparams(sa.bindparam("copies", list(found_bad), expanding=True))
    connection.execute(statement, {"reason": reason})


def mark_found(connection: Connection, found_good: Collection[int]) -> None:
    """Undo `mark_lost` for the items all of whose copies are proven again."""
    if not found_good:
        return
    statement = sa.text(f"""
        UPDATE items SET state = 'done', kind = NULL, reason = NULL
        WHERE state = 'held' AND kind = '{LOST}' AND id IN ({_OF_COPIES})
          AND NOT EXISTS (SELECT 1 FROM copies c WHERE c.piece_of = items.id AND c.trouble IS NOT NULL)""")
    connection.execute(statement.bindparams(sa.bindparam("copies", list(found_good), expanding=True)))


_OF_EVICTED = _OF_COPIES.replace("IN ('active', 'held')", "IN ('active', 'held', 'cancelled')")


def exclude_evicted(connection: Connection, gone: Collection[int], reason: str) -> None:
    """Exclude the items that are done and whose copies (their ids, listed still) are evicted: they are waited for no
    more, and not complete either. A retry brings them again."""
    statement = sa.text(f"""
        UPDATE items SET state = 'excluded', kind = '{EVICTED}', reason = :reason
        WHERE state = 'done' AND id IN ({_OF_EVICTED})""")
    connection.execute(statement.bindparams(sa.bindparam("copies", list(gone), expanding=True)), {"reason": reason})


def bring_back(connection: Connection, there: Collection[int]) -> None:
    """Undo `exclude_evicted` for the items whose copies, all of them, were put back where they were."""
    statement = sa.text(f"""
        UPDATE items SET state = 'done', kind = NULL, reason = NULL
        WHERE state = 'excluded' AND kind = '{EVICTED}' AND id IN ({_OF_EVICTED})
          AND (SELECT count(*) FROM copies c WHERE c.piece_of = items.id) IN (0, files)""")
    connection.execute(statement.bindparams(sa.bindparam("copies", list(there), expanding=True)))


@again
def take_back(database: Database, *, dead: Collection[str] = ()) -> int:
    """Make items whose lease ran out, or whose worker is known to be dead, waiting again; returns how many.

    The try that was lost is kept as an attempt; it does not count against the item.
    """
    lock = "" if database.is_sqlite else "FOR UPDATE SKIP LOCKED"  # what is being written just now is no dead lease
    query = sa.text(f"""
        SELECT id FROM items WHERE state = 'running' AND (claimed_until < {database.now} OR worker IN :dead)
        ORDER BY id LIMIT {TAKEN_BACK_AT_ONCE} {lock}""")
    query = query.bindparams(sa.bindparam("dead", list(dead) or [""], expanding=True))
    taken = 0
    while True:
        with database.write() as connection:
            lost = [row[0] for row in connection.execute(query)]
            if lost:
                _take_back(database, connection, lost)
        taken += len(lost)
        if len(lost) < TAKEN_BACK_AT_ONCE:
            return taken


def _take_back(database: Database, connection: Connection, lost: list[int]) -> None:
    these: Any = sa.bindparam("lost", lost, expanding=True)
    for statement in (
        f"""
        INSERT INTO attempts (item_id, manifest_id, epoch, worker, ended_at, outcome, bytes, kind, side, text)
        SELECT id, manifest_id, epoch, worker, {database.now}, 'lost', 0, 'transient', 'local',
               'the worker that held the lease is gone' FROM items WHERE id IN :lost""",
        f"""
        UPDATE items SET state = 'waiting', worker = NULL, claimed_until = NULL, not_before = {database.now}
        WHERE id IN :lost""",
    ):
        connection.execute(sa.text(statement).bindparams(these))


def postpone(
    database: Database, connection: Connection, waits: Sequence[tuple[Claimed, int, str]], patience_s: float
) -> int:
    """Give items on lease back until the recall that each waits for (its number, and a sentence) came, or until
    `patience_s` are over; returns how many leases were still held. It is no attempt, and uses up no try."""
    statement = sa.text(f"""
        UPDATE items SET state = '{ItemState.WAITING}', kind = '{RECALL}', reason = :reason, recall_id = :recall,
               worker = NULL, claimed_until = NULL, not_before = {database.now} + {float(patience_s)}
        WHERE id = :id AND epoch = :epoch AND state = '{ItemState.RUNNING}'""")
    _lock(database, connection, [item for item, _, _ in waits])
    held = set(_held_now(connection, [item.id for item, _, _ in waits]))
    values = [
        {"id": item.id, "epoch": item.epoch, "recall": recall, "reason": reason[:2000]}
        for item, recall, reason in waits
        if (item.id, item.epoch) in held
    ]
    if values:
        connection.execute(statement, values)
    return len(values)


def wake(database: Database, connection: Connection, recalls: Collection[int], *, forget: bool = False) -> None:
    """Make the items that wait for these recalls due now; with `forget`, no item is of these recalls any more."""
    waits = f"state = '{ItemState.WAITING}' AND kind = '{RECALL}'"
    recall = "recall_id = NULL," if forget else ""
    statement = sa.text(f"""
        UPDATE items SET {recall} not_before = CASE WHEN {waits} THEN {database.now} ELSE not_before END,
               reason = CASE WHEN {waits} THEN NULL ELSE reason END, kind = CASE WHEN {waits} THEN NULL ELSE kind END
        WHERE recall_id IN :recalls {"" if forget else f"AND {waits}"}""")
    connection.execute(statement.bindparams(sa.bindparam("recalls", list(recalls), expanding=True)))


def document(database: Database, manifest_id: int) -> str:
    """The canonical document of a manifest's revision."""
    with database.read() as connection:
        query = sa.text("SELECT document FROM manifests WHERE id = :id")
        return str(connection.execute(query, {"id": manifest_id}).scalar_one())


def alive(database: Database, pairs: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
    """Which of these (item, epoch) are leases still held: their part files are not for sweeping."""
    with database.read() as connection:
        query = sa.select(items.c.id, items.c.epoch).where(
            items.c.state == ItemState.RUNNING, items.c.id.in_({item for item, _ in pairs})
        )
        held = {(row[0], row[1]) for row in connection.execute(query)}
    return held & set(pairs)
