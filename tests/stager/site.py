"""A small site for tests: four hosts in folders, a configuration, a real database, and what works on them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from manifests.manifest import Manifest
from manifests.reading import read_manifest
from stager import items, publishing
from stager.batches import Batch
from stager.bundling.choosing import Chosen
from stager.config import Config, parse_config
from stager.database import Database
from stager.items import Claimed, Finished, Written
from stager.models import decode_path
from stager.opening import Hosts
from stager.retrying import Decision, decide
from stager.routes import Traffic
from stager.submitting import Submitted, submit
from stager.working import carry_out, claim
from transfers.errors import TransferError
from transfers.hosts import Receipt

HOSTS = {"a": "local", "b": "local", "c": "local", "mss": "store"}


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return json.dumps(value)


def document(said: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in said.items())


def configuration(folder: Path, url: str, **stager: Any) -> Config:
    """A configuration with the hosts a, b, c and the store mss below the folder, and the queue pipeline."""
    hosts: dict[str, Any] = {}
    for name, kind in HOSTS.items():
        root = folder / "hosts" / name
        root.mkdir(parents=True, exist_ok=True)
        hosts[name] = {"kind": kind, "root": str(root)} | ({"driver": "directory"} if kind == "store" else {})
    said = {
        "stager": {"database": url, **stager},
        "hosts": hosts,
        "queues": {"pipeline": {"kind": "table"}, "other": {"kind": "table"}},
    }
    path = folder / "stager.toml"
    path.write_text(document(said))
    return parse_config(said, path)


@dataclass
class Site:
    """Hosts, configuration and database of one test."""

    folder: Path
    database: Database
    config: Config
    worker: str = "worker"
    problems: list[TransferError] = field(default_factory=list)
    hosts: Hosts = field(init=False)

    def __post_init__(self) -> None:
        self.hosts = Hosts(self.database, self.config)

    def path(self, place: str) -> Path:
        host, _, path = place.partition(":")
        return self.folder / "hosts" / host / path

    def file(self, place: str, data: bytes | str | None = None) -> Path:
        """A file at `host:path`; its bytes are made of its place where none are given."""
        path = self.path(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            data = hashlib.sha512(os.fsencode(place)).digest() * 3
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def files(self, *places: str) -> None:
        for place in places:
            self.file(place)

    def manifest(self, name: str = "m", **said: Any) -> Manifest:
        """A manifest read from a TOML file; by default it copies a:raw/** to b:new, with one trigger."""
        defaults: dict[str, Any] = {"name": name, "kind": "copy", "dataset": f"{name} data"}
        defaults |= {"source": "a:raw/**", "destination": "b:new", "trigger": {"queue": "pipeline"}}
        defaults |= said
        path = self.folder / f"{name}.toml"
        path.write_text(document({key: value for key, value in defaults.items() if value is not None}))
        return read_manifest(path)

    def submit(self, name: str = "m", *, dry_run: bool = False, **said: Any) -> Submitted:
        return submit(self.database, self.config, self.manifest(name, **said), dry_run=dry_run, hosts=self.hosts)

    def run(self, name: str = "m", **said: Any) -> Submitted:
        """Submit, carry out all that is due, publish."""
        submitted = self.submit(name, **said)
        self.work()
        return submitted

    def claim(self, manifest: int | None = None, *, most: int = 512, lease_s: float = 60.0) -> list[Claimed]:
        """Claim of one manifest, or of the first that has work."""
        works = [work.manifest_id for work in items.claimable(self.database)]
        if manifest is None and not works:
            return []
        chosen = manifest if manifest is not None else works[0]
        return items.claim(self.database, chosen, self.worker, most=most, most_bytes=1 << 30, lease_s=lease_s)

    def finish(self, *finished: Finished) -> Written:
        return items.finish(self.database, self.worker, finished)

    def work(self) -> None:
        """Carry out whatever is due, as the daemon does, and publish what became whole."""
        while works := [work.manifest_id for work in items.claimable(self.database)]:
            manifest = Manifest.from_canonical(items.document(self.database, works[0]))
            claimed, bundle = claim(
                self.database, works[0], manifest, self.worker, most=512, most_bytes=1 << 30, lease_s=60.0
            )
            if claimed:  # else those that were due wait for others to be bundled with
                self.carry_out(manifest, claimed, bundle=bundle)
        self.problems = publishing.publish_all(self.database, self.hosts)[1]

    def carry_out(
        self,
        manifest: Manifest,
        claimed: Sequence[Claimed],
        meanwhile: Callable[[], object] = bool,
        bundle: Chosen | None = None,
    ) -> Batch:
        """Carry out what was claimed, `meanwhile` done once the hosts are open; the batch then says what troubles its
        hosts had."""
        ends = (manifest.source.host, manifest.destination.host)
        opened = [self.hosts[name] for name in ends]
        second = self.hosts[manifest.second] if manifest.second else None
        meanwhile()
        traffic = Traffic(*ends, *self.config.streams(*ends))
        batch = Batch(
            self.database,
            self.config,
            manifest,
            self.worker,
            claimed,
            *opened,
            traffic,
            bool,
            second=second,
            bundle=bundle,
        )
        carry_out(batch)
        return batch

    def rows(self, query: str, **values: Any) -> list[Any]:
        with self.database.read() as connection:
            return list(connection.execute(sa.text(query), values))

    def value(self, query: str, **values: Any) -> Any:
        return self.rows(query, **values)[0][0]

    def change(self, statement: str, **values: Any) -> int:
        """Do by hand to the database what Stager would not."""
        with self.database.write() as connection:
            return connection.execute(sa.text(statement), values).rowcount

    def states(self, name: str = "m") -> dict[str, str]:
        """The state of each item of the newest revision, by its source."""
        rows = self.rows(
            """SELECT source, CASE WHEN missing THEN 'missing' ELSE state END FROM items WHERE manifest_id =
               (SELECT max(id) FROM manifests WHERE name = :name)""",
            name=name,
        )
        return {decode_path(row[0]): row[1] for row in rows}

    def triggers(self) -> list[tuple[str, int, str, str]]:
        """(dataset, revision, group, state) of every trigger, by revision and group."""
        rows = self.rows("SELECT dataset, revision, group_label, state FROM triggers ORDER BY revision, group_label")
        return [tuple(row) for row in rows]


def done(item: Claimed, digest: str = "sha256:" + "0" * 64) -> Finished:
    """That a claimed item was proven, as a landing would say it."""
    assert item.destination is not None
    receipt = Receipt(item.id, item.destination, item.size or 0, digest, item.mtime_ns or 0, "reread", False)
    return Finished(item, 0.5, (receipt,))


def failed(item: Claimed, error: TransferError, decision: Decision | None = None) -> Finished:
    return Finished(item, 0.5, error=error, decision=decision or decide(error, item.tries))


def recount(database: Database) -> dict[tuple[int, str], tuple[int, ...]]:
    """What `tallies` should hold, counted from the items."""
    query = """SELECT manifest_id, CASE WHEN missing THEN 'missing' ELSE state END AS tallied, count(*), sum(files),
        sum(COALESCE(bytes, 0)), sum(CASE WHEN bytes IS NULL THEN 1 ELSE 0 END) FROM items GROUP BY 1, 2"""
    with database.read() as connection:
        return {(row[0], row[1]): tuple(map(int, row[2:])) for row in connection.execute(sa.text(query))}


def tallies(database: Database) -> dict[tuple[int, str], tuple[int, ...]]:
    query = "SELECT manifest_id, state, items, files, bytes, unknown FROM tallies"
    with database.read() as connection:
        kept = {(row[0], row[1]): tuple(map(int, row[2:])) for row in connection.execute(sa.text(query))}
    return {key: counts for key, counts in kept.items() if any(counts)}
