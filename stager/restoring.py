"""The gate before a production run: what a restore must bring, whether there is room, and what was lost since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from manifests.errors import ManifestError, Problem
from manifests.manifest import Kind, Manifest
from manifests.reading import read_manifest
from stager import intents, scrubbing
from stager.database import Database
from stager.drawing import size
from stager.opening import Hosts
from stager.submitting import Submitted

SPARE = 0.01  # of what is to come, kept free beside it


@dataclass(frozen=True, slots=True)
class Check:
    """Before a restore begins: bytes to come, bytes free, and what was proven once and is gone or bad now."""

    name: str
    to_come: int
    free: int
    proven: int
    lost: int
    problem: str | None = None

    def sentence(self) -> str:
        if self.problem:
            return f"{self.name}: {self.problem}"
        again = f", {self.lost} that were there are not any more" if self.lost else ""
        room = f"{size(self.to_come)} to come, {size(self.free)} free"
        return f"{self.name}: {self.proven} files in place and proven{again}; {room}"


def read(files: Sequence[Path]) -> list[Manifest]:
    """The restore manifests in these files; raises ManifestError for one that cannot be read or is of another kind."""
    manifests = [read_manifest(path) for path in files]
    for path, manifest in zip(files, manifests, strict=True):
        if manifest.kind is not Kind.RESTORE:
            text = f'found "{manifest.kind}"; `stager restore` takes manifests of kind "restore", `stager run` any'
            raise ManifestError((Problem("kind", text),), str(path))
    return manifests


def check(database: Database, hosts: Hosts, manifest: Manifest, submitted: Submitted, *, dry_run: bool) -> Check:
    """Read again what this manifest proved before, have what is gone brought again, and see that there is room.

    With `dry_run` nothing is asked for again.
    """
    known = scrubbing.copies_of_dataset(database, manifest.name)
    checked = list(scrubbing.check(database, hosts, known))
    bad = [one for one in checked if one.trouble]
    unknown = next((one.trouble for one in bad if one.unknown), None)
    if bad and not dry_run:
        intents.retry(database, manifest.name)
    free = hosts[manifest.destination.host].space().free
    proven = len(checked) - len(bad)
    open_bytes = _open_bytes(database, manifest.name)
    to_come = open_bytes + (sum(one.copy.size for one in bad) if dry_run else 0)
    if dry_run and submitted.changed:  # not written, so the database does not know of it
        to_come = max(0, submitted.bytes - sum(one.copy.size for one in checked if not one.trouble))
    problem = f"what is in place cannot be read: {unknown}" if unknown else None
    if to_come * (1 + SPARE) > free:
        room = f"{size(to_come)} are to come and {size(free)} are free at {manifest.destination.host}"
        problem = f"{room}; make room there first"
    return Check(manifest.name, to_come, free, proven, len(bad), problem)


def _open_bytes(database: Database, name: str) -> int:
    query = sa.text("""
        SELECT COALESCE(sum(t.bytes), 0) FROM tallies t JOIN manifests m ON m.id = t.manifest_id
        WHERE m.name = :name AND m.intent IN ('active', 'held') AND t.state IN ('waiting', 'running', 'held')""")
    with database.read() as connection:
        return int(connection.execute(query, {"name": name}).scalar_one())
