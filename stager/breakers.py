"""Breakers: a host that cannot be used is left alone until a look at it succeeds.

`Breaker` is the state machine, pure. It is kept in the table `hosts`, so that status, other workers and the next start
know it. While it is open nothing is begun from or to that host: its items wait, and use up no try. From one that is
only read-only or full files are still brought.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from stager.database import Database, again
from stager.models import BROKEN_PHASES
from transfers.errors import NoSpace, ReadOnly, TransferError, shown

FIRST_LOOK_S = 5.0  # after which a host that is down is looked at; twice as long each time...
LONGEST_S = 300.0  # ...up to this
PERSON_S = 60.0  # where a person must act: often enough to see that it was done
CONGESTED_S = 5.0
JITTER = 0.2  # of every wait, so that not all workers look at the same time
LOOK_S = 120.0  # a look that takes longer was lost with its worker
PERSON = ("refused", "unsupported", "conflict")
READABLE = (ReadOnly.kind, NoSpace.kind)  # troubles of hosts that files can still be brought from
ADVICE = "once it is mended, work for the host goes on by itself"


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is known of one host. Closed (`kind` is None): it is worked with. Open: it is not, until a look at it, which
    is due at `next_look`, goes well. Times are Unix seconds.

    `looks` outlasts a look that went well, until work did: a host that answers and fails at once waits ever longer.
    """

    looks: int = 0
    kind: str | None = None
    text: str | None = None
    since: float | None = None
    next_look: float | None = None

    @property
    def is_open(self) -> bool:
        return self.kind is not None

    @property
    def is_readable(self) -> bool:
        """Whether files can be brought from it all the same."""
        return self.kind is None or self.kind in READABLE

    def tripped(self, kind: str, text: str, now: float, chance: float, longest_s: float = LONGEST_S) -> Breaker:
        """Work found the host unusable. One that is open already stays as it is: all its routes fail at once. But from
        one that was only read-only or full files were still brought."""
        if self.is_open and not (self.is_readable and kind not in READABLE):
            return self
        return self.failed(kind, text, now, chance, longest_s)

    def failed(self, kind: str, text: str, now: float, chance: float, longest_s: float = LONGEST_S) -> Breaker:
        """A look at the host failed; `chance` (0 to 1) spreads the looks of many."""
        looks = self.looks + 1
        wait = min(longest_s, wait_s(kind, looks) * (1 + JITTER * (2 * chance - 1)))
        return Breaker(looks, kind, text, now if self.since is None else self.since, now + wait)

    def passed(self) -> Breaker:
        """A look went well."""
        return replace(self, kind=None, text=None, since=None, next_look=None)


def wait_s(kind: str, looks: int) -> float:
    """How long after the so-manyth failed look the next one is due."""
    if kind == "congested":
        return CONGESTED_S
    if kind in PERSON:
        return PERSON_S
    return float(min(LONGEST_S, FIRST_LOOK_S * 2.0 ** min(looks - 1, 30)))


def is_of_host(error: TransferError) -> bool:
    """Whether a whole host failed and not a file of it: it is down, takes no changes, is full, or will not let us in.

    That it wants fewer connections at once is the route's to heed.
    """
    if error.kind in ("host down", ReadOnly.kind) or is_full(error):
        return True
    return error.phase == "connect" and error.kind in PERSON


def is_full(error: TransferError) -> bool:
    """Whether a host could not take what it was to have room for: whatever it said is free, it is full. It is not where
    no room was promised (what is smaller may have it), where scratch is short, here or at the source, or where another
    disk is mounted below its root and that is full."""
    if error.kind != NoSpace.kind or error.phase == "reserve" or error.facts.get("mounted"):
        return False
    return error.side in ("destination", "store")


def is_of_connection(error: TransferError) -> bool:
    """Whether a connection broke off, with all that was on it."""
    return error.kind == "transient" and bool(error.phase) and f"'{error.phase}'" in BROKEN_PHASES


# ------------------------------------------------------------------------------------ in the database


@dataclass(frozen=True, slots=True)
class Known:
    """A host as the scheduler sees it: whether it is paused, its breaker, and the seconds until the next look."""

    paused: bool
    breaker: Breaker
    due_in_s: float

    @property
    def usable(self) -> bool:
        return not self.paused and not self.breaker.is_open

    @property
    def readable(self) -> bool:
        return not self.paused and self.breaker.is_readable


_COLUMNS = "looks, trouble_kind, trouble, trouble_since, next_look"


def known(database: Database) -> dict[str, Known]:
    """All hosts that the database knows of."""
    with database.read() as connection:
        query = sa.text(f"SELECT name, paused, {database.now}, {_COLUMNS} FROM hosts")
        rows = connection.execute(query).all()
    return {row[0]: Known(bool(row[1]), Breaker(*row[3:]), max(0.0, (row[7] or 0.0) - float(row[2]))) for row in rows}


def unusable(database: Database) -> set[str]:
    """The hosts that are paused or in trouble: nothing is begun there."""
    return {name for name, host in known(database).items() if not host.usable}


def unreadable(database: Database) -> set[str]:
    """Those of them that nothing is brought from either."""
    return {name for name, host in known(database).items() if not host.readable}


@again
def trip(database: Database, host: str, error: TransferError, *, longest_s: float = LONGEST_S) -> Breaker | None:
    """Work found a host unusable: open its breaker; returns it, None when it was open already."""
    with database.write() as connection:
        before, now = _read(database, connection, host)
        after = before.tripped(error.kind, _told(error), now, _chance(), longest_s)
        if after is before:
            return None
        _write(connection, host, after)
        return after


@again
def look_failed(database: Database, host: str, error: TransferError, *, longest_s: float = LONGEST_S) -> Breaker:
    """A look at a host failed: the next one is later."""
    with database.write() as connection:
        before, now = _read(database, connection, host)
        after = before.failed(error.kind, _told(error), now, _chance(), longest_s)
        _write(connection, host, after)
        return after


@again
def look_passed(database: Database, host: str) -> float | None:
    """A look went well: close the breaker; returns the seconds for which it was open, None when it was not."""
    with database.write() as connection:
        before, now = _read(database, connection, host)
        if not before.is_open:
            return None
        _write(connection, host, before.passed())
        return now - (before.since or now)


@again
def begin_look(database: Database, host: str) -> bool:
    """Whether the look that is due is this worker's to take; no other takes it meanwhile."""
    statement = sa.text(f"""
        UPDATE hosts SET next_look = {database.now} + {LOOK_S}
        WHERE name = :host AND trouble_kind IS NOT NULL AND next_look <= {database.now}""")
    with database.write() as connection:
        return connection.execute(statement, {"host": host}).rowcount == 1


@again
def worked(database: Database, hosts: Collection[str]) -> None:
    """Work at these hosts went well: the failures before it no longer count."""
    with database.write() as connection:
        statement = sa.text("UPDATE hosts SET looks = 0 WHERE name IN :hosts AND trouble_kind IS NULL")
        connection.execute(statement.bindparams(sa.bindparam("hosts", list(hosts), expanding=True)))


@again
def look_soon(database: Database) -> None:
    """Have every host in trouble looked at now: the daemon started, or its configuration changed."""
    with database.write() as connection:
        connection.execute(sa.text(f"UPDATE hosts SET next_look = {database.now} WHERE trouble_kind IS NOT NULL"))


def _read(database: Database, connection: Connection, host: str) -> tuple[Breaker, float]:
    """A host's breaker, locked until the end of the transaction, and the time."""
    lock = "" if database.is_sqlite else "FOR UPDATE"
    row = connection.execute(sa.text(f"SELECT {_COLUMNS} FROM hosts WHERE name = :host {lock}"), {"host": host}).first()
    now = float(connection.exec_driver_sql(f"SELECT {database.now}").scalar_one())
    return (Breaker(*row) if row else Breaker()), now


def _write(connection: Connection, host: str, breaker: Breaker) -> None:
    statement = sa.text("""
        INSERT INTO hosts (name, paused, looks, trouble_kind, trouble, trouble_since, next_look)
        VALUES (:host, :no, :looks, :kind, :text, :since, :next_look)
        ON CONFLICT (name) DO UPDATE SET looks = excluded.looks, trouble_kind = excluded.trouble_kind,
            trouble = excluded.trouble, trouble_since = excluded.trouble_since, next_look = excluded.next_look""")
    values = {name: getattr(breaker, name) for name in ("looks", "kind", "text", "since", "next_look")}
    connection.execute(statement, {"host": host, "no": False, **values})


def _chance() -> float:
    return random.random()  # noqa: S311  it spreads looks, and keeps no secret


def _told(error: TransferError) -> str:
    """The error as a sentence about its host, whichever file it came with."""
    advice = ADVICE if error.kind in PERSON else error.advice
    where = f" ({error.phase})" if error.phase else ""
    return shown(f"{error.host}: {error.text}{where} - {error.kind}; {advice}")[:2000]
