"""From a manifest, a listing and a camera to items. Pure: data in, data out."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from manifests.cameras import Camera
from manifests.errors import CameraError
from manifests.manifest import Manifest
from manifests.patterns import Pattern
from stager.focal_planes import Look, folder_of
from stager.models import ItemState
from transfers.hosts import FileInfo, Lost

Ids = Mapping[str, Any]
UNKNOWN = "*"  # stands for an id that is not known in the path of a file that should exist


class Planned(NamedTuple):
    """An item to be. `bytes` None: not known before it is done. `problem`: it is held from the start."""

    source: str
    destination: str | None
    size: int | None = None
    mtime_ns: int | None = None
    digest: str | None = None
    files: int = 1
    bytes: int | None = None
    ids: Ids | None = None
    state: str = ItemState.WAITING
    missing: bool = False
    reason: str | None = None
    plane: Ids | None = None  # of a file that a focal plane is cut into: the ids of the focal plane

    @property
    def is_lost(self) -> bool:
        """Whether it is known what the source had there; of what is missing else, that it should have something."""
        return self.missing and self.size is not None


def plan_files(manifest: Manifest, infos: Iterable[FileInfo | Lost], camera: Camera | None) -> Iterator[Planned]:
    """An item for every listed file that the manifest's pattern means; what the source has lost is missing."""
    pattern = manifest.pattern
    matches, relative = pattern.matches, pattern.relative
    prefix = manifest.destination.path + "/" if manifest.destination.path else ""
    plain = camera is None and not manifest.exclusions
    for path, size, mtime_ns, *why in infos:
        if not matches(path):
            continue
        planned = Planned(path, prefix + relative(path), size, mtime_ns, None, 1, size)
        if why:
            planned = planned._replace(missing=True, reason=why[0])
        yield planned if plain else _accepted(manifest, planned, camera)


def plan_listed(
    manifest: Manifest, listed: Iterable[tuple[str, str | None, FileInfo | None]], camera: Camera | None
) -> Iterator[Planned]:
    """An item for every entry (path, digest, what the source has there) of a list; what it has not is missing."""
    for path, digest, info in listed:
        source = posixpath.join(manifest.source.path, path)
        destination = posixpath.join(manifest.destination.path, path)
        size, mtime_ns = (info.size, info.mtime_ns) if info else (None, None)
        yield _accepted(
            manifest,
            Planned(source, destination, size, mtime_ns, digest, 1, size, missing=info is None),
            camera,
        )


def plan_focal_planes(manifest: Manifest, looks: Iterable[Look], camera: Camera) -> Iterator[Planned]:
    """An item for every focal plane to chop; one whose headers cannot be used is held, with the reason."""
    for seen in looks:
        yield from plan_focal_plane(manifest, seen, camera)


def plan_focal_plane(manifest: Manifest, seen: Look, camera: Camera) -> list[Planned]:
    """The item of a focal plane, and after it one for each of its files that is left out: an excluded CCD is not
    made, and counted and named as what is excluded."""
    info = seen.info
    planned = Planned(info.path, None, info.size, info.mtime_ns, None, seen.files, None, seen.ids)
    excluded = manifest.exclusion(info.path, seen.ids)
    if excluded:
        return [planned._replace(state=ItemState.EXCLUDED, reason=excluded.reason)]
    if seen.problem:
        return [planned._replace(state=ItemState.HELD, reason=seen.problem)]
    pieces = left_out(manifest, camera, info.path, seen.ids, seen.files)
    if len(pieces) == seen.files:
        return [planned._replace(state=ItemState.EXCLUDED, reason=pieces[0].reason)]
    folder = folder_of(camera, manifest, seen.ids)
    return [planned._replace(destination=folder, files=seen.files - len(pieces)), *pieces]


def left_out(manifest: Manifest, camera: Camera, source: str, ids: Ids, files: int) -> list[Planned]:
    """The files of a focal plane, which has so many, that are excluded: by their ids, or by their own names."""
    if not manifest.exclusions:
        return []
    found = []
    for piece in _pieces(manifest, camera, ids, files):
        path = posixpath.join(manifest.destination.path, camera.destination(piece, UNKNOWN))
        excluded = manifest.exclusion(path, piece)
        if excluded:
            found.append(Planned(source, path, ids=piece, state=ItemState.EXCLUDED, reason=excluded.reason, plane=ids))
    return found


def _pieces(manifest: Manifest, camera: Camera, ids: Ids, files: int) -> list[Ids]:
    """The ids of all files of a focal plane, by the first of the camera's focal planes that has so many; none where
    none has."""
    layout = str(ids.get("obstype", camera.raw_layout.name))
    for name in dict.fromkeys((manifest.focal_plane, None, *camera.focal_planes)):
        if camera.focal_plane(name).layout == camera.raw_layout.name and camera.whole(layout, name) == files:
            return list(camera.expected(ids, name, layout))
    return []


def _accepted(manifest: Manifest, planned: Planned, camera: Camera | None) -> Planned:
    """The item with its ids, left out where the accept list says so."""
    identified = camera.identify(planned.source) if camera else None
    ids: Ids = {**manifest.ids, **(identified[1] if identified else {})}
    excluded = manifest.exclusion(planned.source, ids)
    if excluded:
        return planned._replace(ids=ids, state=ItemState.EXCLUDED, missing=False, reason=excluded.reason)
    return planned._replace(ids=ids)


def group_of(per: tuple[str, ...], planned: Planned, *, chop: bool) -> dict[str, Any] | None:
    """The ids of the group that an item belongs to; None when it is in none, for want of such ids.

    A focal plane to chop has no `ccd`: its group is coarser, and its trigger is divided when the group is whole. A
    file of one that is left out is in the group of its focal plane.
    """
    if not per:
        return {}
    ids = planned.ids or {} if planned.plane is None else planned.plane
    found = {name: ids[name] for name in per if name in ids}
    return found if len(found) == len(per) or (chop and found) else None


def finder(source: str) -> Callable[[str], bool]:
    """Whether a path is the file that a missing item with unknown ids stands for."""
    return Pattern(source).matches


def check_ids(camera: Camera, manifest: Manifest) -> str | None:
    """A sentence where the manifest expects what the camera cannot have; None when all is well."""
    try:
        for visit in manifest.expect:
            next(camera.expected({**manifest.ids, **visit}, manifest.focal_plane), None)
    except CameraError as error:
        return str(error)
    return None
