"""Room that is made without being asked for: at hosts whose configuration says so, of what is transient alone."""

from __future__ import annotations

from itertools import accumulate

import sqlalchemy as sa
import structlog

from manifests.parts import Location
from stager import breakers, reserving
from stager.config import Config, StoreHost
from stager.database import Database
from stager.evicting import saying, tombstones
from stager.evicting.candidates import Named
from stager.evicting.evicting import Report, Request, evict
from stager.evicting.reasons import Why
from stager.opening import Hosts, remembered
from transfers.errors import NoSpace, TransferError

log = structlog.get_logger("stager")

NO_ROOM = "not enough room could be made"
MOST_WAITING = 500  # items for which room is made at a time


def make_room(database: Database, hosts: Hosts, config: Config) -> list[Report]:
    """Evict at every host that has `make_room = true` and is below its floor, until it will be above, or where work
    waits for room, as much as that needs: copies of transient manifests, and never others. What lies in quarantine
    already counts as free.

    One that cannot be used, or has too little that may go, is told of in the log and left for the next time; one that
    this worker does not serve, or that was never used, is left alone.
    """
    reports = []
    known = breakers.known(database)
    full = {name for name, host in known.items() if host.breaker.kind == NoSpace.kind and not host.paused}
    unusable = {name for name, host in known.items() if not host.usable} - full
    serves = config.hosts if config.stager.serves is None else config.stager.serves
    for name, described in config.hosts.items():
        if not described.make_room or isinstance(described, StoreHost) or name in unusable or name not in serves:
            continue
        if remembered(database, name) is None:  # nothing is there to go, and looking must not be a first use
            continue
        try:
            report = _make_room_at(database, hosts, config, name, full=name in full)
        except TransferError as error:
            saying.warn_once(database, name, NO_ROOM, str(error))
            continue
        if report is not None:
            reports.append(report)
            _tell(database, report)
    return reports


def _make_room_at(database: Database, hosts: Hosts, config: Config, name: str, *, full: bool) -> Report | None:
    """None where nothing need go, or would be of use. A host that is `full` has no room, whatever it says."""
    there = reserving.room_at(database, config, hosts[name])
    free = (min(there.free, there.floor) if full else there.free) + tombstones.leaving(database, name)
    everything = Request(Named(name, Location(name, "")), 0, True, grace_s=config.hosts[name].grace_s, transient=True)
    if free < there.floor:
        return evict(database, hosts, everything._replace(needed=there.floor - free))
    if there.promised:  # some of it is written already: what is lacking is known when that work has ended
        return None
    needed = _waiting(database, name)
    lacking = [one - (free - there.floor) for one in needed]
    if not lacking or lacking[-1] <= 0:
        return None
    # Where not all of it could get room, as much of it as will: nothing goes for what would not fit even so.
    could = evict(database, hosts, everything._replace(needed=lacking[-1]), dry_run=True)
    of_use = max((one for one in lacking if one <= could.bytes), default=0)
    if of_use <= 0:
        if lacking[0] > 0:
            saying.warn_once(database, name, NO_ROOM, "too little that is transient may go for the work that waits")
        return None
    return evict(database, hosts, everything._replace(needed=of_use))


def _waiting(database: Database, host: str) -> list[int]:
    """The bytes that must be free, beyond its floor, for the smallest item that waits for room at a host, for the two
    smallest, and so on: of manifests one of whose items had none, for the others are not tried one by one."""
    query = sa.text(f"""
        SELECT COALESCE(i.size, 0) FROM manifests m JOIN items i ON i.manifest_id = m.id
        WHERE m.destination_host = :host AND m.intent = 'active' AND i.state = 'waiting' AND NOT i.missing
          AND (i.kind IS NULL OR i.kind = '{NoSpace.kind}')
          AND EXISTS (SELECT 1 FROM items n WHERE n.manifest_id = m.id AND n.reason IS NOT NULL
                      AND n.state = 'waiting' AND n.kind = '{NoSpace.kind}')
        ORDER BY 1 LIMIT {MOST_WAITING}""")
    with database.read() as connection:
        sizes = list(connection.scalars(query, {"host": host}))
    return list(accumulate(size + reserving.spare(size) for size in sizes))


def _tell(database: Database, report: Report) -> None:
    if report.evicted:
        log.info("made room", host=report.host, files=len(report.evicted), bytes=report.bytes)
    if report.enough:
        saying.mended(database, report.host, NO_ROOM)
        return
    # Without bytes, which are others each time: what stays true is said once.
    reasons = [f"{tally.files} stay: {why}" for why, tally in report.refused.items() if why is not Why.KEPT]
    saying.warn_once(database, report.host, NO_ROOM, "; ".join(["too little that is transient may go", *reasons]))
