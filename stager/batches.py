"""A batch: claimed items of one manifest, and all that is needed to carry them out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from manifests.cameras import Camera, load
from manifests.manifest import Manifest
from stager.config import Config
from stager.database import Database
from stager.items import Claimed
from stager.routes import Throttle, Traffic
from transfers.errors import TransferError
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
