"""Sees to it that a restore ends when its time ran out, or a signal asks for it, also where it cannot be asked itself:
while a long listing goes on, a host is silent, or a read hangs."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from stager.restoring.carrying import SIGNALS

GRACE_S = 5.0  # in which it may come to its end by itself
STOPPED, OUT_OF_TIME = "it was stopped", "the time ran out"


class Watch:
    """Looks on from a thread of its own. What is done within it has GRACE_S after its time, or a signal, to end by
    itself; then `end` is called with why, and is to end the process. It may return, where that is on its way already.

    `at_once`: whether nothing was begun, so that a signal needs no grace.
    """

    def __init__(self, left_s: float | None, end: Callable[[str], None], at_once: Callable[[], bool]) -> None:
        self._until = None if left_s is None else time.monotonic() + left_s + GRACE_S
        self._why = OUT_OF_TIME
        self._end = end
        self._at_once = at_once
        self._ends = threading.Lock()  # whoever takes it says what came of it
        self._thread = threading.Thread(target=self._look_on, name="watch", daemon=True)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        if threading.current_thread() is threading.main_thread():
            # A handler in Python waits for the main thread, which may hang; the byte in the pipe does not.
            self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
            self._before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.acquire()  # for ever, where the process is being ended
        if self._before:
            signal.set_wakeup_fd(self._wakeup)
            for number, handler in self._before.items():
                signal.signal(number, handler)
        os.close(self._write)
        self._thread.join()
        os.close(self._read)

    def _look_on(self) -> None:
        while self._until is None or time.monotonic() < self._until:
            left = None if self._until is None else max(0.0, self._until - time.monotonic())
            if not select.select([self._read], [], [], left)[0]:
                continue
            came = os.read(self._read, 64)
            if not came:
                return
            if not set(came) & set(SIGNALS):
                continue
            until = time.monotonic() + (0.0 if self._at_once() else GRACE_S)
            if self._until is None or until < self._until:
                self._until, self._why = until, STOPPED
        if self._ends.acquire(blocking=False):
            self._end(self._why)
            self._ends.release()
