"""What must hold of quarantine: asked by the doctor."""

from __future__ import annotations

from collections.abc import Iterator

from stager.database import Database
from stager.evicting import tombstones
from stager.evicting.tombstones import Tombstone
from stager.opening import Hosts, remembered
from transfers.errors import TransferError
from transfers.hosts import FileInfo, Host, Skipped

MOST_NAMED = 5
Found = tuple[str, bool, str]  # an invariant, whether it holds, and what was looked at or found


def examine(database: Database, hosts: Hosts) -> Iterator[Found]:
    """That every tombstone has its file, and every file in quarantine its tombstone, at each host that was used."""
    lost: list[str] = []
    unknown: list[str] = []
    count = 0
    for name in (name for name in hosts.config.hosts if remembered(database, name)):  # looking must not be a first use
        if hosts.config.hosts[name].kind == "store":
            continue
        try:
            lying = tombstones.in_quarantine(database, name)
            count += len(lying)
            lost += _lost(hosts[name], lying)
            known = {one.quarantine for one in (*lying, *tombstones.unfinished(database, name))}
            unknown += [f"{name}:{path}" for path in _files(hosts[name]) if path not in known]
        except TransferError as error:
            lost.append(str(error))
    yield "every evicted file is in quarantine until it is removed", not lost, _detail(f"{count} evicted", lost)
    yield "no file is in quarantine without its tombstone", not unknown, _detail("", unknown)


def _lost(host: Host, lying: list[Tombstone]) -> list[str]:
    found = host.find([one.quarantine for one in lying])
    return [
        f"{one.host}:{one.path}"
        for one, info in zip(lying, found, strict=True)
        if not isinstance(info, FileInfo) or info.size != one.size
    ]


def _files(host: Host) -> Iterator[str]:
    for found in host.scan(tombstones.FOLDER):
        if not isinstance(found, Skipped):
            yield found.path


def _detail(looked_at: str, wrong: list[str]) -> str:
    named = f"{len(wrong)} are not: {', '.join(wrong[:MOST_NAMED])}" if wrong else ""
    return ", ".join(part for part in (looked_at, named) if part)
