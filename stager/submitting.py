"""Submit a manifest: check it, plan it into items, make it the newest revision. Idempotent.

Items are written in transactions of some thousands, under a revision that is `planning` and that nobody
carries out; the last transaction makes it active. A crash on the way leaves a revision that the next
submission of that name sweeps away.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from manifests.cameras import Camera, load
from manifests.errors import ManifestError, Problem, shown
from manifests.lists import registry_files
from manifests.manifest import Manifest
from manifests.problems import problems
from stager import revising, second_stores
from stager.bundling.keys import key_of
from stager.config import Config, FolderQueue
from stager.counts import counted
from stager.database import Database, again, insert_many
from stager.expecting import Expectation
from stager.focal_planes import look
from stager.models import encode_path
from stager.opening import Hosts
from stager.planning import (
    Planned,
    check_ids,
    group_of,
    plan_files,
    plan_focal_planes,
    plan_listed,
)
from stager.queues import announcing
from stager.triggers import label_of
from transfers.digests import read_list
from transfers.errors import TransferError
from transfers.hosts import FileInfo, Host, Lost, Skipped

CHUNK = 10_000  # items written in one transaction
MOST_TOLD = 5  # files with inconsistent paths that a submission names
FOUND_AT_ONCE = 1000  # entries of a list looked up in one conversation
COLUMNS = (
    "manifest_id", "source", "destination", "size", "mtime_ns", "digest", "files", "bytes", "ids", "group_id",
    "state", "missing", "reason", "epoch", "tries", "not_before", "bundle_key",
)  # fmt: skip


@dataclass(slots=True)
class Submitted:
    """What a submission came to. `changed`: whether there is a new revision (or would be, in a dry run)."""

    name: str
    revision: int
    changed: bool
    items: int = 0
    files: int = 0
    bytes: int = 0
    states: dict[str, int] = field(default_factory=dict)
    carried: int = 0  # of the items, those that the revision before had proven already
    notes: list[str] = field(default_factory=list)

    def add(self, planned: Planned) -> None:
        self.items += 1
        self.files += planned.files
        self.bytes += planned.bytes or planned.size or 0
        state = "missing" if planned.missing else str(planned.state)
        self.states[state] = self.states.get(state, 0) + 1


def submit(
    database: Database,
    config: Config,
    manifest: Manifest,
    where: str = "",
    *,
    dry_run: bool = False,
    hosts: Hosts | None = None,
) -> Submitted:
    """Make `manifest` what Stager is to carry out under its name.

    The same document with the same files at the source changes nothing; files that are new or changed there
    make the next revision, and so does a changed document. Raises ManifestError, with nothing changed, for a
    manifest that does not fit the configuration, matches nothing or sends two files to one place, and
    TransferError when the source cannot be listed. `hosts`: those that are open already, where there are some.
    """
    camera = checked(config, manifest, where)
    with (
        database.alone(f"submit {manifest.name}"),
        nullcontext(hosts) if hosts is not None else Hosts(database, config) as opened,
    ):
        _check_second(opened, manifest, where)
        return _submit(database, config, opened[manifest.source.host], manifest, camera, where, dry_run)


def _submit(
    database: Database,
    config: Config,
    source: Host,
    manifest: Manifest,
    camera: Camera | None,
    where: str,
    dry_run: bool,
) -> Submitted:
    before = revising.latest(database, manifest.name)
    notes = [*manifest.notes, *_shared_trigger(database, manifest)]
    planned = _not_onto_itself(manifest, _plan(source, manifest, camera, notes), where)
    first = next(planned, None)
    same = before is not None and before.digest == manifest.digest()
    if first is None:
        if before is not None and same:
            return Submitted(manifest.name, before.revision, False)
        raise ManifestError((_nothing(manifest),), where)
    planned = itertools.chain([first], planned)
    if dry_run and not same:
        result = Submitted(manifest.name, before.revision + 1 if before else 1, True, notes=notes)
        for one in planned:
            result.add(one)
        return result
    rule = camera.rule_digest if camera is not None and manifest.kind == "chop" else ""
    return _write(
        database,
        manifest,
        planned,
        before if same else None,
        where,
        notes,
        config.camera_folders,
        rule=rule,
        dry_run=dry_run,
    )


def survey(
    config: Config,
    manifest: Manifest,
    source: Host,
    where: str = "",
    notes: list[str] | None = None,
    skipped: Callable[[Skipped], None] | None = None,
) -> Iterator[Planned]:
    """Every item that `submit` would make of a manifest, as the source is listed; nothing is written. What planning
    finds worth saying is added to `notes`, and what is left out though the manifest means it is told to `skipped`.
    Raises as `submit` does, but not for a source where nothing is meant."""
    camera = checked(config, manifest, where)
    planned = _plan(source, manifest, camera, [] if notes is None else notes, skipped)
    return _not_onto_itself(manifest, planned, where)


def checked(config: Config, manifest: Manifest, where: str) -> Camera | None:
    """The manifest's camera; raises ManifestError for what does not fit the configuration."""
    _check(config, manifest, where)
    camera = load(manifest.camera, config.camera_folders) if manifest.camera else None
    _check_queue(config, manifest, camera, where)
    if camera and (problem := check_ids(camera, manifest)):
        raise ManifestError((Problem("expect", problem),), where)
    return camera


def _check(config: Config, manifest: Manifest, where: str) -> None:
    """Refuse what does not fit the configuration."""
    wrong = problems(manifest, config.host_kinds, list(config.queues), config.camera_folders)
    if wrong:
        raise ManifestError(tuple(wrong), where or manifest.name)


def _check_queue(config: Config, manifest: Manifest, camera: Camera | None, where: str) -> None:
    """Refuse a trigger that its queue could not tell of."""
    queue = config.queues[manifest.trigger.queue] if manifest.trigger else None
    wrong = announcing.problem(queue, manifest, camera) if isinstance(queue, FolderQueue) else None
    if wrong:
        raise ManifestError((Problem("trigger.queue", wrong),), where or manifest.name)


def _check_second(hosts: Hosts, manifest: Manifest, where: str) -> None:
    """Refuse a second store whose copies would be lost together with those of the first; one that cannot be reached
    now is held against it before anything is brought there."""
    if manifest.second is None:
        return
    with suppress(TransferError):
        if why := second_stores.why_together(hosts[manifest.destination.host], hosts[manifest.second]):
            raise ManifestError((Problem("second", f"{why}; name another store"),), where or manifest.name)


def _shared_trigger(database: Database, manifest: Manifest) -> list[str]:
    """What to say where another manifest triggers the same queue for the same dataset: one trigger is all it gives."""
    other = revising.other_trigger(database, manifest) if manifest.trigger else None
    if manifest.trigger is None or other is None:
        return []
    queue = manifest.trigger.queue
    return [
        (
            f'"{other}" triggers the queue "{queue}" for this dataset too: of each revision a group gives one trigger, '
            "by whichever of the two brings it first; leave [trigger] out of one of them to say which"
        )
    ]


def _nothing(manifest: Manifest) -> Problem:
    what = "the list in `files` is empty" if manifest.files else f"{shown(str(manifest.source))} matches no file"
    return Problem("source", f"{what}; see that host, path and pattern are right, and that the files are there")


def _plan(
    source: Host,
    manifest: Manifest,
    camera: Camera | None,
    notes: list[str],
    skipped: Callable[[Skipped], None] | None = None,
) -> Iterator[Planned]:
    tell = skipped or (lambda one: notes.append(f"left out {shown(one.path)}: {one.why}"))
    expectation = None
    if camera and manifest.expects:
        rows = registry_files.rows(manifest.registry) if manifest.registry else ()
        expectation = Expectation(manifest, camera, rows)
        notes += expectation.notes
    planned: Iterator[Planned]
    if manifest.kind == "chop":
        assert camera is not None  # `problems` lets no other through
        infos = (info for info in _there(source, manifest, tell) if manifest.pattern.matches(info.path))
        listed = (info for *_, info in _listed(source, manifest) if info) if manifest.files else infos
        planned = plan_focal_planes(manifest, look(source, listed, manifest, camera), camera)
    elif manifest.files:
        planned = plan_listed(manifest, _listed(source, manifest), camera)
    else:
        planned = plan_files(manifest, _scan(source, manifest, tell), camera)
    if camera and manifest.kind != "chop":
        planned = _unidentified(planned, manifest, camera, notes)
    if expectation is None:
        return planned
    return itertools.chain(expectation.tick(planned), _late(expectation.missing))


def _unidentified(
    planned: Iterator[Planned], manifest: Manifest, camera: Camera, notes: list[str]
) -> Iterator[Planned]:
    """The items as they come; of those whose paths look like a layout's and are none, some are told of."""
    odd = 0
    for one in planned:
        if one.ids == manifest.ids and (complaint := camera.why_not(one.source)):
            odd += 1
            if odd <= MOST_TOLD:
                notes.append(complaint)
        yield one
    if odd > MOST_TOLD:
        notes.append(f"and {counted(odd - MOST_TOLD, 'more file')} like these")


def _not_onto_itself(manifest: Manifest, planned: Iterator[Planned], where: str) -> Iterator[Planned]:
    """The items as they come; one whose destination is its own source would prove a copy that is none."""
    if manifest.source.host != manifest.destination.host:
        yield from planned
        return
    for one in planned:
        if one.source == one.destination:
            raise ManifestError(
                (Problem("destination", f"{shown(one.source)} would be copied onto itself; name another folder"),),
                where,
            )
        yield one


def _late(make: Callable[[], Iterator[Planned]]) -> Iterator[Planned]:
    """What `make` gives, asked for only when the iteration comes to it."""
    yield from make()


def _scan(source: Host, manifest: Manifest, skipped: Callable[[Skipped], None]) -> Iterator[FileInfo | Lost]:
    for found in source.scan(manifest.pattern.fixed):
        if not isinstance(found, Skipped):
            yield found
        elif manifest.pattern.matches(found.path):
            skipped(found)


def _there(source: Host, manifest: Manifest, skipped: Callable[[Skipped], None]) -> Iterator[FileInfo]:
    """The files that can be looked into; what is lost is told as left out."""
    for found in _scan(source, manifest, skipped):
        if isinstance(found, FileInfo):
            yield found
        elif manifest.pattern.matches(found.path):
            skipped(Skipped(found.path, found.why))


def _listed(source: Host, manifest: Manifest) -> Iterator[tuple[str, str | None, FileInfo | None]]:
    """Every entry of the manifest's list, with what the source has under that name."""
    assert manifest.files is not None
    with open(manifest.files.path, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != manifest.files.sha256:
            raise ManifestError(
                (Problem("files", f"{manifest.files.path} was changed while it was read; submit again"),)
            )
    entries = read_list(manifest.files.path)
    prefix = manifest.source.path + "/" if manifest.source.path else ""
    while batch := list(itertools.islice(entries, FOUND_AT_ONCE)):
        found = source.find([prefix + entry.path for entry in batch])
        for entry, info in zip(batch, found, strict=True):
            if isinstance(info, TransferError):
                raise info
            yield entry.path, entry.digest, info


def _write(
    database: Database,
    manifest: Manifest,
    planned: Iterator[Planned],
    same: revising.Revision | None,
    where: str,
    notes: list[str],
    folders: Sequence[Path],
    *,
    rule: str,
    dry_run: bool,
) -> Submitted:
    """Write the items, then make them the newest revision unless they are the same as those of `same`, or it is
    only to be known whether they are."""
    revision, manifest_id = revising.begin(database, manifest)
    result = Submitted(manifest.name, revision, True, notes=notes)
    groups: dict[str, int] = {}
    ungrouped = 0
    try:
        while chunk := list(itertools.islice(planned, CHUNK)):
            for one in chunk:
                result.add(one)
            ungrouped += _write_chunk(database, manifest, manifest_id, chunk, groups)
    except IntegrityError as error:
        revising.drop(database, manifest_id)
        raise ManifestError((_twice(chunk, error),), where or manifest.name) from error
    except BaseException:
        revising.drop(database, manifest_id)
        raise
    if ungrouped and manifest.trigger and manifest.trigger.per:
        ids = ", ".join(manifest.trigger.per)
        result.notes.append(
            f"{counted(ungrouped, 'file has', 'files have')} no {ids} by their path: they are brought over, "
            "and no trigger waits for them"
        )
    if same is not None and not revising.differs(database, manifest_id, same.id, rule):
        revising.drop(database, manifest_id)
        return Submitted(manifest.name, same.revision, False)
    if dry_run:
        revising.drop(database, manifest_id)
        return result
    result.carried = revising.activate(database, manifest, manifest_id, "; ".join(result.notes[:20]), folders, rule)
    return result


@again
def _write_chunk(
    database: Database, manifest: Manifest, manifest_id: int, chunk: list[Planned], groups: dict[str, int]
) -> int:
    """Write some items and the groups that they are the first of; returns how many are in no group."""
    per = manifest.trigger.per if manifest.trigger else None
    made: dict[str, int] = {}
    ungrouped = 0
    with database.write() as connection:
        now = float(connection.exec_driver_sql(f"SELECT {database.now}").scalar_one())
        rows = []
        for one in chunk:
            group = group_of(per, one, chop=manifest.kind == "chop") if per is not None else None
            ungrouped += group is None
            group_id = None if group is None else _group(connection, manifest_id, group, groups, made)
            rows.append(_row(manifest, manifest_id, one, group_id, now))
        insert_many(connection, "items", COLUMNS, rows)
    groups |= made
    return ungrouped if per is not None else 0


def _row(manifest: Manifest, manifest_id: int, one: Planned, group_id: int | None, now: float) -> tuple[Any, ...]:
    ids = json.dumps(one.ids) if one.ids else None
    destination = None if one.destination is None else encode_path(one.destination)
    key = key_of(manifest.bundle, one.ids or {}, one.size, one.mtime_ns)
    return (
        manifest_id, encode_path(one.source), destination, one.size, one.mtime_ns, one.digest, one.files,
        one.bytes, ids, group_id, str(one.state), one.missing, one.reason, 0, 0, now, key,
    )  # fmt: skip


def _group(
    connection: Connection,
    manifest_id: int,
    ids: dict[str, Any],
    groups: dict[str, int],
    made: dict[str, int],
) -> int:
    label = label_of(ids)
    known = groups.get(label) or made.get(label)
    if known is not None:
        return known
    insert = sa.text("INSERT INTO groups (manifest_id, label, ids) VALUES (:manifest, :label, :ids) RETURNING id")
    values = {"manifest": manifest_id, "label": label, "ids": json.dumps(ids)}
    made[label] = int(connection.execute(insert, values).scalar_one())
    return made[label]


def _twice(chunk: list[Planned], error: IntegrityError) -> Problem:
    """Which two items want one destination; across chunks only the one that came later is known."""
    seen: dict[str, str] = {}
    for one in chunk:
        if one.destination is None:
            continue
        if one.destination in seen:
            both = f"{shown(seen[one.destination])} and {shown(one.source)}"
            return Problem("source", f"{both} would both become {shown(one.destination)}; leave one of them out")
        seen[one.destination] = one.source
    return Problem("source", f"two files would become one at the destination ({shown(str(error.orig))}); leave one out")
