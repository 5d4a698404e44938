"""The service: submit what is spooled, carry out what is due, publish what is whole, until told to stop.

One thread schedules (`step`), and never touches a host: all that may hang runs in jobs of their own, one for
each route at a time, so that one bad host, file or database row never holds up the others. A route's hosts are
opened before anything is claimed for it; one that cannot be used is left alone (`breakers.py`) until a look at it,
a job of its own, goes well. A second thread renews the leases. The watchdog is fed only while both advance.
"""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Collection, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
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
from manifests.manifest import Manifest
from manifests.reading import read_manifest
from stager import (
    breakers,
    hours,
    items,
    notify,
    publishing,
    rescanning,
    retrying,
    routes,
    status,
    sweeping,
    watching,
    workers,
)
from stager.batches import Batch, Progress
from stager.config import Config
from stager.database import Database
from stager.guarding import Guard
from stager.opening import Hosts, Kept
from stager.submitting import submit
from stager.working import Unexpected, carry_out
from transfers.agent import more_descriptors
from transfers.errors import TransferError, Transient
from transfers.hosts import Host

log = structlog.get_logger("stager")

MOST_FILES = 512  # of one batch: enough for a conversation, little enough to drain soon
MOST_FAR_FILES = 2048  # ...where each batch costs round trips
MOST_BYTES = 4 << 30
MOST_PLANES = 4  # focal planes of one batch
HUNG_S = 20.0  # how long a job that was told to end at once may take for it
TICK_S = 1.0  # how often the database is asked for what other processes put there
ONCE_TICK_S = 0.2  # the same with `--once`, whose end somebody waits for
ONCE_PATIENCE_S = 5.0  # with `--once`: how long a retry that is due soon, or a host in trouble, is waited for
ONCE_LOOK_S = 1.0  # with `--once`: between two looks at a host in trouble
TELL_S = 3.0  # between two words on what a busy route does
REST_S = 10.0  # between two tries to put a trigger on a queue that could not take it
JOBS = 64  # jobs at the same time: more than there are routes


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
        self.progress = Progress()
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
        self._jobs: dict[Hashable, Future[Any]] = {}
        self._rested: dict[Hashable, float] = {}  # until when a job that failed is not begun again
        self._served: dict[int, float] = {}  # when a manifest last had its turn
        self._pool = ThreadPoolExecutor(JOBS, thread_name_prefix="job")
        self._traffic: dict[tuple[str, str], routes.Traffic] = {}
        self._guard = Guard(database, self.hosts)
        self._once = False
        self._replaced: list[tuple[list[Future[Any]], list[Kept]]] = []  # hosts to close when these jobs ended
        self._held: dict[int, list[items.Claimed]] = {}  # by manifest: the leases that are being worked on
        self._orphans: list[list[items.Claimed]] = []  # those whose end could not be written
        self._renewed = time.monotonic()
        self._swept: float | None = None
        self._walks = Paced(config.stager.walk_s)
        self._rescans = Paced(config.stager.walk_s)
        self._takes_back = Paced(min(5.0, config.stager.lease_s / 4))
        self._sweeps = Paced(3600.0)
        self._tells = Paced(TELL_S)
        self._says = Paced(5.0)
        self._feeds = Paced(notify.watchdog_interval() or 5.0)

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
            self._reap()
            time.sleep(0.05)
        self._stopped.set()
        if self._spool:
            self._spool.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait(self._jobs.values(), HUNG_S)
        self.hosts.close()  # whoever still waits for a far side gets an error
        for one in [one for _, kept in self._replaced for one in kept]:
            one.close()
        wait(self._jobs.values(), 5.0)
        self.hosts.close()  # what those opened who were at it
        self._reap()
        self.hung = [str(key) for key in self._jobs]
        if self.hung:
            log.error("jobs did not end and are left behind", jobs=", ".join(self.hung))
        renewer.join(5)
        with suppress(DBAPIError):  # else the leases run out
            self._give_back()
        if not self.hung:  # else the worker stays known, and is found dead with what it still holds
            self._presence.stop()
        log.info("stopped", worker=self.worker)

    def _renew(self) -> None:
        """Prolong the leases, from a thread of its own, until the worker has given all back."""
        pause = self.config.stager.lease_s / 4
        while True:
            try:
                self._presence.hold()
                held = [item.id for claimed in list(self._held.values()) for item in claimed]
                items.renew(self.database, self.worker, self.config.stager.lease_s, held)
                self._renewed = time.monotonic()
            except DBAPIError as error:
                log.warning("leases could not be renewed", error=str(error.orig))
            if self._stopped.wait(pause):
                return

    # ------------------------------------------------------------------------------- scheduling

    def step(self) -> bool:
        """One look at everything; whether something was begun or ended, so that another look is worth it at once."""
        try:
            ended = self._reap()
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

    def _begin(self, key: Hashable, job: Callable[[], Any]) -> int:
        """Begin a job unless one of that key is running, or failed a moment ago; 1 when it was begun."""
        if not self._is_free(key):
            return 0
        future = self._pool.submit(job)
        future.add_done_callback(lambda _: self._wake.set())
        self._jobs[key] = future
        return 1

    def _is_free(self, key: Hashable) -> bool:
        return key not in self._jobs and time.monotonic() >= self._rested.get(key, 0.0)

    def _reap(self) -> int:
        """Take note of the jobs that ended; returns how many. One that failed rests before it is begun again."""
        ended = [key for key, job in self._jobs.items() if job.done()]
        for key in ended:
            job = self._jobs.pop(key)
            error = None if job.cancelled() else job.exception()
            if error is not None:
                self._rested[key] = time.monotonic() + 5.0
                trace = "".join(traceback.format_exception(error))
                log.error("a job failed", job=str(key), error=str(error), traceback=trace)
        if ended:
            self._close_replaced()
        return len(ended)

    def _close_replaced(self) -> None:
        """Close the hosts that the configuration no longer describes so, once nobody works with them."""
        if self._stopped.is_set():  # `_drain` closes them all
            return
        for jobs, kept in self._replaced[:]:
            if all(job.done() for job in jobs):
                self._replaced.remove((jobs, kept))
                for one in kept:
                    self._pool.submit(one.close)

    def _begin_looks(self) -> int:
        """Look at the hosts in trouble that are due, each in a job of its own."""
        due = {name for name in self._guard.due() if self._serves(name)}
        if due and self._once:  # somebody waits for the end: hosts that no work waits for are left alone
            due &= self._waited_for()
        return sum(self._begin(("look", name), partial(self._guard.look, name)) for name in sorted(due))

    def _serves(self, *hosts: str) -> bool:
        serves = self.config.stager.serves
        return serves is None or set(hosts) <= set(serves)

    def _begin_upkeep(self) -> int:
        """Begin what is due. What is busy with the time before stays due: that one may have looked too early."""
        now = time.monotonic()
        begun = 0
        if self._is_free("take back") and self._takes_back.due(now):
            begun += self._begin("take back", self._take_back)
        if self._spool and self._is_free("spool"):
            walk = self._walks.due(now)
            if walk or self._spool_hinted or self._spool_unfinished:
                self._spool_hinted = False
                begun += self._begin("spool", partial(self._submit_spooled, walk))
        if self._is_free("rescan") and self._rescans.due(now):
            self._begin("rescan", partial(rescanning.rescan, self.database, self.hosts))
        if self._is_free("sweep") and self._sweeps.due(now):
            self._begin("sweep", self._sweep)
        if any(traffic.busy for traffic in list(self._traffic.values())) and self._tells.due(now):
            self._begin("tell", self._tell_busy)
        for lane in self._lanes():
            begun += self._begin(("publish", *lane), partial(self._publish, lane))
        return begun

    def _lanes(self) -> list[publishing.Lane]:
        """Where triggers wait that this worker can put on their queues."""
        return [lane for lane in publishing.lanes(self.database, self.config) if self._serves(lane.host)]

    def _begin_batches(self) -> int:
        """Give every route that has work and is free a batch, the manifests of one priority in turn."""
        works = [work for work, seconds in self._due() if seconds == 0]
        works.sort(key=lambda work: (-work.priority, self._served.get(work.manifest_id, 0.0), work.manifest_id))
        begun = 0
        for work in works:
            route = ("route", work.source_host, work.destination_host)
            if self._begin(route, partial(self._work, work)):
                self._served[work.manifest_id] = time.monotonic()
                begun += 1
        return begun

    # -------------------------------------------------------------------------------------- jobs

    def _open(self, work: items.Work) -> tuple[Host, Host] | None:
        """The hosts of a route, open; None when one cannot be used: that is the host's trouble, and no item's."""
        name = work.source_host
        try:
            source = self.hosts[name]
            name = work.destination_host
            return source, source if name == work.source_host else self.hosts[name]
        except TransferError as error:
            self._guard.trip(name, error)
            return None

    def _work(self, work: items.Work) -> None:
        """Open a route's hosts, claim a batch of a manifest and carry it out."""
        if self._draining.is_set() or (hosts := self._open(work)) is None or self._is_stopping(work):
            return
        most_files = MOST_FAR_FILES if any(host.far for host in hosts) else MOST_FILES
        most = MOST_PLANES if work.kind == "chop" else most_files
        claimed = items.claim(
            self.database,
            work.manifest_id,
            self.worker,
            most=most,
            most_bytes=MOST_BYTES,
            lease_s=self.config.stager.lease_s,
        )
        if not claimed:
            return
        self._held[work.manifest_id] = claimed
        try:
            self._carry_out(work, claimed, *hosts)
        except DBAPIError:
            self._orphans.append(claimed)  # the database is away: they are given back once it answers
            self._takes_back.soon()
            raise
        finally:
            del self._held[work.manifest_id]

    def _is_stopping(self, work: items.Work) -> bool:
        """Whether nothing more of this work is to be begun: the daemon stops, or an operator paused a host."""
        return self._draining.is_set() or self._guard.is_paused(work.source_host, work.destination_host)

    def _carry_out(self, work: items.Work, claimed: list[items.Claimed], source: Host, destination: Host) -> None:
        manifest = Manifest.from_canonical(items.document(self.database, work.manifest_id))
        traffic = self._traffic_of(work)
        batch = Batch(
            self.database,
            self.config,
            manifest,
            self.worker,
            claimed,
            source,
            destination,
            traffic,
            self._stopped.is_set,
            self.progress,
            partial(self._is_stopping, work),
        )
        traffic.begin(time.monotonic())
        self._tell(traffic)
        try:
            done = carry_out(batch)
        except DBAPIError:
            raise
        except Exception as error:
            self._hold_unexpected(claimed, error)
            raise
        finally:
            traffic.end(time.monotonic())
        if batch.broken:
            self._sweeps.soon()
        for name, trouble in batch.troubles.items():
            self._guard.trip(name, trouble)
        if done and not batch.troubles:
            self._guard.worked(source.name, destination.name)
        self._tell(traffic)

    def _traffic_of(self, work: items.Work) -> routes.Traffic:
        route = (work.source_host, work.destination_host)
        if route not in self._traffic:
            self._traffic[route] = routes.Traffic(*route, *self.config.streams(*route))
        return self._traffic[route]

    def _tell_busy(self) -> None:
        for traffic in list(self._traffic.values()):
            if traffic.busy:
                self._tell(traffic)

    def _tell(self, traffic: routes.Traffic) -> None:
        """Write what a route does for who asks, and log it when the number of its streams is another."""
        number = traffic.streams.allowed()
        if number != traffic.told:
            route = f"{traffic.source} > {traffic.destination}"
            log.info("streams", route=route, streams=number, why=traffic.streams.why)
            traffic.told = number
        limits = self.config.route(traffic.source, traffic.destination)
        routes.tell(self.database, traffic, limits, time.monotonic())

    def _hold_unexpected(self, claimed: list[items.Claimed], error: Exception) -> None:
        """Hold what a fault of Stager's own left behind, with its traceback: trying it again would not end."""
        trace = "".join(traceback.format_exception(error))
        what = Unexpected(f"{type(error).__name__}: {error}\n{trace}", side="local", phase="carry out")
        decision = retrying.decide(what, 0)
        held = [items.Finished(item, 0.0, error=what, decision=decision) for item in claimed]
        items.finish(self.database, self.worker, held)

    def _give_back(self) -> None:
        """Release what was claimed by batches whose end could not be written; what was written stays."""
        away = Transient("the database was away when it was to be written", side="local", phase="stopped")
        decision = retrying.decide(away, 0)
        while self._orphans:
            given = [items.Finished(item, 0.0, error=away, decision=decision) for item in self._orphans[0]]
            items.finish(self.database, self.worker, given)
            self._orphans.pop(0)

    def _take_back(self) -> None:
        self._give_back()
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

    def _publish(self, lane: publishing.Lane) -> None:
        published, errors = publishing.publish_all(self.database, self.hosts, lane, stop=self._draining.is_set)
        if published:
            log.info("triggers are on their queue", queue=lane.queue, host=lane.host, count=published)
        for error in errors:
            log.warning("a trigger could not be put on its queue", queue=lane.queue, **error.as_dict())
            self._guard.trip_if_of_host(error)
        if errors:
            self._rested["publish", *lane] = time.monotonic() + REST_S

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
            if source and source.breaker.is_open:
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
            self._replaced.append((list(self._jobs.values()), self.hosts.change(self.config)))
            for route, traffic in list(self._traffic.items()):
                traffic.streams.bound(*self.config.streams(*route))
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
        busy = sum(1 for key in self._jobs if isinstance(key, tuple) and key[0] == "route")
        return f"{busy} routes busy, {self.progress.items} items done since the start"

    def _is_idle(self) -> bool:
        """Whether nothing is left that can be done now."""
        if self._jobs or self._spool_hinted or self._spool_unfinished:
            return False
        now = time.monotonic()
        if any(self._rested.get(("publish", *lane), 0.0) <= now for lane in self._lanes()):
            return False
        if any(seconds <= ONCE_PATIENCE_S for _, seconds in self._due()):
            return False
        return not (self._guard.troubled and self._guard.is_patient(self._waited_for(), ONCE_PATIENCE_S))

    def _waited_for(self) -> set[str]:
        """The hosts in trouble that work or a trigger waits for."""
        ends = {name for work in self._troubled() for name in (work.source_host, work.destination_host)}
        return (ends | publishing.held_up(self.database)) & self._guard.troubled

    def _due(self) -> list[tuple[items.Work, float]]:
        """What is waiting for this worker: of the hosts it serves, on routes that work at this hour."""
        return [(work, seconds) for work, seconds in items.due(self.database) if self._is_ours(work)]

    def _troubled(self) -> list[items.Work]:
        """What would be due, were its hosts not in trouble."""
        waiting = items.due(self.database, troubled=True)
        return [work for work, seconds in waiting if seconds <= ONCE_PATIENCE_S and self._is_ours(work)]

    def _is_ours(self, work: items.Work) -> bool:
        limits = self.config.route(work.source_host, work.destination_host)
        return (
            (self._only is None or work.manifest_id in self._only)
            and self._serves(work.source_host, work.destination_host)
            and hours.is_open(limits.hours, datetime.now().astimezone().time())
        )


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
    troubled = {host.host for host in found.hosts if host.kind}
    if any(row.state not in ("complete", "paused") and troubled & set(row.hosts) for row in rows):
        return 1
    if only is None and (found.queues or any(host.kind and host.triggers for host in found.hosts)):
        return 1
    return 0 if all(row.state == "complete" for row in rows) else 3
