"""The SQLite file that a draft is: a copy of what has its place now, and changes to that."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from manifests.errors import shown
from stager.registries.drafts import JOURNALS, Draft
from stager.registries.errors import RegistryError
from transfers.errors import NoSpace, Transient

WAIT_SECONDS = 30  # for somebody who is writing to what is there
MAGIC = b"SQLite format 3\0"
PAGES_AT_ONCE = 4096

WhyForeign = Callable[[sqlite3.Connection], str | None]


@contextmanager
def opened(draft: Draft, why_foreign: WhyForeign, what: str) -> Iterator[sqlite3.Connection]:
    """A connection to the draft, which holds what was there before, inside a transaction that `finish` ends.

    Raises RegistryError where what was there is not `what`, by why_foreign: that is left as it is.
    """
    registry = sqlite3.connect(draft.file, isolation_level=None)
    try:
        _prepare(registry)
        if draft.before is not None:
            _copy(draft, draft.before, registry, why_foreign, what)
        # Nobody reads the draft, and it is thrown away when anything fails: no journal, no waiting for the disk.
        for pragma in ("journal_mode = DELETE", "journal_mode = OFF", "synchronous = OFF"):
            registry.execute(f"PRAGMA {pragma}")
        registry.execute("BEGIN IMMEDIATE")
        yield registry
    except sqlite3.Error as error:
        raise _written(error, draft) from error
    finally:
        registry.close()


def _prepare(registry: sqlite3.Connection) -> None:
    for pragma in ("trusted_schema = OFF", "foreign_keys = OFF", "temp_store = FILE", "cache_size = -8192"):
        registry.execute(f"PRAGMA {pragma}")


def _copy(draft: Draft, before: Path, registry: sqlite3.Connection, why_foreign: WhyForeign, what: str) -> None:
    """Copy what is there into the draft, as one consistent whole."""
    for suffix in JOURNALS:
        beside = before.with_name(before.name + suffix)
        if beside.exists() and beside.stat().st_size:
            raise RegistryError(
                f"{shown(draft.name)}: beside it lies {shown(before.name + suffix)}, so somebody writes to it, or was "
                "cut off; when nobody does, open it with sqlite3, say PRAGMA journal_mode = DELETE, and try again"
            )
    try:
        with before.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise RegistryError(f"{shown(draft.name)}: no SQLite database, so no {what}; it is left as it is")
        old = sqlite3.connect(f"file:{quote(str(before))}?mode=ro", uri=True, timeout=WAIT_SECONDS)
        try:
            why = why_foreign(old)
            if why is None:
                old.backup(registry, pages=PAGES_AT_ONCE)
                why = _damage(registry)
        finally:
            old.close()
    except sqlite3.DatabaseError as error:
        raise RegistryError(f"{shown(draft.name)}: cannot be read: {shown(str(error))}; it is left as it is") from error
    if why is not None:
        raise RegistryError(f"{shown(draft.name)}: no {what}: {why}; it is left as it is, name another file")


def _damage(registry: sqlite3.Connection) -> str | None:
    (said,) = registry.execute("PRAGMA quick_check(1)").fetchone()
    return None if said == "ok" else f"it is damaged: {shown(str(said))}"


def finish(registry: sqlite3.Connection, draft: Draft) -> None:
    """End the transaction, see that the file is sound, and keep the draft."""
    registry.execute("COMMIT")
    if damage := _damage(registry):
        raise Transient(damage, side="local", phase="write", path=draft.name)
    draft.keep()


def _written(error: sqlite3.Error, draft: Draft) -> Exception:
    """What SQLite says of writing the draft, as an error of this machine."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        kind = NoSpace if code == sqlite3.SQLITE_FULL else Transient
        return kind(str(error), side="local", phase="write", path=draft.name)
    return error
