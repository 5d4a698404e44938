"""Jobs of a worker: whatever may hang runs here, one of each key at a time, never in the thread that schedules."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import structlog

log = structlog.get_logger("stager")

MOST = 64  # at the same time: more than there are routes
FAILED_REST_S = 5.0


class Rest(float):
    """What a job returns that is not to be begun again at once: for how many seconds."""


Job = Callable[[], Any]


class Jobs:
    """Jobs by key. All methods but the jobs themselves are the scheduling thread's."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` is called when a job ended."""
        self._wake = wake
        self._pool = ThreadPoolExecutor(MOST, thread_name_prefix="job")
        self._running: dict[Hashable, Future[Any]] = {}
        self._rests: dict[Hashable, float] = {}  # until when

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._running

    @property
    def keys(self) -> list[Hashable]:
        return list(self._running)

    @property
    def under_way(self) -> list[Future[Any]]:
        return list(self._running.values())

    def is_resting(self, key: Hashable) -> bool:
        return time.monotonic() < self._rests.get(key, 0.0)

    def is_free(self, key: Hashable) -> bool:
        """Whether a job of that key would be begun now."""
        return key not in self and not self.is_resting(key)

    def begin(self, key: Hashable, job: Job) -> int:
        """Begin a job unless one of that key is running, or rests; 1 when it was begun."""
        if not self.is_free(key):
            return 0
        future = self._pool.submit(job)
        future.add_done_callback(lambda _: self._wake())
        self._running[key] = future
        return 1

    def aside(self, job: Job) -> None:
        """Begin something that nobody waits for."""
        self._pool.submit(job)

    def reap(self) -> int:
        """Take note of the jobs that ended; returns how many. One that failed rests, as one that asked for it."""
        ended = [key for key, job in self._running.items() if job.done()]
        for key in ended:
            job = self._running.pop(key)
            if job.cancelled():
                continue
            error = job.exception()
            if error is not None:
                trace = "".join(traceback.format_exception(error))
                log.error("a job failed", job=str(key), error=str(error), traceback=trace)
            rest = FAILED_REST_S if error is not None else job.result()
            if error is not None or isinstance(rest, Rest):
                self._rests[key] = time.monotonic() + rest
        return len(ended)

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def wait(self, seconds: float) -> None:
        wait(self._running.values(), seconds)
