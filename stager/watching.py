"""The spool folder: file events as hints, a periodic walk as the truth.

A manifest is read when it is whole: nobody has it open for writing, and it has been quiet for a moment. What
was read is remembered in the database, so that a file is submitted once, and again when it changes; one that
was refused is tried again at every walk, for what it lacked may have come.
"""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import sqlalchemy as sa
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from stager.database import Database, again
from stager.models import Spooled

QUIET_S = 0.25  # since the last write, where the kernel says that nobody has the file open for writing
UNSURE_QUIET_S = 3.0  # where it cannot say
spooled = Spooled.__table__  # type: ignore[attr-defined]  # SQLModel gives its tables no static type


class Spool(FileSystemEventHandler):
    """Watches one folder; `hint` is called, from a thread of its own, whenever something moved there."""

    def __init__(self, folder: Path, hint: Callable[[], None]) -> None:
        self.folder = folder
        self._hint = hint
        self._observer = Observer()

    def start(self) -> None:
        """Make the folder where there is none, and begin to watch it. Without inotify the walk does it alone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGIO, signal.SIG_IGN)  # what the kernel sends when `is_being_written` is interrupted
        with suppress(OSError):
            self._observer.schedule(self, str(self.folder))
            self._observer.start()

    def stop(self) -> None:
        if self._observer.is_alive():
            self._observer.stop()
            self._observer.join(5)

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in ("opened", "closed_no_write"):
            self._hint()


def manifests_in(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The manifests in the spool folder: `*.toml`, hidden names left out, in the order of their names."""
    for path in sorted(folder.glob("*.toml")):
        if not path.name.startswith("."):
            with suppress(FileNotFoundError):
                yield path, path.stat()


def is_being_written(path: Path, info: os.stat_result) -> bool:
    """Whether somebody may still be writing the file.

    Linux grants a read lease on a file only while nobody has it open for writing; asked of a file of another
    owner it refuses to say, and then a longer quiet must do.
    """
    quiet = time.time() - info.st_mtime
    if 0 <= quiet < QUIET_S:
        return True
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return 0 <= quiet < UNSURE_QUIET_S
    finally:
        os.close(descriptor)


def unread(database: Database, folder: Path, *, refused_too: bool) -> tuple[list[Path], bool]:
    """The manifests to submit now, and whether others are still being written.

    With `refused_too`, those that were refused before are among them.
    """
    with database.read() as connection:
        query = sa.select(spooled.c.path, spooled.c.size, spooled.c.mtime_ns, spooled.c.problem)
        known = {row[0]: (row[1], row[2], row[3]) for row in connection.execute(query)}
    ready, unfinished = [], False
    for path, info in manifests_in(folder):
        size, mtime_ns, problem = known.get(str(path), (None, None, None))
        if (size, mtime_ns) == (info.st_size, info.st_mtime_ns) and not (problem and refused_too):
            continue
        with suppress(FileNotFoundError, PermissionError):
            if is_being_written(path, info):
                unfinished = True
                continue
        ready.append(path)
    return ready, unfinished


@again
def remember(database: Database, path: Path, info: os.stat_result, problem: str | None) -> None:
    """That the file was read as it was at `info`, and what was wrong with it, if anything."""
    statement = sa.text(f"""
        INSERT INTO spooled (path, size, mtime_ns, problem, read_at)
        VALUES (:path, :size, :mtime_ns, :problem, {database.now})
        ON CONFLICT (path) DO UPDATE SET size = excluded.size, mtime_ns = excluded.mtime_ns,
            problem = excluded.problem, read_at = excluded.read_at""").bindparams(
        sa.bindparam("path", type_=spooled.c.path.type)
    )
    values = {"path": str(path), "size": info.st_size, "mtime_ns": info.st_mtime_ns, "problem": problem}
    with database.write() as connection:
        connection.execute(statement, values)


@again
def forget_gone(database: Database, folder: Path) -> None:
    """Forget files that no longer lie in the spool folder; what they submitted stays."""
    with database.read() as connection:
        known = [row[0] for row in connection.execute(sa.select(spooled.c.path))]
    gone = [path for path in known if not Path(path).exists() and Path(path).parent == folder]
    if gone:
        with database.write() as connection:
            connection.execute(sa.delete(spooled).where(spooled.c.path.in_(gone)))
