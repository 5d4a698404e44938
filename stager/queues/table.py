"""The built-in queue: triggers wait in the database itself, and are leased to whoever claims them.

At least once: a claim that is not acknowledged before its lease ends goes to the next that asks. The id of a
trigger stays the same, so whoever does the work can tell that it has been done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from stager import triggers
from stager.database import Database, again
from stager.models import TriggerState
from stager.queues.errors import QueueError


@dataclass(frozen=True, slots=True)
class Waiting:
    """A trigger as `stager queue list` shows it."""

    id: str
    dataset: str
    revision: int
    group: str
    state: str
    claims: int
    claimed_by: str | None
    created_at: float
    note: str | None


@again
def claim(database: Database, queue: str, claimer: str, lease_s: float) -> dict[str, Any] | None:
    """The oldest trigger that is ready, or whose lease ran out, now leased to `claimer`; None when there is none."""
    skip = "" if database.is_sqlite else "FOR UPDATE SKIP LOCKED"
    with database.write() as connection:
        query = sa.text(f"""
            SELECT id FROM triggers WHERE queue = :queue
              AND (state = 'ready' OR (state = 'claimed' AND claimed_until < {database.now}))
            ORDER BY created_at, id LIMIT 1 {skip}""")
        found = connection.execute(query, {"queue": queue}).scalar()
        if found is None:
            return None
        connection.execute(
            sa.text(f"""
            UPDATE triggers SET state = 'claimed', claimed_by = :by, claims = claims + 1,
                   claimed_until = {database.now} + :lease WHERE id = :id"""),
            {"by": claimer, "lease": lease_s, "id": found},
        )
        row = connection.execute(
            sa.text("SELECT t.*, h.root FROM triggers t LEFT JOIN hosts h ON h.name = t.host WHERE t.id = :id"),
            {"id": found},
        ).one()
        return triggers.event(row)


def ack(database: Database, queue: str, trigger_id: str) -> None:
    """The pipeline took the trigger over. Said twice, it changes nothing."""
    _end(database, queue, trigger_id, TriggerState.ACKED, None)


def fail(database: Database, queue: str, trigger_id: str, note: str | None = None) -> None:
    """The pipeline gives the trigger back as failed; it stays so until it is replayed."""
    _end(database, queue, trigger_id, TriggerState.FAILED, note)


@again
def _end(database: Database, queue: str, trigger_id: str, state: TriggerState, note: str | None) -> None:
    with database.write() as connection:
        found = _state(connection, queue, trigger_id)
        if found == state:
            return
        if found != TriggerState.CLAIMED:
            raise QueueError(f"trigger {trigger_id} is {found}, not claimed: claim it first")
        connection.execute(
            sa.text(f"UPDATE triggers SET state = :state, note = :note, ended_at = {database.now} WHERE id = :id"),
            {"state": state, "note": note, "id": trigger_id},
        )


@again
def replay(database: Database, queue: str, trigger_id: str) -> None:
    """Make a trigger ready once more, with the id it always had."""
    with database.write() as connection:
        found = _state(connection, queue, trigger_id)
        if found == TriggerState.PENDING:
            raise QueueError(f"trigger {trigger_id} is pending: its inventory is not yet at the destination")
        connection.execute(
            sa.text("""UPDATE triggers SET state = 'ready', claimed_by = NULL, claimed_until = NULL, ended_at = NULL
                       WHERE id = :id"""),
            {"id": trigger_id},
        )


def _state(connection: Any, queue: str, trigger_id: str) -> str:
    query = sa.text("SELECT state FROM triggers WHERE id = :id AND queue = :queue")
    found = connection.execute(query, {"id": trigger_id, "queue": queue}).scalar()
    if found is None:
        raise QueueError(f"queue {queue} has no trigger {trigger_id}; `stager queue list {queue}` shows them")
    return str(found)


def see(database: Database, queue: str, trigger_id: str) -> None:
    """Raises QueueError where the queue has no such trigger."""
    with database.read() as connection:
        _state(connection, queue, trigger_id)


def newest(database: Database, queue: str) -> list[str]:
    """The id of the newest trigger of each group, the oldest first."""
    query = sa.text("""
        SELECT id FROM triggers t WHERE queue = :queue AND NOT EXISTS (
            SELECT 1 FROM triggers n WHERE n.dataset = t.dataset AND n.group_label = t.group_label
              AND n.queue = t.queue AND n.revision > t.revision)
        ORDER BY created_at, id""")
    with database.read() as connection:
        return [row[0] for row in connection.execute(query, {"queue": queue})]


def waiting(database: Database, queue: str) -> list[Waiting]:
    """All triggers of a queue, the oldest first."""
    query = sa.text("""
        SELECT id, dataset, revision, group_label, state, claims, claimed_by, created_at, note
        FROM triggers WHERE queue = :queue ORDER BY created_at, id""")
    with database.read() as connection:
        return [Waiting(*row) for row in connection.execute(query, {"queue": queue})]
