"""`python -m tests.transfers.looking FOLDER`: what is found of every file there, its seconds, and the peak of memory.

A process of its own, which imports no more than what looks into files does.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from transfers.agent import Agent, Fault, Limits
from transfers.fits import Header
from transfers.integrity import troubles

DEEP, BRIEF = Limits(sums=True), Limits(pixels=False)  # as `check` = "fits" and "headers" look


def look(folder: str) -> dict[str, Any]:
    """By "NAME DEPTH": what is found, and how long that took."""
    agent = Agent(folder)
    found: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for name in sorted(path.name for path in Path(folder).iterdir()):
        for depth, limits in (("fits", DEEP), ("headers", BRIEF)):
            begun = time.perf_counter()
            found[f"{name} {depth}"] = look_into(agent, name, limits)
            seconds[f"{name} {depth}"] = round(time.perf_counter() - begun, 3)
    return {"found": found, "seconds": seconds, "peak": peak_bytes()}


def look_into(agent: Agent, name: str, limits: Limits) -> str:
    """All that the service does before it judges a file: the walk, its troubles, every header parsed."""
    (hdus,) = agent.headers([name], limits)
    if isinstance(hdus, Fault):
        return f"{hdus.kind}: {hdus.text}"
    said = sorted({f"{one.code}: {one.text}" for one in troubles(hdus, name)})
    headers = [Header.parse(hdu.header) for hdu in hdus]
    return f"{len(headers)} HDUs: {'; '.join(said)}"


def peak_bytes() -> int:
    """The most memory that this process ever held. Not ru_maxrss: that begins with what its parent held."""
    lines = Path("/proc/self/status").read_text("ascii", "replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    print(json.dumps(look(sys.argv[1])))
