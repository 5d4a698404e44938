"""Who does the work of a restore: a worker in this process, or the daemon that has the database."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Collection
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from stager.config import Config
from stager.daemon import Daemon
from stager.database import DaemonLock, Database
from stager.logs import log_to_stderr
from stager.opening import Hosts
from stager.restoring.standing import Able

TAKE_OVER_S = 30.0  # for which another's process is gone before its work is taken over: a daemon may be started again
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Carrying:
    """Has revisions of manifests carried out, from `begin` to `end`. `interrupted`: a signal asked to stop, which
    begins to end this process's own worker at once.

    Where another process has the database (SQLite), it does the work; when it is gone, this one takes over.
    """

    def __init__(self, database: Database, config: Config, hosts: Hosts) -> None:
        self.database = database
        self.config = config
        self.hosts = hosts
        self.interrupted = False
        self._ids: Collection[int] = ()
        self._lock = DaemonLock(database)
        self._worker: Daemon | None = None
        self._thread: threading.Thread | None = None
        self._gone_since: float | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.interrupted:
            self.interrupted = True
            if self._worker is not None:
                self._worker.stop()
        elif self._worker is not None:  # a second one: the worker's own way of not waiting for what is under way
            self._worker.on_signals()
            signal.raise_signal(number)

    def begin(self, ids: Collection[int]) -> bool:
        """Have these revisions carried out; whether by a worker of this process."""
        self.end()
        self._ids = ids
        if self.interrupted or not self._lock.acquire():
            return False
        log_to_stderr(least=logging.WARNING)  # what is drawn tells the rest
        self._worker = Daemon(self.database, self.config, only=ids, spool=False, hosts=self.hosts)
        self._thread = threading.Thread(target=self._worker.run, name="daemon")
        self._thread.start()
        return True

    @property
    def holder(self) -> str:
        """The process that has the database, where it is another."""
        return self._lock.holder()

    @property
    def moved(self) -> int | None:
        """Bytes that this process's own worker has moved; None where another does the work."""
        return None if self._worker is None else self._worker.progress.bytes

    @property
    def able(self) -> Able:
        """What is known of who works. On PostgreSQL there may be other workers, and another's configuration is not
        known."""
        alone = self._worker is not None and self.database.is_sqlite
        makes_room = [name for name, host in self.config.hosts.items() if host.make_room]
        return Able(self.config.stager.serves if alone else None, makes_room)

    @property
    def failed(self) -> bool:
        """Whether this process's own worker ended, though nobody asked it to."""
        return self._thread is not None and not self._thread.is_alive() and not self.interrupted

    def step(self) -> None:
        """Take over from a process that is gone."""
        if self._worker is not None or self.interrupted:
            return
        now = time.monotonic()
        if _lives(self._lock.holder()):
            self._gone_since = None
        elif self._gone_since is None:
            self._gone_since = now
        elif now - self._gone_since >= TAKE_OVER_S:
            self._gone_since = None
            self.begin(self._ids)

    def end(self) -> list[str]:
        """End this process's own worker, if there is one: what is under way gets `drain_s`. Returns jobs that hang."""
        if self._worker is None or self._thread is None:
            return []
        self._worker.stop()
        self._thread.join()
        hung = self._worker.hung
        self._worker = self._thread = None
        if not hung:
            self._lock.release()
        return hung


def _lives(process: str) -> bool:
    """Whether a process is there, as far as can be seen from here; one that ended and was not waited for is not.

    The lock itself is not tried for it: a daemon that starts just then would be refused.
    """
    try:
        os.kill(int(process), 0)
        stat = Path(f"/proc/{int(process)}/stat").read_bytes()
    except ProcessLookupError:
        return False
    except (ValueError, OSError):
        return True
    return stat.rpartition(b")")[2].split()[:1] not in ([b"Z"], [b"X"])
