"""Stager's own copies over SSH: the whole command, and the copying within it over each client."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.peers import PATIENCE_S, program
from benchmarks.places import new_database, write_config, write_manifest
from benchmarks.sets import Work, Wrong
from transfers.copying import copy
from transfers.hosts import Host, Receipt, Stop, Want
from transfers.local import LocalHost
from transfers.sftp.host import SftpHost
from transfers.ssh.host import SshHost
from transfers.ssh.openssh import OpenSSHClient
from transfers.ssh.paramiko_client import ParamikoClient
from transfers.streams import Streams

STREAMS = (1, 8)  # a route over SSH has these where the configuration says nothing
NS = 1_000_000_000  # of a second


def over_openssh(work: Work) -> None:
    _copied(work, SshHost("far", _far_root(work), OpenSSHClient("far", work.host.login)))


def over_paramiko(work: Work) -> None:
    _copied(work, SshHost("far", _far_root(work), ParamikoClient("far", work.host.login)))


def over_sftp(work: Work) -> None:
    _copied(work, SftpHost("far", _far_root(work), ParamikoClient("far", work.host.login)))


def _copied(work: Work, far: Host) -> None:
    """One batch as a worker carries it out, from a host not connected to yet until it is closed.

    Wrong, unless every file has a receipt that says it was read back.
    """
    here = LocalHost("here", str(work.root if work.up else work.out))
    source, destination = (here, far) if work.up else (far, here)
    wants = _wants(work, source)
    with _ended(far):
        source.open(None)
        destination.open(None)
        pace = Streams(*STREAMS)
        results = [result for _, result in copy(source, destination, wants, streams=pace, stop=_too_late())]
    for result in results:
        if not isinstance(result, Receipt):
            raise result
        if result.proof != destination.reread or result.adopted:
            raise Wrong(f"{result.path} has another proof: {result}")
    if len(results) != len(work.names):
        raise Wrong(f"{len(results)} receipts for {len(work.names)} files")


def _too_late() -> Stop:
    """Whether a copy that began now takes longer than anybody waits for."""
    end = time.monotonic() + PATIENCE_S
    return lambda: time.monotonic() > end


@contextmanager
def _ended(host: Host) -> Iterator[None]:
    try:
        yield
    finally:
        host.close()


def _wants(work: Work, source: Host) -> list[Want]:
    """As they are planned: with the size and the time that a scan of the source has seen."""
    states = [path.stat() for path in work.paths]
    tick = NS if isinstance(source, SftpHost) else 1  # SFTP knows whole seconds
    return [
        Want(number, 1, name, name, state.st_size, state.st_mtime_ns // tick * tick)
        for number, (name, state) in enumerate(zip(work.names, states, strict=True))
    ]


def _far_root(work: Work) -> str:
    return str(work.out if work.up else work.root)


def prepare_site(work: Work) -> None:
    """A site with an empty database and one manifest; the far host by ssh, all else as Stager has it by default."""
    here = work.root if work.up else work.out
    config = write_config(work.site, {"here": here})
    login = work.host.login
    said = {
        "kind": "ssh",
        "root": _far_root(work),
        "address": login.address,
        "user": login.user,
        "port": login.port,
        "identity": login.identity,
        "known_hosts": login.known_hosts,
    }
    keys = "".join(f"{key} = {json.dumps(value)}\n" for key, value in said.items())
    config.write_text(f"{config.read_text('utf-8')}[hosts.far]\n{keys}", "utf-8")
    new_database(config)
    source, destination = ("here", "far") if work.up else ("far", "here")
    write_manifest(work.site, "copied", f"{source}:data/**", f"{destination}:data")


def run(work: Work) -> None:
    program([sys.executable, "-m", "stager", "run", work.site / "copied.toml", "-c", work.site / "stager.toml"])


def check_run(work: Work) -> None:
    """Wrong, unless the database has a copy for each file, proven by reading it back."""
    with closing(sqlite3.connect(work.site / "stager.db")) as database:
        query = "SELECT proof, count(*) FROM copies WHERE host = ? GROUP BY proof"
        found = dict(database.execute(query, ("far" if work.up else "here",)))
    if found != {"reread": len(work.names)}:
        raise Wrong(f"the database has these proofs of {len(work.names)} files: {found}")


def peak_of_run(work: Work) -> int:
    """The most memory in bytes that the process of `stager run` held: not its ssh clients', nor the far side's."""
    report = work.site / "peak"
    arguments: list[str | Path] = ["run", work.site / "copied.toml", "-c", work.site / "stager.toml"]
    program([sys.executable, "-m", "benchmarks.peak", report, *arguments])
    check_run(work)
    return int(json.loads(report.read_text("ascii"))["peak"])
