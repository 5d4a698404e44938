"""Have files brought again: those that were held or evicted, and those whose copy is gone or bad by now."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from stager import items
from stager.database import Database, again
from stager.intents import OPERATOR
from stager.items import EVICTED, LOST, RECALL
from stager.opening import Hosts
from stager.scrubbing import Checked
from transfers.agent import QUARANTINE
from transfers.errors import Conflict, TransferError
from transfers.hosts import only

MOST_TURNS = 100  # names that are tried for a file in quarantine


@again
def wake(database: Database, manifests: Collection[int]) -> int:
    """Make due now, with all their tries, what these manifests hold for an error, what waits for its next try, what was
    evicted, and what is called done without a copy that is known; returns how many items.

    What an operator held stays so, and so does what waits for a recall. Items whose copy was found gone or bad are
    left to `wake_lost`, once a bad one was set aside.
    """
    statement = sa.text(f"""
        UPDATE items SET state = 'waiting', reason = NULL, kind = NULL, tries = 0, not_before = {database.now}
        WHERE manifest_id IN :manifests AND destination IS NOT NULL AND NOT missing AND (
            (state = 'held' AND COALESCE(kind, '') NOT IN ('{OPERATOR}', '{LOST}'))
            OR (state = 'waiting' AND not_before > {database.now} AND COALESCE(kind, '') <> '{RECALL}')
            OR (state = 'excluded' AND kind = '{EVICTED}')
            OR (state = 'done' AND NOT EXISTS (
                SELECT 1 FROM copies c JOIN manifests m ON m.destination_host = c.host
                WHERE m.id = items.manifest_id AND c.path = items.destination)))""")
    with database.write() as connection:
        these: Any = sa.bindparam("manifests", list(manifests), expanding=True)
        return int(connection.execute(statement.bindparams(these)).rowcount)


@again
def wake_lost(database: Database, manifests: Collection[int], copies: Collection[int]) -> int:
    """Have brought again what these manifests hold because its copies (their ids) were found gone or bad; returns how
    many items."""
    statement = sa.text(f"""
        UPDATE items SET state = 'waiting', reason = NULL, kind = NULL, tries = 0, not_before = {database.now}
        WHERE manifest_id IN :manifests AND state = 'held' AND kind = '{LOST}' AND destination IN (
            SELECT c.path FROM copies c JOIN manifests m ON m.destination_host = c.host
            WHERE m.id = items.manifest_id AND c.id IN :copies)""")
    woken = 0
    for lot in items.lots(sorted(copies)):
        with database.write() as connection:
            these: list[Any] = [sa.bindparam("manifests", list(manifests), expanding=True)]
            these.append(sa.bindparam("copies", lot, expanding=True))
            woken += int(connection.execute(statement.bindparams(*these)).rowcount)
    return woken


@again
def wake_items(database: Database, numbers: Collection[int]) -> int:
    """Have done items brought once more: what is in place is read and taken, and its header registered; returns how
    many."""
    statement = sa.text(f"""
        UPDATE items SET state = 'waiting', reason = NULL, kind = NULL, tries = 0, not_before = {database.now}
        WHERE state = 'done' AND id IN :numbers""")
    woken = 0
    for lot in items.lots(sorted(numbers)):
        with database.write() as connection:
            these: Any = sa.bindparam("numbers", lot, expanding=True)
            woken += int(connection.execute(statement.bindparams(these)).rowcount)
    return woken


def set_aside(hosts: Hosts, bad: Checked) -> str:
    """Move a copy that is not as it was proven into its host's quarantine, out of the way of a good one; returns where
    it lies now. Raises TransferError where that cannot be done: it lies where it was then."""
    copy = bad.copy
    for turn in range(MOST_TURNS):
        folder = f"{QUARANTINE}/corrupt-{copy.id}{f'-{turn}' if turn else ''}"
        moved = only(hosts[copy.host].move([(copy.path, f"{folder}/{copy.path}")]))
        if not isinstance(moved, TransferError):
            return f"{copy.host}:{moved}"
        if moved.kind != Conflict.kind:
            raise moved
    raise Conflict(f"the quarantine holds {MOST_TURNS} files of this name", host=copy.host, path=copy.path)
