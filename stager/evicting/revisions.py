"""What becomes of evicted items when their manifest gets a new revision."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from stager import items

# As for what is carried over as done: the same file, of the same source.
_SAME = """o.destination = items.destination AND o.source = items.source AND o.files = items.files
       AND o.size = items.size AND o.mtime_ns = items.mtime_ns
       AND COALESCE(o.digest, '') = COALESCE(items.digest, '')"""
_EVICTED = f"o.manifest_id = :old AND o.state = 'excluded' AND o.kind = '{items.EVICTED}'"


def carry_evicted(connection: Connection, new: int, old: int) -> int:
    """Leave out of a planned revision what was evicted of the one before and is the same still, with its reason: that
    more files came to a dataset brings none of them back. Returns how many items."""
    statement = sa.text(f"""
        UPDATE items SET state = 'excluded', kind = '{items.EVICTED}',
               reason = (SELECT o.reason FROM items o WHERE {_EVICTED} AND {_SAME}),
               bytes = (SELECT o.bytes FROM items o WHERE {_EVICTED} AND {_SAME}),
               carried_from = (SELECT o.id FROM items o WHERE {_EVICTED} AND {_SAME})
        WHERE manifest_id = :new AND state = 'waiting' AND NOT missing
          AND EXISTS (SELECT 1 FROM items o WHERE {_EVICTED} AND {_SAME})""")
    return int(connection.execute(statement, {"new": new, "old": old}).rowcount)
