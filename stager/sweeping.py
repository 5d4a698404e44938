"""Remove the part files that dead leases and broken connections left: at the places of those items, nowhere else."""

from __future__ import annotations

import posixpath
import time
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa

from manifests.manifest import Manifest
from stager import breakers, items
from stager.database import Database
from stager.models import BROKEN_PHASES, decode_path
from stager.opening import Hosts
from transfers.agent import SCRATCH_FOLDER
from transfers.errors import TransferError
from transfers.hosts import Host

FIRST_LOOK_S = 30 * 86400.0  # how far back a worker that starts looks for leases that were lost
OVERLAP_S = 3600.0  # a transaction that was open at the sweep before may have written an earlier time


def sweep(database: Database, hosts: Hosts, since: float | None) -> tuple[list[str], float]:
    """Sweep the folders of items whose lease was lost, or whose connection broke off, after `since` (None: in the
    last month), and where their sources were unpacked.

    Returns the locations removed and the time up to which all was swept; a host that is paused or cannot be
    reached now keeps that time where it was, so that the next sweep tries again.
    """
    with database.read() as connection:
        now = float(connection.exec_driver_sql(f"SELECT {database.now}").scalar_one())
        begun = now - FIRST_LOOK_S if since is None else since - OVERLAP_S
        query = sa.text(f"""
            SELECT DISTINCT m.id, m.destination_host, m.source_host, m.kind, i.destination FROM (
                SELECT item_id FROM attempts WHERE outcome = 'lost' AND ended_at >= :begun
                UNION
                SELECT item_id FROM attempts
                WHERE outcome = 'failed' AND phase IN {BROKEN_PHASES} AND ended_at >= :begun) a
            JOIN items i ON i.id = a.item_id JOIN manifests m ON m.id = i.manifest_id
            WHERE i.destination IS NOT NULL""")
        rows = connection.execute(query, {"begun": begun}).all()
    folders: dict[str, set[str]] = {}
    archives: set[int] = set()
    for manifest_id, host, source_host, kind, destination in rows:
        path = decode_path(destination)
        folders.setdefault(host, set()).add(path if kind == "chop" else posixpath.dirname(path))
        if kind == "chop":
            folders.setdefault(source_host, set()).add(SCRATCH_FOLDER)
        if kind == "archive":
            archives.add(manifest_id)
    for manifest_id in archives:
        for name, paths in _of_archive(database, manifest_id, folders).items():
            folders.setdefault(name, set()).update(paths)
    removed, swept = list[str](), True
    unreadable = breakers.unreadable(database)  # one that is full gets room by it
    for name, paths in folders.items():
        if name in unreadable:
            swept = False
            continue
        try:
            removed += _sweep_host(database, hosts[name], paths)
        except TransferError:  # down now, or no longer configured: another sweep will see
            swept = False
    return removed, now if swept else begun + OVERLAP_S


def _of_archive(database: Database, manifest_id: int, folders: dict[str, set[str]]) -> dict[str, set[str]]:
    """Where else an archive leaves parts: its bundles lie in the folder that it names, and on a second store all that
    does on the first."""
    manifest = Manifest.from_canonical(items.document(database, manifest_id))
    paths = {manifest.destination.path} if manifest.bundle else set()
    found = {manifest.destination.host: paths}
    if manifest.second:
        found[manifest.second] = paths | folders[manifest.destination.host]
    return found


def sweep_scratch(folder: Path, older_than_s: float = 3600.0) -> list[Path]:
    """Remove what a worker that was killed left of focal planes it unpacked; the files removed."""
    removed = []
    for path in folder.glob("unpacked-*.fits"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > older_than_s:
                path.unlink()
                removed.append(path)
    return removed


def _sweep_host(database: Database, host: Host, paths: set[str]) -> list[str]:
    def is_dead(item: int, epoch: int) -> bool:
        # Inventories and markers are of item 0, and swept where they are made.
        return item != 0 and not items.alive(database, [(item, epoch)])

    return [f"{host.name}:{part}" for path in sorted(paths) for part in host.sweep(path, is_dead)]
