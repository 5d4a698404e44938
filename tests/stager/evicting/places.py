"""A site whose hosts lie on disks of their own, as far as they say, and what the tests of eviction do on it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from manifests.parts import Location
from stager import doctor
from stager.config import Config
from stager.database import Database
from stager.evicting import checks, evicting
from stager.evicting.candidates import Named
from stager.evicting.evicting import Report, Request
from stager.evicting.reasons import Why
from stager.models import decode_path, encode_path
from stager.opening import Hosts
from tests.stager.site import Site
from transfers.errors import TransferError
from transfers.hosts import Host, Identity

KB = 1000
QUARANTINE = ".stager/quarantine/evicted"


class OnDisk:
    """A host as it is, but for the file system that it tells: a disk of the test's naming.

    All hosts of a test lie on one file system, which is what must not count; here each has its own, until a test says
    otherwise.
    """

    def __init__(self, host: Host, disk: str) -> None:
        self.host = host
        self.disk = disk

    def identify(self, paths: Iterable[str]) -> Iterator[Identity | TransferError | None]:
        for found in self.host.identify(paths):
            yield Identity(self.disk, found.inode) if isinstance(found, Identity) else found

    def __getattr__(self, name: str) -> Any:
        return getattr(self.host, name)


class Disks(Hosts):
    """Hosts on disks that the test names; one that is not named is a disk by itself. `instead` are other hosts in the
    places of those of the configuration."""

    def __init__(self, database: Database, config: Config, disks: dict[str, str] | None = None) -> None:
        super().__init__(database, config)
        self.disks = disks or {}
        self.instead: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Host:
        found: Any = self.instead.get(name) or OnDisk(super().__getitem__(name), self.disks.get(name, name))
        if isinstance(found, TransferError):
            raise found
        return found  # type: ignore[no-any-return]  # it is all that a Host is


class Killed(BaseException):
    """The end of the process, as far as what it was doing is concerned: nothing of it is caught or cleared away."""


class Dying(OnDisk):
    """A host at which the process ends: before, or after, the so-manyth file is moved or removed. `left` counts down;
    half of a move that is by link is a step of its own."""

    def __init__(self, host: Host, disk: str, steps: int) -> None:
        super().__init__(host, disk)
        self.left = steps

    def _step(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1

    def move(self, pairs: Iterable[tuple[str, str]]) -> Iterator[str | TransferError]:
        for old, new in pairs:
            self._step()
            if self.left == 0:  # both names, as a rename by link and unlink has them for a moment
                target = Path(self.host.root, new)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(Path(self.host.root, old), target)
            self._step()
            if self.left >= 0 and Path(self.host.root, new).exists():
                Path(self.host.root, old).unlink()
                yield new
            else:
                yield from self.host.move([(old, new)])

    def remove(self, paths: Iterable[str]) -> Iterator[str | TransferError]:
        for path in paths:
            self._step()
            yield from self.host.remove([path])


def disks(site: Site, **named: str) -> Disks:
    return Disks(site.database, site.config, named)


def spread(site: Site, *names: str, size: int = KB, **said: Any) -> None:
    """Files at a:raw that manifests brought to b:new, to the store (mss:kept) and to c:also, each of other bytes."""
    for name in names:
        site.file(f"a:raw/{name}", content(name, size))
    site.run("first", **({"trigger": None} | said))
    site.run("second", kind="archive", destination="mss:kept", trigger=None)
    site.run("third", destination="c:also", trigger=None)
    site.change("UPDATE items SET progressed_at = id")  # they came in the order of their names


def content(name: str, size: int = KB) -> bytes:
    return (hashlib.sha256(os.fsencode(name)).digest() * (size // 32 + 1))[:size]


def known(site: Site, *places: str, data: bytes | None = None, arrived_at: float = 1.0, **said: Any) -> None:
    """Files that the database knows as proven copies, of the same bytes: those that the name of the first makes."""
    data = content(places[0].rpartition("/")[2]) if data is None else data
    insert = sa.text("""
        INSERT INTO copies (host, path, size, digest, mtime_ns, proof, proven_at)
        VALUES (:host, :path, :size, :digest, :mtime, 'reread', :at)""")
    with site.database.write() as connection:
        for place in places:
            host, _, path = place.partition(":")
            time = site.file(place, data).stat().st_mtime_ns
            values = {"host": host, "path": encode_path(path), "size": len(data), "mtime": time, "at": arrived_at}
            values |= {"digest": f"sha256:{hashlib.sha256(data).hexdigest()}"} | said
            connection.execute(insert, values)


def three(site: Site, *names: str, size: int = KB) -> None:
    """Copies of each at b, at c and at the store, the first the oldest."""
    for number, name in enumerate(names):
        places = (f"b:new/{name}", f"mss:kept/{name}", f"c:also/{name}")
        known(site, *places, data=content(name, size), arrived_at=1.0 + number)


def plane(site: Site, *names: str) -> None:
    """Pieces of one focal plane at b, each with its others."""
    three(site, *names)
    site.file("a:raw/plane", "plane")
    site.submit("first", source="a:raw/plane", destination="b:new", trigger=None)
    site.change("UPDATE manifests SET kind = 'chop'")
    site.change("UPDATE items SET state = 'done', destination = 'new', files = :count", count=len(names))
    site.change("UPDATE copies SET piece_of = (SELECT id FROM items) WHERE host = 'b'")


def evict(
    site: Site,
    to_free: int,
    what: str = "b:",
    *,
    hosts: Hosts | None = None,
    dry_run: bool = False,
    more: bool = True,
    **said: Any,
) -> Report:
    location = Location.parse(what)
    request = Request(Named(location.host, location), to_free, more, **said)
    return evicting.evict(site.database, hosts or disks(site), request, dry_run=dry_run)


def why(report: Report) -> dict[Why, int]:
    """How many copies stay for which reason."""
    return {reason: tally.files for reason, tally in report.refused.items()}


def stays(site: Site, reason: Why, to_free: int = KB, **said: Any) -> str:
    """Nothing goes, for this reason alone; what is told of the first."""
    report = evict(site, to_free, **said)
    assert (report.evicted, report.enough, list(why(report))) == ([], False, [reason])
    assert all(state != "quarantined?" for _, state in tombstones(site))
    return report.refused[reason].examples[0]


def paths(report: Report) -> list[str]:
    return [one.path for one in report.evicted]


def left(site: Site, place: str) -> list[str]:
    """The names in a folder."""
    folder = site.path(place)
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def quarantined(site: Site, host: str = "b") -> list[str]:
    return left(site, f"{host}:{QUARANTINE}")


def copies(site: Site, host: str = "b") -> list[str]:
    """The paths of the copies that are listed at a host."""
    rows = site.rows("SELECT path FROM copies WHERE host = :host", host=host)
    return sorted(decode_path(row[0]) for row in rows)


def tombstones(site: Site) -> list[tuple[str, str]]:
    """(path, state) of each; one on its way, or on its way back, is told by a `?`."""
    rows = site.rows("SELECT path, state, purge_after FROM evictions ORDER BY id")
    return [(decode_path(row[0]), row[1] + ("?" if row[1] == "quarantined" and row[2] is None else "")) for row in rows]


def check_all(site: Site) -> None:
    """Every invariant holds."""
    broken: list[Any] = [one for one in doctor.examine(site.database, site.hosts, deep=True) if not one.sound]
    broken += [one for one in checks.examine(site.database, site.hosts) if not one[1]]
    assert broken == []
