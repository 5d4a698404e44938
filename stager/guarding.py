"""What a worker does about hosts that are paused or in trouble: it trips breakers, looks, and closes them again.

The scheduler asks `known`, as its last step saw the hosts; everything else runs in jobs.
"""

from __future__ import annotations

import time
from collections.abc import Collection

import structlog

from stager import breakers, checking
from stager.database import Database
from stager.opening import Hosts
from transfers.errors import TransferError

log = structlog.get_logger("stager")


class Guard:
    """The hosts as a worker sees them. `longest_s` bounds the time between two looks at one in trouble."""

    def __init__(self, database: Database, hosts: Hosts) -> None:
        self.database = database
        self.hosts = hosts
        self.longest_s = breakers.LONGEST_S
        self.known: dict[str, breakers.Known] = {}
        self._noticed: dict[str, float] = {}  # since when this process knows of a host's trouble

    def step(self) -> None:
        """Learn which hosts are paused or in trouble: other workers and commands may have changed it."""
        self.known = breakers.known(self.database)
        now = time.monotonic()
        troubled = {name for name, host in self.known.items() if host.breaker.looks}
        self._noticed = {name: self._noticed.get(name, now) for name in troubled}

    def due(self) -> set[str]:
        """The hosts in trouble that are to be looked at now."""
        open_ = {name for name, host in self.known.items() if host.breaker.is_open and not host.paused}
        return {name for name in open_ if not self.known[name].due_in_s}

    def is_paused(self, *names: str) -> bool:
        """Whether an operator paused one of these."""
        return any(host.paused for name in names if (host := self.known.get(name)))

    @property
    def troubled(self) -> set[str]:
        """The hosts in trouble, and those where nothing went well since."""
        return set(self._noticed)

    def is_patient(self, names: Collection[str], patience_s: float) -> bool:
        """Whether one of these came into trouble, as far as this process knows, no longer ago than that."""
        now = time.monotonic()
        return any(now - self._noticed[name] < patience_s for name in names if name in self._noticed)

    def look(self, name: str) -> None:
        """One look at a host in trouble, unless another worker takes it: what its breaker waits for."""
        if not breakers.begin_look(self.database, name):
            return
        try:
            self._use(name)
        except TransferError as error:
            breaker = breakers.look_failed(self.database, name, error, longest_s=self.longest_s)
            log.info("a host still cannot be used", host=name, problem=breaker.text, looks=breaker.looks)
            return
        seconds = breakers.look_passed(self.database, name)
        if seconds is not None:
            log.info("a host can be used again", host=name, after_s=round(seconds, 1))

    def _use(self, name: str) -> None:
        """Raises TransferError where a host still cannot be used; one that was read-only or full is written to."""
        host, known = self.hosts[name], self.known.get(name)
        if known is None or known.breaker.kind not in breakers.READABLE:
            return
        try:
            checking.check_writable(host, self.database.instance)
        except TransferError as error:
            if breakers.is_of_host(error):
                raise

    def trip(self, name: str, error: TransferError) -> None:
        """Leave a host alone from now on, for this reason."""
        breaker = breakers.trip(self.database, name, error, longest_s=self.longest_s)
        if breaker:
            log.warning("a host cannot be used", host=name, kind=breaker.kind, problem=breaker.text)

    def trip_if_of_host(self, error: TransferError) -> None:
        """The same for an error that may be of a file."""
        if breakers.is_of_host(error) and error.host in self.hosts.config.hosts:
            self.trip(error.host, error)

    def worked(self, *names: str) -> None:
        """Work went well at these hosts."""
        if self._noticed.keys() & set(names):
            breakers.worked(self.database, names)
