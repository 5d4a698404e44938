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

DURABLE = ("rename", "renameat", "renameat2", "linkat", "unlink", "unlinkat", "fsync", "fdatasync")
_CALL = re.compile(r"(?:\[pid +\d+\] |\d+ +)?(\w+)\((.*)")


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
            tracer.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.communicate()


def run_traced(site: Site, log: Path, options: Sequence[str], *arguments: str, timeout: float = 60.0) -> Ended:
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


def wait_fired(log: Path, count: int = 1, timeout: float = 30.0) -> None:
    """Wait until that many calls were tampered with."""
    end = time.monotonic() + timeout
    while fired(log) < count:
        assert time.monotonic() < end, "no fault fired"
        time.sleep(0.02)


def calls_by_path(log: Path) -> Counter[tuple[str, str]]:
    """How often each (call, path) occurs in a log made with -y; the path is the first one that the call names."""
    found: Counter[tuple[str, str]] = Counter()
    for line in log.read_text(errors="replace").splitlines():
        match = _CALL.match(line)
        path = match and re.search(r"<(/[^>]*)>|\"(/[^\"]*)\"", match.group(2))
        if match and path:
            found[match.group(1), path.group(1) or path.group(2)] += 1
    return found


def kill_at(site: Site, log: Path, call: str, path: str, number: int) -> bool:
    """Run `daemon --once` and kill it at the number-th such call on that path (counted in each thread); whether it
    was killed."""
    options = ("-e", f"trace={call}", "-P", path, "-e", f"inject={call}:signal=KILL:when={number}")
    ended = run_traced(site, log, options, "daemon", "--once")
    assert ended.code in (-9, 0, 1, 3), ended.err
    return ended.code == -9
