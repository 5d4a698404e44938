"""The blackboard of a job office of DC3b (ctrl_sched, 2010): six folders of items, each item a PAF file.

What Stager adds goes into `dataAvailable`: the datasets that are there, in the order of `_order.list`, which names one
file a line. Files whose names begin with `.` or `_` are no items.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from stager.queues import paf
from stager.queues.announcing import Dataset
from stager.queues.errors import Undeliverable
from stager.queues.folders import Entry, Folder, replace, sync

FOLDERS = ("dataAvailable", "jobsPossible", "jobsAvailable", "jobsInProgress", "jobsDone", "pipelinesReady")
ORDER = "_order.list"
_ADDING = re.compile(r"\.add\.((?:\d+\.)?(.*))", re.DOTALL)  # `.add.NAME`, or `.add.1.NAME` where that was taken


def folder(root: Path) -> Folder:
    """Where datasets are put in the blackboard at `root`."""
    return Folder(root / FOLDERS[0], root, arrange)


def make(root: Path) -> None:
    """Make those of the six folders that are not there. Raises OSError."""
    made = [path for name in FOLDERS if not (path := root / name).is_dir()]
    for path in made:
        path.mkdir(exist_ok=True)
    if made:
        sync(root)


def item(dataset: Dataset) -> str:
    """A dataset as the file of an item: a DataProductItem. Raises Undeliverable for an id that no PAF can say."""
    ids = dict(dataset.ids)
    said = {"NAME": dataset.name, "SUCCESS": True, "DATASET": {"type": dataset.type, "ids": ids, "valid": True}}
    try:
        return paf.write(said)
    except paf.PafError as error:
        raise Undeliverable(f"a dataset cannot be told: {error}") from error


def entries(datasets: Sequence[Dataset]) -> Iterator[Entry]:
    for dataset in datasets:
        yield Entry(dataset.name, ".paf", item(dataset).encode())


def arrange(place: Path, coming: Sequence[str]) -> None:
    """Write the order of a folder's items anew, with those that are coming at its end; the folder is synced by who
    puts them there. Raises OSError."""
    names = os.listdir(place)  # noqa: PTH208  names are wanted, and a million Path objects are not
    there = {name for name in names if is_item(name)}
    adding = {match[number] for name in names if (match := _ADDING.fullmatch(name)) for number in (1, 2)}
    before = order(place)
    after = reconciled(before, there, adding, coming)
    if after != before:
        replace(place / ORDER, "".join(f"{name}\n" for name in after).encode("utf-8", "surrogateescape"), synced=False)


def is_item(name: str) -> bool:
    return not name.startswith((".", "_"))


def order(place: Path) -> list[str]:
    """The names in a folder's `_order.list`, as they stand there."""
    try:
        text = (place / ORDER).read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return []
    return [name for line in text.split("\n") if (name := line.strip())]


def reconciled(
    order: Sequence[str], there: Collection[str], adding: Collection[str], coming: Sequence[str]
) -> list[str]:
    """The order as the folder has it: a name whose file is gone is dropped, unless somebody is just adding it; files
    that have no name in it go to its end, and then those that come."""
    known = dict.fromkeys(name for name in order if name in there or name in adding or name in coming)
    known.update(dict.fromkeys(sorted(set(there) - set(coming))))
    known.update(dict.fromkeys(coming))
    return list(known)
