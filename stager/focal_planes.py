"""Focal planes to chop: what their headers say at planning, and the recipes of their pieces.

The glue between a camera (what should be) and `transfers.chopping` (how bytes are cut).
"""

from __future__ import annotations

import posixpath
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from manifests.cameras import Camera
from manifests.errors import CameraError
from manifests.manifest import Manifest
from transfers import chopping
from transfers.agent import Cut, Hdu, Piece, Want
from transfers.errors import SourceCorrupt, TransferError, shown
from transfers.fits import BLOCK, Header
from transfers.hosts import FileInfo, Host

HEAD_BYTES = 1 << 20  # of a file: room for the primary header and the first extension's, packed or not
BATCH = 64  # heads read in one conversation


class Look(NamedTuple):
    """What a focal plane's first headers say: its ids and how many files it gives, or why that is unknown."""

    info: FileInfo
    ids: dict[str, Any]
    files: int
    problem: str | None = None


def look(host: Host, infos: Iterable[FileInfo], manifest: Manifest, camera: Camera) -> Iterator[Look]:
    """Read the first headers of focal planes and say what they are; a bad one is a Look with a problem."""
    batch: list[FileInfo] = []
    for info in infos:
        batch.append(info)
        if len(batch) == BATCH:
            yield from _look(host, batch, manifest, camera)
            batch = []
    yield from _look(host, batch, manifest, camera)


def _look(host: Host, infos: Sequence[FileInfo], manifest: Manifest, camera: Camera) -> Iterator[Look]:
    for info, head in zip(infos, _heads(host, infos), strict=True):
        try:
            if isinstance(head, TransferError):
                raise head
            cards, primary = first_headers(_unpacked(head), host.name, info.path)
            name = posixpath.basename(info.path)
            ids = camera.header_ids(cards, manifest.ids, name)
            yield Look(info, ids, camera.pieces(primary))
        except CameraError as error:
            yield Look(info, {}, 1, f"{host.name}:{shown(info.path)}: {error}")
        except TransferError as error:
            yield Look(info, {}, 1, str(error))


def _heads(host: Host, infos: Sequence[FileInfo]) -> Iterator[bytes | TransferError]:
    """The first bytes of each file, in order."""
    sizes = [min(HEAD_BYTES, info.size) for info in infos]
    wants = [
        Want(number, 0, info.path, info.path, piece=Piece(b"", (Cut(0, size, size, 1),)))
        for number, (info, size) in enumerate(zip(infos, sizes, strict=True))
        if size
    ]
    read = _whole_files(host, wants) if wants else iter(())
    for info, size in zip(infos, sizes, strict=True):
        yield next(read) if size else SourceCorrupt("the file is empty", host=host.name, path=info.path)


def _whole_files(host: Host, wants: Sequence[Want]) -> Iterator[bytes | TransferError]:
    parts: list[bytes] = []
    for kind, value in host.read(wants):
        if kind == "file":
            parts = []
        elif kind == "data":
            parts.append(bytes(value))
        elif kind == "end":
            yield b"".join(parts)
        elif kind == "fault":
            yield value if isinstance(value, TransferError) else TransferError(str(value), host=host.name)


def _unpacked(head: bytes) -> bytes:
    """The first bytes of a gzipped file, gunzipped, and of any other as they are."""
    if not head.startswith(b"\x1f\x8b"):
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD_BYTES)
    except zlib.error:
        return b""


def first_headers(head: bytes, host: str, path: str) -> tuple[Header, Header]:
    """The first extension's header and the primary one, from a file's first bytes.

    Raises SourceCorrupt where they are not the beginning of a FITS file with an extension.
    """
    if not head.startswith(b"SIMPLE  ="):
        raise SourceCorrupt("this is no FITS file: it does not begin with SIMPLE", host=host, path=path)
    primary, after = _header(head, 0)
    extension, _ = _header(head, after) if primary else (None, 0)
    if primary is None or extension is None:
        raise SourceCorrupt(
            f"no primary header and extension header with an END each in the first {len(head)} bytes",
            host=host,
            path=path,
        )
    return extension, primary


def _header(head: bytes, start: int) -> tuple[Header | None, int]:
    for block in range(start, len(head) - BLOCK + 1, BLOCK):
        if any(head[at : at + 8] == b"END     " for at in range(block, block + BLOCK, 80)):
            return Header.parse(head[start : block + BLOCK]), block + BLOCK
    return None, 0


def folder_of(camera: Camera, manifest: Manifest, ids: Mapping[str, Any]) -> str:
    """The folder that a focal plane's pieces go to: what an item of a chop has as its destination."""
    path = posixpath.dirname(camera.destination(ids, unknown="*"))
    return posixpath.join(manifest.destination.path, path)


def recipes(
    hdus: Sequence[Hdu],
    camera: Camera,
    manifest: Manifest,
    ids: Mapping[str, Any],
    root: str,
    where: tuple[str, str],
) -> list[tuple[dict[str, Any], str, Piece]]:
    """(ids, path, piece) of every amplifier file of a focal plane; `where` is its (host, path), for errors.

    Raises SourceCorrupt for a focal plane that is not whole or not as the camera cuts them.
    """
    rule = _rule(hdus, camera, ids, where)

    def path_of(piece: Mapping[str, int]) -> str:
        return posixpath.join(manifest.destination.path, camera.destination({**ids, **piece}))

    host, path = where
    made = chopping.pieces(hdus, rule, path_of, root, crpix=manifest.chop.crpix, host=host, path=path)
    return [({**ids, **piece_ids}, destination, piece) for piece_ids, destination, piece in made]


def _rule(hdus: Sequence[Hdu], camera: Camera, ids: Mapping[str, Any], where: tuple[str, str]) -> chopping.ChopRule:
    """The camera's chop rule for extensions as wide as the first one here."""
    rule = camera.chop_rule
    assert rule is not None  # `manifests.problems` lets no other camera through
    host, path = where
    if len(hdus) < 2:
        raise SourceCorrupt("the file has no extensions", host=host, path=path, phase="chop")
    width = Header.parse(hdus[1].header).whole("NAXIS1") or 0
    science = camera.is_science(ids)
    try:
        amplifiers = tuple(
            chopping.Amplifier(
                amp.number,
                amp.name,
                rule.columns(index, width),
                tuple(amp.replaced),
                tuple((mode, rule.shift(index, width, mode, science)) for mode, _ in rule.shifts),
            )
            for index, amp in enumerate(rule.amps)
        )
    except CameraError as error:
        raise SourceCorrupt(str(error), host=host, path=path, phase="chop") from error
    return chopping.ChopRule(
        amplifiers=amplifiers,
        removed=tuple(rule.removed),
        added=rule.path_keyword,
        extension_id=rule.extension_id,
        extension_name=rule.extension_name,
        amp_id=rule.amp_id,
        calibrations=tuple(
            word for layout in camera.layouts.values() if not layout.science for word in layout.obstypes
        ),
        counts=tuple(rule.science_extensions),
        calibration_counts=tuple(rule.calibration_extensions),
    )
