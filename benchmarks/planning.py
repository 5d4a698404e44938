"""Planning: a listing made into items in SQLite, by the product's own `submit`, on a tree of real files.

Each run is a process of its own, so that its peak of memory is its own too: `python -m benchmarks.planning`
is that process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measuring import CHECKOUT, environment
from benchmarks.places import Place, write_config, write_manifest
from benchmarks.results import Figure, Goal

SUBJECT = "planning"
FILES = 1_000_000
FOLDER = 1000  # files of one folder
FILES_PER_S = Goal(50_000, at_most=False)
FLAT = Goal(1.1)  # times the memory for ten times the files


def measure(place: Place) -> Iterator[Figure]:
    """Files a second and peak memory for a tenth of the files and for all, and where the time of all goes."""
    part = place.sized(FILES // 10, least=10)
    make_tree(place.folder / "source", 10, part)
    runs: dict[str, list[dict[str, float]]] = {"tree/0/**": [], "tree/**": []}
    for _ in range(place.runs):
        for pattern, taken in runs.items():
            place.settle()
            taken.append(_in_a_process(place, pattern))
    few, all_of_them = runs.values()
    for count, taken in ((part, few), (10 * part, all_of_them)):
        goal = FILES_PER_S if count == 10 * part else None
        rates = tuple(count / one["submit_s"] for one in taken)
        cpu = tuple(one["submit_cpu_s"] for one in taken)
        yield Figure(SUBJECT, f"{count:,} files, submitted", "files/s", rates, cpu, goal)
        yield Figure(SUBJECT, f"{count:,} files, peak memory", "MB", tuple(one["peak"] / 1e6 for one in taken))
    growth = tuple(large["peak"] / small["peak"] for small, large in zip(few, all_of_them, strict=True))
    yield Figure(SUBJECT, "peak memory, ten times the files", "x", growth, goal=FLAT)
    for name in ("scan", "plan", "write"):
        shares = tuple(100 * one[f"{name}_s"] / one["submit_s"] for one in all_of_them)
        yield Figure(SUBJECT, f"{10 * part:,} files, share of {name}", "%", shares)


def make_tree(root: Path, parts: int, files: int) -> None:
    """`parts` folders tree/0, tree/1... with so many empty files in each, a thousand to a folder."""
    for part in range(parts):
        for first in range(0, files, FOLDER):
            folder = root / f"tree/{part}/{first // FOLDER:03d}"
            folder.mkdir(parents=True)
            opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            for number in range(first, min(first + FOLDER, files)):
                os.mknod(f"r{number:07d}.fits", 0o644, dir_fd=opened)
            os.close(opened)


def _in_a_process(place: Place, pattern: str) -> dict[str, float]:
    folder = place.new("run")
    config = write_config(folder, {"a": place.folder / "source", "b": folder / "b"})
    manifest = write_manifest(folder, "planned", f"a:{pattern}", "b:new")
    arguments: list[str | Path] = [sys.executable, "-m", "benchmarks.planning", config, manifest]
    done = subprocess.run(arguments, cwd=CHECKOUT, env=environment(), capture_output=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def plan_once(config_path: str, manifest_path: str) -> dict[str, float]:
    """Submit; then the scan alone, and the scan and the planning alone, for their shares of it."""
    from manifests.manifest import Manifest
    from manifests.reading import read_manifest
    from stager.commands.common import opened
    from stager.opening import Hosts
    from stager.planning import plan_files
    from stager.submitting import submit
    from transfers.hosts import FileInfo

    manifest: Manifest = read_manifest(Path(manifest_path))
    with opened(config_path) as (config, database):
        cpu = time.process_time()
        submit_s = _seconds(lambda: submit(database, config, manifest))
        result = {"submit_s": submit_s, "submit_cpu_s": time.process_time() - cpu, "peak": float(peak_bytes())}
        host = Hosts(database, config)["a"]

    def listed() -> Iterator[FileInfo]:
        return (found for found in host.scan(manifest.pattern.fixed) if isinstance(found, FileInfo))

    scan_s = _seconds(lambda: _exhaust(listed()))
    both_s = _seconds(lambda: _exhaust(plan_files(manifest, listed(), None)))
    return {**result, "scan_s": scan_s, "plan_s": max(0.0, both_s - scan_s), "write_s": max(0.0, submit_s - both_s)}


def _exhaust(iterator: Iterator[Any]) -> None:
    deque(iterator, maxlen=0)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def peak_bytes() -> int:
    """The most memory that this process ever held. Not ru_maxrss: that begins with what its parent held."""
    lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    print(json.dumps(plan_once(*sys.argv[1:])))
