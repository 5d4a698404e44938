"""Faults from the kernel: strace on a command, changing what a system call does."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.system.sites import Ended, Site
from tests.waiting import LATE_S

DETACH_S = 10.0  # within which strace lets go of what it traces
DURABLE = ("rename", "renameat", "renameat2", "linkat", "unlink", "unlinkat", "fsync", "fdatasync")
_CALL = re.compile(r"(?:\[pid +(?P<by>\d+)\] |(?P<thread>\d+) +)?(?P<call>\w+)\((?P<rest>.*)")


@contextmanager
def traced(pid: int, log: Path, *options: str) -> Iterator[None]:
    """strace attached to a process and what it begins, from the moment that the block is entered."""
    command = ["strace", "-f", "-o", str(log), *options, "-p", str(pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr
    try:
        first = tracer.stderr.readline()
        assert "attached" in first, first  # attached before the command goes on
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        try:
            tracer.communicate(timeout=DETACH_S)
        except subprocess.TimeoutExpired:  # now and then it waits for ever for one that was killed
            tracer.kill()
            tracer.communicate()


def run_traced(site: Site, log: Path, options: Sequence[str], *arguments: str, timeout: float = LATE_S) -> Ended:
    """A command under strace from its first call to its end."""
    running = site.start(*arguments, waits=True)
    with traced(running.pid, log, *options):
        running.kill(signal.SIGUSR1)
        return running.end(timeout)


def run_faulty(site: Site, log: Path, options: Sequence[str], *arguments: str) -> Ended:
    """The same, with strace gone once a fault has fired: strace counts calls in each thread, and a fault that is
    meant to strike once would strike every thread that tries again."""
    running = site.start(*arguments, waits=True)
    with traced(running.pid, log, *options):
        running.kill(signal.SIGUSR1)
        while not fired(log) and running.waiting(0) is None:
            time.sleep(0.01)
    return running.end()


def fired(log: Path) -> int:
    """How many calls were tampered with."""
    return log.read_text(errors="replace").count("(INJECTED") if log.exists() else 0


def calls_by_path(log: Path) -> Counter[tuple[str, str]]:
    """How often each (call, path) occurs in a log made with -y, in the thread where it does so most: faults are counted
    in each. The path is the first one that the call names."""
    in_threads: Counter[tuple[str, str, str]] = Counter()
    for line in log.read_text(errors="replace").splitlines():
        match = _CALL.match(line)
        path = match and re.search(r"<(/[^>]*)>|\"(/[^\"]*)\"", match["rest"])
        if match and path:
            in_threads[match["call"], path[1] or path[2], match["by"] or match["thread"] or ""] += 1
    found: Counter[tuple[str, str]] = Counter()
    for (call, place, _), count in in_threads.items():
        found[call, place] = max(found[call, place], count)
    return found


def kill_at(site: Site, log: Path, call: str, path: str, number: int) -> bool:
    """Run `daemon --once` and kill it at the number-th such call on that path (counted in each thread); whether it
    was killed."""
    options = ("-e", f"trace={call}", "-P", path, "-e", f"inject={call}:signal=KILL:when={number}")
    ended = run_traced(site, log, options, "daemon", "--once")
    assert ended.code in (-9, 0, 1, 3), ended.err
    return ended.code == -9
