"""Carry out a claimed batch: check, copy or chop, and write what became of each item as soon as it is known.

Only this module catches TransferError. A batch is of one manifest, so of one route.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog

from manifests.cameras import Camera, load
from manifests.manifest import Manifest
from stager import breakers, copies, focal_planes, items, registry, retrying
from stager.config import Config
from stager.database import Database
from stager.items import Claimed, Finished
from stager.routes import Throttle, Traffic
from transfers.copying import LOOKED_AT, copy
from transfers.errors import Refused, SourceMissing, TransferError, Transient, Unsupported
from transfers.fits import Header
from transfers.hosts import Hdu, Host, Receipt, Want, only
from transfers.lanes import Result
from transfers.local import LocalHost
from transfers.unpacking import LIMIT, is_packed, unpack

log = structlog.get_logger("stager")

FLUSH_ITEMS = 100  # results written in one transaction...
FLUSH_S = 1.0  # ...or after this long
FITS_ENDINGS = (".fits", ".fit", ".fts", ".fits.gz", ".fit.gz", ".fts.gz", ".fits.fz")


class Unexpected(TransferError):
    """Stager itself failed: the item is held with the traceback, for trying again would not end."""

    kind = "unexpected"
    advice = "a fault of Stager's own: report it with this text, then `stager retry` the manifest"


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


def carry_out(batch: Batch) -> int:
    """Bring every item of the batch to its place, or say why not; returns how many came. Never raises a TransferError.

    Items that were not begun when `stop` became true, or when one of the hosts became unusable (`troubles` then
    says why), are given back.
    """
    writer = _Writer(batch)
    begun = time.monotonic()
    try:
        results = _chop_all if batch.manifest.kind == "chop" else _copy_all
        for finished in results(batch, batch.source, batch.destination):
            writer.add(finished)
    except TransferError as error:  # a whole host cannot be used: no item of the batch could be tried further
        for item in writer.unwritten():
            writer.add(_failed(batch, item, error, time.monotonic() - begun))
    stopped = Transient("it was not begun", side="local", phase="stopped")
    for item in writer.unwritten():
        writer.add(_failed(batch, item, stopped, 0.0))
    writer.flush()
    return writer.done


class _Writer:
    """Writes results in small transactions, each as soon as it is due."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._open = {item.id: item for item in batch.claimed}
        self._due: list[Finished] = []
        self._flushed = time.monotonic()
        self.done = 0

    def unwritten(self) -> list[Claimed]:
        return list(self._open.values())

    def add(self, finished: Finished) -> None:
        self._open.pop(finished.item.id, None)
        self._due.append(finished)
        if finished.decision is None or not finished.decision.released:
            self.batch.traffic.finished(finished.error is None)
        if len(self._due) >= FLUSH_ITEMS or time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def flush(self) -> None:
        if self._due:
            written = items.finish(
                self.batch.database, self.batch.worker, self._due, folders=self.batch.config.camera_folders
            )
            self.batch.progress.items += written.done
            self.done += written.done
        self._due = []
        self._flushed = time.monotonic()


def _failed(batch: Batch, item: Claimed, error: TransferError, seconds: float) -> Finished:
    guarded = error.host in (batch.source.name, batch.destination.name) and breakers.is_of_host(error)
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
    return Finished(item, seconds, error=error, decision=decision)


# ------------------------------------------------------------------------------------------- files


def _copy_all(batch: Batch, source: Host, destination: Host) -> Iterator[Finished]:
    """Copy, archive or restore: the same work between hosts of different kinds."""
    looking = _Looking(batch, source, destination)
    by_id = {item.id: item for item in batch.claimed}
    for want, result in copy(
        source,
        destination,
        looking.wants(),
        proof=batch.manifest.proof,
        streams=batch.traffic.streams,
        on_bytes=batch.throttle,
        stop=batch.stop,
        draining=batch.ends,
        sizes=[item.size for item in batch.claimed],
    ):
        item = by_id[want.item]
        seconds = time.monotonic() - looking.begun[item.id]
        if isinstance(result, TransferError):
            yield _failed(batch, item, result, seconds)
        else:
            yield Finished(item, seconds, (result,), looking.images.pop(item.id, ()))


class _Looking:
    """Looks into the files of a batch before they are sent, while those before them are: its wants are asked for by
    a thread of the copying."""

    def __init__(self, batch: Batch, source: Host, destination: Host) -> None:
        self.batch = batch
        self.source = source
        self.destination = destination
        self.begun: dict[int, float] = {}
        self.images: dict[int, list[dict[str, Any]]] = {}

    def wants(self) -> Iterator[Want | Result]:
        """What is to be brought; a file that is not sound has its result. What is not begun is left out at the end."""
        claimed = self.batch.claimed
        for start in range(0, len(claimed), LOOKED_AT):
            if self.batch.ends():
                return
            yield from self._look(claimed[start : start + LOOKED_AT])

    def _look(self, lot: Sequence[Claimed]) -> Iterator[Want | Result]:
        self.begun.update((item.id, time.monotonic()) for item in lot)
        proven = _proven_digests(self.batch, self.source.name, lot)
        for item, found in _inspected(self.batch, self.source, lot):
            want = _want(self.batch, item, proven.get(item.source))
            if isinstance(found, TransferError):
                yield want, found.at("source")
            else:
                self.images[item.id] = _images(self.batch, self.destination.name, item, found)
                yield want


def _proven_digests(batch: Batch, host: str, claimed: Sequence[Claimed]) -> dict[str, str]:
    """The digests that the source is expected to hold because Stager itself proved them there, by path.

    On a store what was archived is what must come back. Elsewhere a file may have been rewritten on purpose
    since: then its size or time tells, and it is taken as it is now.
    """
    table = copies.table.c
    query = sa.select(table.path, table.size, table.mtime_ns, table.digest).where(
        table.host == host, table.path.in_([item.source for item in claimed])
    )
    with batch.database.read() as connection:
        known = {row.path: row for row in connection.execute(query)}
    kept = batch.manifest.kind == "restore"
    return {
        item.source: known[item.source].digest
        for item in claimed
        if item.source in known
        and (kept or (known[item.source].size, known[item.source].mtime_ns) == (item.size, item.mtime_ns))
    }


def _want(batch: Batch, item: Claimed, proven: str | None = None) -> Want:
    assert item.destination is not None  # only a focal plane that is held has none
    return Want(
        item.id,
        item.epoch,
        item.source,
        item.destination,
        item.size,
        item.mtime_ns,
        item.digest or proven,
        batch.manifest.replace,
        None,
    )


def _inspected(
    batch: Batch, source: Host, lot: Sequence[Claimed]
) -> Iterator[tuple[Claimed, Sequence[Hdu] | TransferError]]:
    """Every item with the headers of its file; with none where it is no FITS file, or the manifest wants no check."""
    checked = [item for item in lot if batch.manifest.check == "fits" and is_fits(item.source)]
    chosen = {item.id for item in checked}
    found = source.headers([item.source for item in checked]) if checked else iter(())
    for item in lot:
        yield item, next(found) if item.id in chosen else ()
    deque(found, 0)  # to its end, as `only` has it


def is_fits(path: str) -> bool:
    """Whether a file of this name should be FITS."""
    return path.lower().endswith(FITS_ENDINGS)


def _images(batch: Batch, host: str, item: Claimed, hdus: Sequence[Hdu]) -> list[dict[str, Any]]:
    camera = batch.camera
    if camera is None or not hdus or item.destination is None:
        return []
    cards = Header.parse(hdus[0].header)
    image = registry.image(camera, batch.manifest, host, item.destination, cards)
    return [image] if image else []


# ------------------------------------------------------------------------------------ focal planes


def _chop_all(batch: Batch, source: Host, destination: Host) -> Iterator[Finished]:
    """Chop one focal plane after the other; a bad one is no trouble to the next."""
    for item in batch.claimed:
        if batch.ends():
            return
        begun = time.monotonic()
        try:
            receipts, images = _chop(batch, source, destination, item)
            yield Finished(item, time.monotonic() - begun, receipts, images)
        except TransferError as error:
            yield _failed(batch, item, error, time.monotonic() - begun)


def _chop(
    batch: Batch, source: Host, destination: Host, item: Claimed
) -> tuple[Sequence[Receipt], list[dict[str, Any]]]:
    """All pieces of a focal plane, proven, with their registry entries; TransferError when any of them is not."""
    if source.far and _is_gzip_alone(item.source):
        want = Want(item.id, item.epoch, item.source, "", item.size, item.mtime_ns, item.digest)
        path = None
        with suppress(Unsupported):  # no program runs there: it comes here to be unpacked
            path = source.gunzip(want, LIMIT, batch.stop)
        if path is not None:
            return _chop_there(batch, source, destination, item, path)
    if is_packed(item.source):
        scratch = _scratch(batch)
        path = unpack(
            source,
            item.source,
            scratch,
            size=item.size,
            mtime_ns=item.mtime_ns,
            digest=item.digest,
            stop=batch.stop,
        )
        try:
            return _chop_plain(batch, scratch, destination, item, path, None)
        finally:
            Path(scratch.root, path).unlink(missing_ok=True)
    found = only(source.find([item.source]))
    if isinstance(found, TransferError):
        raise found.at("source")
    if found is None:
        raise SourceMissing("the file is gone", host=source.name, side="source", path=item.source, phase="chop")
    return _chop_plain(batch, source, destination, item, item.source, item)


def _is_gzip_alone(path: str) -> bool:
    """Whether unpacking needs nothing but gzip, which every agent has."""
    return path.lower().endswith(".gz") and not path.lower().endswith(".fz.gz")


def _chop_there(
    batch: Batch, source: Host, destination: Host, item: Claimed, path: str
) -> tuple[Sequence[Receipt], list[dict[str, Any]]]:
    """The same for a .gz of a far host that was unpacked where it lies, so that its pixels stay there."""
    try:
        return _chop_plain(batch, source, destination, item, path, None)
    finally:
        for result in source.remove([path]):
            if isinstance(result, TransferError):
                log.warning("an unpacked focal plane could not be removed", **result.as_dict())


def _scratch(batch: Batch) -> LocalHost:
    folder = batch.config.scratch
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = LocalHost("scratch", str(folder), instance=batch.database.instance)
        scratch.open(None)
    except OSError as error:
        text = f"the scratch folder {folder} cannot be used: {error.strerror}"
        raise Refused(text, side="local", phase="unpack", errno=error.errno) from error
    return scratch


def _chop_plain(
    batch: Batch, source: Host, destination: Host, item: Claimed, path: str, expected: Claimed | None
) -> tuple[Sequence[Receipt], list[dict[str, Any]]]:
    camera = batch.camera
    assert camera is not None
    hdus = only(source.headers([path]))
    if isinstance(hdus, TransferError):
        raise hdus.at("source")
    ids = json.loads(item.ids or "{}")
    where = (batch.manifest.source.host, item.source)
    made = focal_planes.recipes(hdus, camera, batch.manifest, ids, destination.root, where)
    size, mtime_ns = (expected.size, expected.mtime_ns) if expected else (None, None)
    digest = expected.digest if expected else None
    wants = [
        Want(item.id, item.epoch, path, to, size, mtime_ns, digest, batch.manifest.replace, piece)
        for _, to, piece in made
    ]
    receipts: dict[str, Receipt] = {}
    failure: TransferError | None = None
    for want, result in copy(
        source,
        destination,
        wants,
        proof=batch.manifest.proof,
        streams=batch.traffic.streams,
        on_bytes=batch.throttle,
        stop=batch.stop,
    ):
        if isinstance(result, TransferError):
            failure = failure or result
        else:
            receipts[want.destination] = result
    if failure is not None:
        raise failure
    images = [
        image
        for piece_ids, to, piece in made
        if (
            image := registry.image(camera, batch.manifest, destination.name, to, Header.parse(piece.header), piece_ids)
        )
    ]
    return [receipts[to] for _, to, _ in made], images
