"""A trigger's group as datasets: what a pipeline of DC3b knows data by. Pure: data in, data out.

A dataset is a type ("raw") with ids (visit, ccd, amp...). What the accept list excludes is never among them, and is
told beside them with its reason.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from manifests.cameras import Camera
from manifests.manifest import Manifest
from stager.config import FolderQueue
from stager.queues.errors import Undeliverable
from transfers.errors import shown

MOST_NAME = 160  # characters of a dataset's name: with what goes before and after it a file's name has 255 bytes
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9.,+=_-]")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A type and ids, in the order in which they are told."""

    type: str
    ids: Mapping[str, int | str]

    @property
    def name(self) -> str:
        """`raw-amp1-ccd9-filterr-visit793310`: of the ids in the order of their names, and always a good name of a
        file; one that had to be changed for that ends in a digest of what it was."""
        whole = "-".join([self.type, *(f"{name}{value}" for name, value in sorted(self.ids.items()))])
        plain = _NOT_IN_NAMES.sub("_", whole)
        if plain == whole and len(plain) <= MOST_NAME:
            return plain
        return f"{plain[:MOST_NAME]}-{hashlib.sha256(whole.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"

    @property
    def key(self) -> tuple[str, frozenset[tuple[str, int | str]]]:
        """What makes two datasets the same one."""
        return self.type, frozenset(self.ids.items())


@dataclass(frozen=True, slots=True)
class Excluded:
    """What is not handed on: a dataset, or only a path where it has no ids; and why."""

    dataset: Dataset | None
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Announced:
    """What a trigger announces: each dataset once. `without_ids` are files that have not the ids to be told by."""

    datasets: Sequence[Dataset] = ()
    excluded: Sequence[Excluded] = ()
    without_ids: Sequence[str] = ()

    @property
    def remark(self) -> str:
        """What of it deserves a word; "" when all of its files are announced."""
        words = []
        if self.excluded:
            words.append(f"{len(self.excluded)} excluded")
        if self.without_ids:
            have = "has" if len(self.without_ids) == 1 else "have"
            words.append(f"{len(self.without_ids)} of its files {have} no such ids: {shown(self.without_ids[0])}")
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class Group:
    """A trigger's group: what the trigger says (`data`), and what its files and their manifest say of them.

    `files` are (path, path at the source): a manifest may bring files to where no layout knows them any more.
    """

    data: Mapping[str, Any]
    manifest: Manifest
    camera: Camera | None
    files: Iterable[tuple[str, str]]


class _Told(NamedTuple):
    """A file that is told of: its layout, and all its ids."""

    path: str
    layout: str
    ids: Mapping[str, int | str]


@dataclass(slots=True)
class _Sorted:
    """The files of a group: those to tell, those to leave out, and those that nothing can be told of."""

    told: list[_Told] = field(default_factory=list)
    excluded: list[Excluded] = field(default_factory=list)
    without_ids: list[str] = field(default_factory=list)
    files: int = 0


def problem(queue: FolderQueue, manifest: Manifest, camera: Camera | None) -> str | None:
    """Why no trigger of a manifest could be told on a queue, as a sentence; None where nothing is known against it."""
    if camera is None:
        return "its queue announces datasets by their ids; name the `camera` that knows them by the paths of the files"
    per = manifest.trigger.per if manifest.trigger else ()
    if queue.datasets == "group" and not (queue.ids or per):
        return "its queue announces a dataset a group, by the group's ids; say in `trigger.per` which"
    known = {*camera.id_names, *manifest.ids, *per}
    if unknown := [name for name in queue.ids or () if name not in known]:
        return f"its queue tells the ids {', '.join(unknown)}, which {camera.name} does not have"
    return None


def announce(queue: FolderQueue, group: Group) -> Announced:
    """The datasets of a group as the queue tells them.

    Raises Undeliverable where there is nothing to tell them by: no camera, no such ids.
    """
    found = _sort(queue, group)
    datasets = list(_of_group(queue, group, found) if queue.datasets == "group" else _of_files(queue, found))
    if not datasets and (found.told or found.without_ids or not found.excluded):
        raise Undeliverable(_nothing(queue, group, found))
    return Announced(datasets, found.excluded, found.without_ids)


def _nothing(queue: FolderQueue, group: Group, found: _Sorted) -> str:
    """Why a group has no dataset."""
    if group.camera is None:
        return "its files have no ids to be announced by: the manifest names no camera"
    wanted = f" {', '.join(queue.ids)}" if queue.ids else ""
    if queue.datasets == "group":
        return f"the group has no ids{wanted} to be announced by; have the manifest trigger `per` them"
    example = f", such as {shown(found.without_ids[0])}" if found.without_ids else ""
    files = "its 1 file has not" if found.files == 1 else f"none of its {found.files} files has"
    return f"{files} by its path the ids{wanted} to be announced by{example}"


def _sort(queue: FolderQueue, group: Group) -> _Sorted:
    """Which files are told, excluded, or without ids.

    A chop makes files that its accept list may exclude though the focal plane is done: they are looked at here.
    """
    planned = [(_whole(group, one), one) for one in group.data["excluded"]]
    gone = {whole.key: str(one["reason"] or "") for whole, one in planned if whole}
    found = _Sorted(excluded=[_excluded(queue, whole, one["path"], one["reason"]) for whole, one in planned])
    for path, source in group.files:
        found.files += 1
        identified = (group.camera.identify(path) or group.camera.identify(source)) if group.camera else None
        if identified is None:
            found.without_ids.append(path)
            continue
        whole = Dataset(*identified)
        reason = gone.get(whole.key)
        if group.manifest.kind == "chop" and (exclusion := group.manifest.exclusion(path, whole.ids)):
            reason = exclusion.reason
        if reason is None:
            found.told.append(_Told(path, whole.type, {**whole.ids, **_more(group, whole.ids)}))
        else:
            found.excluded.append(_excluded(queue, whole, path, reason))
    return found


def _more(group: Group, ids: Mapping[str, int | str]) -> dict[str, int | str]:
    """What the manifest says of ids that the path does not have."""
    return {name: value for name, value in group.manifest.ids.items() if name not in ids}


def _whole(group: Group, said: Mapping[str, Any]) -> Dataset | None:
    """What an excluded item that the trigger names would have been, with all its ids; None where it has none."""
    if group.camera is None:
        return None
    if identified := group.camera.identify(said["path"]):
        return Dataset(*identified)
    ids = {name: value for name, value in said["ids"].items() if name != "obstype"}
    return Dataset(str(said["ids"].get("obstype", group.camera.raw_layout.name)), ids) if ids else None


def _excluded(queue: FolderQueue, whole: Dataset | None, path: str, reason: str | None) -> Excluded:
    """The same as the queue tells it; with all its ids where the queue's are not all there."""
    told = _dataset(queue, whole.type, whole.ids) if whole else None
    return Excluded(told or whole, path, reason or "")


def _dataset(queue: FolderQueue, layout: str, ids: Mapping[str, int | str]) -> Dataset | None:
    """A dataset as the queue tells it; None where an id is lacking."""
    if queue.ids is None:
        return Dataset(queue.type or layout, ids) if ids else None
    if any(name not in ids for name in queue.ids):
        return None
    return Dataset(queue.type or layout, {there: ids[here] for here, there in queue.ids.items()})


def _of_files(queue: FolderQueue, found: _Sorted) -> Iterator[Dataset]:
    seen = set()
    for one in found.told:
        dataset = _dataset(queue, one.layout, one.ids)
        if dataset is None:
            found.without_ids.append(one.path)
        elif dataset.key not in seen:
            seen.add(dataset.key)
            yield dataset


def _of_group(queue: FolderQueue, group: Group, found: _Sorted) -> Iterator[Dataset]:
    """One dataset for the whole group, by the group's ids; where the queue names ids, also by those that all its
    files share."""
    if not found.told:
        return
    layouts = {one.layout for one in found.told}
    if queue.type is None and len(layouts) > 1:
        raise Undeliverable(f"its files are {' and '.join(sorted(layouts))}; give the queue a `type` to tell them by")
    ids = dict(group.data["group"])
    if queue.ids is not None:
        first = found.told[0].ids
        ids = {name: first[name] for name in first if all(one.ids.get(name) == first[name] for one in found.told)} | ids
    if dataset := _dataset(queue, min(layouts), ids):
        yield dataset
