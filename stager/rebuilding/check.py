"""Whether a store's bundles, the indexes beside them and the database agree. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from stager.database import Database
from stager.opening import Hosts
from stager.rebuilding import rows
from stager.rebuilding.bringing import online
from stager.rebuilding.evidence import lacking, named, settle
from stager.rebuilding.rows import Known
from stager.rebuilding.telling import sentence
from transfers.bundles.store import BundledStore
from transfers.errors import TransferError, shown
from transfers.hosts import FileInfo, Host

AT_ONCE = 200


class Checked(NamedTuple):
    """How many bundles were looked at, and a sentence for each thing that is not as it should be. `unread`: bundles
    of which something was not read, because it is on tape."""

    bundles: int
    wrong: list[str]
    unread: int = 0


def check(database: Database, hosts: Hosts, name: str, *, deep: bool = False) -> Checked:
    """Look at every bundle that is stored: that it is there with its size, and an index beside it that agrees with the
    database; with `deep` that every byte of it is as it was packed."""
    stored = [one for _, one in sorted(rows.bundles(database, name).items()) if one.is_stored]
    wrong: list[str] = []
    unread = 0
    try:
        for start in range(0, len(stored), AT_ONCE):
            some, on_tape = _check(database, hosts[name], stored[start : start + AT_ONCE], deep)
            wrong += some
            unread += on_tape
    except TransferError as error:
        wrong.append(str(error))
    return Checked(len(stored), wrong, unread)


def _check(database: Database, store: Host, lot: list[Known], deep: bool) -> tuple[list[str], int]:
    """What is wrong with some bundles, and how many of them were not read."""
    host = store.physical if isinstance(store, BundledStore) else store
    found = list(host.find([one.path for one in lot]))
    there = [one.path for one, info in zip(lot, found, strict=True) if isinstance(info, FileInfo)]
    ready = online(host, [*(f"{path}.index" for path in there), *(there if deep else ())])
    wrong: list[str] = []
    unread = 0
    for known, info in zip(lot, found, strict=True):
        read = ready.get(f"{known.path}.index", True) and ready.get(known.path, True)
        unread += not read
        texts = _wrong(database, host, known, info, deep) if read else _size(known, info)
        wrong += [f"{host.name}:{shown(known.path)}: {text}" for text in texts]
    return wrong, unread


def _size(known: Known, info: FileInfo | TransferError | None) -> Iterator[str]:
    """What is wrong with a bundle that is on tape, as far as a listing tells."""
    if isinstance(info, FileInfo) and info.size != known.size:
        yield f"it has {info.size} bytes, and had {known.size} when it was proven"


def _wrong(
    database: Database, host: Host, known: Known, info: FileInfo | TransferError | None, deep: bool
) -> Iterator[str]:
    """What is wrong with one bundle."""
    if info is None:
        yield "it is not there"
        return
    if isinstance(info, TransferError):
        yield sentence(info)
        return
    members = rows.members(database, known.id)
    try:
        settled = settle(host, info, known, members, look=False, deep=deep)
    except TransferError as error:
        yield sentence(error)
        return
    yield from settled.remarks
    if settled.beside is not None:
        yield f"the index beside it: {settled.beside.text}; `stager registry rebuild {host.name}` writes it again"
    lost = [one.path for one in lacking(settled.index, members)]
    elsewhere = rows.places(database, host.name, lost)
    if unknown := [path for path in lost if path not in elsewhere]:
        yield f"the database does not know {named(unknown)} of it; `stager registry rebuild {host.name}` adds them"
