"""Ask one store for what is wanted of it, look at what it was asked for, and wake the items of what came.

What is known is in the database alone: whoever does the next step goes on from there. A request is written down after
it was made, so that one which a crash came after is made again, which changes nothing at the store.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from stager import breakers, reserving
from stager.config import Config, StoreHost
from stager.database import Database
from stager.models import RecallState
from stager.recalls import choosing, table
from stager.recalls.choosing import Limits, Recall
from transfers.errors import TransferError, shown
from transfers.hosts import UNKNOWN, Host, Residency

log = structlog.get_logger("stager")

NO_ROOM_S = 5.0  # after which what must wait for room at a destination is thought of again
UNKNOWN_S = 30.0  # after which a file that the store could not tell of is looked at again
ROUNDS = 8  # of one step: as long as it finds that what comes next must wait for room


class Opened(Protocol):
    """The hosts of a configuration, each seen to be there when it is asked for."""

    def __getitem__(self, name: str) -> Host: ...


def step(database: Database, hosts: Opened, config: Config, name: str) -> int:
    """Bring the recalls of a store on; returns how many changed, so that above 0 another step is worth it at once.

    One worker at a time does it for a store. Raises TransferError where the store as a whole cannot be used; a file
    that it refuses, or that does not come, holds up no other.
    """
    with database.alone(f"recalls {name}"):
        return _Step(database, hosts, config, hosts[name]).carry_out()


class _Step:
    def __init__(self, database: Database, hosts: Opened, config: Config, store: Host) -> None:
        self.database = database
        self.hosts = hosts
        self.config = config
        self.store = store
        self._needs: dict[int, dict[str, int]] = {}
        described = config.hosts.get(store.name)
        self.limits = Limits(described.recalls, described.recall_s) if isinstance(described, StoreHost) else Limits()

    def carry_out(self) -> int:
        changed = 0
        known = table.under_way(self.database, self.store.name)
        if due := choosing.to_look_at(known.rows, known.now):
            changed += self._look(due)
        for _ in range(ROUNDS):
            standing = self._standing()
            if any(row.priority is None for row in standing.rows):
                changed += table.drop_unwanted(self.database, self.store.name)
                standing = self._standing()
            chosen = choosing.next_up(standing.rows, self.limits, standing.now)
            if not chosen:
                break
            found = self._fitting(chosen, standing)
            changed += self._ask(found.chosen)
            if not found.waiting or table.destinations(self.database, self.store.name) <= found.full:
                break
            changed += len(found.waiting)  # what has to wait for room leaves its turn to what comes after it
        return changed

    def _standing(self) -> table.Rows:
        """What is under way, and where there is a slot for more, what may be asked for."""
        found = table.under_way(self.database, self.store.name)
        if choosing.may_ask(found.rows, self.limits, found.now):
            found.rows.extend(table.wanted(self.database, self.store.name, self.limits.most))
        return found

    # ------------------------------------------------------------------------------------ looking

    def _look(self, rows: Sequence[Recall]) -> int:
        """See what became of recalls that were asked for; returns how many changed."""
        found = self._residency(rows)
        still = [(row, where) for row, where in zip(rows, found, strict=True) if not _is_over(where)]
        told = [
            (row, None, _told(where)) if isinstance(where, TransferError) else (row, where, None)
            for row, where in still
        ]
        table.looked(self.database, told)
        return len(rows) - len(still)

    def _residency(self, rows: Sequence[Recall]) -> list[Residency | TransferError]:
        """Where files are, after those that are online or no more were written down."""
        found = self._asked_where(rows)
        pairs = list(zip(rows, found, strict=True))
        came = [row for row, where in pairs if isinstance(where, Residency) and where.state == "online"]
        gone = [row.id for row, where in pairs if _is_over(where) and row not in came]
        if came:
            table.came(self.database, came)
            log.info("files came from tape", store=self.store.name, count=len(came))
        if gone:  # the items find out themselves, with the file's own error
            table.give_up(self.database, gone)
        return found

    def _asked_where(self, rows: Sequence[Recall]) -> list[Residency | TransferError]:
        """What the store says of files. An error of the call is that of each file; one of the whole store is raised."""
        try:
            found = list(self.store.residency([row.path for row in rows]))
        except TransferError as error:
            found = [error] * len(rows)
        for where in found:
            if isinstance(where, TransferError) and breakers.is_of_host(where):
                raise where
        return found

    # ------------------------------------------------------------------------------------- asking

    def _fitting(self, chosen: Sequence[Recall], standing: table.Rows) -> choosing.Fitting:
        """What may be asked for; what has to wait for room is put off."""
        under_way = [row for row in standing.rows if row.state != RecallState.WANTED]
        unknown = {row.id for row in (*chosen, *under_way)} - self._needs.keys()
        self._needs |= table.needs(self.database, unknown)
        needs = self._needs
        rooms = self._rooms({name for one in needs.values() for name in one})
        found = choosing.fitting(chosen, standing.rows, needs, rooms, self.limits, standing.now)
        told = [(row, _full(names) if set(names) & rooms.keys() else _unusable(names)) for row, names in found.waiting]
        table.put_off(self.database, told, NO_ROOM_S)
        return found

    def _rooms(self, names: set[str]) -> dict[str, int]:
        """The bytes that each destination could take now. One that cannot be used is left out; one that this worker
        does not serve is taken to have any room, which is seen to when files are brought."""
        unusable = breakers.unusable(self.database)
        serves = self.config.stager.serves
        rooms = {name: UNKNOWN for name in names if serves is not None and name not in serves}
        for name in names - unusable - rooms.keys():
            with suppress(TransferError):
                rooms[name] = reserving.room(self.database, self.config, self.hosts[name])
        return {name: room for name, room in rooms.items() if name not in unusable}

    def _ask(self, chosen: Sequence[Recall]) -> int:
        """Ask for files, but for those that are online by now; returns how many changed."""
        if not chosen:
            return 0
        found = list(zip(chosen, self._residency(chosen), strict=True))
        unknown = [(row, _told(e)) for row, e in found if isinstance(e, TransferError) and not _is_over(e)]
        table.put_off(self.database, unknown, UNKNOWN_S)
        for lot in choosing.lots(row for row, where in found if isinstance(where, Residency) and not _is_over(where)):
            answers, trouble = self._stage(lot)
            answered = lot[: len(answers)]
            refused = {row.id: why for row, why in zip(answered, answers, strict=True) if why is not None}
            table.asked(self.database, answered, refused)
            if trouble is not None:
                raise trouble
            log.info("asked for files on tape", store=self.store.name, count=len(lot), refused=len(refused))
        return len(chosen)

    def _stage(self, lot: Sequence[Recall]) -> tuple[list[str | None], TransferError | None]:
        """Make one request: for each file that it was answered for, why it was refused, if it was; and the trouble of
        the whole store, if it has one."""
        answers: list[str | None] = []
        try:
            for error in self.store.stage([row.path for row in lot]):
                if error is not None and breakers.is_of_host(error):
                    return answers, error
                answers.append(None if error is None else _told(error))
        except TransferError as error:
            if breakers.is_of_host(error):
                return answers, error
            answers += [_told(error)] * (len(lot) - len(answers))
        return answers, None


def _is_over(where: Residency | TransferError) -> bool:
    """Whether a recall has come to its end: its file is online, or is no more."""
    if isinstance(where, TransferError):
        return where.kind in ("source missing", "source corrupt")
    return where.state in ("online", "lost")


def _told(error: TransferError) -> str:
    return shown(f"{error.text} - {error.kind}")


def _full(names: Sequence[str]) -> str:
    return f"waits for room at {', '.join(names)}, or for what comes there before it"


def _unusable(names: Sequence[str]) -> str:
    return f"{', '.join(names)} cannot be used now"
