"""An operator's intent: retry, hold, release, cancel a manifest or some of its items; pause and resume a host."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from stager import items, triggers
from stager.database import Database, again
from stager.models import Intent, decode_path

OPERATOR = "operator"  # the kind of a hold that a person asked for
AT_ONCE = 500
EVICTED = f"(state = 'excluded' AND kind = '{items.EVICTED}')"  # what made room, and may come again


class UnknownName(Exception):
    """There is no manifest or host of that name; the sentence says how to find one."""


def _newest(connection: Connection, name: str) -> tuple[int, str]:
    query = sa.text("""
        SELECT id, intent FROM manifests WHERE name = :name AND intent <> 'planning' ORDER BY revision DESC LIMIT 1""")
    row = connection.execute(query, {"name": name}).first()
    if row is None:
        raise UnknownName(f"there is no manifest {name}; `stager status` lists them")
    return row[0], row[1]


@again
def retry(database: Database, name: str, glob: str | None = None) -> int:
    """Make due now, with all their tries, held items (those whose copy was found gone or bad too), items whose copy was
    evicted, and items that wait for their next try; returns how many."""
    with database.write() as connection:
        manifest, _ = _newest(connection, name)
        chosen = f"(state IN ('held', 'waiting') OR {EVICTED}) AND NOT missing AND destination IS NOT NULL"
        return _look_again(connection, manifest) + _change(
            database, connection, manifest, chosen, glob, "waiting", None
        )


def _look_again(connection: Connection, manifest: int) -> int:
    """Have focal planes whose headers could not be used looked at once more, as those that were missing are."""
    statement = sa.text("""
        UPDATE items SET state = 'waiting', missing = :yes, kind = NULL
        WHERE manifest_id = :id AND state = 'held' AND destination IS NULL""")
    return int(connection.execute(statement, {"yes": True, "id": manifest}).rowcount)


@again
def hold(database: Database, name: str, glob: str | None = None) -> int:
    """Stop a manifest for now, or those of its waiting items that the glob names; returns how many items."""
    with database.write() as connection:
        manifest, _ = _newest(connection, name)
        if glob is None:
            _intend(connection, manifest, Intent.HELD)
            return _count(connection, manifest, "state = 'waiting'")
        # What is missing is left as it is: it would not be looked for again, nor could it be released.
        return _change(database, connection, manifest, "state = 'waiting' AND NOT missing", glob, "held", OPERATOR)


@again
def release(database: Database, name: str, glob: str | None = None, *, folders: Sequence[Path] = ()) -> int:
    """Let a held manifest go on, and what an operator or an error held in it be tried again; returns how many items."""
    with database.write() as connection:
        manifest, intent = _newest(connection, name)
        if intent in (Intent.HELD, Intent.CANCELLED) and glob is None:
            _intend(connection, manifest, Intent.ACTIVE)
            triggers.write_whole_of(database, connection, manifest, folders)  # what became whole while it was cancelled
        return _change(
            database,
            connection,
            manifest,
            "state = 'held' AND destination IS NOT NULL",
            glob,
            "waiting",
            None,
        )


@again
def cancel(database: Database, name: str, glob: str | None = None, *, folders: Sequence[Path] = ()) -> int:
    """Give a manifest up, or exclude some of its items, which may make a group whole; what is proven stays.
    Returns how many items. `folders` are where cameras of one's own lie."""
    with database.write() as connection:
        manifest, _ = _newest(connection, name)
        if glob is None:
            _intend(connection, manifest, Intent.CANCELLED)
            return _count(connection, manifest, "state NOT IN ('done', 'excluded')")
        changed = _change(database, connection, manifest, "state IN ('waiting', 'held')", glob, "excluded", OPERATOR)
        triggers.write_whole_of(database, connection, manifest, folders)
        return changed


def _intend(connection: Connection, manifest: int, intent: Intent) -> None:
    connection.execute(
        sa.text("UPDATE manifests SET intent = :intent WHERE id = :id"), {"intent": intent, "id": manifest}
    )


def _count(connection: Connection, manifest: int, chosen: str) -> int:
    query = sa.text(f"SELECT count(*) FROM items WHERE manifest_id = :id AND {chosen}")
    return int(connection.execute(query, {"id": manifest}).scalar_one())


def _change(
    database: Database,
    connection: Connection,
    manifest: int,
    chosen: str,
    glob: str | None,
    state: str,
    kind: str | None,
) -> int:
    reason = None if kind is None else f"{'held' if state == 'held' else 'excluded'} by an operator"
    statement = f"""
        UPDATE items SET state = :state, missing = :no, reason = :reason, kind = :kind, tries = 0,
               not_before = {database.now}
        WHERE manifest_id = :id AND {chosen}"""
    values: dict[str, Any] = {"state": state, "no": False, "reason": reason, "kind": kind, "id": manifest}
    if glob is None:
        return int(connection.execute(sa.text(statement), values).rowcount)
    changed = 0
    for ids in _named(connection, manifest, chosen, glob):
        named = sa.text(f"{statement} AND id IN :ids").bindparams(sa.bindparam("ids", ids, expanding=True))
        changed += int(connection.execute(named, values).rowcount)
    return changed


def _named(connection: Connection, manifest: int, chosen: str, glob: str) -> Iterator[list[int]]:
    """Ids of the chosen items whose source or destination the glob names, in lots."""
    query = sa.text(f"SELECT id, source, destination FROM items WHERE manifest_id = :id AND {chosen}")
    ids = [
        row[0]
        for row in connection.execute(query, {"id": manifest})
        if any(path and _names(glob, decode_path(path)) for path in (row[1], row[2]))
    ]
    for start in range(0, len(ids), AT_ONCE):
        yield ids[start : start + AT_ONCE]


def _names(glob: str, path: str) -> bool:
    """Whether a shell glob names the path, or the end of it after a slash."""
    return fnmatch.fnmatchcase(path, glob) or fnmatch.fnmatchcase(path, f"*/{glob}")


@again
def pause(database: Database, host: str, reason: str | None) -> None:
    """Begin nothing more from or to a host, until it is resumed."""
    _set_paused(database, host, True, reason)


@again
def resume(database: Database, host: str) -> None:
    """Let a paused host work again, and one in trouble be tried at once."""
    _set_paused(database, host, False, None)
    with database.write() as connection:
        connection.execute(
            sa.text("""
            UPDATE hosts SET looks = 0, trouble_kind = NULL, trouble = NULL, trouble_since = NULL, next_look = NULL
            WHERE name = :name"""),
            {"name": host},
        )


def _set_paused(database: Database, host: str, paused: bool, reason: str | None) -> None:
    statement = sa.text(f"""
        INSERT INTO hosts (name, paused, reason, changed_at) VALUES (:name, :paused, :reason, {database.now})
        ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, reason = excluded.reason,
            changed_at = excluded.changed_at""")
    with database.write() as connection:
        connection.execute(statement, {"name": host, "paused": paused, "reason": reason})
