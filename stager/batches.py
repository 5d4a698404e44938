"""A batch: claimed items of one manifest, and all that is needed to carry them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from manifests.cameras import Camera, load
from manifests.findings import Finding
from manifests.manifest import Manifest
from stager import breakers, retrying
from stager.bundling.choosing import Chosen
from stager.config import Config
from stager.database import Database
from stager.items import Claimed, Finished
from stager.models import ItemState
from stager.retrying import Decision
from stager.routes import Throttle, Traffic
from transfers.errors import NoSpace, TransferError
from transfers.hosts import Host


@dataclass(slots=True)
class Progress:
    """What this process has moved; numbers only grow, and are read by whoever draws them."""

    bytes: int = 0
    items: int = 0

    def add_bytes(self, count: int) -> None:
        self.bytes += count


@dataclass(frozen=True)
class Batch:
    """Claimed items of one manifest, and all that is needed to carry them out; its hosts are open."""

    database: Database
    config: Config
    manifest: Manifest
    worker: str
    claimed: Sequence[Claimed]
    source: Host
    destination: Host
    traffic: Traffic
    stop: Callable[[], bool]
    progress: Progress = field(default_factory=Progress)
    draining: Callable[[], bool] = bool  # true: begin nothing more, finish what is begun
    troubles: dict[str, TransferError] = field(default_factory=dict)  # hosts that became unusable on the way
    broken: list[TransferError] = field(default_factory=list)  # connections that broke off: parts may be left
    no_room: list[NoSpace] = field(default_factory=list)  # that it was promised none, and so was not begun
    second: Host | None = None  # the other store, where the manifest names one
    bundle: Chosen | None = None  # what the items are packed into

    @cached_property
    def throttle(self) -> Throttle:
        """What bytes are reported to as they flow: counts them, and keeps to the route's rate."""
        route = self.config.route(self.manifest.source.host, self.manifest.destination.host)
        return Throttle(route.bytes_per_s, self._moved, self.stop)

    def _moved(self, count: int) -> None:
        self.progress.add_bytes(count)
        self.traffic.moved(count)

    def ends(self) -> bool:
        """Whether nothing more of it is to be begun."""
        return self.stop() or self.draining() or bool(self.troubles)

    @property
    def camera(self) -> Camera | None:
        name = self.manifest.camera
        return load(name, self.config.camera_folders) if name else None


def failed(
    batch: Batch, item: Claimed, error: TransferError, seconds: float, findings: Sequence[Finding] | None = None
) -> Finished:
    """What an error makes of an item; a trouble of a whole host, or a connection that broke off, is noted too."""
    hosts = [host.name for host in (batch.source, batch.destination, batch.second) if host is not None]
    guarded = error.host in hosts and breakers.is_of_host(error)
    full = guarded and breakers.is_full(error) and error.host in batch.troubles
    if guarded:
        batch.troubles.setdefault(error.host, error)
    if of_connection := breakers.is_of_connection(error):
        batch.broken.append(error)
    # One file may break the connection each time: a batch that brings nothing must use up its tries. While the daemon
    # ends, connections break because it ends them.
    excused = of_connection and (batch.traffic.brought > 0 or batch.stop())
    decision = retrying.decide(
        error,
        item.tries,
        pinned=item.digest is not None,
        guarded=guarded,
        excused=excused,
        most=batch.config.stager.tries,
    )
    if full:  # what was on its way when the disk was found to be full is given back: it was the first that told
        decision = Decision(ItemState.WAITING, counts=False, released=True)
    return Finished(item, seconds, error=error, decision=decision, findings=findings)
