"""Taking times: ways of doing the same work, in turn (A B A B), so that a busy machine is as unfair to each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parent.parent
CHUNK = 1 << 20


def nothing() -> None:
    """No preparation."""


class Taken(NamedTuple):
    """One run: wall-clock seconds, and CPU seconds of this process and of those it waited for."""

    seconds: float
    cpu_s: float


class Way(NamedTuple):
    """One way of doing the work; `prepare` is done before every run of it, and not counted."""

    name: str
    run: Callable[[], object]
    prepare: Callable[[], object] = nothing


def timed(run: Callable[[], object]) -> Taken:
    """What one run of `run` takes."""
    cpu = _cpu()
    begun = time.perf_counter()
    run()
    return Taken(time.perf_counter() - begun, _cpu() - cpu)


def _cpu() -> float:
    return sum(os.times()[:4])


def side_by_side(ways: Iterable[Way], runs: int) -> dict[str, list[Taken]]:
    """So many runs of every way, one of each in turn."""
    chosen = list(ways)
    taken: dict[str, list[Taken]] = {way.name: [] for way in chosen}
    for _ in range(runs):
        for way in chosen:
            way.prepare()
            taken[way.name].append(timed(way.run))
    return taken


def command(arguments: Sequence[str | Path], folder: Path, output: Path | None = None) -> None:
    """Run a program to its end, its output into a file or nowhere. Raises CalledProcessError when it fails."""
    with open(output or os.devnull, "wb") as out:
        subprocess.run(arguments, cwd=folder, stdout=out, stderr=subprocess.PIPE, env=environment(), check=True)


def stager(config: Path, *arguments: str | Path) -> None:
    """A command of Stager's, as a process of its own from the beginning."""
    command([sys.executable, "-m", "stager", *arguments, "-c", config], config.parent)


def environment() -> dict[str, str]:
    """That of this process, with the checkout where Python finds it and no configuration from outside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STAGER_")}
    return {**kept, "PYTHONPATH": str(CHECKOUT)}


def warm(files: Iterable[Path]) -> None:
    """Read files, so that the page cache has them."""
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.read(CHUNK):
                pass


def cool(files: Iterable[Path]) -> None:
    """Have the kernel forget the files' pages. Unlike /proc/sys/vm/drop_caches this needs no root, and takes
    nothing from the other programs on the machine; names and inodes stay known."""
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
