"""Focal planes to chop: what their headers say at planning, and the recipes of their pieces.

The glue between a camera (what should be) and `transfers.chopping` (how bytes are cut).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from manifests.cameras import Camera
from manifests.errors import CameraError
from manifests.manifest import Manifest
from transfers import chopping
from transfers.errors import SourceCorrupt, TransferError, shown
from transfers.fits import Header
from transfers.hosts import FileInfo, Hdu, Host, Limits, Piece

FIRST_TWO = Limits(first=2)  # headers of a file: the walk ends before it comes to pixels
BATCH = 64  # files looked into in one conversation


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
    if not infos:
        return
    for info, hdus in zip(infos, host.headers([info.path for info in infos], FIRST_TWO), strict=True):
        try:
            primary, extension = _first_two(hdus, host.name, info.path)
            ids = camera.header_ids(extension, manifest.ids, posixpath.basename(info.path))
            yield Look(info, ids, camera.pieces(primary))
        except CameraError as error:
            yield Look(info, {}, 1, f"{host.name}:{shown(info.path)}: {error}")
        except TransferError as error:
            yield Look(info, {}, 1, str(error))


def _first_two(hdus: Sequence[Hdu] | TransferError, host: str, path: str) -> tuple[Header, Header]:
    """The primary header and the first extension's; raises what is wrong with the file."""
    if isinstance(hdus, TransferError):
        raise hdus
    if len(hdus) < 2:
        raise SourceCorrupt("the file has no extensions", host=host, path=path)
    return Header.parse(hdus[0].header), Header.parse(hdus[1].header)


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
