"""Whether there is room for what is to come: by file system, as hosts that lie on one share it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stager import reserving
from stager.config import Config
from stager.database import Database
from stager.drawing import size
from transfers.hosts import UNKNOWN, Host


@dataclass(slots=True)
class Room:
    """The room of one file system: what is needed there, and what there is beyond what its hosts keep free (`floor`)
    and what other work was promised. `free` is None where the host does not say."""

    system: str
    hosts: list[str]
    needed: int
    free: int | None

    @property
    def short(self) -> int:
        """Bytes that are lacking; 0 where there is room."""
        return 0 if self.free is None else max(0, self.needed - self.free)

    def problem(self) -> str | None:
        """What to say where there is too little room."""
        if not self.short:
            return None
        return (
            f"{', '.join(self.hosts)}: {size(self.needed)} are to come and {size(self.free)} may be used; make room "
            f"for {size(self.short)} there, with `stager evict` or by hand, or lower `floor` in stager.toml"
        )

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "short": self.short}


def add(rooms: dict[str, Room], database: Database, config: Config, host: Host, needed: int) -> Room:
    """Note that so many bytes are needed at a host; raises TransferError where it cannot be asked."""
    system = reserving.system_of(host)
    free = reserving.room(database, config, host)
    room = rooms.setdefault(system, Room(system, [], 0, None))
    if free != UNKNOWN:
        room.free = free if room.free is None else min(room.free, free)
    if host.name not in room.hosts:
        room.hosts.append(host.name)
    room.needed += needed
    return room
