"""One focal plane carried out: looked into, cut where it lies, its pieces proven."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from manifests.findings import Finding
from stager import copies, focal_planes, inspecting, registry
from stager.batches import Batch
from stager.items import Claimed
from stager.makings import Making
from transfers.copying import copy
from transfers.errors import Refused, SourceChanged, SourceMissing, TransferError, Unsupported
from transfers.fits import Header
from transfers.hosts import LIMITS, FileInfo, Hdu, Host, Limits, Receipt, Want, only
from transfers.local import LocalHost
from transfers.unpacking import LIMIT, is_packed, unpack

log = structlog.get_logger("stager")


class Cutting:
    """A focal plane on its way to its pieces. What is known so far of it stands here, also when it failed."""

    def __init__(self, batch: Batch, source: Host, destination: Host, item: Claimed) -> None:
        self.batch = batch
        self.source = source
        self.destination = destination
        self.item = item
        self.findings: list[Finding] | None = None
        self.images: list[dict[str, Any]] = []
        self.making: Making | None = None

    def carry_out(self) -> Sequence[Receipt]:
        """All pieces of the focal plane, proven; TransferError when any of them is not."""
        item = self.item
        if self.source.far and _is_gzip_alone(item.source):
            want = Want(item.id, item.epoch, item.source, "", item.size, item.mtime_ns, item.digest)
            path = None
            with suppress(Unsupported):  # no program runs there: it comes here to be unpacked
                path = self.source.gunzip(want, _most(item), self.batch.stop)
            if path is not None:
                return self._chop_there(path)
        if is_packed(item.source):
            return self._chop_unpacked()
        found = only(self.source.find([item.source]))
        if isinstance(found, TransferError):
            raise found.at("source")
        if found is None:
            raise SourceMissing(
                "the file is gone", host=self.source.name, side="source", path=item.source, phase="chop"
            )
        return self._chop(self.source, item.source)

    def _chop_there(self, path: str) -> Sequence[Receipt]:
        """A .gz of a far host that was unpacked where it lies, so that its pixels stay there."""
        try:
            return self._chop(self.source, path)
        finally:
            for result in self.source.remove([path]):
                if isinstance(result, TransferError):
                    log.warning("an unpacked focal plane could not be removed", **result.as_dict())

    def _chop_unpacked(self) -> Sequence[Receipt]:
        """A packed one, unpacked into the scratch folder here."""
        item = self.item
        packed = None
        if not _is_gzip_alone(item.source):  # the sums of tile-compressed HDUs are those of what is compressed
            packed = self._headers(self.source, item.source, inspecting.limits(self.batch.manifest))
        scratch = self._scratch()
        path = unpack(
            self.source,
            item.source,
            scratch,
            size=item.size,
            mtime_ns=item.mtime_ns,
            digest=item.digest,
            stop=self.batch.stop,
            limit=_most(item),
        )
        try:
            return self._chop(scratch, path, packed)
        finally:
            Path(scratch.root, path).unlink(missing_ok=True)

    def _scratch(self) -> LocalHost:
        folder = self.batch.config.scratch
        try:
            folder.mkdir(parents=True, exist_ok=True)
            scratch = LocalHost("scratch", str(folder), instance=self.batch.database.instance)
            scratch.open(None)
        except OSError as error:
            text = f"the scratch folder {folder} cannot be used: {error.strerror}"
            raise Refused(text, side="local", phase="unpack", errno=error.errno) from error
        return scratch

    def _headers(self, host: Host, path: str, limits: Limits = LIMITS) -> Sequence[Hdu]:
        hdus = only(host.headers([path], limits))
        if isinstance(hdus, TransferError):
            self.findings = inspecting.refused(hdus)
            raise hdus.at("source")
        return hdus

    def _chop(self, host: Host, path: str, packed: Sequence[Hdu] | None = None) -> Sequence[Receipt]:
        """Cut the plain file at `host:path`; `packed` are the HDUs that it was unpacked from."""
        batch, item = self.batch, self.item
        camera = batch.camera
        assert camera is not None
        hdus = self._headers(host, path, inspecting.limits(batch.manifest) if packed is None else LIMITS)
        self._look_into(hdus, packed)
        ids = json.loads(item.ids or "{}")
        where = (batch.manifest.source.host, item.source)
        made = focal_planes.recipes(hdus, camera, batch.manifest, ids, self.destination.root, where)
        with ThreadPoolExecutor(1, "digest") as aside:
            digest = aside.submit(self._source_digest)
            receipts = self._pieces(host, path, [(to, piece) for _, to, piece in made.pieces])
            self.making = self._made(digest, made)
        for piece_ids, to, piece in made.pieces:
            cards = Header.parse(piece.header)
            image = registry.image(camera, batch.manifest.dataset, self.destination.name, to, cards, piece_ids)
            if image:
                self.images.append(image)
        return receipts

    def _look_into(self, hdus: Sequence[Hdu], packed: Sequence[Hdu] | None) -> None:
        """Keep what is found in the focal plane; raises where the manifest holds it for that."""
        manifest = self.batch.manifest
        if manifest.check == "none":
            return
        headers = [Header.parse(hdu.header) for hdu in hdus]
        found = inspecting.findings(manifest, self.batch.camera, self.item.source, packed or hdus, headers)
        self.findings = found
        verdict = inspecting.verdict(manifest, found, self.source.name, self.item.source)
        if verdict is not None:
            raise verdict

    def _pieces(self, host: Host, path: str, pieces: Sequence[tuple[str, Any]]) -> list[Receipt]:
        batch, item = self.batch, self.item
        there = (item.size, item.mtime_ns, item.digest) if path == item.source else (None, None, None)
        wants = [
            Want(item.id, item.epoch, path, to, *there, replace=batch.manifest.replace, piece=piece)
            for to, piece in pieces
        ]
        receipts: dict[str, Receipt] = {}
        failure: TransferError | None = None
        for want, result in copy(
            host,
            self.destination,
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
        return [receipts[to] for to, _ in pieces]

    def _source_digest(self) -> str:
        """The digest of the focal plane: a list's, or Stager's own proof of it, or else it is read for that."""
        item = self.item
        known = item.digest or copies.proven(self.batch.database, self.source.name, [item]).get(item.source)
        if known is not None:
            return known
        found = only(self.source.digest([item.source], stop=self.batch.stop))
        if isinstance(found, TransferError):
            raise found.at("source")
        self._check_unchanged()  # the pieces were cut from the file as it was planned: so must be what was hashed
        return found[2]

    def _check_unchanged(self) -> None:
        item = self.item
        now = only(self.source.find([item.source]))
        if not isinstance(now, FileInfo) or now.size != item.size or item.mtime_ns not in (None, now.mtime_ns):
            facts = {"size": now.size, "mtime_ns": now.mtime_ns} if isinstance(now, FileInfo) else {}
            text = "the focal plane changed while it was cut"
            raise SourceChanged(text, host=self.source.name, side="source", path=item.source, phase="chop", facts=facts)

    def _made(self, digest: Future[str], made: focal_planes.Recipes) -> Making:
        camera = self.batch.camera
        assert camera is not None
        return Making(
            host=self.source.name,
            path=self.item.source,
            size=self.item.size or 0,
            digest=digest.result(),
            camera=camera.name,
            camera_digest=camera.rule_digest,
            readout=made.readout,
            crpix=self.batch.manifest.chop.crpix,
            shift=made.shift,
        )


def _most(item: Claimed) -> int:
    """The bytes that a focal plane may unpack to: of a .gz what its header walk allows; tiles are held to axes."""
    if not _is_gzip_alone(item.source) or item.size is None:
        return LIMIT
    return min(LIMIT, max(LIMITS.unpacked_free, LIMITS.unpacked_ratio * item.size))


def _is_gzip_alone(path: str) -> bool:
    """Whether unpacking needs nothing but gzip, which every agent has."""
    return path.lower().endswith(".gz") and not path.lower().endswith(".fz.gz")
