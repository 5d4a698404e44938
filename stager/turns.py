"""A manifest's turn on its route: open the hosts, claim a batch, carry it out, and tell what the route does.

A route's hosts are opened before anything is claimed for it, and there must be room: what a whole host lacks is the
host's trouble, and no item's.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial

import structlog
from sqlalchemy.exc import DBAPIError

from manifests.manifest import Manifest
from stager import items, reserving, retrying, routes
from stager.batches import Batch, Progress
from stager.bundling.choosing import Chosen
from stager.config import Config
from stager.database import Database
from stager.guarding import Guard
from stager.jobs import Rest
from stager.opening import Hosts
from stager.working import Unexpected, carry_out, claim
from transfers.errors import TransferError, Transient
from transfers.hosts import Host

log = structlog.get_logger("stager")

MOST_FILES = 512  # of one batch: enough for a conversation, little enough to drain soon
MOST_FAR_FILES = 2048  # ...where each batch costs round trips
MOST_BYTES = 4 << 30
MOST_PLANES = 4  # focal planes of one batch
NO_ROOM_REST_S = 5.0  # between two looks at whether a host has room again
TROUBLE_REST_S = 1.0  # after a host could not say what room it has
MOST_MANIFESTS = 100  # whose documents are remembered


class Turns:
    """Carries out batches, each in a job of its own; knows what this worker holds, and what its routes do."""

    def __init__(
        self,
        database: Database,
        config: Config,
        hosts: Hosts,
        guard: Guard,
        worker: str,
        *,
        draining: Callable[[], bool],
        stopped: Callable[[], bool],
        on_broken: Callable[[], None],
    ) -> None:
        """`draining` bids to begin nothing more, `stopped` to end at once; `on_broken` hears that parts may be left."""
        self.database = database
        self.config = config
        self.hosts = hosts
        self.guard = guard
        self.worker = worker
        self.progress = Progress()
        self.full: dict[str, float] = {}  # hosts where there is no room for more, and since when
        self._resting: dict[int, float] = {}  # manifests of which nothing due fits, and until when they are let alone
        self.orphans: list[list[items.Claimed]] = []  # what was held when the database went away
        self._draining = draining
        self._stopped = stopped
        self._on_broken = on_broken
        self._held: dict[int, list[items.Claimed]] = {}  # by manifest: the leases that are being worked on
        self._manifests: dict[int, Manifest] = {}
        self._traffic: dict[tuple[str, str], routes.Traffic] = {}

    @property
    def held(self) -> list[int]:
        """The items that are being worked on."""
        return [item.id for claimed in list(self._held.values()) for item in claimed]

    def manifest(self, manifest_id: int) -> Manifest:
        """What a revision says, which never changes."""
        if manifest_id not in self._manifests:
            if len(self._manifests) >= MOST_MANIFESTS:
                self._manifests.clear()
            self._manifests[manifest_id] = Manifest.from_canonical(items.document(self.database, manifest_id))
        return self._manifests[manifest_id]

    def rests(self, work: items.Work) -> bool:
        """Whether nothing of a manifest had room a moment ago."""
        return time.monotonic() < self._resting.get(work.manifest_id, 0.0)

    def take(self, work: items.Work) -> Rest | None:
        """Open a route's hosts, claim a batch of a manifest and carry it out, once there is room for it."""
        manifest = self.manifest(work.manifest_id)
        if self._draining() or (hosts := self._open(work, manifest.second)) is None or self._is_stopping(work):
            return None
        source, destination, _ = hosts
        room = self._room(destination)
        if isinstance(room, Rest):
            return room
        most_files = MOST_FAR_FILES if source.far or destination.far else MOST_FILES
        claimed, bundle = claim(
            self.database,
            work.manifest_id,
            manifest,
            self.worker,
            most=MOST_PLANES if work.kind == "chop" else most_files,
            most_bytes=MOST_BYTES,
            room=room,
            lease_s=self.config.stager.lease_s,
        )
        if not claimed:
            return None
        self._held[work.manifest_id] = list(claimed)
        try:
            self._carry_out(work, manifest, claimed, bundle, *hosts)
        except DBAPIError:
            self.orphans.append(list(claimed))  # the database is away: they are given back once it answers
            raise
        finally:
            del self._held[work.manifest_id]
        return None

    def give_back(self) -> None:
        """Release what was claimed by batches whose end could not be written; what was written stays."""
        away = Transient("the database was away when it was to be written", side="local", phase="stopped")
        decision = retrying.decide(away, 0)
        while self.orphans:
            given = [items.Finished(item, 0.0, error=away, decision=decision) for item in self.orphans[0]]
            items.finish(self.database, self.worker, given)
            self.orphans.pop(0)

    # ------------------------------------------------------------------------------------- a batch

    def _open(self, work: items.Work, second: str | None) -> tuple[Host, Host, Host | None] | None:
        """The hosts of a route, and the second store, open; None when one cannot be used."""
        opened: dict[str, Host] = {}
        for name in dict.fromkeys((work.source_host, work.destination_host, second or work.destination_host)):
            try:
                opened[name] = self.hosts[name]
            except TransferError as error:
                self.guard.trip(name, error)
                return None
        return opened[work.source_host], opened[work.destination_host], opened[second] if second else None

    def _is_stopping(self, work: items.Work) -> bool:
        """Whether nothing more of this work is to be begun: the daemon stops, or an operator paused a host."""
        return self._draining() or self.guard.is_paused(work.source_host, work.destination_host)

    def _room(self, destination: Host) -> int | Rest:
        """Bytes that may be brought to a host; a rest where nothing is to be begun now."""
        try:
            problem = reserving.problem(self.database, self.config, destination)
            if problem is None:
                return reserving.room(self.database, self.config, destination)
        except TransferError as error:
            self.guard.trip_if_of_host(error)
            return Rest(TROUBLE_REST_S)
        self._waits_for_room(destination, problem)
        return Rest(NO_ROOM_REST_S)

    def _waits_for_room(self, destination: Host, problem: str) -> None:
        now = time.monotonic()
        if self.full.setdefault(destination.name, now) == now:
            log.warning("work waits for room", host=destination.name, problem=problem)

    def _carry_out(
        self,
        work: items.Work,
        manifest: Manifest,
        claimed: Sequence[items.Claimed],
        bundle: Chosen | None,
        source: Host,
        destination: Host,
        second: Host | None,
    ) -> None:
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
            self._stopped,
            self.progress,
            partial(self._is_stopping, work),
            second=second,
            bundle=bundle,
        )
        traffic.begin(time.monotonic(), bundled=bundle is not None)
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
        if batch.no_room:
            self._waits_for_room(destination, str(batch.no_room[0]))
            self._resting[work.manifest_id] = time.monotonic() + NO_ROOM_REST_S
        else:
            self.full.pop(destination.name, None)
        if batch.broken:
            self._on_broken()
        for name, trouble in batch.troubles.items():
            self.guard.trip(name, trouble)
        if done and not batch.troubles:
            self.guard.worked(*(host.name for host in (source, destination, second) if host is not None))
        self._tell(traffic)

    def _hold_unexpected(self, claimed: Sequence[items.Claimed], error: Exception) -> None:
        """Hold what a fault of Stager's own left behind, with its traceback: trying it again would not end."""
        trace = "".join(traceback.format_exception(error))
        what = Unexpected(f"{type(error).__name__}: {error}\n{trace}", side="local", phase="carry out")
        decision = retrying.decide(what, 0)
        held = [items.Finished(item, 0.0, error=what, decision=decision) for item in claimed]
        items.finish(self.database, self.worker, held)

    # ------------------------------------------------------------------------------------- its route

    @property
    def busy(self) -> list[routes.Traffic]:
        """The routes where something flows."""
        return [traffic for traffic in list(self._traffic.values()) if traffic.busy]

    def tell_busy(self) -> None:
        for traffic in self.busy:
            self._tell(traffic)

    def configure(self, config: Config) -> None:
        """Go by another configuration from now on."""
        self.config = config
        for route, traffic in list(self._traffic.items()):
            traffic.streams.bound(*config.streams(*route))

    def _traffic_of(self, work: items.Work) -> routes.Traffic:
        route = (work.source_host, work.destination_host)
        if route not in self._traffic:
            self._traffic[route] = routes.Traffic(*route, *self.config.streams(*route))
        return self._traffic[route]

    def _tell(self, traffic: routes.Traffic) -> None:
        """Write what a route does for who asks, and log it when the number of its streams is another."""
        number = traffic.streams.allowed()
        if number != traffic.told and not traffic.bundled:
            route = f"{traffic.source} > {traffic.destination}"
            log.info("streams", route=route, streams=number, why=traffic.streams.why)
            traffic.told = number
        limits = self.config.route(traffic.source, traffic.destination)
        routes.tell(self.database, traffic, limits, time.monotonic())
