"""The service: submit what is spooled, carry out what is due, publish what is whole, until told to stop.

One thread schedules (`step`), and never touches a host: all that may hang runs in jobs of their own (`jobs.py`), one
for each route at a time (`turns.py`), so that one bad host, file or database row never holds up the others. A host
that cannot be used is left alone (`breakers.py`) until a look at it, a job of its own, goes well. A second thread
renews the leases. The watchdog is fed only while both advance.
"""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Collection
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError

from manifests.errors import ManifestError
from manifests.reading import read_manifest
from stager import (
    breakers,
    hours,
    items,
    notify,
    publishing,
    rescanning,
    routes,
    status,
    sweeping,
    watching,
    workers,
)
from stager.batches import Progress
from stager.config import Config
from stager.counts import counted
from stager.database import Database
from stager.evicting import making_room, purging
from stager.guarding import Guard
from stager.jobs import Jobs, Rest
from stager.opening import Hosts, Kept
from stager.recalls import stepping
from stager.recalls import table as recalls
from stager.submitting import submit
from stager.turns import Turns
from transfers.agent import more_descriptors
from transfers.errors import TransferError

log = structlog.get_logger("stager")

HUNG_S = 20.0  # how long a job that was told to end at once may take for it
TICK_S = 1.0  # how often the database is asked for what other processes put there
ONCE_TICK_S = 0.2  # the same with `--once`, whose end somebody waits for
ONCE_PATIENCE_S = 5.0  # with `--once`: how long a retry that is due soon, or a host in trouble, is waited for
ONCE_LOOK_S = 1.0  # with `--once`: between two looks at a host in trouble
TELL_S = 3.0  # between two words on what a busy route does
REST_S = 10.0  # between two tries to put a trigger on a queue that could not take it


@dataclass(slots=True)
class Paced:
    """Something done at most every so many seconds."""

    every_s: float
    last: float = field(default=-1e9)

    def due(self, now: float) -> bool:
        if now - self.last < self.every_s:
            return False
        self.last = now
        return True

    def soon(self) -> None:
        self.last = -1e9


class Daemon:
    """A worker with its scheduler. `run` works until `stop`; `only` restricts it to some manifests."""

    def __init__(
        self,
        database: Database,
        config: Config,
        *,
        read_again: Callable[[], Config] | None = None,
        only: Collection[int] | None = None,
        spool: bool = True,
        hosts: Hosts | None = None,
    ) -> None:
        self.database = database
        self.config = config
        self.hosts = hosts or Hosts(database, config)  # closed at the end
        self.worker = workers.new_name()
        self.hung: list[str] = []  # after `run`: jobs that did not end
        self._read_again = read_again
        self._only = set(only) if only is not None else None
        self._presence = workers.Presence(database, self.worker)
        self._spool = watching.Spool(config.spool, self._hint) if spool and config.spool else None
        self._wake = threading.Event()
        self._draining = threading.Event()
        self._stopped = threading.Event()  # what is under way must end at once
        self._reload = threading.Event()
        self._spool_hinted = self._spool is not None
        self._spool_unfinished = False
        self._served: dict[int, float] = {}  # when a manifest last had its turn
        self._jobs = Jobs(self._wake.set)
        self._guard = Guard(database, self.hosts)
        self._once = False
        self._replaced: list[tuple[list[Future[Any]], list[Kept]]] = []  # hosts to close when these jobs ended
        self._renewed = time.monotonic()
        self._swept: float | None = None
        self._walks = Paced(config.stager.walk_s)
        self._rescans = Paced(config.stager.walk_s)
        self._takes_back = Paced(min(5.0, config.stager.lease_s / 4))
        self._sweeps = Paced(3600.0)
        self._makes_room = Paced(config.stager.walk_s)
        self._tells = Paced(TELL_S)
        self._says = Paced(5.0)
        self._feeds = Paced(notify.watchdog_interval() or 5.0)
        self._turns = Turns(
            database,
            config,
            self.hosts,
            self._guard,
            self.worker,
            draining=self._draining.is_set,
            stopped=self._stopped.is_set,
            on_broken=self._sweeps.soon,
        )

    @property
    def progress(self) -> Progress:
        """What it has moved since it began."""
        return self._turns.progress

    # ------------------------------------------------------------------------------------ life

    def run(self, *, once: bool = False) -> None:
        """Work until `stop`, or with `once` until nothing is left that can be done now."""
        more_descriptors()
        self._presence.start()
        self._once = once
        if once:
            self._guard.longest_s = ONCE_LOOK_S
        breakers.look_soon(self.database)
        routes.tell_limits(self.database, self.config)
        if self._spool:
            self._spool.start()
        renewer = threading.Thread(target=self._renew, name="renewer", daemon=True)
        renewer.start()
        log.info("started", worker=self.worker, database=self.database.url.render_as_string(hide_password=True))
        notify.ready("ready")
        try:
            while not self._draining.is_set():
                busy = self.step()
                if once and not busy and self._is_idle():
                    break
                if not busy:
                    self._wake.wait(ONCE_TICK_S if once else TICK_S)
                self._wake.clear()
        finally:
            self._drain(renewer)

    def stop(self) -> None:
        """Begin to stop: nothing more is claimed, what is under way gets `drain_s` to end. Safe in a signal handler."""
        self._draining.set()
        self._wake.set()

    def on_signals(self) -> None:
        """SIGTERM and SIGINT drain (a second one does not wait), SIGHUP reads the configuration again."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        if self._draining.is_set():
            self._stopped.set()
        self.stop()

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        self._reload.set()
        self._wake.set()

    def _drain(self, renewer: threading.Thread) -> None:
        """End: wait for what is under way, then have it give back what it holds.

        A job that hangs in the kernel (a dead disk) cannot be ended: it is left behind and told of in `hung`.
        """
        if self._draining.is_set():  # told to stop, and not at the end of its work
            log.info("stopping", jobs=len(self._jobs), within_s=self.config.stager.drain_s)
        self._draining.set()
        notify.stopping("stopping: finishing what is under way")
        deadline = time.monotonic() + self.config.stager.drain_s
        while self._jobs and time.monotonic() < deadline and not self._stopped.is_set():
            self._jobs.reap()
            time.sleep(0.05)
        self._stopped.set()
        if self._spool:
            self._spool.stop()
        self._jobs.close()
        self._jobs.wait(HUNG_S)
        self.hosts.close()  # whoever still waits for a far side gets an error
        for one in [one for _, kept in self._replaced for one in kept]:
            one.close()
        self._jobs.wait(5.0)
        self.hosts.close()  # what those opened who were at it
        self._jobs.reap()
        self.hung = [str(key) for key in self._jobs.keys]
        if self.hung:
            log.error("jobs did not end and are left behind", jobs=", ".join(self.hung))
        renewer.join(5)
        with suppress(DBAPIError):  # else the leases run out
            self._turns.give_back()
        if not self.hung:  # else the worker stays known, and is found dead with what it still holds
            self._presence.stop()
        log.info("stopped", worker=self.worker)

    def _renew(self) -> None:
        """Prolong the leases, from a thread of its own, until the worker has given all back."""
        pause = self.config.stager.lease_s / 4
        while True:
            try:
                self._presence.hold()
                items.renew(self.database, self.worker, self.config.stager.lease_s, self._turns.held)
                self._renewed = time.monotonic()
            except DBAPIError as error:
                log.warning("leases could not be renewed", error=str(error.orig))
            if self._stopped.wait(pause):
                return

    # ------------------------------------------------------------------------------- scheduling

    def step(self) -> bool:
        """One look at everything; whether something was begun or ended, so that another look is worth it at once."""
        try:
            ended = self._jobs.reap()
            self._close_replaced()
            if self._reload.is_set():
                self._read_configuration()
            self._guard.step()
            begun = self._begin_looks() + self._begin_upkeep() + self._begin_batches()
        except Exception as error:  # noqa: BLE001  the one place: whatever went wrong, the service goes on
            log.error("a step failed", error=str(error), traceback=traceback.format_exc())
            self._wake.wait(TICK_S)
            return False
        self._report()
        return bool(ended or begun)

    def _hint(self) -> None:
        self._spool_hinted = True
        self._wake.set()

    def _close_replaced(self) -> None:
        """Close the hosts that the configuration no longer describes so, once nobody works with them."""
        if self._stopped.is_set():  # `_drain` closes them all
            return
        for jobs, kept in self._replaced[:]:
            if all(job.done() for job in jobs):
                self._replaced.remove((jobs, kept))
                for one in kept:
                    self._jobs.aside(one.close)

    def _begin_looks(self) -> int:
        """Look at the hosts in trouble that are due, each in a job of its own."""
        due = {name for name in self._guard.due() if self._serves(name)}
        if due and self._once:  # somebody waits for the end: hosts that no work waits for are left alone
            due &= self._waited_for()
        return sum(self._jobs.begin(("look", name), partial(self._guard.look, name)) for name in sorted(due))

    def _serves(self, *hosts: str) -> bool:
        serves = self.config.stager.serves
        return serves is None or set(hosts) <= set(serves)

    def _begin_upkeep(self) -> int:
        """Begin what is due. What is busy with the time before stays due: that one may have looked too early."""
        now = time.monotonic()
        begun = 0
        if self._jobs.is_free("take back") and (self._turns.orphans or self._takes_back.due(now)):
            begun += self._jobs.begin("take back", self._take_back)
        if self._spool and self._jobs.is_free("spool"):
            walk = self._walks.due(now)
            if walk or self._spool_hinted or self._spool_unfinished:
                self._spool_hinted = False
                begun += self._jobs.begin("spool", partial(self._submit_spooled, walk))
        if self._jobs.is_free("rescan") and self._rescans.due(now):
            self._jobs.begin("rescan", partial(rescanning.rescan, self.database, self.hosts))
        if self._jobs.is_free("sweep") and self._sweeps.due(now):
            self._jobs.begin("sweep", self._sweep)
        if self._turns.busy and self._tells.due(now):
            self._jobs.begin("tell", self._turns.tell_busy)
        for lane in self._lanes():
            begun += self._jobs.begin(("publish", *lane), partial(self._publish, lane))
        for store in recalls.stores(self.database):
            if self._serves(store):
                self._jobs.begin(("recall", store), partial(self._recall, store))
        if self._only is None and self._jobs.is_free("make room") and self._makes_room.due(now):
            self._jobs.begin("make room", self._make_room)
        return begun

    def _lanes(self) -> list[publishing.Lane]:
        """Where triggers wait that this worker can put on their queues."""
        return [lane for lane in publishing.lanes(self.database, self.config) if self._serves(lane.host)]

    def _begin_batches(self) -> int:
        """Give every route that has work and is free a batch, the manifests of one priority in turn."""
        works = [work for work, seconds in self._due() if seconds == 0 and not self._turns.rests(work)]
        works.sort(key=lambda work: (-work.priority, self._served.get(work.manifest_id, 0.0), work.manifest_id))
        begun = 0
        for work in works:
            route = ("route", work.source_host, work.destination_host)
            if self._jobs.begin(route, partial(self._turns.take, work)):
                self._served[work.manifest_id] = time.monotonic()
                begun += 1
        return begun

    # -------------------------------------------------------------------------------------- jobs

    def _take_back(self) -> None:
        self._turns.give_back()
        gone = workers.dead(self.database, self.worker)
        if items.take_back(self.database, dead=gone):
            self._sweeps.soon()
        workers.bury(self.database, gone)

    def _sweep(self) -> None:
        removed, self._swept = sweeping.sweep(self.database, self.hosts, self._swept)
        for part in removed:
            log.info("removed the part file of a lost lease", part=part)
        for path in sweeping.sweep_scratch(self.config.scratch):
            log.info("removed a focal plane that was unpacked and left", file=str(path))

    def _publish(self, lane: publishing.Lane) -> Rest | None:
        published, errors = publishing.publish_all(self.database, self.hosts, lane, stop=self._draining.is_set)
        if published:
            log.info("triggers are on their queue", queue=lane.queue, host=lane.host, count=published)
        for error in errors:
            log.warning("a trigger could not be put on its queue", queue=lane.queue, **error.as_dict())
            self._guard.trip_if_of_host(error)
        return Rest(REST_S) if errors else None

    def _recall(self, store: str) -> Rest | None:
        """Bring the recalls of a store on; where nothing changed, it is let alone for a moment."""
        try:
            changed = stepping.step(self.database, self.hosts, self.config, store)
        except TransferError as error:
            self._guard.trip_if_of_host(error)
            log.warning("recalls could not be brought on", **error.as_dict())
            changed = 0
        if changed:
            return None
        return Rest(ONCE_TICK_S if self._once else TICK_S)

    def _make_room(self) -> None:
        """Remove what lay in quarantine for its time, and make room where the configuration says so."""
        purging.purge(self.database, self.hosts, self.config.stager.serves)
        making_room.make_room(self.database, self.hosts, self.config)

    def _submit_spooled(self, refused_too: bool) -> None:
        assert self.config.spool is not None
        ready, self._spool_unfinished = watching.unread(self.database, self.config.spool, refused_too=refused_too)
        for path in ready:
            info = path.stat()
            problem = self._submit(path)
            if problem:
                log.warning("refused", file=str(path), problem=problem)
            watching.remember(self.database, path, info, problem)
        if refused_too:
            watching.forget_gone(self.database, self.config.spool)

    def _submit(self, path: Path) -> str | None:
        """Submit a spooled manifest; what is wrong with it. One whose source is in trouble is not waited for."""
        try:
            manifest = read_manifest(path)
            source = breakers.known(self.database).get(manifest.source.host)
            if source and not source.breaker.is_readable:
                return source.breaker.text
            submitted = submit(self.database, self.config, manifest, str(path), hosts=self.hosts)
        except ManifestError as error:
            return str(error)
        except TransferError as error:
            self._guard.trip_if_of_host(error)
            return str(error)
        log.info("submitted", manifest=submitted.name, revision=submitted.revision, changed=submitted.changed)
        return None

    # ------------------------------------------------------------------------------------ telling

    def _read_configuration(self) -> None:
        """Read the configuration again; one that cannot be used changes nothing."""
        self._reload.clear()
        if self._read_again is None:
            return
        notify.reloading()
        try:
            config = self._read_again()
        except ManifestError as error:
            log.error("the configuration was not changed", problem=str(error))
        else:
            self.config = config.model_copy(
                update={"stager": config.stager.model_copy(update={"database": self.config.stager.database})}
            )
            self._replaced.append((self._jobs.under_way, self.hosts.change(self.config)))
            self._turns.configure(self.config)
            breakers.look_soon(self.database)
            routes.tell_limits(self.database, self.config)
            self._close_replaced()
            self._walks.soon()
            log.info("the configuration was read again")
        notify.ready()

    def _report(self) -> None:
        """Feed the watchdog while the leases are renewed too, and say in a line how it goes."""
        now = time.monotonic()
        alive = now - self._renewed < self.config.stager.lease_s
        if alive and self._feeds.due(now):
            notify.watchdog()
        if self._says.due(now):
            notify.status(self._line())

    def _line(self) -> str:
        busy = sum(1 for key in self._jobs.keys if isinstance(key, tuple) and key[0] == "route")
        return f"{counted(busy, 'route')} busy, {counted(self.progress.items, 'item')} done since the start"

    def _is_idle(self) -> bool:
        """Whether nothing is left that can be done now."""
        if self._jobs or self._spool_hinted or self._spool_unfinished:
            return False
        if not all(self._jobs.is_resting(("publish", *lane)) for lane in self._lanes()):
            return False
        if any(recalls.is_coming(self.database, manifest) for manifest in self._only or ()):
            return False
        now = time.monotonic()
        full = {name for name, since in self._turns.full.items() if now - since > ONCE_PATIENCE_S}
        if any(seconds <= ONCE_PATIENCE_S for work, seconds in self._due() if work.destination_host not in full):
            return False
        return not (self._guard.troubled and self._guard.is_patient(self._waited_for(), ONCE_PATIENCE_S))

    def _waited_for(self) -> set[str]:
        """The hosts in trouble that work or a trigger waits for."""
        ends = {name for work in self._troubled() for name in self._hosts(work)}
        return (ends | publishing.held_up(self.database)) & self._guard.troubled

    def _due(self) -> list[tuple[items.Work, float]]:
        """What is waiting for this worker: of the hosts it serves, on routes that work at this hour."""
        found = items.due(self.database)
        return [(work, seconds) for work, seconds in found if self._is_ours(work) and self._second_serves(work)]

    def _troubled(self) -> list[items.Work]:
        """What would be due, were its hosts not in trouble."""
        waiting = items.due(self.database, troubled=True)
        waiting += [(work, seconds) for work, seconds in items.due(self.database) if not self._second_serves(work)]
        return [work for work, seconds in waiting if seconds <= ONCE_PATIENCE_S and self._is_ours(work)]

    def _is_ours(self, work: items.Work) -> bool:
        limits = self.config.route(work.source_host, work.destination_host)
        return (
            (self._only is None or work.manifest_id in self._only)
            and self._serves(work.source_host, work.destination_host)
            and hours.is_open(limits.hours, datetime.now().astimezone().time())
        )

    def _hosts(self, work: items.Work) -> tuple[str, ...]:
        """The ends of its route, and the second store of an archive, where it has one."""
        second = self._turns.manifest(work.manifest_id).second if work.kind == "archive" else None
        return work.source_host, work.destination_host, *((second,) if second else ())

    def _second_serves(self, work: items.Work) -> bool:
        """Whether the second store, where there is one, can be used."""
        known = self._guard.known.get(self._hosts(work)[-1])
        return known is None or not (known.paused or known.breaker.is_open)


def standing(database: Database, only: Collection[str] | None = None) -> int:
    """The exit code that says how it stands: 0 all done; 1 something is held or refused, or waits for a host that
    cannot be used; 3 not complete yet."""
    connection = database.engine.raw_connection()
    try:
        found = status.snapshot(connection.driver_connection)
    finally:
        connection.close()
    rows = [row for row in found.datasets if row.state != "cancelled" and (only is None or row.manifest in only)]
    if any(row.files["held"] for row in rows) or (only is None and found.refused):
        return 1
    waiting = [row.hosts for row in rows if row.state not in ("complete", "paused")]
    if any(host.holds_up(ends) for host in found.hosts for ends in waiting):
        return 1
    if only is None and (found.queues or any(host.kind and host.triggers for host in found.hosts)):
        return 1
    return 0 if all(row.state == "complete" for row in rows) else 3
