"""The hosts of a configuration, opened: each root checked against the marker that is remembered of it."""

from __future__ import annotations

import sqlalchemy as sa

from stager import config as configuration
from stager.config import Config
from stager.database import Database, again
from transfers.errors import HostDown
from transfers.hosts import Host
from transfers.local import LocalHost
from transfers.store import DirectoryStore


class Hosts:
    """The hosts of a configuration by name, each opened when it is first asked for.

    A root that was used before must still carry its marker: an unmounted disk leaves an empty folder, and
    that is a host that is down.
    """

    def __init__(self, database: Database, config: Config) -> None:
        self.database = database
        self.config = config

    def __getitem__(self, name: str) -> Host:
        """The open host; raises TransferError (HostDown, Refused) when it cannot be used now."""
        described = self.config.hosts.get(name)
        if described is None:
            raise HostDown("the configuration has no such host", host=name, side="local", phase="open")
        host = make_host(name, described, self.database.instance)
        known = remembered(self.database, name)
        marker = host.open(known)
        if known is None or host.root != self._root(name):
            self._remember(name, host.root, marker)
        return host

    def _root(self, name: str) -> str | None:
        with self.database.read() as connection:
            query = sa.text("SELECT root FROM hosts WHERE name = :name")
            return connection.execute(query, {"name": name}).scalar()

    @again
    def _remember(self, name: str, root: str, marker: str) -> None:
        with self.database.write() as connection:
            connection.execute(
                sa.text(f"""
                INSERT INTO hosts (name, root, marker, paused, changed_at)
                VALUES (:name, :root, :marker, :paused, {self.database.now})
                ON CONFLICT (name) DO UPDATE SET root = excluded.root,
                    marker = COALESCE(hosts.marker, excluded.marker)"""),
                {"name": name, "root": root, "marker": marker, "paused": False},
            )


def remembered(database: Database, name: str) -> str | None:
    """The marker that a host's root carried when it was first used; None for one never used."""
    with database.read() as connection:
        query = sa.text("SELECT marker FROM hosts WHERE name = :name")
        return connection.execute(query, {"name": name}).scalar()


def make_host(name: str, described: configuration.LocalHost, instance: str) -> Host:
    """The host that the configuration describes, not yet opened."""
    options = {
        "links": described.links,
        "file_mode": _mode(described.file_mode),
        "folder_mode": _mode(described.folder_mode),
        "instance": instance,
    }
    if isinstance(described, configuration.StoreHost):
        return DirectoryStore(name, described.root, **options)  # type: ignore[arg-type]  # one dict of options
    return LocalHost(name, described.root, **options)  # type: ignore[arg-type]


def _mode(text: str | None) -> int | None:
    return int(text, 8) if text else None
