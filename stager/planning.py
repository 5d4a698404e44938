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
from transfers.hosts import FileInfo

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


def plan_files(manifest: Manifest, infos: Iterable[FileInfo], camera: Camera | None) -> Iterator[Planned]:
    """An item for every listed file that the manifest's pattern means."""
    pattern = manifest.pattern
    matches, relative = pattern.matches, pattern.relative
    prefix = manifest.destination.path + "/" if manifest.destination.path else ""
    plain = camera is None and not manifest.exclusions
    for path, size, mtime_ns in infos:
        if not matches(path):
            continue
        destination = prefix + relative(path)
        if plain:
            yield Planned(path, destination, size, mtime_ns, None, 1, size)
        else:
            yield _accepted(manifest, Planned(path, destination, size, mtime_ns, None, 1, size), camera)


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
        info = seen.info
        planned = Planned(info.path, None, info.size, info.mtime_ns, None, seen.files, None, seen.ids)
        excluded = manifest.exclusion(info.path, seen.ids)
        if excluded:
            yield planned._replace(state=ItemState.EXCLUDED, reason=excluded.reason)
        elif seen.problem:
            yield planned._replace(state=ItemState.HELD, reason=seen.problem)
        else:
            yield planned._replace(destination=folder_of(camera, manifest, seen.ids))


def _accepted(manifest: Manifest, planned: Planned, camera: Camera | None) -> Planned:
    """The item with its ids, left out where the accept list says so."""
    identified = camera.identify(planned.source) if camera else None
    ids: Ids = {**manifest.ids, **(identified[1] if identified else {})}
    excluded = manifest.exclusion(planned.source, ids)
    if excluded:
        return planned._replace(ids=ids, state=ItemState.EXCLUDED, missing=False, reason=excluded.reason)
    return planned._replace(ids=ids)


class Expectation:
    """What the manifest's expected visits should have, ticked off while the found files are planned.

    Its size is that of the expectation, not of the listing.
    """

    def __init__(self, manifest: Manifest, camera: Camera) -> None:
        self.manifest = manifest
        self.camera = camera
        self.chop = manifest.kind == "chop"
        self._open: dict[tuple[Any, ...], Ids] = {}
        self._known: dict[Any, Ids] = {}  # what files of a visit say of it: filter, field
        for visit in manifest.expect:
            for ids in self._members(visit):
                self._open[self._key(ids)] = ids
        self._base: str | None = None

    def _members(self, visit: Ids) -> Iterator[Ids]:
        ids = {**self.manifest.ids, **visit}
        return iter([ids]) if self.chop else self.camera.expected(ids)

    def _key(self, ids: Ids) -> tuple[Any, ...]:
        names = () if self.chop else tuple(self.camera.sets)
        return tuple(str(ids.get(name)) for name in ("visit", *names))

    def tick(self, planned: Iterable[Planned]) -> Iterator[Planned]:
        """Pass found items on, and take them off the list of what is expected."""
        for one in planned:
            if one.ids and "visit" in one.ids:
                self._open.pop(self._key(one.ids), None)
                self._known.setdefault(str(one.ids["visit"]), one.ids)
                if self._base is None and not self.chop:
                    self._base = self.camera.raw_layout.base(one.source)
            yield one

    def missing(self) -> Iterator[Planned]:
        """An item for every file that should exist and was not found."""
        for ids in self._open.values():
            yield self._item(self._with_known(ids))

    def _with_known(self, ids: Ids) -> Ids:
        """Filter and field of a visit, from its files that are there."""
        of_visit = self._known.get(str(ids["visit"]), {})
        per_file = set(self.camera.sets)
        return {**{name: value for name, value in of_visit.items() if name not in per_file}, **ids}

    def _item(self, ids: Ids) -> Planned:
        if self.chop:
            return self._focal_plane(ids)
        path = self.camera.raw_layout.path(ids, UNKNOWN)
        source = posixpath.join(self._base if self._base is not None else self._guessed_base(path), path)
        pattern = self.manifest.pattern
        inside = not pattern.fixed or source.startswith(pattern.fixed + "/")
        relative = pattern.relative(source) if inside else path
        destination = posixpath.join(self.manifest.destination.path, relative)
        planned = Planned(source, destination, ids=ids, missing=True, reason="missing at the source")
        excluded = self.manifest.exclusion(source, ids)
        if excluded:
            return planned._replace(state=ItemState.EXCLUDED, missing=False, reason=excluded.reason)
        return planned

    def _guessed_base(self, path: str) -> str:
        """The folder above the layout when no file of it was found: the longest that the pattern allows."""
        names = self.manifest.pattern.fixed.split("/") if self.manifest.pattern.fixed else []
        concrete = path.replace(UNKNOWN, "0")
        for count in range(len(names), -1, -1):
            base = "/".join(names[:count])
            if self.manifest.pattern.matches(posixpath.join(base, concrete)):
                return base
        return "/".join(names)

    def _focal_plane(self, ids: Ids) -> Planned:
        assert self.camera.input is not None  # a camera that chops has one
        name = self.camera.input.path(ids, UNKNOWN) + UNKNOWN
        source = posixpath.join(self.manifest.pattern.fixed, name)
        files = sum(1 for _ in self.camera.expected(ids))
        planned = Planned(source, None, files=files, ids=ids, missing=True, reason="missing at the source")
        excluded = self.manifest.exclusion(source, ids)
        if excluded:
            return planned._replace(state=ItemState.EXCLUDED, missing=False, reason=excluded.reason)
        return planned


def group_of(per: tuple[str, ...], planned: Planned, *, chop: bool) -> dict[str, Any] | None:
    """The ids of the group that an item belongs to; None when it is in none, for want of such ids.

    A focal plane to chop has no `ccd`: its group is coarser, and its trigger is divided when the group is whole.
    """
    if not per:
        return {}
    ids = planned.ids or {}
    found = {name: ids[name] for name in per if name in ids}
    return found if len(found) == len(per) or (chop and found) else None


def finder(source: str) -> Callable[[str], bool]:
    """Whether a path is the file that a missing item with unknown ids stands for."""
    return Pattern(source).matches


def check_ids(camera: Camera, manifest: Manifest) -> str | None:
    """A sentence where the manifest expects what the camera cannot have; None when all is well."""
    try:
        for visit in manifest.expect:
            next(camera.expected({**manifest.ids, **visit}), None)
    except CameraError as error:
        return str(error)
    return None
