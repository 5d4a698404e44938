"""A daemon with nothing to do: what it costs, and how soon it sees a new manifest."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measuring import environment
from benchmarks.places import Place, Unavailable, manifest_text, write_config
from benchmarks.results import Figure, Goal
from stager.status import reading, snapshot

SUBJECT = "idle daemon"
IDLE_S = 20.0
PATIENCE_S = 60.0
OF_A_CORE = Goal(1.0)  # percent
SEEN = Goal(1.0)  # seconds
TICKS = os.sysconf("SC_CLK_TCK")


def measure(place: Place) -> Iterator[Figure]:
    """CPU time over a while in which nothing happens, then manifests dropped one after the other."""
    folder = place.new("site")
    config = write_config(folder, {"a": folder / "a", "b": folder / "b"})
    (folder / "a" / "file.dat").write_bytes(b"a file to bring over\n")
    idle_s = max(0.5, IDLE_S * place.scale)
    with daemon(config) as process:
        _drop(folder, "warm-up")
        time.sleep(min(2.0, idle_s))  # what a start and a first manifest leave to do is not idling
        shares, cpu = [], []
        for _ in range(place.runs):
            before = cpu_s(process.pid)
            time.sleep(idle_s)
            cpu.append(cpu_s(process.pid) - before)
            shares.append(100 * cpu[-1] / idle_s)
        seen = [_drop(folder, f"m{number}") for number in range(max(5, place.runs))]
    yield Figure(SUBJECT, f"share of a core, over {idle_s:.0f} s", "%", tuple(shares), tuple(cpu), OF_A_CORE)
    yield Figure(SUBJECT, "from a manifest's drop to its submission", "s", tuple(seen), goal=SEEN)


@contextmanager
def daemon(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real daemon, from before its spool folder is there until it has drained."""
    arguments = [sys.executable, "-m", "stager", "daemon", "-c", str(config)]
    with open(config.parent / "daemon.log", "wb") as log:
        process = subprocess.Popen(arguments, cwd=config.parent, env=environment(), stdout=log, stderr=log)
    try:
        _until((config.parent / "incoming").is_dir, process)
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _drop(folder: Path, name: str) -> float:
    """Put a manifest into the spool, as `cp` and an editor do; seconds until it is submitted."""
    begun = time.monotonic()
    (folder / "incoming" / f"{name}.toml").write_text(manifest_text(name, "a:file.dat", f"b:{name}"), "utf-8")
    _until(lambda: _is_submitted(folder, name))
    return time.monotonic() - begun


def _is_submitted(folder: Path, name: str) -> bool:
    with reading(f"sqlite:///{folder / 'stager.db'}") as connection:
        return bool(snapshot(connection, name).datasets)


def _until(holds: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > end or (process is not None and process.poll() is not None):
            raise Unavailable("the daemon does not do what it is waited for")
        time.sleep(0.005)


def cpu_s(pid: int) -> float:
    """The CPU seconds, user's and system's, that a process has used: all its threads, living and ended."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS
