"""Carry out a claimed batch: check, copy or chop, and write what became of each item as soon as it is known.

Only this module and `bundling.packing` catch TransferError. A batch is of one manifest, so of one route.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

from manifests.manifest import Manifest
from stager import focal_planes, items, reserving, second_stores
from stager.batches import Batch, failed
from stager.bundling import choosing, packing
from stager.bundling.choosing import Chosen
from stager.cutting import Cutting
from stager.database import Database
from stager.items import Claimed, Finished
from stager.looking import Looking
from stager.recalls import sorting as recalls
from transfers.copying import copy
from transfers.errors import NoSpace, TransferError, Transient
from transfers.hosts import UNKNOWN, Host

FLUSH_ITEMS = 100  # results written in one transaction...
FLUSH_S = 1.0  # ...or after this long


class Unexpected(TransferError):
    """Stager itself failed: the item is held with the traceback, for trying again would not end."""

    kind = "unexpected"
    advice = "a fault of Stager's own: report it with this text, then `stager retry` the manifest"


def claim(
    database: Database,
    manifest_id: int,
    manifest: Manifest,
    worker: str,
    *,
    most: int,
    most_bytes: int,
    lease_s: float,
    room: int = UNKNOWN,
) -> tuple[Sequence[Claimed], Chosen | None]:
    """Lease the items of the next batch of a manifest, with the bundle that they are packed into, if they are: bundles
    first, then the files that go as they are; of those, what fits into `room` first."""
    if manifest.bundle is not None:
        chosen = choosing.choose(database, manifest_id, manifest, worker, lease_s=lease_s)
        if chosen is not None:
            return chosen.members, chosen
    most_bytes = min(most_bytes, room)
    found = items.claim(database, manifest_id, worker, most=most, most_bytes=most_bytes, lease_s=lease_s, room=room)
    return found, None


def carry_out(batch: Batch) -> int:
    """Bring every item of the batch to its place, or say why not; returns how many came. Never raises a TransferError.

    Items that are to be bundled go to the store together (`bundling.packing`). Those that were not begun when `stop`
    became true, or when one of the hosts became unusable (`troubles` then says why), are given back.
    """
    writer = _Writer(batch)
    with ExitStack() as room:
        try:
            batch = _what_is_online(batch, writer)
            _reserve(batch, room)
        except TransferError as error:
            if isinstance(error, NoSpace):
                batch.no_room.append(error)
            return _not_begun(batch, writer, error)
        return _carry_out(batch, writer) if batch.bundle is None else packing.carry_out(batch, batch.bundle)


def _reserve(batch: Batch, room: ExitStack) -> None:
    """Have the room that the batch needs promised, at both stores where there are two; raises TransferError."""
    files = [(item.destination, item.size) for item in batch.claimed if item.destination and item.size is not None]
    nbytes = sum(item.size or 0 for item in batch.claimed)
    for host in (batch.destination, batch.second):
        if host is not None and batch.claimed:
            room.enter_context(reserving.reserved(batch.database, batch.config, host, batch.worker, nbytes, files))


def _not_begun(batch: Batch, writer: _Writer, error: TransferError) -> int:
    """Say of every item why the batch could not begin; where a host is to blame, of the first alone."""
    for item in writer.unwritten():
        if not batch.ends():
            writer.add(failed(batch, item, error, 0.0))
    return writer.end()


def _carry_out(batch: Batch, writer: _Writer) -> int:
    begun = time.monotonic()
    try:
        results = _chop_all if batch.manifest.kind == "chop" else _copy_all
        brought = results(batch, batch.source, batch.destination)
        for finished in brought if batch.second is None else second_stores.both(batch, batch.second, brought):
            writer.add(finished)
    except TransferError as error:  # a whole host cannot be used: no item of the batch could be tried further
        for item in writer.unwritten():
            writer.add(failed(batch, item, error, time.monotonic() - begun))
    return writer.end()


def _what_is_online(batch: Batch, writer: _Writer) -> Batch:
    """The batch without the items whose files are on tape: these wait, and their files are asked for."""
    if not batch.source.stages:
        return batch
    told = recalls.sort_out(batch.database, batch.source, batch.claimed)
    recalls.postpone(batch.database, batch.source.name, told.waits)
    writer.forget(one.item for one in told.waits)
    for item, error in told.failed:
        writer.add(failed(batch, item, error, 0.0))
    return replace(batch, claimed=told.online)


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

    def forget(self, given_back: Iterable[Claimed]) -> None:
        """These items are no longer the batch's."""
        for item in given_back:
            self._open.pop(item.id, None)

    def add(self, finished: Finished) -> None:
        self._open.pop(finished.item.id, None)
        self._due.append(finished)
        if finished.decision is None or not finished.decision.released:
            self.batch.traffic.finished(finished.error is None)
        if len(self._due) >= FLUSH_ITEMS or time.monotonic() - self._flushed > FLUSH_S:
            self.flush()

    def end(self) -> int:
        """Give back what was not begun, and write all that is due; returns how many items came."""
        stopped = Transient("it was not begun", side="local", phase="stopped")
        for item in self.unwritten():
            self.add(failed(self.batch, item, stopped, 0.0))
        self.flush()
        return self.done

    def flush(self) -> None:
        if self._due:
            written = items.finish(
                self.batch.database, self.batch.worker, self._due, folders=self.batch.config.camera_folders
            )
            self.batch.progress.items += written.done
            self.done += written.done
        self._due = []
        self._flushed = time.monotonic()


# ------------------------------------------------------------------------------------------- files


def _copy_all(batch: Batch, source: Host, destination: Host) -> Iterator[Finished]:
    """Copy, archive or restore: the same work between hosts of different kinds."""
    looking = Looking(batch, source, destination)
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
        images, found = looking.seen.pop(item.id, ((), None))
        if isinstance(result, TransferError):
            yield failed(batch, item, result, seconds, found)
        else:
            yield Finished(item, seconds, (result,), images, findings=found)


# ------------------------------------------------------------------------------------ focal planes


def _chop_all(batch: Batch, source: Host, destination: Host) -> Iterator[Finished]:
    """Chop one focal plane after the other; a bad one is no trouble to the next."""
    for item in batch.claimed:
        if batch.ends():
            return
        begun = time.monotonic()
        cutting = Cutting(batch, source, destination, item)
        try:
            receipts = cutting.carry_out()
        except TransferError as error:
            named = focal_planes.named(error, batch.camera, source, item.source)
            yield failed(batch, item, named, time.monotonic() - begun, cutting.findings)
        else:
            seconds = time.monotonic() - begun
            yield Finished(item, seconds, receipts, cutting.images, findings=cutting.findings, making=cutting.making)
