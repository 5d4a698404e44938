"""The database's own triggers that keep `tallies` equal to a count of `items`, in the same transaction.

SQLite has triggers for each row only; PostgreSQL keeps up with one statement for all rows changed, in a
fixed order, so that two workers never wait for each other crosswise.
"""

from __future__ import annotations

_ROW = "CASE WHEN {r}.missing THEN 'missing' ELSE {r}.state END"


def _sqlite_add(row: str, sign: str) -> str:
    return f"""
        INSERT INTO tallies (manifest_id, state, items, files, bytes, unknown)
        VALUES ({row}.manifest_id, {_ROW.format(r=row)}, {sign}1, {sign}{row}.files,
                {sign}COALESCE({row}.bytes, 0), {sign}({row}.bytes IS NULL))
        ON CONFLICT (manifest_id, state) DO UPDATE SET
            items = items + excluded.items, files = files + excluded.files,
            bytes = bytes + excluded.bytes, unknown = unknown + excluded.unknown;"""


SQLITE = (
    f"CREATE TRIGGER items_inserted AFTER INSERT ON items BEGIN {_sqlite_add('NEW', '')} END",
    f"CREATE TRIGGER items_deleted AFTER DELETE ON items BEGIN {_sqlite_add('OLD', '-')} END",
    f"""CREATE TRIGGER items_updated AFTER UPDATE OF state, missing, files, bytes ON items
        WHEN OLD.state IS NOT NEW.state OR OLD.missing IS NOT NEW.missing
          OR OLD.files IS NOT NEW.files OR OLD.bytes IS NOT NEW.bytes
        BEGIN {_sqlite_add("OLD", "-")} {_sqlite_add("NEW", "")} END""",
)


def _postgresql(name: str, event: str, referencing: str, rows: str) -> tuple[str, str]:
    function = f"""
        CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO tallies (manifest_id, state, items, files, bytes, unknown)
            SELECT manifest_id, CASE WHEN missing THEN 'missing' ELSE state END AS tallied,
                   sum(sign), sum(sign * files), sum(sign * COALESCE(bytes, 0)),
                   sum(CASE WHEN bytes IS NULL THEN sign ELSE 0 END)
            FROM ({rows}) AS changed
            GROUP BY manifest_id, tallied
            ORDER BY manifest_id, tallied
            ON CONFLICT (manifest_id, state) DO UPDATE SET
                items = tallies.items + excluded.items, files = tallies.files + excluded.files,
                bytes = tallies.bytes + excluded.bytes, unknown = tallies.unknown + excluded.unknown;
            RETURN NULL;
        END $$"""
    trigger = f"""
        CREATE TRIGGER {name} AFTER {event} ON items REFERENCING {referencing}
        FOR EACH STATEMENT EXECUTE FUNCTION {name}()"""
    return function, trigger


_COLUMNS = "manifest_id, state, missing, files, bytes"
POSTGRESQL = (
    *_postgresql("items_inserted", "INSERT", "NEW TABLE AS added", f"SELECT {_COLUMNS}, 1 AS sign FROM added"),
    *_postgresql("items_deleted", "DELETE", "OLD TABLE AS gone", f"SELECT {_COLUMNS}, -1 AS sign FROM gone"),
    *_postgresql(
        "items_updated",
        "UPDATE",
        "OLD TABLE AS gone NEW TABLE AS added",
        f"SELECT {_COLUMNS}, -1 AS sign FROM gone UNION ALL SELECT {_COLUMNS}, 1 FROM added",
    ),
)
