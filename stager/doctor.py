"""The invariants, each checked against the database and the hosts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from stager import items, scrubbing
from stager.counts import counted
from stager.database import Database
from stager.evicting import checks as evictions
from stager.models import decode_path
from stager.opening import Hosts, remembered
from stager.rebuilding.check import check
from transfers.errors import TransferError
from transfers.hosts import FileInfo

MOST_NAMED = 5  # of what breaks an invariant, named in its detail


@dataclass(frozen=True, slots=True)
class Examined:
    """One invariant: whether it holds, and what was looked at or found."""

    invariant: str
    sound: bool
    detail: str


def examine(database: Database, hosts: Hosts, *, deep: bool = False) -> Iterator[Examined]:
    """Check every invariant; with `deep`, read every copy again."""
    yield _integrity(database)
    yield _counted(database)
    for invariant, query in _QUERIES.items():
        yield _none_of(database, invariant, query)
    yield from _copies(database, hosts, deep)
    yield from _bundles(database, hosts, deep)
    yield from (Examined(*found) for found in evictions.examine(database, hosts))
    yield _parts(database, hosts)


def _integrity(database: Database) -> Examined:
    if not database.is_sqlite:
        return Examined("the database is sound", True, "PostgreSQL checks its own pages")
    with database.read() as connection:
        said = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
    return Examined("the database is sound", said == ["ok"], "; ".join(map(str, said))[:300])


def _counted(database: Database) -> Examined:
    """That the counts which status draws are what a recount gives."""
    recounting = """SELECT manifest_id, CASE WHEN missing THEN 'missing' ELSE state END AS state, count(*), sum(files),
        sum(COALESCE(bytes, 0)), sum(CASE WHEN bytes IS NULL THEN 1 ELSE 0 END) FROM items GROUP BY 1, 2"""
    with database.read() as connection:
        recount = {tuple(row[:2]): tuple(map(int, row[2:])) for row in connection.execute(sa.text(recounting))}
        query = sa.text("SELECT manifest_id, state, items, files, bytes, unknown FROM tallies WHERE items <> 0")
        kept = {tuple(row[:2]): tuple(map(int, row[2:])) for row in connection.execute(query)}
    wrong = [str(key) for key in {*recount, *kept} if recount.get(key) != kept.get(key)]
    return Examined(
        "counts equal a recount",
        not wrong,
        counted(len(kept), "count") + (f", wrong: {wrong[:MOST_NAMED]}" if wrong else ""),
    )


_QUERIES = {
    "every item that is done has its copy": """
        SELECT m.name, i.source FROM items i JOIN manifests m ON m.id = i.manifest_id
        WHERE i.state = 'done' AND m.intent <> 'superseded' AND NOT EXISTS (
            SELECT 1 FROM copies c
            WHERE c.piece_of = i.id OR (c.host = m.destination_host AND c.path = i.destination))""",
    "only running items have a lease": """
        SELECT worker, source FROM items
        WHERE (state = 'running') <> (worker IS NOT NULL AND claimed_until IS NOT NULL)""",
    "every trigger's group is whole": """
        SELECT t.dataset, t.group_label FROM triggers t JOIN manifests m ON m.id = t.manifest_id
        WHERE m.intent <> 'superseded' AND EXISTS (
            SELECT 1 FROM items i WHERE i.group_id = t.group_id AND i.state NOT IN ('done', 'excluded')
              AND NOT EXISTS (  -- what was whole then and was lost since
                SELECT 1 FROM copies c WHERE c.trouble IS NOT NULL
                AND (c.piece_of = i.id OR (c.host = m.destination_host AND c.path = i.destination))))""",
    "every whole group has its trigger": """
        SELECT m.name, g.label FROM groups g JOIN manifests m ON m.id = g.manifest_id
        WHERE m.intent = 'active' AND EXISTS (SELECT 1 FROM items i WHERE i.group_id = g.id AND i.state = 'done')
          AND NOT EXISTS (SELECT 1 FROM items i WHERE i.group_id = g.id AND i.state NOT IN ('done', 'excluded'))
          AND NOT EXISTS (SELECT 1 FROM triggers t WHERE t.group_id = g.id OR (
              t.dataset = m.dataset AND t.revision = m.revision AND t.group_label = g.label))""",
}


def _none_of(database: Database, invariant: str, query: str) -> Examined:
    """An invariant that holds while a query gives no row of two columns."""
    with database.read() as connection:
        rows = connection.execute(sa.text(query)).all()
    named = ", ".join(f"{row[0]}: {row[1]}" for row in rows[:MOST_NAMED])
    return Examined(invariant, not rows, f"{len(rows)} break it: {named}" if rows else "")


def _copies(database: Database, hosts: Hosts, deep: bool) -> Iterator[Examined]:
    """That every copy is at its place, with its size; with `deep`, with its digest."""
    query = sa.text("SELECT id, host, path, size, digest FROM copies ORDER BY host, path")
    with database.read() as connection:
        known = [
            scrubbing.Known(row[0], row[1], decode_path(row[2]), row[3], row[4]) for row in connection.execute(query)
        ]
    for host in dict.fromkeys(copy.host for copy in known):
        mine = [copy for copy in known if copy.host == host]
        if deep:
            bad = [one.copy.path for one in scrubbing.check(database, hosts, mine) if one.trouble]
            invariant = f"every copy at {host} is as it was proven"
        else:
            bad = _not_there(hosts, host, mine)
            invariant = f"every copy at {host} is there, with its size"
        are = "is" if len(bad) == 1 else "are"
        wrong = f", {len(bad)} {are} not: {', '.join(bad[:MOST_NAMED])}" if bad else ""
        detail = f"{counted(len(mine), 'copy', 'copies')}{wrong}"
        yield Examined(invariant, not bad, detail)


def _not_there(hosts: Hosts, name: str, copies: list[scrubbing.Known]) -> list[str]:
    try:
        found = list(hosts[name].find([copy.path for copy in copies]))
    except TransferError as error:
        return [str(error)]
    return [
        copy.path
        for copy, info in zip(copies, found, strict=True)
        if not isinstance(info, FileInfo) or info.size != copy.size
    ]


def _bundles(database: Database, hosts: Hosts, deep: bool) -> Iterator[Examined]:
    """That every bundle of a store agrees with its index and the database; with `deep`, to the byte."""
    for name in _stores(database, hosts):
        found = check(database, hosts, name, deep=deep)
        if found.bundles or found.wrong:
            unread = f", {found.unread} on tape and not read" if found.unread else ""
            wrong = f", wrong: {'; '.join(found.wrong[:MOST_NAMED])}" if found.wrong else ""
            detail = f"{counted(found.bundles, 'bundle')}{unread}{wrong}"
            yield Examined(f"every bundle at {name} agrees with its index and the database", not found.wrong, detail)


def _stores(database: Database, hosts: Hosts) -> list[str]:
    """The stores that were used: looking must not be a first use."""
    stores = [name for name, kind in hosts.config.host_kinds.items() if kind == "store"]
    return [name for name in stores if remembered(database, name)]


def _parts(database: Database, hosts: Hosts) -> Examined:
    """That no part file is left of a lease that is dead."""
    left: list[str] = []
    for name in (name for name in hosts.config.hosts if remembered(database, name)):  # looking must not be a first use
        dead: list[tuple[int, int]] = []

        def note(item: int, epoch: int, dead: list[tuple[int, int]] = dead) -> bool:
            if item and not items.alive(database, [(item, epoch)]):  # 0: an inventory that is landing
                dead.append((item, epoch))
            return False  # looked at, not removed

        try:
            hosts[name].sweep("", note)
        except TransferError as error:
            left.append(str(error))
        left += [f"{name}: part of item {item}, epoch {epoch}" for item, epoch in dead]
    return Examined("no part file is left of a dead lease", not left, ", ".join(left[:MOST_NAMED]))
