"""The service: submit what is spooled, carry out what is due, publish what is whole, until told to stop.

One thread schedules (`step`), and never touches a host: all that may hang runs in jobs of their own, one for
each route at a time, so that one bad host, file or database row never holds up the others. A second thread
renews the leases. The watchdog is fed only while both advance.
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
from types import FrameType
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError

from manifests.errors import ManifestError
from manifests.manifest import Manifest
from manifests.reading import read_manifest
from stager import items, notify, publishing, rescanning, retrying, routes, status, sweeping, watching, workers
from stager.config import Config
from stager.database import Database
from stager.submitting import submit
from stager.working import Batch, Progress, Unexpected, carry_out
from transfers.errors import TransferError, Transient

log = structlog.get_logger("stager")

MOST_FILES = 512  # of one batch: enough for a conversation, little enough to drain soon
MOST_BYTES = 4 << 30
MOST_PLANES = 4  # focal planes of one batch
HUNG_S = 20.0  # how long a job that was told to end at once may take for it
TICK_S = 1.0  # how often the database is asked for what other processes put there
ONCE_TICK_S = 0.2  # the same with `--once`, whose end somebody waits for
ONCE_PATIENCE_S = 5.0  # with `--once`: how long a retry that is due soon is waited for
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
    ) -> None:
        self.database = database
        self.config = config
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
        self._held: dict[int, list[items.Claimed]] = {}  # by manifest: the leases that are being worked on
        self._orphans: list[list[items.Claimed]] = []  # those whose end could not be written
        self._renewed = time.monotonic()
        self._swept: float | None = None
        self._walks = Paced(config.stager.walk_s)
        self._rescans = Paced(config.stager.walk_s)
        self._takes_back = Paced(min(5.0, config.stager.lease_s / 4))
        self._sweeps = Paced(3600.0)
        self._says = Paced(5.0)
        self._feeds = Paced(notify.watchdog_interval() or 5.0)

    # ------------------------------------------------------------------------------------ life

    def run(self, *, once: bool = False) -> None:
        """Work until `stop`, or with `once` until nothing is left that can be done now."""
        self._presence.start()
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
            begun = self._begin_upkeep() + self._begin_batches()
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
        return len(ended)

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
            self._begin("rescan", partial(rescanning.rescan, self.database, self.config))
        if self._is_free("sweep") and self._sweeps.due(now):
            self._begin("sweep", self._sweep)
        if publishing.pending(self.database):
            begun += self._begin("publish", self._publish)
        return begun

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

    def _work(self, work: items.Work) -> None:
        """Claim a batch of a manifest and carry it out."""
        if self._draining.is_set():
            return
        most = MOST_PLANES if work.kind == "chop" else MOST_FILES
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
            self._carry_out(work, claimed)
        except DBAPIError:
            self._orphans.append(claimed)  # the database is away: they are given back once it answers
            self._takes_back.soon()
            raise
        finally:
            del self._held[work.manifest_id]

    def _carry_out(self, work: items.Work, claimed: list[items.Claimed]) -> None:
        manifest = Manifest.from_canonical(items.document(self.database, work.manifest_id))
        stop = self._stopped.is_set
        batch = Batch(
            self.database,
            self.config,
            manifest,
            self.worker,
            claimed,
            stop,
            self.progress,
            self._draining.is_set,
        )
        try:
            carry_out(batch)
        except DBAPIError:
            raise
        except Exception as error:
            self._hold_unexpected(claimed, error)
            raise

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
        removed, self._swept = sweeping.sweep(self.database, self.config, self._swept)
        for part in removed:
            log.info("removed the part file of a lost lease", part=part)
        for path in sweeping.sweep_scratch(self.config.scratch):
            log.info("removed a focal plane that was unpacked and left", file=str(path))

    def _publish(self) -> None:
        published, errors = publishing.publish_all(self.database, self.config)
        if published:
            log.info("triggers are ready", count=published)
        for error in errors:
            log.warning("an inventory could not be written", **error.as_dict())
        if errors:
            self._rested["publish"] = time.monotonic() + 10.0

    def _submit_spooled(self, refused_too: bool) -> None:
        assert self.config.spool is not None
        ready, self._spool_unfinished = watching.unread(self.database, self.config.spool, refused_too=refused_too)
        for path in ready:
            info = path.stat()
            problem = None
            try:
                submitted = submit(self.database, self.config, read_manifest(path), str(path))
                log.info(
                    "submitted",
                    manifest=submitted.name,
                    revision=submitted.revision,
                    changed=submitted.changed,
                )
            except (ManifestError, TransferError) as error:
                problem = str(error)
                log.warning("refused", file=str(path), problem=problem)
            watching.remember(self.database, path, info, problem)
        if refused_too:
            watching.forget_gone(self.database, self.config.spool)

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
        busy = sum(1 for key in self._jobs if isinstance(key, tuple))
        return f"{busy} routes busy, {self.progress.items} items done since the start"

    def _is_idle(self) -> bool:
        """Whether nothing is left that can be done now."""
        if self._jobs or self._spool_hinted or self._spool_unfinished:
            return False
        resting = any(until > time.monotonic() for until in self._rested.values())
        if publishing.pending(self.database):
            return resting
        return all(seconds > ONCE_PATIENCE_S for _, seconds in self._due())

    def _due(self) -> list[tuple[items.Work, float]]:
        """What is waiting for this worker: of the hosts it serves, on routes that work at this hour."""
        serves, now = self.config.stager.serves, datetime.now().astimezone().time()
        return [
            (work, seconds)
            for work, seconds in items.due(self.database)
            if (self._only is None or work.manifest_id in self._only)
            and (serves is None or {work.source_host, work.destination_host} <= set(serves))
            and routes.is_open(self.config.route(work.source_host, work.destination_host).hours, now)
        ]


def standing(database: Database, only: Collection[str] | None = None) -> int:
    """The exit code that says how it stands: 0 all done, 1 something is held or refused, 3 not complete yet."""
    connection = database.engine.raw_connection()
    try:
        found = status.snapshot(connection.driver_connection)
    finally:
        connection.close()
    rows = [row for row in found.datasets if row.state != "cancelled" and (only is None or row.manifest in only)]
    if any(row.files["held"] for row in rows) or (only is None and found.refused):
        return 1
    return 0 if all(row.state == "complete" for row in rows) else 3
