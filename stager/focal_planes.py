"""Focal planes to chop: what their headers say at planning, and the recipes of their pieces.

The glue between a camera (what should be) and `transfers.chopping` (how bytes are cut).
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from manifests.cameras import Camera
from manifests.chops.chop_rules import ChopRule, stated_extensions
from manifests.chops.readouts import Place, Readout
from manifests.errors import CameraError
from manifests.manifest import Manifest
from transfers import chopping
from transfers.errors import SourceCorrupt, TransferError, shown
from transfers.fits import Header
from transfers.hosts import FileInfo, Hdu, Host, Limits, Piece, only

FIRST_TWO = Limits(first=2)  # headers of a file: the walk ends before it comes to pixels
BATCH = 64  # files looked into in one conversation


class Look(NamedTuple):
    """What a focal plane's first headers say: its ids and how many files it gives, or why that is unknown."""

    info: FileInfo
    ids: dict[str, Any]
    files: int
    problem: str | None = None


class Recipes(NamedTuple):
    """(ids, path, piece) of every amplifier file of a focal plane, and how they come about.

    `readout` is the camera's name for how the focal plane was read out; `shift` what is added to CRPIX1 of
    amplifiers after the first, 0 where nothing is.
    """

    pieces: list[tuple[dict[str, Any], str, Piece]]
    readout: str
    shift: int


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
            extensions = _counted(host, info.path) if stated_extensions(primary) is None else None
            yield Look(info, ids, camera.pieces(primary, extension, ids, extensions))
        except CameraError as error:
            yield Look(info, {}, 1, f"{host.name}:{shown(info.path)}: {error}")
        except TransferError as error:
            yield Look(info, {}, 1, str(named(error, camera, host, info.path)))


def _first_two(hdus: Sequence[Hdu] | TransferError, host: str, path: str) -> tuple[Header, Header]:
    """The primary header and the first extension's; raises what is wrong with the file."""
    if isinstance(hdus, TransferError):
        raise hdus
    if len(hdus) < 2:
        raise SourceCorrupt("the file has no extensions", host=host, path=path)
    return Header.parse(hdus[0].header), Header.parse(hdus[1].header)


def _counted(host: Host, path: str) -> int:
    """How many extensions a file has whose primary header has no NEXTEND: all of it is walked for that."""
    hdus = only(host.headers([path]))
    if isinstance(hdus, TransferError):
        raise hdus
    return len(hdus) - 1


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
) -> Recipes:
    """The recipes of a focal plane's amplifier files but for those that the manifest excludes; `where` is its
    (host, path), for errors.

    Raises SourceCorrupt for a focal plane that is not whole or not as the camera cuts them.
    """
    rule = camera.chop_rule
    assert rule is not None  # `manifests.problems` lets no other camera through

    def path_of(piece: Mapping[str, int]) -> str:
        return posixpath.join(manifest.destination.path, camera.destination({**ids, **piece}))

    host, path = where
    try:
        if len(hdus) < 2:
            raise SourceCorrupt("the file has no extensions")
        primary, *headers = [Header.parse(hdu.header) for hdu in hdus]
        readout = rule.readout(headers)
        science = camera.is_science(ids)
        places = rule.places(readout, primary, headers, science)
        columns = readout.columns or Counter(header.whole("NAXIS1") for header in headers).most_common(1)[0][0] or 0
        extensions = [
            chopping.Extension(
                readout.text(place),
                hdu,
                header,
                _strips(rule, readout, place, columns, manifest.chop.crpix, science),
            )
            for place, hdu, header in zip(places, hdus[1:], headers, strict=True)
        ]
        cuts = chopping.ChopRule(columns, readout.removed, rule.path_keyword)
        made = chopping.pieces(extensions, cuts, path_of, root)
        # Last: a damaged header that declares too little data hides all behind it, and is itself what is to be told.
        rule.check_whole(readout, primary, places, science)
    except (CameraError, SourceCorrupt) as error:
        text = str(error) if isinstance(error, CameraError) else error.text
        raise SourceCorrupt(text, host=host, side="source", path=path, phase="chop") from error
    every = [({**ids, **one.ids}, one.destination, one.piece) for one in made]
    pieces = [one for one in every if manifest.exclusion(one[1], one[0]) is None]
    return Recipes(pieces, readout.name, next((one.shift for one in made if one.shift), 0))


def _strips(
    rule: ChopRule, readout: Readout, place: Place, columns: int, mode: str, science: bool
) -> tuple[chopping.Strip, ...]:
    """What an extension is cut into: a strip for each of its amplifiers."""
    return tuple(
        chopping.Strip(
            {rule.extension_id: place.ccd, rule.amp_id: readout.amps[amp].number},
            strip,
            readout.amps[amp].replaced,
            rule.shift(readout, index, columns, mode, science),
        )
        for index, (amp, strip) in enumerate(zip(place.amps, readout.strips(columns), strict=True))
    )


def named(error: TransferError, camera: Camera | None, host: Host, path: str) -> TransferError:
    """The error with the CCD that it is about, where the damage lies in an extension of a focal plane.

    The headers before the damage are read once more at `host:path` (the focal plane as it is at its source); what
    cannot be found out leaves the error as it is. Never raises.
    """
    if camera is None or camera.chop_rule is None or not isinstance(error, SourceCorrupt):
        return error
    try:
        number = error.facts.get("hdu")
        if number is None and error.phase == "unpack":
            number = _damaged(host, path)
        name = _ccd(host, path, camera.chop_rule, number) if isinstance(number, int) and number > 0 else None
    except TransferError:
        return error
    if name is None or name in error.text:
        return error
    return type(error)(
        f"{name}: {error.text}",
        host=error.host,
        side=error.side,
        phase=error.phase,
        path=error.path,
        errno=error.errno,
        facts={**error.facts, "hdu": number, "ccd": name},
    )


def _damaged(host: Host, path: str) -> object:
    """The number of the HDU in which a walk of all headers meets the damage."""
    hdus = only(host.headers([path]))
    return hdus.facts.get("hdu") if isinstance(hdus, SourceCorrupt) else None


def _ccd(host: Host, path: str, rule: ChopRule, number: int) -> str | None:
    """The CCD of an HDU: by its own header where that can be read, else by those before it."""
    for first in (number + 1, number):
        hdus = only(host.headers([path], Limits(first=first)))
        if not isinstance(hdus, TransferError):
            headers = [Header.parse(hdu.header) for hdu in hdus]
            return rule.name(headers[0], headers[1:], number - 1)
    return None
