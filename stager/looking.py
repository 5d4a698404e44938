"""Looks into files before they are sent: what each should hold, or why it is not brought."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from manifests.checking.looks import Joined
from manifests.findings import Finding
from stager import copies, inspecting, registry
from stager.batches import Batch
from stager.inspecting import Siblings
from stager.items import Claimed
from transfers.copying import LOOKED_AT
from transfers.errors import TransferError
from transfers.fits import Header
from transfers.hosts import Hdu, Host, Want
from transfers.lanes import Result


class Looking:
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
