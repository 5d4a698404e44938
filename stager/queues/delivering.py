"""From a trigger to files in its queue's folder, as the kind of the queue has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from stager.config import FolderQueue, JobOfficeQueue, ListQueue
from stager.database import Database, again
from stager.queues import dataset_lists, folders, joboffice
from stager.queues.announcing import Announced
from stager.queues.errors import FolderTrouble


@dataclass(frozen=True, slots=True)
class Telling:
    """A trigger ready to be delivered: what it announces, what is said of it beside that, the name for its list.

    `key` is of this one delivery: a trigger that is replayed is delivered under another.
    """

    key: str
    announced: Announced
    about: Sequence[str]
    name: str


def deliver(database: Database, name: str, queue: FolderQueue, telling: Telling) -> bool:
    """Put a trigger's datasets into the folder of the queue of that name; False where they were put there before.

    Raises FolderTrouble or Undeliverable; then nothing of it is to be seen in the folder, or all of it comes there by
    the next call.
    """
    entries = entries_of(queue, telling)  # first: what cannot be told must not touch the folder
    root = Path(queue.folder)
    with folders.told(root):
        _see(database, name, root)
        if isinstance(queue, JobOfficeQueue):
            joboffice.make(root)
            return folders.deliver(joboffice.folder(root), telling.key, entries)
        return folders.deliver(folders.Folder(root, root), telling.key, entries)


def entries_of(queue: FolderQueue, telling: Telling) -> list[folders.Entry]:
    """The files that tell of a trigger. Raises Undeliverable for what they cannot say."""
    if isinstance(queue, JobOfficeQueue):
        return list(joboffice.entries(telling.announced.datasets))
    flush = queue.flush if isinstance(queue, ListQueue) else 0
    text = dataset_lists.write(telling.announced, telling.about, flush)
    return [folders.Entry(telling.name, ".txt", text.encode("utf-8", "surrogateescape"))]


def _see(database: Database, name: str, root: Path) -> None:
    """See that the folder is the one that was used before; one that was never used is made, in a folder that is there.

    A disk that is not mounted leaves an empty folder, which must not be taken for a new one. Raises OSError and
    FolderTrouble.
    """
    fact = f"queue {name} {root}"
    if not _is_known(database, fact):
        if not root.parent.is_dir():
            raise FolderTrouble("the folder above it is not there", phase="deliver", path=str(root))
        if root.exists() and not root.is_dir():
            raise FolderTrouble("this is a file, and no folder", phase="deliver", path=str(root))
        if not root.exists():
            root.mkdir(exist_ok=True)
            folders.sync(root.parent)
        (root / folders.OWN).mkdir(exist_ok=True)
        folders.sync(root)
        _know(database, fact)
    elif not (root / folders.OWN).is_dir():
        text = "what Stager left there (.stager) is gone: is its disk mounted? To begin anew there, "
        raise FolderTrouble(text + f"`mkdir -p {root / folders.OWN}`", phase="deliver", path=str(root))


def _is_known(database: Database, fact: str) -> bool:
    with database.read() as connection:
        query = sa.text("SELECT 1 FROM facts WHERE key = :key")
        return connection.execute(query, {"key": fact}).first() is not None


@again
def _know(database: Database, fact: str) -> None:
    with database.write() as connection:
        insert = sa.text("INSERT INTO facts (key, value) VALUES (:key, 'used') ON CONFLICT DO NOTHING")
        connection.execute(insert, {"key": fact})
