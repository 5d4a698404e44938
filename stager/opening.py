"""The hosts of a configuration: made once a process, opened each time they are asked for, closed at its end.

Connections are kept by the hosts themselves, so everything that works in one process asks the same Hosts.
"""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa

from stager import config as configuration
from stager.catalogue import DatabaseCatalog
from stager.config import Config
from stager.database import Database, again
from transfers.bundles.store import BundledStore
from transfers.errors import HostDown, Refused, TransferError, Unsupported
from transfers.hosts import Host
from transfers.local import LocalHost
from transfers.ssh.channels import Client, Login
from transfers.store import DirectoryStore

if TYPE_CHECKING:
    from transfers.ssh.paramiko_client import ParamikoClient


class Hosts:
    """The hosts of a configuration by name. Used by any number of threads; one that is slow to open holds up no other.

    A root that was used before must still carry its marker: an unmounted disk leaves an empty folder, and
    that is a host that is down. One that was never used is marked now and remembered; without `marks`, as for what
    promises to change nothing, it is only looked at.
    """

    def __init__(self, database: Database, config: Config, *, marks: bool = True) -> None:
        self.database = database
        self.config = config
        self.marks = marks
        self._lock = threading.Lock()
        self._kept: dict[str, Kept] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getitem__(self, name: str) -> Host:
        """The host, seen to be there just now; raises TransferError (HostDown, Refused...) when it cannot be used."""
        kept = self._find(name)
        known, root, reached = self._row(name)
        host, marker = kept.open(known)
        if self.marks and (known is None or host.root != root or reached != kept.reached):
            self._remember(name, host.root, marker, kept.reached)
        return host

    def about(self, name: str) -> dict[str, str]:
        """Facts for people of a host that was opened; with `fallback`, why it is spoken to by SFTP, where it is."""
        return self._find(name).about()

    def change(self, config: Config) -> list[Kept]:
        """Go by another configuration from now on; returns what is described otherwise in it, for the caller to close
        when nobody works with it any more."""
        with self._lock:
            self.config = config
            gone = [name for name, kept in self._kept.items() if config.hosts.get(name) != kept.described]
            return [self._kept.pop(name) for name in gone]

    def close(self) -> None:
        """End every connection, also of those who are using one."""
        with self._lock:
            kept = list(self._kept.values())
        for one in kept:
            one.close()

    def _find(self, name: str) -> Kept:
        with self._lock:
            described = self.config.hosts.get(name)
            if described is None:
                raise HostDown("the configuration has no such host", host=name, side="local", phase="open")
            if name not in self._kept:
                self._kept[name] = Kept(name, described, self.database, self.config.scratch, self.marks)
            return self._kept[name]

    def _row(self, name: str) -> tuple[str | None, str | None, str | None]:
        """What is remembered of a host: marker, root, how it was reached."""
        with self.database.read() as connection:
            query = sa.text("SELECT marker, root, reached FROM hosts WHERE name = :name")
            row = connection.execute(query, {"name": name}).first()
        return (row[0], row[1], row[2]) if row else (None, None, None)

    @again
    def _remember(self, name: str, root: str, marker: str | None, reached: str | None) -> None:
        with self.database.write() as connection:
            connection.execute(
                sa.text(f"""
                INSERT INTO hosts (name, root, marker, reached, paused, changed_at)
                VALUES (:name, :root, :marker, :reached, :paused, {self.database.now})
                ON CONFLICT (name) DO UPDATE SET root = excluded.root, reached = excluded.reached,
                    marker = COALESCE(hosts.marker, excluded.marker)"""),
                {"name": name, "root": root, "marker": marker, "reached": reached, "paused": False},
            )


class Kept:
    """One host of the configuration, made when it is first opened, and made once however many ask at the same time."""

    def __init__(
        self, name: str, described: configuration.LocalHost, database: Database, scratch: Path, marks: bool
    ) -> None:
        self.name = name
        self.described = described
        self.database = database
        self.scratch = scratch
        self.marks = marks
        self.fallback: str | None = None  # why it is spoken to by SFTP, where the agent could not be
        self.reached: str | None = None  # how a host over a network was reached, in words
        self._instance = database.instance
        self._lock = threading.Lock()
        self._host: Host | None = None
        self._closed = False
        self._failed: tuple[float, TransferError] | None = None  # when the last try to make it ended, and how

    def open(self, marker: str | None) -> tuple[Host, str | None]:
        """The host with its marker, None where it has none and is to get none; raises TransferError.

        Those who ask while it is being made share what comes of that, an error too: a host that does not
        answer costs everybody one wait.
        """
        host = self._host
        if host is None:
            asked = time.monotonic()
            with self._lock:
                if self._host is None:
                    if self._failed and self._failed[0] >= asked:
                        raise _alike(self._failed[1])
                    return self._make(marker)
                host = self._host
        return host, host.open(marker, self.marks)

    def about(self) -> dict[str, str]:
        said = self._host.about() if self._host else {}
        return said | ({"fallback": self.fallback} if self.fallback else {})

    def close(self) -> None:
        """Close the host now; one that is being made just now is closed once it is."""
        self._closed = True
        if self._host is not None:
            self._host.close()

    def _make(self, marker: str | None) -> tuple[Host, str | None]:
        try:
            host, marker = self._made(marker)
            if isinstance(self.described, configuration.StoreHost):
                host = BundledStore(host, DatabaseCatalog(self.database, self.name))
            self.reached = reached_by(host, self.fallback) if host.far else None
        except TransferError as error:
            self._failed = (time.monotonic(), error)
            raise
        self._host = host
        if self._closed:
            host.close()
        return host, marker

    def _made(self, marker: str | None) -> tuple[Host, str | None]:
        if self.fallback is None:
            try:
                return self._opened(make_host(self.name, self.described, self._instance, self.scratch), marker)
            except Unsupported as error:
                if not error.facts.get("no_agent"):
                    raise
                no_agent = error
        assert isinstance(self.described, configuration.SshHost)
        sftp = make_sftp(self.name, self.described, self._instance)
        if self.fallback is not None:  # known since an earlier try
            return self._opened(sftp, marker)
        try:
            made = self._opened(sftp, marker)
        except TransferError as error:
            both = _alike(error)
            both.text = f"neither the agent ({no_agent.text}) nor SFTP can be used: {error.text}"
            raise both from error
        self.fallback = no_agent.text
        return made

    def _opened(self, host: Host, marker: str | None) -> tuple[Host, str | None]:
        """A new host, opened; one that cannot be leaves nothing open."""
        try:
            return host, host.open(marker, self.marks)
        except BaseException:
            host.close()
            raise


def _alike(error: TransferError) -> TransferError:
    """The same error for another thread to raise."""
    told = {name: getattr(error, name) for name in ("host", "side", "phase", "path", "errno", "facts")}
    return type(error)(error.text, **told)


def reached_by(host: Host, fallback: str | None) -> str:
    """How a host is reached, in words for people."""
    said = host.about()
    words = [said[key] for key in ("client", "far") if said.get(key)]
    return ", ".join(words) + (f"; the agent cannot run there: {fallback}" if fallback else "")


def remembered(database: Database, name: str) -> str | None:
    """The marker that a host's root carried when it was first used; None for one never used."""
    with database.read() as connection:
        query = sa.text("SELECT marker FROM hosts WHERE name = :name")
        return connection.execute(query, {"name": name}).scalar()


def make_host(name: str, described: configuration.LocalHost, instance: str, scratch: Path) -> Host:
    """The host that the configuration describes, not yet opened. One over SSH is spoken to by the agent. What a store
    has to be brought here for is kept below the folder `scratch` for a while."""
    if isinstance(described, configuration.StoreHost) and described.driver in ("command", "s3"):
        return _store_elsewhere(name, described, instance, scratch / "stores" / name)
    options = _options(described, instance)
    if isinstance(described, configuration.SshHost) and described.by_ssh:
        from transfers.ssh.host import SshHost  # imported late: a configuration of local hosts needs none of it

        client = _client(name, described)
        return SshHost(name, described.root, client, python=described.python, kind=described.kind, **options)
    if isinstance(described, configuration.StoreHost):
        return DirectoryStore(name, described.root, **options)
    return LocalHost(name, described.root, **options)


def _store_elsewhere(name: str, described: configuration.StoreHost, instance: str, scratch: Path) -> Host:
    """A store whose files no agent reaches. Imported late: most sites have no such store."""
    if described.commands is not None:
        from transfers.command.store import CommandStore

        templates = configuration.templates_of(described.commands)
        return CommandStore(name, described.root, templates, str(scratch), instance)
    from transfers.s3.store import S3Store

    assert described.s3 is not None  # `Config` lets no other through
    bucket = described.s3
    key, secret = credentials_in(name, bucket.credentials) if bucket.credentials else (None, None)
    return S3Store(
        name, described.root, bucket.bucket, bucket.endpoint, bucket.region, key, secret, str(scratch), instance
    )


def credentials_in(name: str, path: str) -> tuple[str, str]:
    """The key of a bucket and its secret, from a file such as other programs have: lines `access_key_id = ...` and
    `secret_access_key = ...`, perhaps with `aws_` before. Raises Refused; nothing of the file is told."""
    try:
        lines = Path(path).expanduser().read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        text = f"the file with its credentials, {path}, cannot be read: {getattr(error, 'strerror', 'not text')}"
        raise Refused(text, host=name, side="local", phase="open") from error
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith(("#", ";")))
    said = {key.strip().lower().removeprefix("aws_"): value.strip().strip("\"'") for key, _, value in pairs}
    found = said.get("access_key_id"), said.get("secret_access_key")
    if not found[0] or not found[1]:
        text = f"the file with its credentials, {path}, lacks access_key_id or secret_access_key"
        raise Refused(text, host=name, side="local", phase="open")
    return found[0], found[1]


def make_sftp(name: str, described: configuration.SshHost, instance: str) -> Host:
    """The same host spoken to by SFTP, for a far side without a shell or a Python."""
    from transfers.sftp.host import SftpHost

    return SftpHost(
        name, described.root, _paramiko(name, described), kind=described.kind, **_options(described, instance)
    )


def _client(name: str, described: configuration.SshHost) -> Client:
    """What reaches it: "auto" is the OpenSSH client where there is one, for it knows the site's own configuration."""
    if described.client == "paramiko" or (described.client == "auto" and shutil.which("ssh") is None):
        return _paramiko(name, described)
    from transfers.ssh.openssh import OpenSSHClient

    return OpenSSHClient(name, login_of(described))


def _paramiko(name: str, described: configuration.SshHost) -> ParamikoClient:
    from transfers.ssh.paramiko_client import ParamikoClient  # imported late: it takes as long as a short command

    return ParamikoClient(name, login_of(described))


def login_of(described: configuration.SshHost) -> Login:
    """How the configuration says that a host is reached."""
    assert described.address is not None  # `Config` lets no other through
    return Login(
        described.address,
        described.user,
        described.port,
        _home(described.identity),
        _home(described.known_hosts),
    )


def _home(path: str | None) -> str | None:
    return None if path is None else str(Path(path).expanduser())


def _options(described: configuration.LocalHost, instance: str) -> dict[str, Any]:
    return {
        "links": described.links,
        "file_mode": _mode(described.file_mode),
        "folder_mode": _mode(described.folder_mode),
        "instance": instance,
    }


def _mode(text: str | None) -> int | None:
    return int(text, 8) if text else None
