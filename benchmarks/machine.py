"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def facts(folder: Path) -> dict[str, str]:
    """Cores, memory, kernel, Python, and the file system of the folder in which everything was made."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cores": f"{cores} ({_processor()})",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "file system": file_system(folder),
    }


def load() -> str:
    """The load average of the last minute: how busy others keep the machine."""
    return f"{os.getloadavg()[0]:.1f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", "replace").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def file_system(folder: Path) -> str:
    """The kind of file system that a folder is on."""
    try:
        mounts = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return "unknown"
    kinds = {name: kind for _, name, kind, *_ in (line.split(" ") for line in mounts)}
    above = [folder, *folder.parents]
    return next((kinds[str(path)] for path in above if str(path) in kinds), "unknown")
