"""Carry out a claimed batch: check, copy or chop, and write what became of each item as soon as it is known.

Only this module catches TransferError. A batch is of one manifest, so of one route.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from manifests.checking.looks import Joined
from manifests.findings import Finding
from stager import breakers, copies, focal_planes, inspecting, items, registry, retrying
from stager.batches import Batch
from stager.cutting import Cutting
from stager.inspecting import Siblings
from stager.items import Claimed, Finished
from transfers.copying import LOOKED_AT, copy
from transfers.errors import TransferError, Transient
from transfers.fits import Header
from transfers.hosts import Hdu, Host, Want
from transfers.lanes import Result

FLUSH_ITEMS = 100  # results written in one transaction...
FLUSH_S = 1.0  # ...or after this long


class Unexpected(TransferError):
    """Stager itself failed: the item is held with the traceback, for trying again would not end."""

    kind = "unexpected"
    advice = "a fault of Stager's own: report it with this text, then `stager retry` the manifest"


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


def _failed(
    batch: Batch, item: Claimed, error: TransferError, seconds: float, findings: Sequence[Finding] | None = None
) -> Finished:
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
    return Finished(item, seconds, error=error, decision=decision, findings=findings)


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
        images, found = looking.seen.pop(item.id, ((), None))
        if isinstance(result, TransferError):
            yield _failed(batch, item, result, seconds, found)
        else:
            yield Finished(item, seconds, (result,), images, findings=found)


class _Looking:
    """Looks into the files of a batch before they are sent, while those before them are: its wants are asked for by
    a thread of the copying."""

    def __init__(self, batch: Batch, source: Host, destination: Host) -> None:
        self.batch = batch
        self.source = source
        self.destination = destination
        self.begun: dict[int, float] = {}
        self.seen: dict[int, tuple[list[dict[str, Any]], list[Finding]]] = {}  # by item: its image, its findings
        self.siblings = Siblings(batch.database, batch.manifest.dataset, destination.name)

    def wants(self) -> Iterator[Want | Result]:
        """What is to be brought; a file that is not sound has its result. What is not begun is left out at the end."""
        claimed = self.batch.claimed
        for start in range(0, len(claimed), LOOKED_AT):
            if self.batch.ends():
                return
            yield from self._look(claimed[start : start + LOOKED_AT])

    def _look(self, lot: Sequence[Claimed]) -> Iterator[Want | Result]:
        self.begun.update((item.id, time.monotonic()) for item in lot)
        kept = self.batch.manifest.kind == "restore"
        proven = copies.proven(self.batch.database, self.source.name, lot, kept=kept)
        for item, found in _inspected(self.batch, self.source, lot):
            want = _want(self.batch, item, proven.get(item.source))
            if isinstance(found, TransferError):
                trouble: TransferError | None = found.at("source")
                self.seen[item.id] = ([], inspecting.refused(found))
            else:
                trouble = self._judged(item, found)
            yield want if trouble is None else (want, trouble)

    def _judged(self, item: Claimed, hdus: Sequence[Hdu]) -> TransferError | None:
        """Note what the file's headers say; why it is to be held for that, if it is."""
        if not hdus:
            return None
        manifest, camera = self.batch.manifest, self.batch.camera
        headers = [Header.parse(hdu.header) for hdu in hdus]
        image = None
        siblings: Sequence[Mapping[str, Any]] = ()
        if camera is not None and item.destination is not None:
            cards = Joined(headers) if len(headers) > 1 else headers[0]
            image = registry.image(camera, manifest.dataset, self.destination.name, item.destination, cards)
        if image is not None:
            ids = json.loads(image["ids"])
            siblings = self.siblings.of(image, ids)
            self.siblings.add(image, ids)
        found = inspecting.findings(manifest, camera, item.source, hdus, headers, siblings)
        self.seen[item.id] = ([image] if image else [], found)
        return inspecting.verdict(manifest, found, self.source.name, item.source)


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
    checked = [item for item in lot if batch.manifest.check != "none" and inspecting.is_fits(item.source)]
    chosen = {item.id for item in checked}
    limits = inspecting.limits(batch.manifest)
    found = source.headers([item.source for item in checked], limits) if checked else iter(())
    for item in lot:
        yield item, next(found) if item.id in chosen else ()
    deque(found, 0)  # to its end, as `only` has it


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
            yield _failed(batch, item, named, time.monotonic() - begun, cutting.findings)
        else:
            seconds = time.monotonic() - begun
            yield Finished(item, seconds, receipts, cutting.images, findings=cutting.findings, making=cutting.making)
