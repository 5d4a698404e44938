"""Claimed items whose files are on tape: told apart from those that can be brought now, and made to wait."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from stager import items
from stager.database import Database, again
from stager.items import Claimed
from stager.recalls import table
from stager.recalls.table import Wanted
from transfers.errors import SourceCorrupt, TransferError, shown
from transfers.hosts import Host, Residency

PATIENCE_S = 6 * 3600.0  # after which an item is tried whatever is known of its recall; it is woken long before


class Waiting(NamedTuple):
    """A claimed item that has to wait, the file of the store that it waits for, and why, as a sentence."""

    item: Claimed
    wanted: Wanted
    sentence: str


class Sorted(NamedTuple):
    """Claimed items by what can be done about them now."""

    online: list[Claimed]
    waits: list[Waiting]
    failed: list[tuple[Claimed, TransferError]]


def sort_out(database: Database, store: Host, claimed: Sequence[Claimed]) -> Sorted:
    """Tell the items whose files can be read at once from those that wait for tape, and from those whose files the
    store has lost. Each file of the store is looked at once, however many items lie in it; one whose recall was looked
    at just now is not looked at again. Raises TransferError where the store cannot tell of any.
    """
    places = list(store.lies_in([item.source for item in claimed]))
    known = table.lately(database, store.name, set(places))
    unknown = [path for path in dict.fromkeys(places) if path not in known]
    found: dict[str, Residency | TransferError] = dict(known)
    found.update(zip(unknown, store.residency(unknown), strict=True))
    sizes = table.sizes_of_bundles(database, store.name, set(places))
    told = Sorted([], [], [])
    for item, path in zip(claimed, places, strict=True):
        where = found[path]
        if isinstance(where, TransferError):
            told.failed.append((item, where.about(item.source, store.name)))
        elif where.state == "online":
            told.online.append(item)
        elif where.state == "lost":
            told.failed.append((item, _lost(store.name, item.source, path)))
        else:
            size = item.size if path == item.source else sizes.get(path)
            wanted = Wanted(path, where.volume, where.position, size)
            told.waits.append(Waiting(item, wanted, sentence(store.name, wanted)))
    return told


def _lost(store: str, source: str, path: str) -> SourceCorrupt:
    what = "the file" if path == source else f"the bundle it lies in, {shown(path)},"
    return SourceCorrupt(f"{what} is lost on the store", host=store, side="store", phase="recall", path=source)


def sentence(store: str, wanted: Wanted) -> str:
    """Why an item waits."""
    volume = f" (volume {wanted.volume})" if wanted.volume else ""
    return shown(f"waits for {store} to bring {wanted.path} back from tape{volume}")


@again
def postpone(database: Database, store: str, waits: Sequence[Waiting]) -> int:
    """Have the files that items wait for recalled, and give the items back until then, in one transaction; returns how
    many leases were still held. No try is used up."""
    if not waits:
        return 0
    with database.write() as connection:
        wanted = {one.wanted.path: one.wanted for one in waits}
        numbers = table.want(database, connection, store, list(wanted.values()))
        given = list(_given_back(waits, numbers))
        return items.postpone(database, connection, given, PATIENCE_S)


def _given_back(waits: Sequence[Waiting], numbers: Mapping[str, int]) -> Iterator[tuple[Claimed, int, str]]:
    for one in waits:
        yield one.item, numbers[one.wanted.path], one.sentence
